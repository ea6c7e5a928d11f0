//! What is put over the context of a request before a flag is decided (flagd.md 1.8): values that are set for the process, and over these
//! what headers say. flagd's clients and OFREP get it; who asks by our own API says all that it means.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};
use serde_json::Map;

use crate::wire::evaluation::{Context, Refused, struct_message};

use super::flagd::Asking;
use super::{Limits, Serve};

#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// An encoded `Struct`.
    values: Vec<u8>,
    /// The header, and the attribute that it becomes.
    headers: Vec<(HeaderName, String)>,
    /// Of a question, in bytes.
    pub(super) max_body: Option<usize>,
}

impl Contexts {
    pub(super) fn of(args: &Serve) -> anyhow::Result<Self> {
        let Serve { context_values, context_headers, limits: Limits { max_request_body, .. }, .. } = args;
        Ok(Self { values: encoded(context_values), headers: names(context_headers)?, max_body: *max_request_body })
    }

    pub(super) fn said_by(&self, headers: &HeaderMap) -> Vec<u8> {
        if self.headers.is_empty() {
            return Vec::new();
        }
        let said = self.headers.iter().filter_map(|(name, key)| Some((key.clone(), headers.get(name)?.to_str().ok()?.into())));
        struct_message(&said.collect())
    }

    pub(super) fn enrich<'a>(&'a self, context: Context<'a>, asking: &'a Asking) -> Result<Context<'a>, Refused> {
        context.overlaid(&self.values)?.overlaid(&asking.from_headers)
    }
}

fn encoded(values: &BTreeMap<String, String>) -> Vec<u8> {
    struct_message(&values.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect::<Map<_, _>>())
}

fn names(headers: &BTreeMap<String, String>) -> anyhow::Result<Vec<(HeaderName, String)>> {
    let name = |(header, key): (&String, &String)| match header.parse() {
        Ok(name) => Ok((name, key.clone())),
        Err(_) => Err(anyhow::anyhow!("--context-from-header: `{header}` is no name of a header")),
    };
    headers.iter().map(name).collect()
}
