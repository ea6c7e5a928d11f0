//! What `WatchFlags` promises, heard by a client over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;
use yardarm::sidecar::{Limits, Serve};
use yardarm::wire::v1::flag_change::Type;
use yardarm::wire::v1::watch_flags_request::Detail;
use yardarm::wire::v1::watch_flags_response::Event;
use yardarm::wire::v1::{Context, ErrorCode, FlagChange, FlagSelector, FlagState, Position, Reason};
use yardarm::wire::v1::{WatchFlagsRequest, WatchFlagsResponse, WatchSnapshot};

use crate::pod::{EPOCH, FLAGS, Pod, person, soon, watch_keys};

pub struct Watch(pub Streaming<WatchFlagsResponse>);

impl Watch {
    pub async fn open(pod: &Pod, request: WatchFlagsRequest) -> Self {
        Self(pod.client().await.watch_flags(request).await.unwrap().into_inner())
    }

    pub async fn event(&mut self) -> Event {
        soon(self.0.message()).await.unwrap().expect("a watch never ends with OK").event.expect("an event")
    }

    /// All parts of a snapshot, by key.
    pub async fn snapshot(&mut self) -> (Position, BTreeMap<String, FlagState>) {
        let mut flags = BTreeMap::new();
        loop {
            let Event::Snapshot(WatchSnapshot { position, flags: part, last }) = self.event().await else { panic!("no snapshot") };
            flags.extend(part.into_iter().map(|flag| (flag.key.clone(), flag)));
            if last {
                return (position.unwrap(), flags);
            }
        }
    }

    pub async fn change(&mut self) -> FlagChange {
        match self.event().await {
            Event::Change(change) => change,
            other => panic!("{other:?} is no change"),
        }
    }

    /// Key and type of the next change.
    pub async fn next(&mut self) -> (String, Type) {
        let change = self.change().await;
        (change.flag.as_ref().unwrap().key.clone(), change.r#type())
    }

    /// The key of the snapshot and of each change until `marker` changes: what a watcher has heard by then.
    pub async fn until(&mut self, marker: &str) -> Vec<(String, Type)> {
        let mut heard = Vec::new();
        loop {
            let next = self.next().await;
            if next.0 == marker {
                return heard;
            }
            heard.push(next);
        }
    }
}

pub fn everything() -> WatchFlagsRequest {
    watch_keys(&[])
}

pub fn flag(key: &str, variant: &str) -> String {
    format!("flags: {{ {key}: {{ variants: {{ a: 1, b: 2, c: 3 }}, defaultVariant: {variant} }} }}")
}

#[tokio::test]
async fn first_a_snapshot_then_every_change_with_revision_and_time() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, everything()).await;
    let (position, flags) = watch.snapshot().await;
    assert_eq!((position.epoch, position.revision, flags.len()), (EPOCH, 1, 6));
    assert!(flags.values().all(|flag| flag.definition.is_empty() && flag.decisions.is_empty() && flag.revision == 1 && !flag.killed));
    pod.apply(&flag("greeting", "b"));
    pod.kill("greeting");
    pod.restore("greeting");
    pod.delete("greeting");
    let mut heard = Vec::new();
    while heard.last() != Some(&Type::Deleted) {
        let change = watch.change().await;
        let (kind, state) = (change.r#type(), change.flag.unwrap());
        assert_eq!((state.key.as_str(), state.killed), ("greeting", kind == Type::Killed));
        // The hand commits revision n at n microseconds.
        assert_eq!(change.origin_time.unwrap().nanos, i32::try_from(state.revision).unwrap() * 1000);
        heard.push(kind);
    }
    // Those that came too fast are told as one; their order stays.
    let order = [Type::Updated, Type::Killed, Type::Restored, Type::Deleted];
    assert!(heard.is_sorted_by_key(|kind| order.iter().position(|other| other == kind)), "{heard:?}");
}

#[tokio::test]
async fn each_kind_of_change_is_told_when_it_is_read_at_once() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, watch_keys(&["greeting"])).await;
    assert_eq!(watch.snapshot().await.1.len(), 1);
    pod.apply(&flag("greeting", "b"));
    assert_eq!(watch.next().await.1, Type::Updated);
    pod.kill("greeting");
    assert_eq!(watch.next().await.1, Type::Killed);
    pod.restore("greeting");
    assert_eq!(watch.next().await.1, Type::Restored);
    pod.delete("greeting");
    assert_eq!(watch.next().await.1, Type::Deleted);
    pod.apply(&flag("greeting", "a"));
    assert_eq!(watch.next().await.1, Type::Updated);
}

