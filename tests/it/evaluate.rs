//! What `Evaluate`, `EvaluateBatch` and `EvaluateStream` promise, asked by a client over real sockets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic_types::StatusExt as _;
use yardarm::sidecar::Serve;
use yardarm::wire::v1::{
    Context, Decision, ErrorCode, EvaluateBatchRequest, EvaluateRequest, EvaluateStreamRequest, FlagSelector, Reason, ValueType,
    evaluate_stream_response,
};

use crate::pod::{FLAGS, Pod, evaluate, person, question, soon, unix_client};

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.into()))
}

fn attributes(attributes: &[(&str, Value)]) -> Option<Struct> {
    Some(Struct { fields: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() })
}

#[tokio::test]
async fn a_decision_carries_value_variant_reason_rule_bucket_and_revision() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let target = evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    assert_eq!((target.value.clone(), target.variant.as_str()), (Some(value(Kind::BoolValue(true))), "on"));
    assert_eq!((target.reason(), target.revision, target.flag_key.as_str()), (Reason::TargetingMatch, 1, "new_checkout_flow"));
    assert_eq!(target.error_code(), ErrorCode::Unspecified);
    let split = evaluate(&mut client, question("new_checkout_flow", person("user-1"))).await;
    assert_eq!((split.reason(), split.rule.as_str()), (Reason::Split, "rollout"));
    assert!(split.bucket.is_some_and(|bucket| bucket < 1_000_000));
    let plain = evaluate(&mut client, question("greeting", person("user-1"))).await;
    assert_eq!((plain.value.clone(), plain.reason(), plain.bucket), (Some(text("Hi")), Reason::Static, None));
}

#[tokio::test]
async fn every_type_of_value_comes_back_as_it_is_written() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let number = evaluate(&mut client, question("limit", Context::default())).await;
    assert_eq!(number.value, Some(value(Kind::NumberValue(10.5))));
    let object = evaluate(&mut client, question("sales_email", Context::default())).await;
    let list = prost_types::ListValue { values: vec![text("a"), text("b")] };
    let expected = attributes(&[
        ("prompt", text("sales-email-007")),
        ("version", text("2.2.1")),
        ("temperature", value(Kind::NumberValue(0.5))),
        ("stop", value(Kind::ListValue(list))),
        ("deep", value(Kind::StructValue(attributes(&[("er", value(Kind::BoolValue(true)))]).unwrap()))),
    ]);
    assert_eq!(object.value, Some(value(Kind::StructValue(expected.unwrap()))));
}

#[tokio::test]
async fn an_unknown_flag_answers_the_callers_default() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let default_value = Some(value(Kind::StructValue(attributes(&[("a", text("b"))]).unwrap())));
    let request = EvaluateRequest { default_value: default_value.clone(), ..question("nowhere", person("ana")) };
    let decision = evaluate(&mut client, request).await;
    assert_eq!((decision.value.clone(), decision.reason(), decision.error_code()), (default_value, Reason::Error, ErrorCode::FlagNotFound));
    assert_eq!((decision.variant.as_str(), decision.flag_key.as_str()), ("", "nowhere"));
    assert!(decision.error_message.contains("nowhere"), "{}", decision.error_message);
    let without = evaluate(&mut client, question("nowhere", person("ana"))).await;
    assert_eq!(without.value, None);
}

#[tokio::test]
async fn a_type_that_the_flag_has_not_is_a_mismatch_and_never_converted() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let by_default = EvaluateRequest { default_value: Some(text("10")), ..question("limit", person("ana")) };
    let by_type = EvaluateRequest { r#type: ValueType::Bool.into(), ..question("limit", person("ana")) };
    for (request, expected) in [(by_default, Some(text("10"))), (by_type, None)] {
        let decision = evaluate(&mut client, request).await;
        assert_eq!((decision.value.clone(), decision.reason(), decision.error_code()), (expected, Reason::Error, ErrorCode::TypeMismatch));
    }
    let null = EvaluateRequest { default_value: Some(value(Kind::NullValue(0))), ..question("limit", person("ana")) };
    assert_eq!(evaluate(&mut client, null).await.variant, "low");
    // The type wins over the type of the default.
    let both = EvaluateRequest { default_value: Some(text("10")), r#type: ValueType::Number.into(), ..question("limit", person("ana")) };
    assert_eq!(evaluate(&mut client, both).await.variant, "low");
}

#[tokio::test]
async fn a_disabled_flag_without_an_off_variant_answers_the_callers_default() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let default_value = Some(value(Kind::BoolValue(true)));
    let request = EvaluateRequest { default_value: default_value.clone(), ..question("legacy_api", person("ana")) };
    let decision = evaluate(&mut client, request).await;
    assert_eq!((decision.value.clone(), decision.variant.as_str(), decision.reason()), (default_value, "", Reason::Disabled));
    assert_eq!((decision.error_code(), decision.revision), (ErrorCode::Unspecified, 1));
}

