use std::time::{Duration, Instant};

use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use yardarm::control::{self, DEFAULT_ENVIRONMENT};
use yardarm::lifecycle::Shutdown;
use yardarm::wire::v1::*;

use super::*;

#[tokio::test]
async fn a_first_start_makes_an_environment_and_a_second_start_finds_it() {
    let control = Control::start().await;
    control.admin().apply(apply(DOCUMENT)).await.unwrap();
    let position = control.running.ledger.environments()[0].position;
    control.shutdown.request();
    assert_eq!(control.shutdown.complete().await, []);
    let Control { running, dir, .. } = control;
    drop(running);
    let again = start_once_free(dir.path()).await;
    let environments = again.ledger.environments();
    assert_eq!(environments.len(), 1);
    assert_eq!((environments[0].name.as_str(), environments[0].position, environments[0].flags), (DEFAULT_ENVIRONMENT, position, 3));
}

/// The store is let go of when the last task that holds it has ended, which is a moment after the shutdown.
async fn start_once_free(data: &Path) -> control::Running {
    let began = Instant::now();
    loop {
        match control::start(args(data), Shutdown::new()).await {
            Ok(running) => return running,
            Err(problem) => assert!(began.elapsed() < Duration::from_secs(20), "{problem:#}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_start_is_named() {
    let first = Control::start().await;
    let refused = |args| async { format!("{:#}", control::start(args, Shutdown::new()).await.err().expect("it cannot start")) };
    let locked = refused(args(first.dir.path())).await;
    assert!(locked.contains("locked by another process") && locked.contains(first.dir.path().to_str().unwrap()), "{locked}");
    let other = tempfile::tempdir().unwrap();
    let taken = refused(control::Args { listen: first.running.grpc, ..args(other.path()) }).await;
    assert!(taken.contains(&first.running.grpc.to_string()), "{taken}");
    let file = other.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let unusable = refused(args(&file)).await;
    assert!(unusable.contains(file.to_str().unwrap()), "{unusable}");
}

#[tokio::test]
async fn a_dry_run_names_the_revision_to_expect() {
    let control = Control::start().await;
    let mut admin = control.admin();
    let request = ApplyRequest { dry_run: true, ..apply(DOCUMENT) };
    let planned = admin.apply(request).await.unwrap().into_inner();
    let seen = planned.position.unwrap().revision;
    assert_eq!((planned.changed, planned.changes.len(), seen), (true, 4, 1));
    let expecting = Some(Intent { expect_revision: Some(seen), ..intent().unwrap() });
    let applied = admin.apply(ApplyRequest { intent: expecting.clone(), ..apply(DOCUMENT) }).await.unwrap().into_inner();
    assert_eq!((applied.position.unwrap().revision, applied.changes), (2, planned.changes));
    let later = DOCUMENT.replace("defaultVariant: on", "defaultVariant: off");
    let refused = admin.apply(ApplyRequest { intent: expecting, ..apply(&later) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
}

#[tokio::test]
async fn flags_are_listed_by_key_prefix_and_tag() {
    let control = Control::start().await;
    let mut admin = control.admin();
    admin.apply(apply(DOCUMENT)).await.unwrap();
    admin.kill_flag(kill("cart")).await.unwrap();
    let mut keys = async |keys: &[&str], prefix: &str, tags: &[&str]| -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let selector = Some(FlagSelector { keys: owned(keys), prefix: prefix.into(), tags: owned(tags) });
        let listed = admin.list_flags(ListFlagsRequest { environment: environment(), selector }).await.unwrap().into_inner();
        assert_eq!(listed.position.unwrap().revision, 3);
        assert!(listed.flags.iter().all(|flag| flag.kill.is_some() == (flag.key == "cart")));
        listed.flags.into_iter().map(|flag| flag.key).collect()
    };
    assert_eq!(keys(&[], "", &[]).await, ["cart", "checkout", "search"]);
    assert_eq!(keys(&["search", "nothing"], "", &[]).await, ["search"]);
    assert_eq!(keys(&[], "c", &[]).await, ["cart", "checkout"]);
    assert_eq!(keys(&[], "", &["shop", "fast"]).await, ["search"]);
    assert_eq!(keys(&[], "ch", &["shop"]).await, ["checkout"]);
}

#[tokio::test]
async fn a_flag_comes_with_what_it_reads_now_and_then() {
    let control = Control::start().await;
    let mut admin = control.admin();
    admin.apply(apply(DOCUMENT)).await.unwrap();
    admin.apply(apply("segments: { beta: { included: [u2] } }")).await.unwrap();
    admin.kill_flag(kill("cart")).await.unwrap();
    let mut get = async |revision| {
        let request = GetFlagRequest { environment: environment(), key: "cart".into(), revision };
        let got = admin.get_flag(request).await.unwrap().into_inner();
        let prerequisites: Vec<_> = got.prerequisites.iter().map(|flag| flag.key.clone()).collect();
        let segment = String::from_utf8(got.segments[0].definition.to_vec()).unwrap();
        (prerequisites, segment, got.flag.unwrap().kill.is_some())
    };
    assert_eq!(get(0).await, (vec!["checkout".to_owned()], r#"{"included":["u2"]}"#.to_owned(), true));
    assert_eq!(get(2).await, (vec!["checkout".to_owned()], r#"{"included":["u1"]}"#.to_owned(), false));
}

#[tokio::test]
async fn segments_have_a_history_and_can_be_deleted_too() {
    let control = Control::start().await;
    let mut admin = control.admin();
    admin.apply(apply("segments: { a: { included: [u1] }, b: { included: [u1] } }")).await.unwrap();
    admin.apply(apply("segments: { a: { included: [u2] } }")).await.unwrap();
    let kind = ItemKind::Segment.into();
    let request = FlagHistoryRequest { environment: environment(), key: "a".into(), limit: 0, kind };
    let history = admin.flag_history(request).await.unwrap().into_inner().entries;
    assert_eq!(history.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [3, 2]);
    assert_eq!((history[0].before.as_slice(), history[0].actor.as_str()), (&br#"{"included":["u1"]}"#[..], "ana"));
    let request = RevertFlagRequest { environment: environment(), key: "a".into(), to_revision: 2, intent: intent(), kind };
    assert_eq!(admin.revert_flag(request).await.unwrap().into_inner().position.unwrap().revision, 4);
    let request = DeleteFlagRequest { environment: environment(), key: "b".into(), intent: intent(), kind };
    admin.delete_flag(request).await.unwrap();
    let listed = admin.list_segments(ListSegmentsRequest { environment: environment() }).await.unwrap().into_inner();
    assert_eq!(listed.segments.iter().map(|item| (item.key.as_str(), item.revision)).collect::<Vec<_>>(), [("a", 4)]);
}

#[tokio::test]
async fn the_audit_log_is_told_with_hashes_and_definitions() {
    let control = Control::start().await;
    let mut admin = control.admin();
    admin.apply(apply(DOCUMENT)).await.unwrap();
    admin.kill_flag(kill("cart")).await.unwrap();
    admin.create_environment(CreateEnvironmentRequest { name: "other".into(), intent: intent() }).await.unwrap();
    let mut list = async |environment: &str, flag_key: &str, before_seq, limit| {
        let request = ListAuditRequest { environment: environment.into(), flag_key: flag_key.into(), limit, before_seq };
        admin.list_audit(request).await.unwrap().into_inner().entries
    };
    let all = list("", "", 0, 0).await;
    assert_eq!(all.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert!(all.windows(2).all(|pair| pair[0].prev_hash == pair[1].hash && pair[0].hash.len() == 32));
    assert_eq!(list("", "", 3, 1).await[0].seq, 2);
    assert_eq!(list(DEFAULT_ENVIRONMENT, "", 0, 0).await.len(), 3);
    let of_cart = list("", "cart", 0, 0).await;
    assert_eq!(of_cart.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["kill", "apply"]);
    let applied = &of_cart[1];
    assert_eq!(applied.keys, ["beta", "cart", "checkout", "search"]);
    assert_eq!((applied.before_hash.len(), applied.after_hash.len()), (0, 32));
    assert!(applied.changes.iter().all(|change| change.before.is_empty() && !change.after.is_empty()));
    let verified = admin.verify_audit(VerifyAuditRequest {}).await.unwrap().into_inner();
    assert_eq!((verified.intact, verified.entries, &verified.head_hash), (true, 4, &all[0].hash));
}

#[tokio::test]
async fn a_backup_goes_over_the_wire_and_back() {
    let (from, to) = (Control::start().await, Control::start().await);
    from.admin().apply(apply(DOCUMENT)).await.unwrap();
    let mut chunks: Vec<BackupChunk> =
        from.admin().backup(BackupRequest {}).await.unwrap().into_inner().map(Result::unwrap).collect().await;
    chunks[0].intent = intent();
    let restored = to.admin().restore_backup(tokio_stream::iter(chunks.clone())).await.unwrap().into_inner();
    assert_eq!((restored.environments, restored.kills_kept), (1, 0));
    let state = |control: &Control| control.running.ledger.state(DEFAULT_ENVIRONMENT).unwrap();
    assert_eq!((state(&to).items, state(&to).position.epoch), (state(&from).items, restored.epoch));

    chunks.truncate(chunks.len() - 1);
    let torn = [BackupChunk { data: Default::default(), intent: intent() }];
    for chunks in [torn.to_vec(), chunks, Vec::new(), vec![BackupChunk::default()]] {
        let refused = to.admin().restore_backup(tokio_stream::iter(chunks)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    assert_eq!(state(&to).items, state(&from).items);
}

#[tokio::test]
async fn health_is_told_and_reflection_lists_our_services() {
    let control = Control::start().await;
    let channel = channel(&control.running.grpc.to_string());
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "yardarm.v1.Admin", "yardarm.v1.Replication"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service}");
    }
    let list = |channel| async {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
        let answers = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::iter([request])).await?;
        answers.into_inner().message().await.map(|answer| format!("{answer:?}"))
    };
    let told = list(channel).await.unwrap();
    assert!(told.contains("yardarm.v1.Admin") && told.contains("yardarm.v1.Replication"), "{told}");

    let dir = tempfile::tempdir().unwrap();
    let running = control::start(control::Args { reflection: false, ..args(dir.path()) }, Shutdown::new()).await.unwrap();
    let refused = list(crate::process::channel(&running.grpc.to_string())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("yardarm.v1.Admin"), "{refused:?}");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_those_who_watch() {
    let control = Control::start().await;
    let mut events = control.admin().watch_pods(ListPodsRequest { environment: environment() }).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().synced);
    control.shutdown.request();
    let ended = tokio::time::timeout(Duration::from_secs(20), events.message()).await.expect("the stream is told").unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert_eq!(control.shutdown.complete().await, []);
}