#[tokio::test]
async fn a_key_that_does_not_exist_fires_when_it_is_created() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, watch_keys(&["not_yet"])).await;
    assert_eq!(watch.snapshot().await.1.len(), 0);
    pod.apply(&flag("another", "a"));
    pod.apply(&flag("not_yet", "a"));
    assert_eq!(watch.next().await, ("not_yet".into(), Type::Updated));
}

fn selector(prefix: &str, tags: &[&str]) -> WatchFlagsRequest {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    WatchFlagsRequest { selector: Some(FlagSelector { keys: Vec::new(), prefix: prefix.into(), tags }), ..everything() }
}

#[tokio::test]
async fn a_prefix_selects_flags_that_are_and_that_come() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, selector("ne", &[])).await;
    assert_eq!(watch.snapshot().await.1.into_keys().collect::<Vec<_>>(), ["needs_checkout", "new_checkout_flow"]);
    pod.apply(&flag("other", "a"));
    pod.apply(&flag("new_one", "a"));
    assert_eq!(watch.next().await, ("new_one".into(), Type::Updated));
}

fn tagged(key: &str, tags: &str) -> String {
    format!("flags: {{ {key}: {{ tags: [{tags}], variants: {{ a: 1 }}, defaultVariant: a }} }}")
}

#[tokio::test]
async fn a_flag_that_loses_its_tag_leaves_the_selection_as_if_deleted() {
    let mut pod = Pod::start(FLAGS).await;
    pod.apply(&tagged("watched", "core, web"));
    let mut watch = Watch::open(&pod, selector("", &["core"])).await;
    assert_eq!(watch.snapshot().await.1.into_keys().collect::<Vec<_>>(), ["watched"]);
    pod.apply(&tagged("watched", "web"));
    assert_eq!(watch.next().await, ("watched".into(), Type::Deleted));
    // Further changes outside of the selection are none.
    pod.apply(&tagged("watched", "web, old"));
    pod.apply(&tagged("late", "core"));
    assert_eq!(watch.next().await, ("late".into(), Type::Updated));
    pod.apply(&tagged("watched", "core"));
    assert_eq!(watch.next().await, ("watched".into(), Type::Updated));
}

#[tokio::test]
async fn definitions_come_when_they_are_asked_for() {
    let mut pod = Pod::start(FLAGS).await;
    let request = WatchFlagsRequest { detail: Detail::Definitions.into(), ..watch_keys(&["limit"]) };
    let mut watch = Watch::open(&pod, request).await;
    let (_, flags) = watch.snapshot().await;
    let definition: serde_json::Value = serde_json::from_slice(&flags["limit"].definition).unwrap();
    assert_eq!(definition["variants"]["low"], 10.5);
    pod.apply(&flag("limit", "c"));
    let definition: serde_json::Value = serde_json::from_slice(&watch.change().await.flag.unwrap().definition).unwrap();
    assert_eq!(definition["defaultVariant"], "c");
    pod.delete("limit");
    assert!(watch.change().await.flag.unwrap().definition.is_empty());
}

fn with_plan(key: &str, plan: &str) -> Context {
    let plan = Value { kind: Some(Kind::StringValue(plan.into())) };
    Context { targeting_key: key.into(), attributes: Some(Struct { fields: [("plan".to_owned(), plan)].into() }) }
}

pub fn values(keys: &[&str], contexts: Vec<Context>) -> WatchFlagsRequest {
    WatchFlagsRequest { detail: Detail::Values.into(), contexts, ..watch_keys(keys) }
}

