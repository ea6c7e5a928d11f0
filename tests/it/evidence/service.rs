//! The real executables: sidecars that report, a control plane that is killed between two reports, and what it knows afterwards.

use std::time::Duration;

use tonic::transport::Channel;
use yardarm::wire::v1::admin_client::AdminClient;
use yardarm::wire::v1::evidence_client::EvidenceClient;
use yardarm::wire::v1::tracking_client::TrackingClient;
use yardarm::wire::v1::*;

use super::{DOCUMENT, outcome};
use crate::process::{Process, channel, command};

fn intent() -> Option<Intent> {
    Some(Intent { actor: "ana".into(), reason: "a test".into(), expect_revision: None })
}

async fn apply(control: &Process) {
    let request = ApplyRequest { environment: "default".into(), document: DOCUMENT.into(), dry_run: false, intent: intent() };
    control.admin().apply(request).await.unwrap();
}

async fn known(admin: &mut AdminClient<Channel>) -> GetEvidenceResponse {
    let request = GetEvidenceRequest { environment: "default".into(), flag_key: "checkout".into() };
    admin.get_evidence(request).await.unwrap().into_inner()
}

/// Of the newest revision: units, outcomes that failed, all outcomes, and the sum of revenue.
fn totals(known: &GetEvidenceResponse) -> (u64, u64, u64, u64) {
    let mut totals = (0, 0, 0, 0);
    for variant in known.epochs.first().map(|epoch| &*epoch.variants).unwrap_or_default() {
        totals.0 += variant.units;
        for metric in &variant.metrics {
            match metric.metric.as_str() {
                "errors" => (totals.1, totals.2) = (totals.1 + metric.k_raw, totals.2 + metric.n_raw),
                _ => totals.3 += (metric.estimate.unwrap_or_default() * variant.units as f64).round() as u64,
            }
        }
    }
    totals
}

/// Looks until the control plane knows that much.
async fn becomes(control: &Process, expected: (u64, u64, u64, u64)) -> GetEvidenceResponse {
    let mut admin = control.admin();
    let mut last = GetEvidenceResponse::default();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let looking = async {
        loop {
            look.tick().await;
            last = known(&mut admin).await;
            if totals(&last) == expected {
                return;
            }
        }
    };
    let is_known = tokio::time::timeout(Duration::from_secs(60), looking).await.is_ok();
    assert!(is_known, "{:?} and not {expected:?}: {last:#?}", totals(&last));
    last
}

