//! What a process is to do, out of options, variables, the configuration file and defaults, in this order (viper's).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::anywhere;
use super::options::{Args, Refused};
use crate::cli::duration;
use crate::cli::exit::{Failure, innermost};
use crate::cli::ready;
use crate::flag::FractionalVersion;
use crate::sidecar::{Limits, Listen, Serve, Tls, pairs};
use crate::sources::Source;
use crate::telemetry::{self, LogFormat, evaluation};

/// flagd's, of a body and of headers.
const REQUEST_BYTES: u64 = 1_000_000;
/// What flagd's 0, no limit, is here.
const MOST_REQUEST_BYTES: u64 = 16 * 1024 * 1024;

pub(super) struct Settings {
    pub(super) sources: Vec<Source>,
    pub(super) serve: Serve,
    pub(super) fractional_version: FractionalVersion,
    pub(super) telemetry: telemetry::Args,
    pub(super) ready: ready::Args,
    /// The configuration file that was read.
    pub(super) config: Option<PathBuf>,
    /// What was said and has no effect.
    pub(super) ignored: Vec<String>,
}

impl Settings {
    /// `home`: of whoever runs it.
    pub(super) fn of(args: Args, home: Option<&Path>) -> Result<Self, Failure> {
        let config = args.config.or_else(|| usual_config(home?));
        let mut file = File::read(config.as_deref())?;
        refuse(args.refused, &mut file)?;
        let sources = sources(args.uri, args.sources, &mut file)?;
        let address = file.parsed(args.bind_address, "bind-address")?.unwrap_or_else(anywhere);
        let mut port = |given: Option<u16>, name: &str, usual: u16| {
            let port = file.number(given.map(u64::from), name)?.unwrap_or(usual.into());
            let port = u16::try_from(port).map_err(|_| Failure::unable(format!("--{name} is {port}, expected a port of at most 65535")))?;
            Ok::<_, Failure>(SocketAddr::from((address, port)))
        };
        let listen = port(args.port.and_then(|port| port.0), "port", 8013)?;
        let management = port(args.management_port, "management-port", 8014)?;
        let sync = Listen(Some(port(args.sync_port, "sync-port", 8015)?));
        let ofrep = Listen(Some(port(args.ofrep_port, "ofrep-port", 8016)?));
        let body = request_bytes(file.number(args.max_request_body, "max-request-body")?);
        let header = request_bytes(file.number(args.max_request_header, "max-request-header")?);
        let mut limits = Limits {
            max_request_body: Some(usize::try_from(body).unwrap_or(usize::MAX)),
            max_request_header: u32::try_from(header).unwrap_or(u32::MAX),
            ..Limits::default()
        };
        if let Some(watchers) = file.number(args.max_watchers.map(|watchers| watchers as u64), "max-watchers")? {
            limits.max_watchers = usize::try_from(watchers).unwrap_or(usize::MAX);
        }
        let serve = Serve {
            listen,
            management,
            ofrep,
            sync,
            socket: file.path(args.socket_path, "socket-path")?,
            sync_socket: file.path(args.sync_socket_path, "sync-socket-path")?,
            sync_metadata: !file.boolean(args.disable_sync_metadata, "disable-sync-metadata")?.unwrap_or(false),
            context_values: file.map(args.context_value, "context-value")?,
            context_headers: file.map(args.context_from_header, "context-from-header")?,
            cors_origins: origins(file.list(args.cors_origin, "cors-origin")?),
            hand_over: file.boolean(args.hand_over, "hand-over")?.unwrap_or(false),
            stream_deadline: stream_deadline(file.text(args.stream_deadline, "stream-deadline")?)?,
            tls: tls(file.path(args.server_cert_path, "server-cert-path")?, file.path(args.server_key_path, "server-key-path")?)?,
            threads: args.threads,
            limits,
            ..Serve::default()
        };
        let fractional_version = match file.number(args.fractional_version.map(u64::from), "fractional-version")? {
            None => FractionalVersion::default(),
            Some(asked) => FractionalVersion::ALL
                .into_iter()
                .find(|version| u64::from(version.number()) == asked)
                .ok_or_else(|| Failure::unable(format!("--fractional-version is {asked}, expected 1, 2 or 3")))?,
        };
        let telemetry = telemetry::Args {
            log_format: log_format(file.text(args.log_format, "log-format")?)?,
            log_level: "info".to_owned(),
            otlp_endpoint: file.text(args.otel_collector_uri, "otel-collector-uri")?.map(|uri| with_scheme(&uri)),
            // flagd makes a span of each call.
            trace_sample: 1.0,
            trace_context_id: evaluation::ContextId::Hash,
        };
        let mut ignored = Vec::new();
        if file.boolean(args.debug, "debug")?.unwrap_or(false) {
            ignored.push("--debug has no effect: nothing is logged beyond `info`".to_owned());
        }
        // Served whatever it says: a client that does not want events does not ask for them.
        file.boolean(args.ofrep_sse_enabled, "ofrep-sse-enabled")?;
        for (given, name) in [
            (args.keep_alive_min_time.is_some(), "keep-alive-min-time"),
            (args.keep_alive_permit_without_stream.is_some(), "keep-alive-permit-without-stream"),
        ] {
            if file.take(name).is_some() || given {
                ignored.push(format!("--{name} has no effect: clients may ping as often as they like"));
            }
        }
        ignored.extend(file.0.keys().map(|name| format!("`{name}` of the configuration file is no option and has no effect")));
        Ok(Self { sources, serve, fractional_version, telemetry, ready: args.ready, config, ignored })
    }
}