#[tokio::test]
async fn values_come_for_each_context_and_only_when_one_changes() {
    let rule = |serve: &str, description: &str| {
        format!(
            "flags: {{ plan: {{ description: {description}, variants: {{ a: 1, b: 2, c: 3 }}, defaultVariant: a, killVariant: a,
               rules: [ {{ when: [ {{ attribute: plan, equals: pro }} ], serve: {serve} }} ] }} }}"
        )
    };
    let mut pod = Pod::start(&rule("b", "first")).await;
    let mut watch = Watch::open(&pod, values(&["plan", "mark"], vec![with_plan("ana", "pro"), with_plan("bob", "free")])).await;
    let variants = |flag: &FlagState| flag.decisions.iter().map(|decision| decision.variant.clone()).collect::<Vec<_>>();
    assert_eq!(variants(&watch.snapshot().await.1["plan"]), ["b", "a"]);
    pod.apply(&rule("b", "only_the_description_changed"));
    pod.apply(&flag("mark", "a"));
    assert_eq!(watch.next().await, ("mark".into(), Type::Updated), "nothing was to be told of `plan`");
    pod.apply(&rule("c", "second"));
    let change = watch.change().await;
    assert_eq!((variants(change.flag.as_ref().unwrap()), change.r#type()), (vec!["c".to_owned(), "a".to_owned()], Type::Updated));
    pod.kill("plan");
    let change = watch.change().await;
    assert_eq!((variants(change.flag.as_ref().unwrap()), change.r#type()), (vec!["a".to_owned(), "a".to_owned()], Type::Killed));
    pod.restore("plan");
    assert_eq!(watch.next().await, ("plan".into(), Type::Restored));
}

#[tokio::test]
async fn a_watcher_of_values_hears_when_a_prerequisite_turns_the_value() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, values(&["needs_checkout"], vec![person("ana")])).await;
    assert_eq!(watch.snapshot().await.1["needs_checkout"].decisions[0].variant, "on");
    pod.kill("new_checkout_flow");
    let change = watch.change().await;
    assert_eq!((change.flag.as_ref().unwrap().decisions[0].variant.as_str(), change.r#type()), ("off", Type::Updated));
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_with_what_it_missed() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, everything()).await;
    let (position, _) = watch.snapshot().await;
    drop(watch);
    pod.apply(&flag("missed", "a"));
    pod.delete("greeting");
    pod.kill("limit");
    let mut resumed = Watch::open(&pod, WatchFlagsRequest { resume: Some(position), ..everything() }).await;
    let heard: Vec<_> = [resumed.next().await, resumed.next().await, resumed.next().await].into();
    assert_eq!(heard, [("limit".into(), Type::Killed), ("missed".into(), Type::Updated), ("greeting".into(), Type::Deleted)]);
}

#[tokio::test]
async fn a_watch_that_missed_nothing_hears_so_at_once() {
    let pod = Pod::start(FLAGS).await;
    let (position, _) = Watch::open(&pod, everything()).await.snapshot().await;
    let mut resumed = Watch::open(&pod, WatchFlagsRequest { resume: Some(position), ..everything() }).await;
    match resumed.event().await {
        Event::Heartbeat(heartbeat) => assert_eq!(heartbeat.position, Some(position)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_epoch_or_a_time_before_ours_starts_from_a_snapshot() {
    let pod = Pod::start(FLAGS).await;
    for resume in [Position { epoch: EPOCH + 1, revision: 1 }, Position { epoch: EPOCH, revision: 0 }] {
        let mut watch = Watch::open(&pod, WatchFlagsRequest { resume: Some(resume), ..everything() }).await;
        assert_eq!(watch.snapshot().await.1.len(), 6, "{resume:?}");
    }
}

#[tokio::test]
async fn resuming_at_any_change_loses_no_other_flag_of_the_same_change() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, everything()).await;
    watch.snapshot().await;
    let many = |variant: &str| {
        let flags: String = (0..5).map(|n| format!("  f{n}: {{ variants: {{ a: 1, b: 2 }}, defaultVariant: {variant} }}\n")).collect();
        format!("flags:\n{flags}")
    };
    pod.apply(&many("a"));
    pod.apply(&many("b"));
    let mut changes = Vec::new();
    while changes.iter().filter(|change: &&FlagChange| change.flag.as_ref().unwrap().revision == 3).count() < 5 {
        changes.push(watch.change().await);
    }
    for (at, change) in changes.iter().enumerate() {
        let mut known: BTreeSet<_> =
            changes[..=at].iter().map(|change| change.flag.clone().unwrap()).map(|flag| (flag.key, flag.revision)).collect();
        let mut resumed = Watch::open(&pod, WatchFlagsRequest { resume: change.position, ..everything() }).await;
        while (0..5).any(|n| !known.contains(&(format!("f{n}"), 3))) {
            let flag = resumed.change().await.flag.unwrap();
            known.insert((flag.key, flag.revision));
        }
    }
}

#[tokio::test]
async fn heartbeats_carry_revision_and_age() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, WatchFlagsRequest { heartbeat_ms: 100, ..watch_keys(&["greeting"]) }).await;
    watch.snapshot().await;
    pod.apply(&flag("another", "a"));
    let mut ages = Vec::new();
    while ages.len() < 2 {
        match watch.event().await {
            Event::Heartbeat(heartbeat) if heartbeat.position.unwrap().revision == 2 => ages.push(heartbeat.age_ms),
            Event::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Nobody proved since that the state is the newest.
    assert!(ages[1] >= ages[0] + 50, "{ages:?}");
}

#[tokio::test]
async fn a_watch_before_the_first_state_waits_for_it() {
    let mut pod = Pod::start_empty(&Serve { threads: Some(1), ..Serve::default() }).await;
    let mut watch = Watch::open(&pod, everything()).await;
    pod.apply(FLAGS);
    assert_eq!(watch.snapshot().await.1.len(), 6);
}

#[tokio::test]
async fn a_large_snapshot_comes_in_parts() {
    let flags: String = (0..2000).map(|n| format!("  flag-{n:04}: {{ variants: {{ a: 1 }}, defaultVariant: a }}\n")).collect();
    let pod = Pod::start(&format!("flags:\n{flags}")).await;
    let mut watch = Watch::open(&pod, everything()).await;
    let mut parts = Vec::new();
    loop {
        let Event::Snapshot(part) = watch.event().await else { panic!("no snapshot") };
        parts.push(part.flags.len());
        assert_eq!(part.position.is_some(), part.last, "nobody may resume after half of a snapshot");
        if part.last {
            break;
        }
    }
    assert!(parts.len() > 1 && parts.iter().sum::<usize>() == 2000, "{parts:?}");
}

#[tokio::test]
async fn more_changes_at_once_than_are_listed_start_every_watch_from_a_snapshot() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, everything()).await;
    watch.snapshot().await;
    let flags: String = (0..1500).map(|n| format!("  flag-{n:04}: {{ variants: {{ a: 1 }}, defaultVariant: a }}\n")).collect();
    pod.apply(&format!("flags:\n{flags}"));
    assert_eq!(watch.snapshot().await.1.len(), 1506);
    pod.apply(&flag("greeting", "b"));
    assert_eq!(watch.next().await, ("greeting".into(), Type::Updated));
}

#[tokio::test]
async fn a_kill_on_which_a_thousand_flags_depend_is_told_as_one_and_nobody_loses_its_place_but_watchers_of_values() {
    const DEPENDENTS: usize = 1_001;
    let base = r#"platform: { variants: { "on": true, "off": false }, defaultVariant: "on" }"#;
    let dependents: String = (0..DEPENDENTS)
        .map(|n| {
            format!(
                r#", d{n:04}: {{ variants: {{ "on": true, "off": false }}, defaultVariant: "on", offVariant: "off",
                   prerequisites: [ {{ flag: platform, variants: ["on"] }} ] }}"#
            )
        })
        .collect();
    let mut pod = Pod::start(&format!("flags: {{ {base}{dependents} }}")).await;
    let one = watch_keys(&["platform"]);
    let all = WatchFlagsRequest { detail: Detail::Definitions.into(), ..everything() };
    let mut live = Vec::new();
    let mut position = None;
    for request in [&one, &all] {
        let mut watch = Watch::open(&pod, request.clone()).await;
        position = Some(watch.snapshot().await.0);
        live.push(watch);
    }
    let mut of_values = Watch::open(&pod, values(&["platform", "d0007"], vec![person("ana")])).await;
    of_values.snapshot().await;
    pod.kill("platform");
    for request in [one, all] {
        live.push(Watch::open(&pod, WatchFlagsRequest { resume: position, ..request }).await);
    }
    for watch in &mut live {
        assert_eq!(watch.next().await, ("platform".into(), Type::Killed));
    }
    // The kill first; then what it changed, which is too much to be told one by one.
    assert_eq!(of_values.next().await, ("platform".into(), Type::Killed));
    assert_eq!(of_values.snapshot().await.1["d0007"].decisions[0].variant, "off");
    pod.apply(&flag("mark", "a"));
    assert_eq!(live[1].next().await, ("mark".into(), Type::Updated));
    // A watch that resumes says at once where it stands, and that may come before the change or after it.
    let marked = loop {
        match live[3].event().await {
            Event::Heartbeat(_) => {}
            Event::Change(change) => break change,
            other => panic!("{other:?} is no change"),
        }
    };
    assert_eq!((marked.flag.as_ref().unwrap().key.as_str(), marked.r#type()), ("mark", Type::Updated));
}

#[tokio::test]
async fn a_kill_comes_before_the_snapshot_that_a_change_of_very_many_flags_leads_to() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, everything()).await;
    watch.snapshot().await;
    let flags: String = (0..1500).map(|n| format!("  flag-{n:04}: {{ variants: {{ a: 1 }}, defaultVariant: a }}\n")).collect();
    // By the lane, ahead of the change that follows; and that change takes the list away.
    pod.hand().announce_kill("greeting");
    pod.apply(&format!("flags:\n{flags}"));
    assert_eq!(watch.next().await, ("greeting".into(), Type::Killed));
    assert!(watch.snapshot().await.1["greeting"].killed);
}

