//! The decision log of a real sidecar: every way in which an application may ask, restarts, and what stays out.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use yardarm::sidecar::Serve;
use yardarm::telemetry::decisions::{self, Keys, Persons, Salt};
use yardarm::wire::v1;

use crate::cli::run;
use crate::management::metrics;
use crate::pod::Pod;
use crate::process::Process;
use crate::telemetry::serve_next;

const SALT: &str = "0123456789abcdef0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(20);

const FLAGS: &str = r#"
flags:
  checkout:
    variants: { "on": true, "off": false }
    defaultVariant: "off"
    targets: [ { variant: "on", keys: [ana] } ]
    rules: [ { name: beta, when: [ { attribute: plan, in: [beta] } ], serve: "on" } ]
  parent: { variants: { "on": true, "off": false }, defaultVariant: "on" }
  child:
    variants: { new: { v: 2 }, old: { v: 1 } }
    defaultVariant: new
    offVariant: old
    prerequisites: [ { flag: parent, variants: ["on"] } ]
"#;

fn serve(dir: Option<&Path>, otlp: Option<String>) -> Serve {
    let decisions = decisions::Args { dir: dir.map(Path::to_owned), otlp, salt: Some(SALT.to_owned()), ..decisions::Args::default() };
    Serve { threads: Some(2), decisions, ..Serve::default() }
}

fn question(flag: &str, key: &str) -> v1::EvaluateRequest {
    let context = v1::Context { targeting_key: key.to_owned(), ..v1::Context::default() };
    v1::EvaluateRequest { flag_key: flag.to_owned(), context: Some(context), ..v1::EvaluateRequest::default() }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| decisions::is_of_the_log(path)).collect();
    files.sort();
    files
}

