//! One scenario: the provider it made, what it asked for, and what came.

use std::sync::Arc;
use std::sync::OnceLock;

use cucumber::World;
use open_feature::provider::FeatureProvider;
use open_feature::{EvaluationContext, EvaluationContextFieldValue, StructValue, Value};
use open_feature_flagd::{CacheSettings, CacheType, FlagdOptions, FlagdProvider, ResolverType};
use serde_json::{Value as Json, json};

use crate::answer::{Answer, object};
use crate::launchpad;

/// Reached only if what a step waits for does not happen.
const DEADLINE_MS: u32 = 3000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Rpc,
    InProcess,
}

/// One for the whole run.
pub static MODE: OnceLock<Mode> = OnceLock::new();

impl Mode {
    pub fn of_run() -> Self {
        *MODE.get().expect("the mode is set first")
    }

    /// The tag of its scenarios.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::InProcess => "in-process",
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::InProcess => "sync",
        }
    }
}

#[derive(Debug, World)]
#[world(init = Self::new)]
pub struct Suite {
    pub options: FlagdOptions,
    pub provider: Option<FlagdProvider>,
    pub context: EvaluationContext,
    pub kind: String,
    pub key: String,
    pub default: Json,
    pub answer: Option<Answer>,
}

impl Suite {
    fn new() -> Self {
        let mode = Mode::of_run();
        let options = FlagdOptions {
            host: "localhost".to_owned(),
            port: launchpad::port(mode.service()),
            resolver_type: if mode == Mode::Rpc { ResolverType::Rpc } else { ResolverType::InProcess },
            deadline_ms: DEADLINE_MS,
            // Its default for RPC; in-process it keeps no reason in there.
            cache_settings: (mode == Mode::Rpc).then(CacheSettings::default),
            ..FlagdOptions::default()
        };
        let context = EvaluationContext::default();
        Self { options, provider: None, context, kind: String::new(), key: String::new(), default: Json::Null, answer: None }
    }

    pub fn option(&mut self, name: &str, value: &str) {
        match name {
            "cache" if value == "disabled" => self.options.cache_settings = None,
            "cache" => self.options.cache_settings = Some(CacheSettings { cache_type: CacheType::Lru, ..CacheSettings::default() }),
            "selector" => self.options.selector = Some(value.to_owned()),
            "targetUri" => {
                let port = launchpad::port(if Mode::of_run() == Mode::Rpc { "rpc_target" } else { "sync_target" });
                self.options.target_uri = Some(value.replace("<port>", &port.to_string()));
            }
            name => panic!("no scenario that is run has the option {name}"),
        }
    }

    /// Starts what is under test as the scenario wants it, and a provider that is connected to it.
    pub async fn connect(&mut self, kind: &str) {
        let configuration = match kind {
            "stable" => "default",
            "ssl" => {
                (self.options.tls, self.options.cert_path) = (true, Some(launchpad::path("authority")));
                "ssl"
            }
            "socket" => {
                self.options.socket_path =
                    Some(launchpad::path(if Mode::of_run() == Mode::Rpc { "evaluation_socket" } else { "sync_socket" }));
                "socket"
            }
            "syncpayload" => "sync-payload",
            "metadata" => "metadata",
            kind => panic!("no scenario that is run has a {kind} provider"),
        };
        launchpad::order(&format!("/start?config={configuration}")).await;
        self.provider =
            Some(FlagdProvider::new(self.options.clone()).await.unwrap_or_else(|error| panic!("the provider is not ready: {error}")));
    }

    pub async fn evaluate(&self) -> Answer {
        let (provider, default) = (self.provider.as_ref().expect("the scenario has a provider"), self.default.clone());
        let (key, context) = (self.key.as_str(), &self.context);
        match self.kind.as_str() {
            "Boolean" => Answer::new(provider.resolve_bool_value(key, context).await, default, |value| json!(value)),
            "Integer" => Answer::new(provider.resolve_int_value(key, context).await, default, |value| json!(value)),
            "Float" => Answer::new(provider.resolve_float_value(key, context).await, default, |value| json!(value)),
            "String" => Answer::new(provider.resolve_string_value(key, context).await, default, |value| json!(value)),
            "Object" => Answer::new(provider.resolve_struct_value(key, context).await, default, object),
            kind => panic!("the testbed has no type {kind}"),
        }
    }
}

/// An attribute of the context. Objects go as the provider's own value, which it looks for behind the SDK's `dyn Any`.
pub fn attribute(value: Json) -> EvaluationContextFieldValue {
    match value {
        Json::Bool(value) => EvaluationContextFieldValue::Bool(value),
        Json::String(value) => EvaluationContextFieldValue::String(value),
        Json::Number(value) => match value.as_i64() {
            Some(whole) => EvaluationContextFieldValue::Int(whole),
            None => EvaluationContextFieldValue::Float(value.as_f64().expect("JSON's numbers are numbers")),
        },
        other => match inner(other) {
            Value::Struct(value) => EvaluationContextFieldValue::Struct(Arc::new(value)),
            value => EvaluationContextFieldValue::Struct(Arc::new(value)),
        },
    }
}

fn inner(value: Json) -> Value {
    match value {
        // The SDK has no null; the provider takes a float that is no number for one.
        Json::Null => Value::Float(f64::NAN),
        Json::Bool(value) => Value::Bool(value),
        Json::String(value) => Value::String(value),
        Json::Number(value) => value.as_i64().map_or_else(|| Value::Float(value.as_f64().expect("JSON's numbers are numbers")), Value::Int),
        Json::Array(values) => Value::Array(values.into_iter().map(inner).collect()),
        Json::Object(fields) => Value::Struct(StructValue { fields: fields.into_iter().map(|(key, value)| (key, inner(value))).collect() }),
    }
}
