//! A watch that was broken off and goes on where it was: it may hear something again, it misses nothing, and a kill stays a kill.

use tonic::Streaming;
use yardarm::wire::v1::flag_change::Type;
use yardarm::wire::v1::watch_flags_response::Event;
use yardarm::wire::v1::{FlagSelector, Position, WatchFlagsRequest, WatchFlagsResponse};

use crate::pod::{FLAGS, Pod, person, watch_keys};
use crate::watch::{Watch, everything, flag, values};

/// Where a watch stands that has heard everything.
async fn position(pod: &Pod) -> Position {
    Watch::open(pod, everything()).await.snapshot().await.0
}

async fn resumed(pod: &Pod, position: Position, request: WatchFlagsRequest) -> Watch {
    Watch::open(pod, WatchFlagsRequest { resume: Some(position), ..request }).await
}

/// What is told before the heartbeat that says that it was all.
async fn missed(pod: &Pod, position: Position, request: WatchFlagsRequest) -> Vec<(String, Type)> {
    let Watch(mut events) = resumed(pod, position, request).await;
    let mut missed = Vec::new();
    loop {
        match next(&mut events).await {
            Event::Change(change) => missed.push((change.flag.as_ref().unwrap().key.clone(), change.r#type())),
            Event::Heartbeat(_) => return missed,
            Event::Snapshot(_) => panic!("a snapshot"),
        }
    }
}

async fn next(events: &mut Streaming<WatchFlagsResponse>) -> Event {
    crate::pod::soon(events.message()).await.unwrap().unwrap().event.unwrap()
}

fn told(key: &str, as_what: Type) -> Vec<(String, Type)> {
    vec![(key.to_owned(), as_what)]
}

#[tokio::test]
async fn a_kill_is_heard_although_a_prerequisite_changed_since() {
    let mut pod = Pod::start(FLAGS).await;
    let before = position(&pod).await;
    pod.kill("needs_checkout");
    pod.kill("new_checkout_flow");
    assert_eq!(missed(&pod, before, watch_keys(&["needs_checkout"])).await, told("needs_checkout", Type::Killed));
}

#[tokio::test]
async fn an_update_is_heard_although_a_prerequisite_changed_since() {
    let mut pod = Pod::start(FLAGS).await;
    let before = position(&pod).await;
    let description = "description: new, variants: { \"on\": true, \"off\": false }, defaultVariant: \"on\", offVariant: \"off\"";
    let prerequisite = "prerequisites: [ { flag: new_checkout_flow, variants: [\"on\"] } ]";
    pod.apply(&format!("flags: {{ needs_checkout: {{ {description}, {prerequisite} }} }}"));
    pod.kill("new_checkout_flow");
    assert_eq!(missed(&pod, before, watch_keys(&["needs_checkout"])).await, told("needs_checkout", Type::Updated));
}

#[tokio::test]
async fn a_kill_is_heard_as_one_and_first_although_the_flag_was_edited_since() {
    let mut pod = Pod::start(FLAGS).await;
    let before = position(&pod).await;
    pod.apply(&flag("limit", "a"));
    pod.kill("greeting");
    pod.apply(&flag("greeting", "b"));
    let heard = missed(&pod, before, everything()).await;
    assert_eq!(heard, [told("greeting", Type::Killed), told("limit", Type::Updated)].concat());
    let change = resumed(&pod, before, watch_keys(&["greeting"])).await.change().await;
    // As it is now.
    assert_eq!((change.flag.as_ref().unwrap().revision, change.flag.as_ref().unwrap().killed, change.position), (4, true, None));
}

#[tokio::test]
async fn a_restore_is_heard_as_one_although_the_flag_was_edited_since() {
    let mut pod = Pod::start(FLAGS).await;
    pod.kill("greeting");
    let before = position(&pod).await;
    pod.restore("greeting");
    pod.apply(&flag("greeting", "b"));
    assert_eq!(missed(&pod, before, everything()).await, told("greeting", Type::Restored));
}

#[tokio::test]
async fn a_flag_that_was_killed_deleted_and_created_again_was_not_restored() {
    let mut pod = Pod::start(FLAGS).await;
    let before = position(&pod).await;
    pod.kill("greeting");
    pod.restore("greeting");
    pod.delete("greeting");
    pod.apply(&flag("greeting", "b"));
    assert_eq!(missed(&pod, before, everything()).await, told("greeting", Type::Updated));
}

#[tokio::test]
async fn a_kill_by_the_lane_is_heard_although_the_log_did_not_move_and_the_state_was_loaded_as_a_whole_since() {
    let mut pod = Pod::start(FLAGS).await;
    let before = position(&pod).await;
    pod.hand().announce_kill("greeting");
    assert_eq!(missed(&pod, before, everything()).await, told("greeting", Type::Killed));
    pod.hand().resync();
    assert_eq!(missed(&pod, before, everything()).await, told("greeting", Type::Killed));
    // With its log the kill is history, and the position says so.
    pod.kill("greeting");
    assert_eq!(missed(&pod, position(&pod).await, everything()).await, []);
}

#[tokio::test]
async fn a_flag_that_left_a_selection_is_told_as_deleted_once_and_gives_no_position() {
    let tagged = |tags: &str| format!("flags: {{ watched: {{ tags: [{tags}], variants: {{ a: 1 }}, defaultVariant: a }} }}");
    let mut pod = Pod::start(FLAGS).await;
    pod.apply(&tagged("core"));
    let before = position(&pod).await;
    pod.apply(&tagged("web"));
    let selector = Some(FlagSelector { tags: vec!["core".into()], ..FlagSelector::default() });
    let mut watch = resumed(&pod, before, WatchFlagsRequest { selector, ..everything() }).await;
    let change = watch.change().await;
    assert_eq!((change.r#type(), change.position), (Type::Deleted, None));
    let heartbeat = watch.event().await;
    assert!(matches!(heartbeat, Event::Heartbeat(_)), "{heartbeat:?}");
    pod.apply(&tagged("web, old"));
    pod.apply(&tagged("core"));
    let mut heard = vec![watch.next().await.1];
    while heard.last() != Some(&Type::Updated) {
        heard.push(watch.next().await.1);
    }
    assert_eq!(heard, [Type::Updated], "nothing more was to be told of a flag outside");
}

#[tokio::test]
async fn a_watcher_of_values_hears_what_a_prerequisite_changed_while_it_was_away() {
    let mut pod = Pod::start(FLAGS).await;
    let before = position(&pod).await;
    pod.kill("new_checkout_flow");
    let mut watch = resumed(&pod, before, values(&["needs_checkout"], vec![person("ana")])).await;
    assert_eq!(watch.change().await.flag.unwrap().decisions[0].variant, "off");
}