#[tokio::test]
async fn a_sidecar_without_a_state_says_that_it_is_not_ready() {
    let mut pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    let mut client = pod.client().await;
    let request = EvaluateRequest { default_value: Some(text("mine")), ..question("greeting", person("ana")) };
    let decision = evaluate(&mut client, request.clone()).await;
    assert_eq!(
        (decision.value.clone(), decision.reason(), decision.error_code()),
        (Some(text("mine")), Reason::Error, ErrorCode::ProviderNotReady)
    );
    let asked = client.evaluate_batch(batch(&["greeting"], "", &[])).await.unwrap().into_inner().decisions;
    assert_eq!(asked[0].error_code(), ErrorCode::ProviderNotReady);
    // Nothing at all would say that there are no flags.
    for everything in [batch(&[], "", &[]), batch(&[], "gre", &[]), batch(&[], "", &["web"])] {
        let status = client.evaluate_batch(everything).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some(), "{status}");
    }
    pod.apply(FLAGS);
    assert_eq!(evaluate(&mut client, request).await.variant, "short");
}

#[tokio::test]
async fn a_kill_wins_over_targets_and_rules_and_a_restore_brings_them_back() {
    let mut pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    pod.kill("new_checkout_flow");
    let killed = evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    assert_eq!((killed.variant.as_str(), killed.reason(), killed.revision), ("off", Reason::Killed, 2));
    pod.restore("new_checkout_flow");
    let restored = evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    assert_eq!((restored.variant.as_str(), restored.reason()), ("on", Reason::TargetingMatch));
}

#[tokio::test]
async fn a_prerequisite_is_decided_for_the_same_context_and_falls_with_a_kill() {
    let mut pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    assert_eq!(evaluate(&mut client, question("needs_checkout", person("ana"))).await.variant, "on");
    pod.kill("new_checkout_flow");
    let failed = evaluate(&mut client, question("needs_checkout", person("ana"))).await;
    assert_eq!((failed.variant.as_str(), failed.reason()), ("off", Reason::PrerequisiteFailed));
    // The state at this revision replays the decision, and the one before it does not.
    assert_eq!(failed.revision, 2);
    let batched = client.evaluate_batch(batch(&["needs_checkout"], "", &[])).await.unwrap().into_inner().decisions.remove(0);
    assert_eq!(Decision { age_ms: 0, ..batched }, Decision { age_ms: 0, ..failed });
}

#[tokio::test]
async fn a_flag_and_its_prerequisites_are_decided_in_one_state() {
    // In each of the two states the flag is on; taken half from one and half from the other, it would be off.
    let state = |on: &str, off: &str| {
        let switch = |key: &str, variant: &str| format!("  {key}: {{ variants: {{ on: true, off: false }}, defaultVariant: {variant} }}\n");
        let flag = format!(
            "  flag: {{ variants: {{ on: true, off: false }}, defaultVariant: on, offVariant: off, prerequisites: [{{ flag: {on}, variants: [on] }}] }}\n"
        );
        format!("flags:\n{}{}{flag}", switch(on, "on"), switch(off, "off"))
    };
    let (one, other) = (state("left", "right"), state("right", "left"));
    let pod = Pod::start(&one).await;
    let mut client = pod.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let (running, _shutdown, mut hand) = pod.into_parts();
    let writing = std::thread::spawn(move || {
        let mut changes = 0;
        while !stopped.load(Ordering::Relaxed) {
            hand.apply(if changes % 2 == 0 { &other } else { &one });
            changes += 1;
        }
        changes
    });
    for _ in 0..2000 {
        let decision = soon(evaluate(&mut client, question("flag", person("ana")))).await;
        assert_eq!((decision.variant.as_str(), decision.reason()), ("on", Reason::Default), "at revision {}", decision.revision);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.join().unwrap() > 2, "nothing changed meanwhile on {}", running.tcp);
}