/// flagd lets every page ask when none is named.
fn origins(named: Vec<String>) -> Vec<String> {
    if named.is_empty() { vec!["*".to_owned()] } else { named }
}

fn request_bytes(given: Option<u64>) -> u64 {
    match given {
        None => REQUEST_BYTES,
        Some(0) => MOST_REQUEST_BYTES,
        Some(bytes) => bytes.min(MOST_REQUEST_BYTES),
    }
}

fn stream_deadline(given: Option<String>) -> Result<Option<Duration>, Failure> {
    match given.as_deref().map(str::trim) {
        None | Some("" | "0") => Ok(None),
        Some(text) => {
            let deadline = duration::parse(text).map_err(|wrong| Failure::unable(format!("--stream-deadline: {wrong}")))?;
            Ok(Some(deadline).filter(|deadline| !deadline.is_zero()))
        }
    }
}

/// flagd serves in clear when one of the two is missing, which nobody would notice.
fn tls(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Tls>, Failure> {
    let alone = |given: &str, path: &Path, missing: &str| {
        Failure::unable(format!("--{given} is {} and --{missing} is not given: TLS takes both, a certificate and its key", path.display()))
    };
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Tls::read(&certificate, &key).map(Some).map_err(|unusable| Failure::unable(unusable.to_string())),
        (Some(certificate), None) => Err(alone("server-cert-path", &certificate, "server-key-path")),
        (None, Some(key)) => Err(alone("server-key-path", &key, "server-cert-path")),
    }
}

fn log_format(given: Option<String>) -> Result<LogFormat, Failure> {
    match given.as_deref() {
        None | Some("console" | "") => Ok(LogFormat::Human),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(Failure::unable(format!("--log-format is `{other}`, expected console or json"))),
    }
}

/// flagd names a collector without a scheme.
fn with_scheme(uri: &str) -> String {
    if uri.contains("://") { uri.to_owned() } else { format!("http://{uri}") }
}

/// Those of `--uri` first, which have the lowest priority.
fn sources(uris: Vec<String>, json: Option<String>, file: &mut File) -> Result<Vec<Source>, Failure> {
    let uris = file.list(uris, "uri")?;
    let mut sources = uris.iter().map(|uri| Source::of_uri(uri)).collect::<Result<Vec<_>, _>>().map_err(Failure::unable)?;
    let listed = match (json, file.take("sources")) {
        (Some(text), _) | (None, Some(Json::String(text))) => {
            if text.trim().is_empty() {
                return Ok(sources);
            }
            // Without the text: there may be a token in it.
            serde_json::from_str(&text).map_err(|error| Failure::unable(format!("--sources is no JSON: {error}")))?
        }
        (None, Some(listed)) => listed,
        (None, None) => return Ok(sources),
    };
    sources.extend(Source::all_of_json(&listed).map_err(Failure::unable)?);
    Ok(sources)
}