fn lines(dir: &Path) -> Vec<Json> {
    let text: String = files(dir).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named(key: &str, environment: &str) -> String {
    Persons::new(Keys::Hashed, &Salt::new(SALT.to_owned()), environment).name(key).unwrap().into_owned()
}

fn brief(line: &Json) -> (&str, Option<&str>, bool, Option<&str>, &str, Option<&str>) {
    let text = |name: &str| line[name].as_str();
    let enabled = line["enabled"].as_bool().unwrap();
    (text("flag").unwrap(), text("variant"), enabled, text("path"), text("reason").unwrap(), text("errorCode"))
}

#[tokio::test]
async fn every_way_to_ask_is_logged_once_with_what_was_served_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut pod = Pod::start_with(&serve(Some(dir.path()), None), FLAGS).await;
    let mut client = pod.client().await;

    for _ in 0..3 {
        client.evaluate(question("checkout", "ana")).await.unwrap();
    }
    client.evaluate(question("checkout", "bob")).await.unwrap();
    client.evaluate(question("no_such_flag", "bob")).await.unwrap();
    let wrong = v1::EvaluateRequest { r#type: v1::ValueType::Number.into(), ..question("checkout", "bob") };
    client.evaluate(wrong).await.unwrap();
    let context = question("", "cleo").context;
    client.evaluate_batch(v1::EvaluateBatchRequest { context, ..v1::EvaluateBatchRequest::default() }).await.unwrap();
    let asked = (1..=2).map(|id| v1::EvaluateStreamRequest { id, request: Some(question("checkout", "dora")) });
    let mut answers = client.evaluate_stream(tokio_stream::iter(asked.collect::<Vec<_>>())).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    pod.kill("child");
    client.evaluate(question("child", "cleo")).await.unwrap();
    let mut looked = Request::new(question("checkout", "somebody at a terminal"));
    looked.metadata_mut().insert("yardarm-purpose", "inspection".parse().unwrap());
    client.evaluate(looked).await.unwrap();
    drop((client, answers));
    assert_eq!(pod.stop().await, []);

    let mut lines = lines(dir.path());
    lines.sort_by_key(|line| line["time"].as_str().unwrap().to_owned());
    let mut found: Vec<_> = lines.iter().map(|line| (line["key"].as_str().unwrap().to_owned(), brief(line))).collect();
    let off = |flag, reason, path| (flag, Some("off"), false, Some(path), reason, None);
    let mut expected: Vec<_> = [
        ("ana", ("checkout", Some("on"), true, Some("target"), "TARGETING_MATCH", None)),
        ("bob", off("checkout", "DEFAULT", "default")),
        ("bob", ("no_such_flag", None, false, None, "ERROR", Some("FLAG_NOT_FOUND"))),
        ("bob", ("checkout", None, false, None, "ERROR", Some("TYPE_MISMATCH"))),
        ("cleo", off("checkout", "DEFAULT", "default")),
        ("cleo", ("parent", Some("on"), true, Some("default"), "STATIC", None)),
        ("cleo", ("child", Some("new"), true, Some("default"), "DEFAULT", None)),
        ("dora", off("checkout", "DEFAULT", "default")),
        ("cleo", ("child", Some("old"), false, Some("kill"), "KILLED", None)),
    ]
    .into_iter()
    .map(|(key, rest)| (named(key, "test"), rest))
    .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let killed = lines.iter().find(|line| line["reason"] == "KILLED").unwrap();
    assert!(killed["revision"].as_u64() > Some(0) && killed["rate"] == 1.0 && killed["environment"] == "test", "{killed}");
    let form = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$").unwrap();
    assert!(lines.iter().all(|line| form.is_match(line["time"].as_str().unwrap())), "{lines:?}");
}

#[tokio::test]
async fn the_counts_of_the_log_are_metrics_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = serve(Some(dir.path()), None);
    args.decisions.sample = vec!["parent=0".parse().unwrap()];
    let pod = Pod::start_with(&args, FLAGS).await;
    let mut client = pod.client().await;
    for _ in 0..5 {
        client.evaluate(question("checkout", "ana")).await.unwrap();
    }
    // Without a key it is nobody's first exposure.
    client.evaluate(question("parent", "")).await.unwrap();
    let began = Instant::now();
    let found = loop {
        let text = metrics(&pod).await;
        if text.contains("yardarm_decision_log_written_total 1\n") {
            break text;
        }
        assert!(began.elapsed() < DEADLINE, "not written: {text}");
        tokio::task::yield_now().await;
    };
    for line in [
        "yardarm_decision_log_received_total 6",
        "yardarm_decision_log_deduplicated_total 4",
        "yardarm_decision_log_sampled_out_total 1",
        "yardarm_decision_log_held_back_total 0",
        "yardarm_decision_log_lost_total{where=\"buffer\"} 0",
        "yardarm_decision_log_lost_total{where=\"disk\"} 0",
        "yardarm_decision_log_step 0",
        "yardarm_evaluations_total{flag=\"checkout\",variant=\"on\",reason=\"TARGETING_MATCH\"} 5",
    ] {
        assert!(found.lines().any(|found| found == line), "no {line} in {found}");
    }
    drop(client);
    pod.stop().await;
    assert_eq!(lines(dir.path()).len(), 1);
}

#[tokio::test]
async fn without_a_directory_nothing_is_logged_and_no_metric_says_so() {
    let pod = Pod::start(FLAGS).await;
    pod.client().await.evaluate(question("checkout", "ana")).await.unwrap();
    let told = metrics(&pod).await;
    assert!(told.contains("yardarm_evaluations") && !told.contains("decision_log"), "{told}");
    pod.stop().await;
}

/// The disk fails while the sidecar serves: its directory is gone, and a file is in its place.
#[tokio::test]
async fn answers_go_on_when_the_log_cannot_be_written() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("log");
    let pod = Pod::start_with(&serve(Some(&dir), None), FLAGS).await;
    fs::remove_dir_all(&dir).unwrap();
    fs::write(&dir, "in the way").unwrap();
    let mut client = pod.client().await;
    let began = Instant::now();
    for number in 0.. {
        let answer = client.evaluate(question("checkout", &format!("user-{number}"))).await.unwrap().into_inner();
        assert_eq!(answer.decision.unwrap().variant, "off");
        let told = metrics(&pod).await;
        let lost = told.lines().find(|line| line.starts_with("yardarm_decision_log_lost_total{where=\"disk\"}")).unwrap();
        if !lost.ends_with(" 0") {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "nothing was counted as lost: {told}");
    }
    drop(client);
    assert_eq!(pod.stop().await, []);
}