#[tokio::test]
async fn attributes_of_every_shape_reach_the_rules() {
    let flags = r#"
flags:
  shaped:
    variants: { "yes": true, "no": false }
    defaultVariant: "no"
    rules:
      - name: all
        when:
          - { attribute: plan, equals: pro }
          - { attribute: seats, greaterThan: 10 }
          - { attribute: internal, equals: true }
          - { attribute: roles, contains: admin }
          - { attribute: company.address.country, in: [CH, AT] }
        serve: "yes"
"#;
    let pod = Pod::start(flags).await;
    let mut client = pod.client().await;
    let address = value(Kind::StructValue(attributes(&[("country", text("CH"))]).unwrap()));
    let company = value(Kind::StructValue(attributes(&[("address", address)]).unwrap()));
    let roles = value(Kind::ListValue(prost_types::ListValue { values: vec![text("dev"), text("admin")] }));
    let all = [
        ("plan", text("pro")),
        ("seats", value(Kind::NumberValue(11.0))),
        ("internal", value(Kind::BoolValue(true))),
        ("roles", roles),
        ("company", company),
    ];
    let ask = |attributes| question("shaped", Context { targeting_key: "ana".into(), attributes });
    let matched = evaluate(&mut client, ask(attributes(&all))).await;
    assert_eq!((matched.variant.as_str(), matched.rule.as_str()), ("yes", "all"));
    for without in 0..all.len() {
        let rest: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, attribute)| attribute.clone()).collect();
        assert_eq!(evaluate(&mut client, ask(attributes(&rest))).await.variant, "no", "without {}", all[without].0);
    }
}

#[tokio::test]
async fn a_split_without_its_key_serves_the_default_and_says_so() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let decision = evaluate(&mut client, question("new_checkout_flow", Context::default())).await;
    assert_eq!((decision.variant.as_str(), decision.bucket, decision.error_code()), ("off", None, ErrorCode::Unspecified));
    assert!(decision.error_message.contains("absent"), "{}", decision.error_message);
}

fn batch(keys: &[&str], prefix: &str, tags: &[&str]) -> EvaluateBatchRequest {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let selector = FlagSelector { keys: own(keys), prefix: prefix.into(), tags: own(tags) };
    EvaluateBatchRequest { selector: Some(selector), context: Some(person("ana")) }
}

#[tokio::test]
async fn a_batch_takes_keys_prefix_tags_or_everything() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let all = ["greeting", "legacy_api", "limit", "needs_checkout", "new_checkout_flow", "sales_email"];
    for (request, expected) in [
        (EvaluateBatchRequest { selector: None, context: Some(person("ana")) }, &all[..]),
        (batch(&[], "", &[]), &all[..]),
        (batch(&["limit", "greeting", "limit"], "", &[]), &["limit", "greeting", "limit"][..]),
        (batch(&[], "ne", &[]), &["needs_checkout", "new_checkout_flow"][..]),
        (batch(&[], "", &["web", "checkout"]), &["new_checkout_flow"][..]),
        (batch(&[], "", &["web", "sales"]), &[][..]),
        (batch(&["greeting", "new_checkout_flow"], "new", &["web"]), &["new_checkout_flow"][..]),
    ] {
        let answer = client.evaluate_batch(request.clone()).await.unwrap().into_inner();
        let keys: Vec<_> = answer.decisions.iter().map(|decision| decision.flag_key.as_str()).collect();
        assert_eq!(keys, expected, "{request:?}");
        assert_eq!(answer.position.map(|position| position.revision), Some(1));
    }
    let missing = client.evaluate_batch(batch(&["nowhere", "limit"], "", &[])).await.unwrap().into_inner().decisions;
    assert_eq!(missing.iter().map(Decision::error_code).collect::<Vec<_>>(), [ErrorCode::FlagNotFound, ErrorCode::Unspecified]);
    let single = evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    let batched = client.evaluate_batch(batch(&["new_checkout_flow"], "", &[])).await.unwrap().into_inner().decisions.remove(0);
    assert_eq!(Decision { age_ms: 0, ..batched }, Decision { age_ms: 0, ..single });
}