#[tokio::test]
async fn values_that_no_message_can_carry_are_left_out_and_the_decision_says_so() {
    let prompt = |byte: &str| format!("flags: {{ prompt: {{ variants: {{ long: {} }}, defaultVariant: long }} }}", byte.repeat(100_000));
    let mut pod = Pod::start(&prompt("x")).await;
    let people: Vec<_> = (0..100).map(|number| person(&number.to_string())).collect();
    let mut watch = Watch::open(&pod, values(&["prompt", "mark"], people)).await;
    let check = |flag: &FlagState| {
        let (with, without): (Vec<_>, Vec<_>) = flag.decisions.iter().partition(|decision| decision.value.is_some());
        assert_eq!((with.len(), without.len()), (40, 60));
        for decision in without {
            assert_eq!((decision.variant.as_str(), decision.reason(), decision.error_code()), ("long", Reason::Error, ErrorCode::General));
            assert!(decision.error_message.contains("fewer contexts"), "{}", decision.error_message);
        }
    };
    // A client that takes 4 MiB, as all do, gets them, and hears of other flags.
    check(&watch.snapshot().await.1["prompt"]);
    pod.apply(&prompt("y"));
    check(watch.change().await.flag.as_ref().unwrap());
    pod.apply(&flag("mark", "a"));
    assert_eq!(watch.next().await, ("mark".into(), Type::Updated));
}