fn refuse(refused: Refused, file: &mut File) -> Result<(), Failure> {
    let Refused {
        metrics_exporter,
        otel_cert_path,
        otel_key_path,
        otel_ca_path,
        otel_reload_interval,
        ofrep_sse_inactivity_delay,
        ofrep_sse_public_url,
        sync_http_port,
        sync_provider,
        sync_provider_args,
        bearer_token,
    } = refused;
    const COLLECTOR: &str = "the collector is spoken to in clear; let a collector in the pod speak TLS";
    const SSE: &str = "OFREP says that its events are where the client asks, and that a page may give them up after 120 s";
    const OLD: &str = "flagd has dropped it too; use --sources";
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    for (name, given, harmless, instead) in [
        ("metrics-exporter", metrics_exporter, "prometheus", "metrics are served for Prometheus at /metrics of --management-port"),
        ("otel-cert-path", otel_cert_path, "", COLLECTOR),
        ("otel-key-path", otel_key_path, "", COLLECTOR),
        ("otel-ca-path", otel_ca_path, "", COLLECTOR),
        ("otel-reload-interval", otel_reload_interval, "", COLLECTOR),
        ("ofrep-sse-inactivity-delay", text(ofrep_sse_inactivity_delay), "", SSE),
        ("ofrep-sse-public-url", ofrep_sse_public_url, "", SSE),
        (
            "sync-http-port",
            text(sync_http_port.map(u64::from)),
            "0",
            "flags for in-process providers are served over gRPC, see --sync-port",
        ),
        ("sync-provider", sync_provider, "", OLD),
        ("sync-provider-args", sync_provider_args, "", OLD),
        ("bearer-token", bearer_token, "", OLD),
    ] {
        let found = file.take(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        if given.or(found).is_some_and(|value| !value.is_empty() && value != harmless) {
            return Err(Failure::unable(format!("--{name} is not supported: {instead}")));
        }
    }
    Ok(())
}

/// Where flagd looks when no file is named.
fn usual_config(home: &Path) -> Option<PathBuf> {
    [".agent.yaml", ".agent.yml", ".agent.json"].map(|name| home.join(name)).into_iter().find(|path| path.is_file())
}

/// The options of a configuration file by their long names. What is asked for is taken out, so that what nobody knows is left.
#[derive(Debug, Default)]
struct File(Map<String, Json>);

impl File {
    fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::default()) };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::unable(format!("cannot read the configuration file {shown}: {}", innermost(&error))))?;
        Self::parse(&text).map_err(|wrong| Failure::unable(format!("the configuration file {shown} cannot be read: {wrong}")))
    }

    /// JSON is YAML.
    fn parse(text: &str) -> Result<Self, String> {
        match serde_yaml_ng::from_str::<Json>(text) {
            Ok(Json::Null) => Ok(Self::default()),
            // Names have any case, as viper reads them.
            Ok(Json::Object(options)) => Ok(Self(options.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect())),
            Ok(_) => Err("found no object, expected options by their long names".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, given: Option<String>, name: &str) -> Result<Option<String>, Failure> {
        let found = match self.take(name) {
            None => None,
            Some(Json::String(text)) => Some(text),
            Some(value @ (Json::Number(_) | Json::Bool(_))) => Some(value.to_string()),
            Some(_) => return Err(wrong(name, "text")),
        };
        Ok(given.or(found).filter(|text| !text.is_empty()))
    }

    fn number(&mut self, given: Option<u64>, name: &str) -> Result<Option<u64>, Failure> {
        let found = match self.take(name) {
            None => None,
            Some(Json::Number(number)) => Some(number.as_u64().ok_or_else(|| wrong(name, "a whole number"))?),
            Some(Json::String(text)) => Some(text.parse().map_err(|_| wrong(name, "a whole number"))?),
            Some(_) => return Err(wrong(name, "a whole number")),
        };
        Ok(given.or(found))
    }

    fn boolean(&mut self, given: Option<bool>, name: &str) -> Result<Option<bool>, Failure> {
        let found = match self.take(name) {
            None => None,
            Some(Json::Bool(value)) => Some(value),
            Some(Json::String(text)) => Some(text.parse().map_err(|_| wrong(name, "true or false"))?),
            Some(_) => return Err(wrong(name, "true or false")),
        };
        Ok(given.or(found))
    }

    fn parsed<T: FromStr>(&mut self, given: Option<T>, name: &str) -> Result<Option<T>, Failure> {
        let found = self.text(None, name)?;
        let found = found.map(|text| text.parse().map_err(|_| Failure::unable(format!("--{name} is `{text}`, expected an IP address"))));
        Ok(given.or(found.transpose()?))
    }

    fn path(&mut self, given: Option<PathBuf>, name: &str) -> Result<Option<PathBuf>, Failure> {
        let given = given.filter(|path| !path.as_os_str().is_empty());
        Ok(given.or(self.text(None, name)?.map(PathBuf::from)))
    }

    fn list(&mut self, given: Vec<String>, name: &str) -> Result<Vec<String>, Failure> {
        let found = match self.take(name) {
            None => Vec::new(),
            Some(Json::String(text)) => text.split(',').map(str::to_owned).collect(),
            Some(Json::Array(values)) => {
                let text = |value: Json| value.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "a list of texts"));
                values.into_iter().map(text).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(wrong(name, "a list of texts")),
        };
        let list = if given.is_empty() { found } else { given };
        Ok(list.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect())
    }

    /// `a=1,b=2` as often as it is given, or a JSON object, which is how viper reads a variable.
    fn map(&mut self, given: Vec<String>, name: &str) -> Result<BTreeMap<String, String>, Failure> {
        let found = self.take(name);
        if given.is_empty() {
            return match found {
                None => Ok(BTreeMap::new()),
                Some(Json::Object(entries)) => Ok(texts(entries)),
                Some(Json::String(text)) => map_of(&text, name),
                Some(_) => Err(wrong(name, "an object of texts")),
            };
        }
        let mut map = BTreeMap::new();
        for text in given {
            map.extend(map_of(&text, name)?);
        }
        Ok(map)
    }
}

fn map_of(text: &str, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    if let Ok(Json::Object(entries)) = serde_json::from_str(text) {
        return Ok(texts(entries));
    }
    pairs(text).map_err(|wrong| Failure::unable(format!("--{name}: {wrong}")))
}

/// Every value of a context is text to flagd here.
fn texts(entries: Map<String, Json>) -> BTreeMap<String, String> {
    entries.into_iter().map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))).collect()
}

fn wrong(name: &str, expected: &str) -> Failure {
    Failure::unable(format!("`{name}` of the configuration file is something else than {expected}"))
}

#[cfg(test)]
mod tests;