/// The first answer of a kind is encoded whole, those after it out of what was kept of it; a traced one is always encoded whole.
#[tokio::test]
async fn an_answer_is_the_same_the_second_time_and_another_one_after_a_kill() {
    let mut pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let everything = |context: Context| EvaluateBatchRequest { selector: None, context: Some(context) };
    let people: Vec<_> = ["ana", "ben", "cleo", "dora", "emil"].map(person).into_iter().chain([Context::default()]).collect();
    let ageless = |decisions: Vec<Decision>| decisions.into_iter().map(|decision| Decision { age_ms: 0, ..decision }).collect::<Vec<_>>();
    let mut first = Vec::new();
    for context in &people {
        first.push(ageless(client.evaluate_batch(everything(context.clone())).await.unwrap().into_inner().decisions));
    }
    for (context, first) in people.iter().zip(&first) {
        let again = client.evaluate_batch(everything(context.clone())).await.unwrap().into_inner().decisions;
        assert_eq!(&ageless(again), first);
        for expected in first {
            let alone = evaluate(&mut client, question(&expected.flag_key, context.clone())).await;
            assert_eq!(&Decision { age_ms: 0, ..alone }, expected);
        }
    }
    pod.kill("new_checkout_flow");
    let killed = evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    assert_eq!((killed.reason(), killed.revision), (Reason::Killed, 2));
    pod.restore("new_checkout_flow");
    let restored = evaluate(&mut client, question("new_checkout_flow", person("ana"))).await;
    let before = first[0].iter().find(|decision| decision.flag_key == "new_checkout_flow").unwrap();
    assert_eq!(Decision { age_ms: 0, ..restored }, Decision { revision: 3, ..before.clone() });
}

#[tokio::test]
async fn a_batch_of_more_names_than_a_selector_takes_is_refused_by_the_field() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let selector = FlagSelector { keys: vec!["k".to_owned(); 20_001], ..Default::default() };
    let refused = client.evaluate_batch(EvaluateBatchRequest { selector: Some(selector), context: None }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let violations = refused.get_error_details().bad_request().unwrap().field_violations.clone();
    assert_eq!((violations[0].field.as_str(), violations[0].description.contains("20000")), ("selector", true), "{violations:?}");
}

fn pair(version: u64) -> String {
    let flag = |key: &str| format!("  {key}: {{ variants: {{ v: {version} }}, defaultVariant: v }}\n");
    format!("flags:\n{}{}", flag("left"), flag("right"))
}

#[tokio::test]
async fn a_batch_never_mixes_two_revisions_of_one_change() {
    let mut pod = Pod::start(&pair(0)).await;
    let mut client = pod.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    pod.apply(&pair(1));
    let (running, _shutdown, mut hand) = pod.into_parts();
    let writing = std::thread::spawn(move || {
        let mut version = 1;
        while !stopped.load(Ordering::Relaxed) {
            version += 1;
            hand.apply(&pair(version));
        }
        version
    });
    let mut seen = BTreeSet::new();
    for _ in 0..2000 {
        let answer = soon(client.evaluate_batch(batch(&["left", "right"], "", &[]))).await.unwrap().into_inner();
        let values: Vec<_> = answer.decisions.iter().map(|decision| decision.value.clone()).collect();
        assert_eq!(values[0], values[1]);
        assert_eq!(answer.decisions[0].revision, answer.decisions[1].revision);
        seen.insert(answer.decisions[0].revision);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.join().unwrap() > 2 && seen.len() > 2, "nothing changed meanwhile on {}", running.tcp);
}