#[tokio::test]
async fn a_kill_from_its_own_lane_is_told_once() {
    let mut pod = Pod::start(FLAGS).await;
    let mut watch = Watch::open(&pod, everything()).await;
    watch.snapshot().await;
    pod.hand().announce_kill("greeting");
    assert_eq!(watch.next().await, ("greeting".into(), Type::Killed));
    pod.kill("greeting");
    pod.apply(&flag("mark", "a"));
    assert_eq!(watch.until("mark").await, [], "the log brought nothing new");
}

#[tokio::test]
async fn a_kill_survives_a_resync_by_snapshot() {
    let mut pod = Pod::start(FLAGS).await;
    pod.kill("greeting");
    let mut watch = Watch::open(&pod, everything()).await;
    assert!(watch.snapshot().await.1["greeting"].killed);
    pod.hand().resync();
    pod.apply(&flag("mark", "a"));
    let heard = watch.until("mark").await;
    assert!(!heard.iter().any(|(key, _)| key == "greeting"), "{heard:?}");
    assert!(Watch::open(&pod, everything()).await.snapshot().await.1["greeting"].killed);
}

#[tokio::test]
async fn over_the_limit_of_watches_the_next_is_refused_until_one_ends() {
    let limits = Limits { max_watchers: 1, ..Limits::default() };
    let pod = Pod::start_with(&Serve { threads: Some(2), limits, ..Serve::default() }, FLAGS).await;
    let mut client = pod.client().await;
    let first = client.watch_flags(everything()).await.unwrap();
    let refused = client.watch_flags(everything()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("--max-watchers"), "{}", refused.message());
    drop(first);
    soon(async {
        while let Err(status) = client.watch_flags(everything()).await {
            assert_eq!(status.code(), Code::ResourceExhausted);
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drained_watch_ends_unavailable_and_says_when_to_come_back() {
    let pod = Pod::start(FLAGS).await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let mut watch = Watch::open(&pod, everything()).await;
        watch.snapshot().await;
        watches.push(watch);
    }
    let stopping = tokio::spawn(pod.stop());
    for mut watch in watches {
        let status = soon(watch.0.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let retry = status.get_error_details().retry_info().unwrap().retry_delay;
        assert!(retry.is_some_and(|delay| delay > Duration::ZERO), "{retry:?}");
    }
    assert_eq!(soon(stopping).await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_with_the_field() {
    let pod = Pod::start(FLAGS).await;
    let mut client = pod.client().await;
    let refused = client.watch_flags(values(&[], Vec::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.get_error_details().bad_request().unwrap().field_violations[0].field, "contexts");
}
