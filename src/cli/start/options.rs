//! flagd's command line, every option of it: what is not served here is still known, and refused by its name when it is given.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::cli::ready;

/// Options that are not given are `None`: what stands in the configuration file then counts, and then the default.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Read these options from a file, JSON or YAML, by their long names; an option and a variable count more [default: .agent.yaml in the
    /// home directory, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Where flags are: file:PATH, http(s)://HOST/PATH or grpc(s)://HOST:PORT. Of several the later ones win
    #[arg(short = 'f', long, env = "FLAGD_URI", value_name = "URI", value_delimiter = ',')]
    pub(super) uri: Vec<String>,

    /// The same as a JSON list of objects: uri, provider, selector, providerID, interval, bearerToken, authHeader, maxMsgSize, tls,
    /// certPath
    #[arg(short = 's', long, env = "FLAGD_SOURCES", value_name = "JSON", hide_env_values = true)]
    pub(super) sources: Option<String>,

    /// Evaluation over gRPC [default: 8013]
    #[arg(short = 'p', long, env = "FLAGD_PORT", value_name = "PORT")]
    pub(super) port: Option<Port>,

    /// /healthz, /readyz and /metrics [default: 8014]
    #[arg(short = 'm', long, env = "FLAGD_MANAGEMENT_PORT", value_name = "PORT")]
    pub(super) management_port: Option<u16>,

    /// Flags for in-process providers [default: 8015]
    #[arg(short = 'g', long, env = "FLAGD_SYNC_PORT", value_name = "PORT")]
    pub(super) sync_port: Option<u16>,

    /// OFREP over HTTP [default: 8016]
    #[arg(short = 'r', long, env = "FLAGD_OFREP_PORT", value_name = "PORT")]
    pub(super) ofrep_port: Option<u16>,

    /// Listen on this address instead of on all. This one is ours
    #[arg(long, env = "YARDARM_BIND_ADDRESS", value_name = "IP")]
    pub(super) bind_address: Option<IpAddr>,

    /// Take these addresses over from a process that was started so too, and that is told to end afterwards. This one is ours
    #[arg(long, env = "YARDARM_HAND_OVER", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) hand_over: Option<bool>,

    /// Serve evaluation on a Unix socket at this path too
    #[arg(short = 'd', long, env = "FLAGD_SOCKET_PATH", value_name = "PATH")]
    pub(super) socket_path: Option<PathBuf>,

    /// Serve flags for in-process providers on a Unix socket at this path too
    #[arg(short = 'e', long, env = "FLAGD_SYNC_SOCKET_PATH", value_name = "PATH")]
    pub(super) sync_socket_path: Option<PathBuf>,

    /// Serve evaluation and flags for in-process providers over TLS, with the certificate (and those above it) of this file, in PEM
    #[arg(short = 'c', long, env = "FLAGD_SERVER_CERT_PATH", value_name = "PATH")]
    pub(super) server_cert_path: Option<PathBuf>,

    /// The key of that certificate, in PEM
    #[arg(short = 'k', long, env = "FLAGD_SERVER_KEY_PATH", value_name = "PATH")]
    pub(super) server_key_path: Option<PathBuf>,

    /// Put KEY=VALUE into every context, whatever it says itself
    #[arg(short = 'X', long, env = "FLAGD_CONTEXT_VALUE", value_name = "KEY=VALUE")]
    pub(super) context_value: Vec<String>,

    /// Put the value of a header into the context, as HEADER=KEY, over everything else
    #[arg(short = 'H', long, env = "FLAGD_CONTEXT_FROM_HEADER", value_name = "HEADER=KEY")]
    pub(super) context_from_header: Vec<String>,

    /// Origins of browsers that may ask; `*` is any [default: *]
    #[arg(short = 'C', long, env = "FLAGD_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(super) cors_origin: Vec<String>,

    /// flagd's switch for the events of OFREP, which are always served here
    #[arg(long, env = "FLAGD_OFREP_SSE_ENABLED", value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) ofrep_sse_enabled: Option<bool>,

    /// End streams after this time, as 10m; 0s never does [default: 0s]
    #[arg(long, env = "FLAGD_STREAM_DEADLINE", value_name = "DURATION")]
    pub(super) stream_deadline: Option<String>,

    /// Do not answer GetMetadata of the sync service
    #[arg(long, env = "FLAGD_DISABLE_SYNC_METADATA", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) disable_sync_metadata: Option<bool>,

    /// Bytes that the body of a request may have [default: 1000000]
    #[arg(short = 'B', long, env = "FLAGD_MAX_REQUEST_BODY", value_name = "BYTES")]
    pub(super) max_request_body: Option<u64>,

    /// Bytes that the headers of a request may have [default: 1000000]
    #[arg(short = 'R', long, env = "FLAGD_MAX_REQUEST_HEADER", value_name = "BYTES")]
    pub(super) max_request_header: Option<u64>,

    /// console or json [default: console]
    #[arg(short = 'z', long, env = "FLAGD_LOG_FORMAT", value_name = "FORMAT")]
    pub(super) log_format: Option<String>,

    /// Taken for flagd's sake; what flagd logs beyond `info` is not built in
    #[arg(short = 'x', long, env = "FLAGD_DEBUG", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) debug: Option<bool>,

    /// Where spans are sent by OTLP over gRPC, as HOST:PORT (-o in flagd, and here)
    #[arg(long, env = "FLAGD_OTEL_COLLECTOR_URI", value_name = "URI", hide_env_values = true)]
    pub(super) otel_collector_uri: Option<String>,

    /// The arithmetic of `fractional` for flags that do not say theirs: 1 is that of flagd before 0.15, 2 that of 0.15 and 0.16. This
    /// one is ours [default: 3]
    #[arg(long, env = "YARDARM_FRACTIONAL_VERSION", value_name = "1|2|3")]
    pub(super) fractional_version: Option<u8>,

    /// Threads that answer; one for each core that is granted when it is not set. This one is ours
    #[arg(long, env = "YARDARM_THREADS", value_name = "THREADS")]
    pub(super) threads: Option<usize>,

    /// Streams of changes at one time; further ones end with RESOURCE_EXHAUSTED. This one is ours
    #[arg(long, env = "YARDARM_MAX_WATCHERS", value_name = "STREAMS")]
    pub(super) max_watchers: Option<usize>,

    /// Taken for flagd's sake: a client may ping as often as it likes
    #[arg(long, env = "FLAGD_KEEP_ALIVE_MIN_TIME", value_name = "DURATION")]
    pub(super) keep_alive_min_time: Option<String>,

    /// Taken for flagd's sake: a client may always do that
    #[arg(long, env = "FLAGD_KEEP_ALIVE_PERMIT_WITHOUT_STREAM", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) keep_alive_permit_without_stream: Option<bool>,

    #[command(flatten)]
    pub(super) refused: Refused,

    #[command(flatten)]
    pub(super) ready: ready::Args,
}

