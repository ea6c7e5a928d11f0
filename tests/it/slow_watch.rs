//! Watchers that do not read: what they hold, whom they delay, and what they hear first when they read again.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use tonic::transport::{Channel, Endpoint};
use yardarm::wire::v1::WatchFlagsRequest;
use yardarm::wire::v1::evaluation_client::EvaluationClient;
use yardarm::wire::v1::flag_change::Type;
use yardarm::wire::v1::watch_flags_request::Detail;
use yardarm::wire::v1::watch_flags_response::Event;

use crate::pod::{FLAGS, Pod};
use crate::watch::{Watch, everything, flag};

/// A channel whose streams take little before they have to be read.
async fn narrow(pod: &Pod) -> EvaluationClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", pod.running.tcp)).unwrap();
    EvaluationClient::new(endpoint.initial_stream_window_size(65_535).connect().await.unwrap())
}

#[tokio::test]
async fn a_watcher_that_does_not_read_has_little_waiting_for_it_and_then_hears_the_kill_first_and_the_latest_state_of_each_key() {
    const CHANGES: u64 = 10_000;
    let last = |key: &str| key.strip_prefix("busy-").and_then(|key| key.parse().ok()).map(|key: u64| CHANGES - 50 + key + 2);
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch(narrow(&pod).await.watch_flags(everything()).await.unwrap().into_inner());
    watch.snapshot().await;
    let mut reader = Watch::open(&pod, everything()).await;
    reader.snapshot().await;
    let hand = pod.hand();
    for number in 0..CHANGES {
        let variant = if number % 2 == 0 { "a" } else { "b" };
        hand.apply(&flag(&format!("busy-{}", number % 50), variant));
    }
    hand.apply(&flag("greeting", "c"));
    hand.toggle("greeting", true);
    hand.apply(&flag("mark", "a"));
    // One that reads is not kept waiting by the other.
    reader.until("mark").await;

    let mut latest = BTreeMap::new();
    let (mut messages, mut bytes, mut kill_at) = (0, 0, None);
    let mut since_kill = BTreeSet::new();
    loop {
        let change = watch.change().await;
        let state = change.flag.clone().unwrap();
        messages += 1;
        if change.r#type() == Type::Killed {
            assert_eq!(state.key, "greeting");
            kill_at = Some((messages, bytes));
        } else if kill_at.is_some() {
            assert!(since_kill.insert(state.key.clone()), "{} was told twice after the kill", state.key);
        } else {
            // What had been written before it stopped to read comes before the kill; of what was not, nothing does.
            bytes += 5 + change.encoded_len();
            assert_ne!(Some(state.revision), last(&state.key), "{} overtook the kill", state.key);
        }
        latest.insert(state.key.clone(), state.revision);
        if latest.contains_key("mark") && latest.len() == 52 {
            break;
        }
    }
    // A window of 64 KiB and what is written together behind it: about 1,500 messages. All changes would be 10,000.
    let (before, bytes) = kill_at.unwrap();
    assert!(bytes < 128 * 1024, "{before} messages, {bytes} bytes waited for a watcher that did not read");
    // The kill, and each key once.
    assert_eq!(messages - before, 51);
    for key in (0..50).map(|key| format!("busy-{key}")) {
        assert_eq!(Some(latest[&key]), last(&key), "{key}");
    }
}

#[tokio::test]
async fn a_kill_overtakes_the_rest_of_a_snapshot() {
    let flags: String = (0..15_000).map(|n| format!("  flag-{n:05}: {{ variants: {{ a: 1 }}, defaultVariant: a }}\n")).collect();
    let mut pod = Pod::start(&format!("flags:\n{flags}")).await;
    let request = WatchFlagsRequest { detail: Detail::Definitions.into(), ..everything() };
    let mut watch = Watch(narrow(&pod).await.watch_flags(request).await.unwrap().into_inner());
    assert!(matches!(watch.event().await, Event::Snapshot(_)));
    pod.kill("flag-14999");
    let mut parts_after_the_kill = 0;
    let mut killed = false;
    loop {
        match watch.event().await {
            Event::Snapshot(part) => {
                parts_after_the_kill += u32::from(killed);
                if part.last {
                    break;
                }
            }
            Event::Change(change) => killed = change.r#type() == Type::Killed,
            Event::Heartbeat(_) => {}
        }
    }
    assert!(killed && parts_after_the_kill > 20, "{parts_after_the_kill} parts came after the kill");
}
