//! Which setting counts, and what is refused.

use super::super::options::Port;
use super::*;

fn settings(args: Args, file: &str) -> Result<Settings, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, file).unwrap();
    Settings::of(Args { config: Some(path), bind_address: Some([127, 0, 0, 1].into()), ..args }, None)
}

fn message(args: Args, file: &str) -> String {
    settings(args, file).err().expect("it is refused").message
}

#[test]
fn an_option_counts_more_than_the_file_and_the_file_more_than_the_default() {
    let file = "port: 1\nmanagement-port: 2\nlog-format: json\n";
    let both = settings(Args { port: Some(Port(Some(9))), ..Args::default() }, file).unwrap();
    let ports = [both.serve.listen, both.serve.management, both.serve.ofrep.0.unwrap()].map(|address| address.port());
    assert_eq!((ports, both.telemetry.log_format), ([9, 2, 8016], LogFormat::Json));
}

#[test]
fn a_configuration_of_flagds_testbed_is_taken() {
    let file = r#"{
        "sources": [{ "uri": "flags/allFlags.json", "provider": "file" }, { "uri": "rawflags/selector-flags.json", "provider": "file" }],
        "context-value": { "injectedmetadata": "set", "number": 7 },
        "disable-sync-metadata": true
    }"#;
    let settings = settings(Args::default(), file).unwrap();
    let names: Vec<_> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["flags/allFlags.json", "rawflags/selector-flags.json"]);
    let values = settings.serve.context_values;
    assert_eq!((values["injectedmetadata"].as_str(), values["number"].as_str()), ("set", "7"));
    assert!(!settings.serve.sync_metadata);
    assert_eq!(settings.ignored, Vec::<String>::new());
}

#[test]
fn uris_come_before_sources_and_sources_may_be_text() {
    let args = Args { uri: vec!["file:a.json".into(), "file:b.json".into()], ..Args::default() };
    let file = r#"{"uri": ["file:never.json"], "sources": "[{\"uri\":\"c.json\",\"provider\":\"file\"}]"}"#;
    let names: Vec<_> = settings(args, file).unwrap().sources.into_iter().map(|source| source.name).collect();
    assert_eq!(names, ["a.json", "b.json", "c.json"]);
    let args = Args { sources: Some(r#"[{"uri":"d.json","provider":"file"}]"#.into()), ..Args::default() };
    let names: Vec<_> = settings(args, file).unwrap().sources.into_iter().map(|source| source.name).collect();
    assert_eq!(names, ["never.json", "d.json"]);
}

#[test]
fn pairs_are_read_as_flagd_reads_them() {
    for given in [vec!["a=1,b=x=y"], vec!["a=1", "b=x=y"], vec![r#"{"a":1,"b":"x=y"}"#]] {
        let args = Args { context_value: given.iter().map(|text| (*text).to_owned()).collect(), ..Args::default() };
        let values = settings(args, "").unwrap().serve.context_values;
        assert_eq!((values["a"].as_str(), values["b"].as_str()), ("1", "x=y"), "{given:?}");
    }
    assert!(message(Args { context_value: vec!["a".into()], ..Args::default() }, "").contains("--context-value"));
}

#[test]
fn limits_and_deadlines_have_flagds_meaning() {
    let zero = settings(Args { max_request_body: Some(0), stream_deadline: Some("0s".into()), ..Args::default() }, "").unwrap();
    assert_eq!((zero.serve.limits.max_request_body, zero.serve.stream_deadline), (Some(16 * 1024 * 1024), None));
    let some = settings(Args { max_request_header: Some(100), stream_deadline: Some("1m30s".into()), ..Args::default() }, "").unwrap();
    assert_eq!((some.serve.limits.max_request_header, some.serve.stream_deadline), (100, Some(Duration::from_secs(90))));
    assert_eq!(settings(Args::default(), "").unwrap().serve.limits.max_request_body, Some(1_000_000));
}

#[test]
fn what_is_not_served_is_refused_by_its_name_wherever_it_is_said() {
    for name in [
        "otel-cert-path",
        "otel-key-path",
        "otel-ca-path",
        "otel-reload-interval",
        "metrics-exporter",
        "ofrep-sse-public-url",
        "sync-http-port",
        "sync-provider",
    ] {
        let told = message(Args::default(), &format!("{name}: 'x1'"));
        assert!(told.starts_with(&format!("--{name} is not supported: ")), "{told}");
    }
    let refused = Refused { otel_cert_path: Some("cert.pem".into()), ..Refused::default() };
    assert!(message(Args { refused, ..Args::default() }, "").contains("TLS"));
    for harmless in ["server-cert-path: ''", "sync-http-port: 0", "ofrep-sse-enabled: false", "metrics-exporter: prometheus"] {
        assert!(settings(Args::default(), harmless).is_ok(), "{harmless}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (file, named) in [
        ("port: many", "port"),
        ("port: 70000", "65535"),
        ("log-format: xml", "console or json"),
        ("fractional-version: 4", "1, 2 or 3"),
        ("stream-deadline: soon", "--stream-deadline"),
        ("- a", "no object"),
        ("bind-address: here", "IP address"),
        ("disable-sync-metadata: perhaps", "true or false"),
    ] {
        assert!(message(Args::default(), file).contains(named), "{file}: {}", message(Args::default(), file));
    }
    assert!(message(Args { config: None, sources: Some("[".into()), ..Args::default() }, "").contains("--sources is no JSON"));
    let ignored = settings(Args { debug: Some(true), ..Args::default() }, "colour: red").unwrap().ignored;
    assert!(ignored[0].contains("--debug") && ignored[1].contains("colour"), "{ignored:?}");
}