/// Asks for each unit, and reports an outcome of it.
async fn use_it(sidecar: &Process, units: std::ops::Range<usize>, errors: f64) {
    let mut evaluation = sidecar.evaluation();
    for unit in units.clone() {
        let context = Some(Context { targeting_key: format!("user-{unit}"), attributes: None });
        let request = EvaluateRequest { flag_key: "checkout".into(), context, default_value: None, r#type: 0 };
        let decision = evaluation.evaluate(request).await.unwrap().into_inner().decision.unwrap();
        assert!(!decision.variant.is_empty(), "{decision:?}");
    }
    let of = |unit: usize| {
        let key = format!("user-{unit}");
        [Outcome { value: Some(errors), ..outcome("errors", &key) }, Outcome { value: Some(10.0), ..outcome("paid", &key) }]
    };
    let outcomes: Vec<_> = units.flat_map(of).collect();
    let count = outcomes.len() as u32;
    let answer = TrackingClient::new(channel(sidecar.tcp())).track(TrackRequest { outcomes }).await.unwrap().into_inner();
    assert_eq!((answer.attributed, answer.unattributed), (count, 0));
}

async fn serves(sidecar: &Process) {
    let mut evaluation = sidecar.evaluation();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let looking = async {
        loop {
            look.tick().await;
            let context = Some(Context::default());
            let request = EvaluateRequest { flag_key: "checkout".into(), context, default_value: None, r#type: 0 };
            if evaluation
                .evaluate(request)
                .await
                .is_ok_and(|answer| answer.get_ref().decision.as_ref().is_some_and(|decision| !decision.variant.is_empty()))
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("the sidecar has the flag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_of_two_sidecars_count_once_through_a_kill_of_the_control_plane() {
    let (data, first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = Process::control(data.path());
    let address = control.grpc().to_owned();
    apply(&control).await;
    let sidecars = [Process::sidecar(&address, first.path(), "one"), Process::sidecar(&address, second.path(), "two")];
    for sidecar in &sidecars {
        serves(sidecar).await;
    }
    // Units 50 to 99 come to both.
    use_it(&sidecars[0], 0..100, 1.0).await;
    use_it(&sidecars[1], 50..150, 0.0).await;
    let before = becomes(&control, (150, 100, 200, 2_000)).await;
    assert!(before.epochs[0].variants.len() == 2 && before.epochs[0].crossover == 0, "{before:#?}");
    let reach: f64 = before.reach.iter().map(|reach| reach.people).sum();
    assert!((145.0..155.0).contains(&reach), "{reach}");

    control.kill_9();
    use_it(&sidecars[0], 100..200, 1.0).await;
    let control = Process::control_at(data.path(), &address);
    assert_eq!(totals(&known(&mut control.admin()).await), (150, 100, 200, 2_000), "what was acknowledged is there");
    use_it(&sidecars[1], 200..210, 1.0).await;
    let [one, two] = sidecars;
    // Who is asked to end reports first.
    assert!(one.stop().success() && two.stop().success());
    let after = becomes(&control, (210, 210, 310, 3_100)).await;
    assert_eq!(after.epochs[0].crossover, 0);

    let told = command().args(["evidence", "checkout", "--control-plane", &format!("http://{address}")]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success() && text.contains("errors") && text.contains("saw on"), "{text}");
}

fn report(seq: u64, flag_key: &str, k: u64) -> ReportRequest {
    let counters = vec![CounterEvidence { metric: 0, n: 10, k, n_raw: 10, k_raw: k, failing: Vec::new() }];
    let variants = vec![VariantEvidence { variant: "on".into(), exposures: 10, counters, units: Vec::new() }];
    let metrics = vec![MetricName { name: "errors".into(), shape: MetricShape::Share.into() }];
    let epochs = vec![EpochEvidence { flag_key: flag_key.into(), revision: 2, life: 0, sampling_rate: 1.0, metrics, variants }];
    let identity = Some(Identity { instance: "one".into(), pod: "one".into(), ..Default::default() });
    ReportRequest { environment: "default".into(), identity, boot: vec![7; 16], seq, epochs }
}

#[tokio::test]
async fn a_report_that_is_sent_twice_counts_once_and_a_flag_takes_its_evidence_with_it() {
    let data = tempfile::tempdir().unwrap();
    let control = Process::control(data.path());
    apply(&control).await;
    let mut client = EvidenceClient::new(channel(control.grpc()));
    let mut send = async |report: ReportRequest| client.report(report).await.map(|answer| answer.into_inner().counted);
    assert_eq!((send(report(1, "checkout", 3)).await.unwrap(), send(report(1, "checkout", 3)).await.unwrap()), (true, false));
    // Nothing is kept of a flag that is not there.
    send(report(2, "typo", 9)).await.unwrap();
    assert_eq!(totals(&known(&mut control.admin()).await), (0, 3, 10, 0));
    assert_eq!(
        send(ReportRequest { environment: "nowhere".into(), ..report(3, "checkout", 3) }).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    assert_eq!(send(ReportRequest { boot: vec![1], ..report(3, "checkout", 3) }).await.unwrap_err().code(), tonic::Code::InvalidArgument);

    let delete = DeleteFlagRequest { environment: "default".into(), key: "checkout".into(), intent: intent(), kind: 0 };
    control.admin().delete_flag(delete).await.unwrap();
    apply(&control).await;
    becomes(&control, (0, 0, 0, 0)).await;
}

#[tokio::test]
async fn a_metric_is_pushed_by_version_and_checked_against_the_flag() {
    let data = tempfile::tempdir().unwrap();
    let control = Process::control(data.path());
    apply(&control).await;
    let mut admin = control.admin();
    let arm =
        |variant: &str, k| PushedArm { variant: variant.into(), statistics: Some(pushed_arm::Statistics::Share(ShareSums { n: 100, k })) };
    let push = |version, arms| PushMetricRequest {
        environment: "default".into(),
        flag_key: "checkout".into(),
        metric: "errors".into(),
        version,
        watermark: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        arms,
        intent: intent(),
    };
    assert!(admin.push_metric(push(2, vec![arm("on", 5), arm("off", 4)])).await.unwrap().into_inner().taken);
    for version in [2, 1] {
        assert!(!admin.push_metric(push(version, vec![arm("on", 9)])).await.unwrap().into_inner().taken);
    }
    let pushed = known(&mut admin).await.pushed;
    assert_eq!((pushed.len(), pushed[0].version, pushed[0].arms.len()), (1, 2, 2));
    for (wrong, field) in [
        (push(0, vec![arm("on", 5)]), "version"),
        (PushMetricRequest { metric: "typo".into(), ..push(3, Vec::new()) }, "metric"),
        (PushMetricRequest { metric: "revenue".into(), ..push(3, vec![arm("on", 5)]) }, "arms.statistics"),
        (push(3, vec![arm("on", 101)]), "arms.statistics"),
        (push(3, vec![arm("blue", 5)]), "arms.variant"),
        (push(3, vec![arm("on", 5), arm("on", 5)]), "arms.variant"),
        (PushMetricRequest { watermark: None, ..push(3, Vec::new()) }, "watermark"),
        (PushMetricRequest { intent: None, ..push(3, Vec::new()) }, "intent"),
    ] {
        let refused = admin.push_metric(wrong).await.unwrap_err();
        assert!(refused.message().starts_with(field), "{field}: {}", refused.message());
    }
}

/// Nothing that a gate reads comes from nobody, and what changes nothing is not noted.
#[tokio::test]
async fn a_metric_that_was_taken_is_in_the_audit_log_once_with_whoever_pushed_it() {
    let data = tempfile::tempdir().unwrap();
    let control = Process::control(data.path());
    apply(&control).await;
    let push = |version, actor: &str, reason: &str| PushMetricRequest {
        environment: "default".into(),
        flag_key: "checkout".into(),
        metric: "errors".into(),
        version,
        watermark: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        arms: Vec::new(),
        intent: Some(Intent { actor: actor.into(), reason: reason.into(), expect_revision: None }),
    };
    let admin = control.admin();
    let send = |request| {
        let mut admin = admin.clone();
        tokio::spawn(async move { admin.push_metric(request).await.map(|answer| answer.into_inner().taken) })
    };
    // The same at once: one is taken, and one noted.
    let sent = [send(push(3, "warehouse", "nightly")), send(push(3, "warehouse", "nightly"))];
    let mut taken = 0;
    for sent in sent {
        taken += u32::from(sent.await.unwrap().unwrap());
    }
    assert_eq!(taken, 1);
    assert!(!send(push(2, "eve", "late")).await.unwrap().unwrap());
    assert!(send(push(4, "ana", "")).await.unwrap().unwrap(), "a reason may be empty");
    for (wrong, field) in [(push(5, "", ""), "intent.actor"), (PushMetricRequest { metric: "typo".into(), ..push(5, "ana", "") }, "metric")]
    {
        assert!(send(wrong).await.unwrap().unwrap_err().message().starts_with(field), "{field}");
    }
    let query = ListAuditRequest { environment: "default".into(), flag_key: "checkout".into(), ..Default::default() };
    let entries = admin.clone().list_audit(query).await.unwrap().into_inner().entries;
    let told: Vec<_> = entries
        .iter()
        .filter(|entry| entry.action == "push-metric")
        .map(|entry| (entry.actor.as_str(), entry.reason.as_str(), entry.detail.as_str()))
        .collect();
    let of = |version: u64| format!("metric errors, version {version}, complete up to 2023-11-14T22:13:20Z");
    assert_eq!(told, [("ana", "", of(4).as_str()), ("warehouse", "nightly", of(3).as_str())]);
    let verdict = admin.clone().verify_audit(VerifyAuditRequest {}).await.unwrap().into_inner();
    assert!(verdict.intact, "{}", verdict.problem);
}