#[tokio::test]
async fn a_stream_echoes_ids_and_goes_on_after_a_question_that_cannot_be_taken() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let deep = (0..40).fold(text("end"), |inner, _| value(Kind::ListValue(prost_types::ListValue { values: vec![inner] })));
    let too_deep = Context { targeting_key: "ana".into(), attributes: attributes(&[("deep", deep)]) };
    let questions = [
        (7, question("greeting", person("ana"))),
        (8, question("greeting", too_deep)),
        (u64::MAX, question("nowhere", person("ana"))),
        (0, question("limit", person("ana"))),
    ];
    let requests = questions.map(|(id, request)| EvaluateStreamRequest { id, request: Some(request) });
    let mut answers = client.evaluate_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut heard = Vec::new();
    while let Some(answer) = soon(answers.message()).await.unwrap() {
        heard.push((
            answer.id,
            match answer.result.unwrap() {
                evaluate_stream_response::Result::Decision(decision) => decision.variant,
                evaluate_stream_response::Result::Error(error) => format!("code {}: {}", error.code, error.message),
            },
        ));
    }
    let ids: Vec<_> = heard.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [7, 8, u64::MAX, 0]);
    assert_eq!((heard[0].1.as_str(), heard[2].1.as_str(), heard[3].1.as_str()), ("short", "", "low"));
    assert!(heard[1].1.starts_with("code 3") && heard[1].1.contains("context.attributes.deep"), "{}", heard[1].1);
}

#[tokio::test]
async fn a_caller_that_does_not_read_its_answers_is_stopped_and_loses_none() {
    const QUESTIONS: u64 = 100_000;
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let (said, last_asked) = tokio::sync::oneshot::channel();
    let mut said = Some(said);
    let questions = tokio_stream::iter((0..QUESTIONS).map(move |id| {
        if id + 1 == QUESTIONS {
            // Nobody hears it when the wait below is over, as it should be.
            let _ = said.take().map(|said| said.send(()));
        }
        EvaluateStreamRequest { id, request: Some(question("sales_email", person("ana"))) }
    }));
    let mut answers = client.evaluate_stream(questions).await.unwrap().into_inner();
    // Nobody reads: the windows of both sides fill, and then no further question is taken.
    let all_taken = tokio::time::timeout(Duration::from_millis(500), last_asked).await;
    assert!(all_taken.is_err(), "all {QUESTIONS} questions were taken although no answer was read");
    let mut next = 0;
    while let Some(answer) = soon(answers.message()).await.unwrap() {
        assert_eq!(answer.id, next);
        next += 1;
    }
    assert_eq!(next, QUESTIONS);
}

#[tokio::test]
async fn the_unix_socket_serves_the_same_and_goes_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("yardarm.sock");
    let pod = Pod::start_with(&Serve { threads: Some(2), socket: Some(path.clone()), ..Serve::default() }, FLAGS).await;
    let mut by_unix = unix_client(&path).await;
    let mut by_tcp = pod.client().await;
    for key in ["greeting", "new_checkout_flow", "sales_email", "nowhere"] {
        let (unix, tcp) =
            (evaluate(&mut by_unix, question(key, person("ana"))).await, evaluate(&mut by_tcp, question(key, person("ana"))).await);
        assert_eq!(Decision { age_ms: 0, ..unix }, Decision { age_ms: 0, ..tcp });
    }
    assert_eq!(pod.stop().await, []);
    assert!(!path.exists());
}

#[tokio::test]
async fn flags_with_prerequisites_answer_while_they_change() {
    let mut pod = Pod::start(FLAGS).await;
    let channel = pod.channel().await;
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = yardarm::wire::v1::evaluation_client::EvaluationClient::new(channel.clone());
            tokio::spawn(async move {
                for _ in 0..2000 {
                    evaluate(&mut client, question("needs_checkout", person("ana"))).await;
                }
            })
        })
        .collect();
    let hand = pod.hand();
    // Writers and readers meet on the same shards; a guard held over a second look-up would stop them for good.
    while !askers.iter().all(tokio::task::JoinHandle::is_finished) {
        hand.toggle("new_checkout_flow", true);
        hand.toggle("needs_checkout", true);
        hand.toggle("new_checkout_flow", false);
        hand.toggle("needs_checkout", false);
        tokio::task::yield_now().await;
    }
    for asker in askers {
        soon(asker).await.unwrap();
    }
}