#[test]
fn after_a_kill_9_people_keep_their_names_and_half_a_line_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let dir = data.join("decisions").join("dev-1");
    let start = || Process::start(&["dev", "--port-base", "0", "--data", data.to_str().unwrap()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |dev: &Process, key: &str| {
        let answer = runtime.block_on(async { dev.evaluation().evaluate(question("new_checkout_flow", key)).await });
        answer.unwrap().into_inner().decision.unwrap()
    };

    let dev = start();
    let before = ask(&dev, "ana");
    let began = Instant::now();
    while files(&dir).is_empty() || lines(&dir).is_empty() {
        assert!(began.elapsed() < DEADLINE, "the line is not flushed within a second or so");
        std::thread::yield_now();
    }
    dev.kill_9();
    let newest = files(&dir).pop().unwrap();
    fs::OpenOptions::new().append(true).open(&newest).unwrap().write_all(b"{\"time\":\"20").unwrap();

    let dev = start();
    ask(&dev, "ana");
    ask(&dev, "bob");
    assert!(dev.stop().success());
    let lines = lines(&dir);
    assert_eq!(lines.len(), 3, "{lines:?}");
    // Whose line comes first is not said: two threads may have answered.
    let again = lines[1..].iter().filter(|line| line["key"] == lines[0]["key"]).count();
    assert_eq!(again, 1, "a restart gave a person another name: {lines:?}");
    assert_eq!(files(&dir), [newest], "the file did not go on");

    let log = data.join("decisions");
    let report = run(&["report", "decisions", "new_checkout_flow", "--unit", "ana", "--log", log.to_str().unwrap(), "-o", "json"]).json(0);
    assert_eq!((&report["found"], &report["decisions"][0]["variant"]), (&Json::from(2), &Json::from(before.variant)));
    let users = run(&["report", "users", "new_checkout_flow", "--log", log.to_str().unwrap(), "-o", "json"]).json(0);
    assert_eq!((&users["people"]["count"], &users["people"]["exact"]), (&Json::from(2), &Json::from(true)));
}

#[test]
fn a_report_without_a_log_says_where_it_looked_and_what_it_expected() {
    let empty = tempfile::tempdir().unwrap();
    let said = run(&["report", "users", "a", "--log", empty.path().to_str().unwrap()]).refusal(2);
    assert!(said.contains("decisions-*.ndjson") && said.contains(empty.path().to_str().unwrap()), "{said}");
    let said = run(&["report", "errors", "--log", "/no/such/place"]).refusal(2);
    assert!(said.contains("/no/such/place") && said.contains("--log"), "{said}");
}

#[test]
fn reports_pass_over_what_is_no_line_and_say_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let line = |error: bool, variant: &str| {
        format!(
            r#"{{"time":"2026-11-21T01:30:12.250000Z","kind":"outcome","flag":"a","variant":"{variant}","enabled":true,"metric":"m","value":1,"error":{error},"pod":"p","environment":"e","from":"a later version"}}"#
        )
    };
    let mut text: Vec<_> = (0..99).map(|_| line(false, "calm")).chain([line(true, "calm")]).collect();
    text.extend((0..98).map(|_| line(false, "loud")).chain([line(true, "loud"), line(true, "loud")]));
    text.extend(["not json".to_owned(), "{}".to_owned(), String::new()]);
    fs::write(dir.path().join("decisions-1.ndjson"), text.join("\n") + "\n{\"half").unwrap();
    let log = dir.path().to_str().unwrap();
    let ran = run(&["report", "errors", "--log", log, "-o", "json"]);
    assert!(ran.stderr.contains("3 lines of 203"), "{}", ran.stderr);
    let report = ran.json(1);
    let rates: Vec<_> = report["rates"].as_array().unwrap().iter().map(|rate| (&rate["variant"], &rate["errorRate"])).collect();
    assert_eq!(rates, [(&Json::from("loud"), &Json::from(0.02))], "a rate of exactly the bound is not above it");
    let text = run(&["report", "errors", "--log", log]).ended(1);
    assert!(text.contains("loud") && text.contains("0.0200") && !text.contains("calm"), "{text}");
    run(&["report", "errors", "--log", log, "--above", "0.02"]).ended(0);
}

