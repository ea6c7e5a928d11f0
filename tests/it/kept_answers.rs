//! What is kept of an answer to an OpenFeature SDK says what it would say if it were written anew: to whoever asks, by whatever protocol and
//! selector, and after each change.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpStream;
use yardarm::sidecar::Serve;
use yardarm::wire::flagd::v1::{ResolveAllRequest, ResolveStringRequest};
use yardarm::wire::json::to_struct;

use crate::management::metrics;
use crate::pod::{FLAGS, Pod, soon};

/// Beside those of [`FLAGS`], of sets and of sources.
const MORE: &str = r#"
flags:
  pay: { variants: { a: x, b: "y" }, defaultVariant: a, killVariant: b, metadata: { flagSetId: payments, team: "p\"ay" }, source: a.json }
  plain: { variants: { a: z }, defaultVariant: a, metadata: { flagSetId: "", revision: "mine" } }
  told: { variants: { a: t }, defaultVariant: a, metadata: { source: mine }, source: a.json }
  long: { variants: { a: { text: "LONG" } }, defaultVariant: a }
  too_long_to_be_kept: { variants: { a: { text: "LONG LONG LONG" } }, defaultVariant: a }
  wordy: { variants: { a: w }, defaultVariant: a, metadata: { why: "LONG LONG LONG" } }
  missing: { variants: { a: m }, rules: [ { name: r, when: [ { attribute: plan, in: [x] } ], serve: a } ] }
"#;

const SELECTORS: [&str; 5] = ["", "a.json", "flagSetId=payments", "flagSetId=test", "test"];

/// One thread, so that all ask the one that keeps.
async fn pod() -> Pod {
    let mut pod = Pod::start_with(&Serve { threads: Some(1), ..Serve::default() }, FLAGS).await;
    pod.apply(&MORE.replace("LONG", &"long ".repeat(400)));
    pod
}

/// Each question, as its path, its type and its body.
fn questions() -> Vec<(String, &'static str, Vec<u8>)> {
    let mut questions = Vec::new();
    for person in ["ana", "user-6", "user-1"] {
        let context = json!({ "targetingKey": person, "cohort": if person == "user-1" { "beta" } else { "" } });
        let in_message = Some(to_struct(context.as_object().unwrap()));
        let of_all = json!({ "context": context }).to_string().into_bytes();
        questions.push(("/ofrep/v1/evaluate/flags".to_owned(), "application/json", of_all.clone()));
        for service in ["flagd.evaluation.v1.Service", "schema.v1.Service"] {
            let path = format!("/{service}/ResolveAll");
            questions.push((path.clone(), "application/json", of_all.clone()));
            let message = ResolveAllRequest { context: in_message.clone() };
            questions.push((path, "application/proto", message.encode_to_vec()));
        }
        for (key, types) in [
            ("new_checkout_flow", &["Boolean"][..]),
            ("needs_checkout", &["Boolean"]),
            ("legacy_api", &["Boolean"]),
            ("greeting", &["String", "Int"]),
            ("pay", &["String"]),
            ("plain", &["String"]),
            ("told", &["String"]),
            ("wordy", &["String"]),
            ("missing", &["String"]),
            ("nowhere", &["String"]),
            ("limit", &["Float", "Int"]),
            ("sales_email", &["Object"]),
            ("long", &["Object"]),
            ("too_long_to_be_kept", &["Object"]),
        ] {
            questions.push((format!("/ofrep/v1/evaluate/flags/{key}"), "application/json", of_all.clone()));
            for (of, service) in types.iter().flat_map(|of| ["v1", "v2"].map(|version| (of, format!("flagd.evaluation.{version}.Service"))))
            {
                let path = format!("/{service}/Resolve{of}");
                let asked = json!({ "flagKey": key, "context": context }).to_string().into_bytes();
                questions.push((path.clone(), "application/json", asked));
                let message = ResolveStringRequest { flag_key: key.into(), context: in_message.clone() };
                questions.push((path, "application/proto", message.encode_to_vec()));
            }
        }
    }
    questions
}

/// What is answered to each, asked in that order: its status and its body.
async fn said(pod: &Pod, selector: &str) -> Vec<(String, u16, Bytes)> {
    answers(pod, selector, questions()).await
}

/// What a pod says to each that is asked the last of them first: whoever was first there is not the first here.
async fn said_backwards(pod: &Pod, selector: &str) -> Vec<(String, u16, Bytes)> {
    let mut questions = questions();
    questions.reverse();
    let mut said = answers(pod, selector, questions).await;
    said.reverse();
    said
}

async fn answers(pod: &Pod, selector: &str, questions: Vec<(String, &'static str, Vec<u8>)>) -> Vec<(String, u16, Bytes)> {
    let stream = TcpStream::connect(pod.running.tcp).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut said = Vec::new();
    for (path, content_type, body) in questions {
        let request = Request::post(&path).header(header::HOST, "pod").header(header::CONTENT_TYPE, content_type);
        let request = request.header("flagd-selector", selector).body(Full::new(Bytes::from(body))).unwrap();
        soon(sender.ready()).await.unwrap();
        let (head, body) = soon(sender.send_request(request)).await.unwrap().into_parts();
        let body = soon(body.collect()).await.unwrap().to_bytes();
        said.push((format!("{path} as {content_type} with `{selector}`"), head.status.as_u16(), body));
    }
    said
}

#[tokio::test]
async fn the_second_answer_is_the_first_whoever_asked_before_and_however() {
    let asked = pod().await;
    for _ in 0..2 {
        for selector in SELECTORS {
            let fresh = pod().await;
            assert_eq!(said(&asked, selector).await, said_backwards(&fresh, selector).await);
        }
    }
    let ok = said(&asked, "").await.iter().filter(|(_, status, _)| *status == 200).count();
    assert!(ok > 100, "{ok}");
}

#[tokio::test]
async fn after_a_change_a_kill_and_its_end_everything_is_as_if_nobody_had_asked_before() {
    let change = "flags: { pay: { variants: { a: other, b: \"y\" }, defaultVariant: b, metadata: { flagSetId: test } } }";
    let steps: [fn(&mut Pod, &str); 4] = [
        |pod, change| _ = pod.apply(change),
        |pod, _| _ = pod.kill("new_checkout_flow"),
        |pod, _| _ = pod.kill("pay"),
        |pod, _| _ = pod.restore("pay"),
    ];
    let mut asked = pod().await;
    for done in 0..=steps.len() {
        let mut fresh = pod().await;
        steps[..done].iter().for_each(|step| step(&mut fresh, change));
        for selector in ["", "flagSetId=test", "a.json"] {
            assert_eq!(said(&asked, selector).await, said_backwards(&fresh, selector).await, "after {done} steps");
        }
        if let Some(step) = steps.get(done) {
            step(&mut asked, change);
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_kept_is_counted_as_any_other() {
    let pod = pod().await;
    let greeting = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(r#"yardarm_evaluations_total{flag="greeting",variant="short""#));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse::<usize>().unwrap())
    };
    said(&pod, "").await;
    let once = greeting(&metrics(&pod).await);
    // Of each person: five with all flags, one by OFREP, and four as a text.
    assert_eq!(once, 3 * (5 + 1 + 4));
    for times in 2..4 {
        said(&pod, "").await;
        assert_eq!(greeting(&metrics(&pod).await), times * once);
    }
}