/// Kubernetes tells every pod beside a service `flagd` where that is, in the variable `FLAGD_PORT`: `tcp://10.0.0.1:8013`. It is no wish of
/// anybody's, and counts as nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port(pub(super) Option<u16>);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with("tcp://") {
            true => Ok(Self(None)),
            false => text.parse().map(|port| Self(Some(port))).map_err(|_| "expected a port of at most 65535".to_owned()),
        }
    }
}

/// What flagd has and is not served here.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of flagd that are refused, with what to use instead")]
pub struct Refused {
    #[arg(short = 't', long, env = "FLAGD_METRICS_EXPORTER", value_name = "NAME", hide = true)]
    pub(super) metrics_exporter: Option<String>,
    #[arg(short = 'D', long, env = "FLAGD_OTEL_CERT_PATH", value_name = "PATH", hide = true)]
    pub(super) otel_cert_path: Option<String>,
    #[arg(short = 'K', long, env = "FLAGD_OTEL_KEY_PATH", value_name = "PATH", hide = true)]
    pub(super) otel_key_path: Option<String>,
    #[arg(short = 'A', long, env = "FLAGD_OTEL_CA_PATH", value_name = "PATH", hide = true)]
    pub(super) otel_ca_path: Option<String>,
    #[arg(short = 'I', long, env = "FLAGD_OTEL_RELOAD_INTERVAL", value_name = "DURATION", hide = true)]
    pub(super) otel_reload_interval: Option<String>,
    #[arg(long, env = "FLAGD_OFREP_SSE_INACTIVITY_DELAY", value_name = "SECONDS", hide = true)]
    pub(super) ofrep_sse_inactivity_delay: Option<u64>,
    #[arg(long, env = "FLAGD_OFREP_SSE_PUBLIC_URL", value_name = "URL", hide = true)]
    pub(super) ofrep_sse_public_url: Option<String>,
    #[arg(long, env = "FLAGD_SYNC_HTTP_PORT", value_name = "PORT", hide = true)]
    pub(super) sync_http_port: Option<u16>,
    #[arg(short = 'y', long, env = "FLAGD_SYNC_PROVIDER", value_name = "NAME", hide = true)]
    pub(super) sync_provider: Option<String>,
    #[arg(short = 'a', long, env = "FLAGD_SYNC_PROVIDER_ARGS", value_name = "ARGS", hide = true)]
    pub(super) sync_provider_args: Option<String>,
    #[arg(short = 'b', long, env = "FLAGD_BEARER_TOKEN", value_name = "TOKEN", hide = true, hide_env_values = true)]
    pub(super) bearer_token: Option<String>,
}

/// In flagd `-o` is the collector; everywhere else here it is the format of the output. After `start` it is flagd's.
pub fn spelled(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut spelled: Vec<OsString> = args.collect();
    if spelled.get(1).is_none_or(|command| command != "start") {
        return spelled;
    }
    for arg in spelled.iter_mut().skip(2) {
        if arg == "-o" {
            *arg = "--otel-collector-uri".into();
        } else if let Some(value) = arg.to_str().and_then(|arg| arg.strip_prefix("-o")) {
            *arg = OsStr::new(&format!("--otel-collector-uri={}", value.trim_start_matches('='))).to_owned();
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        let args = spelled(line.split(' ').map(OsString::from));
        args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_no_port() {
        assert_eq!("tcp://10.0.0.1:8013".parse(), Ok(Port(None)));
        assert_eq!("8013".parse(), Ok(Port(Some(8013))));
        assert!("70000".parse::<Port>().is_err_and(|error| error.contains("65535")));
    }

    #[test]
    fn the_collector_of_flagd_has_its_letter_after_start_and_nowhere_else() {
        assert_eq!(said("yardarm start -o otel:4317 -p 1"), "yardarm start --otel-collector-uri otel:4317 -p 1");
        assert_eq!(said("yardarm start -ootel:4317"), "yardarm start --otel-collector-uri=otel:4317");
        assert_eq!(said("yardarm pods -o json"), "yardarm pods -o json");
    }
}