struct Taking(mpsc::Sender<ExportLogsServiceRequest>);

#[tonic::async_trait]
impl LogsService for Taking {
    async fn export(&self, request: Request<ExportLogsServiceRequest>) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

fn text<'r>(record: &'r LogRecord, key: &str) -> Option<&'r str> {
    let attribute = record.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test]
async fn a_collector_gets_events_by_the_conventions_and_the_last_ones_at_the_end() {
    let (sender, mut received) = mpsc::channel(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { serve_next(&listener, LogsServiceServer::new(Taking(sender))).await.await });

    let pod = Pod::start_with(&serve(None, Some(endpoint)), FLAGS).await;
    let mut client = pod.client().await;
    client.evaluate(question("checkout", "ana")).await.unwrap();
    client.evaluate(question("checkout", "ana")).await.unwrap();
    client.evaluate(question("no_such_flag", "bob")).await.unwrap();
    drop(client);
    assert_eq!(pod.stop().await, []);
    serving.abort();

    let mut records = Vec::new();
    while let Ok(request) = received.try_recv() {
        for resource in request.resource_logs {
            let attributes = resource.resource.unwrap().attributes;
            assert!(attributes.iter().any(|attribute| attribute.key == "service.name"), "{attributes:?}");
            records.extend(resource.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
    }
    let [served, failed] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((&*served.event_name, &*failed.event_name), ("feature_flag.evaluation", "feature_flag.evaluation"));
    assert!(served.time_unix_nano > 0);
    for (key, value) in [
        ("feature_flag.key", "checkout"),
        ("feature_flag.provider.name", "yardarm"),
        ("feature_flag.set.id", "test"),
        ("feature_flag.result.variant", "on"),
        ("feature_flag.result.reason", "targeting_match"),
        ("feature_flag.context.id", &named("ana", "test")),
        ("yardarm.path", "target"),
    ] {
        assert_eq!(text(served, key), Some(value), "{key}");
    }
    assert!(text(served, "feature_flag.version").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!((text(failed, "error.type"), text(failed, "feature_flag.result.reason")), (Some("flag_not_found"), Some("error")));
    assert_eq!(text(failed, "feature_flag.result.variant"), None);
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_events_and_neither_answers_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let pod = Pod::start_with(&serve(None, Some(endpoint)), FLAGS).await;
    let mut client = pod.client().await;
    client.evaluate(question("checkout", "ana")).await.unwrap();
    drop(client);
    assert_eq!(tokio::time::timeout(DEADLINE, pod.stop()).await.unwrap(), [], "the flush is bounded");
}

#[tokio::test]
async fn a_log_that_cannot_be_is_refused_at_the_start_with_its_option() {
    let refused = |args: Serve| async move {
        let (replica, _writer) = yardarm::replica::Replica::new(Arc::new(yardarm::clock::SystemClock::new()));
        let flags = yardarm::sidecar::Flags { replica, environment: "test".into(), following: None };
        let workers = yardarm::sidecar::Workers::start(Some(1)).unwrap();
        let started = yardarm::sidecar::serve(&args, flags, &workers, yardarm::lifecycle::Shutdown::new()).await;
        format!("{:#}", started.unwrap_err())
    };
    let said = refused(serve(Some(Path::new("/dev/null/log")), None)).await;
    assert!(said.contains("--decision-log /dev/null/log"), "{said}");
    let said = refused(serve(None, Some("http://ana:s3cret@127.0.0.1:4317".to_owned()))).await;
    assert!(said.contains("--decision-log-otlp") && !said.contains("s3cret"), "{said}");
}
