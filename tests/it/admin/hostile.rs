//! Messages that no honest client sends: refused, and the server goes on.

use std::sync::OnceLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use yardarm::wire::v1::*;

use super::*;

/// One server for all cases: it has to outlive each of them.
fn server() -> &'static (Runtime, Control, Client) {
    static SERVER: OnceLock<(Runtime, Control, Client)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (control, admin) = runtime.block_on(async {
            let control = Control::start().await;
            let mut admin = control.admin();
            admin.apply(apply(DOCUMENT)).await.unwrap();
            (control, admin)
        });
        (runtime, control, admin)
    })
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        3 => prop::sample::select(vec!["", "default", "checkout", "search", "beta", "on", "a/b", "../..", "\0", "é", "%s", "flags: {}"]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => (0_usize..3_000).prop_map(|length| "x".repeat(length)),
    ]
    .boxed()
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(2), Just(u64::MAX), Just(1 << 63), any::<u64>()]
}

fn kind() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), Just(1), Just(2), Just(-1), Just(i32::MAX), any::<i32>()]
}

fn some_intent() -> impl Strategy<Value = Option<Intent>> {
    let intent = (text(), text(), prop::option::of(number()));
    prop::option::weighted(0.8, intent.prop_map(|(actor, reason, expect_revision)| Intent { actor, reason, expect_revision }))
}

fn some_selector() -> impl Strategy<Value = Option<FlagSelector>> {
    let names = || prop::collection::vec(text(), 0..4);
    prop::option::of((names(), text(), names()).prop_map(|(keys, prefix, tags)| FlagSelector { keys, prefix, tags }))
}

fn document() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        text().prop_map(String::into_bytes),
        (0_usize..2_000).prop_map(|depth| "[".repeat(depth).into_bytes()),
        (0_usize..2_000).prop_map(|depth| "{\"flags\":".repeat(depth).into_bytes()),
        Just(b"flags: &a { x: *a }".to_vec()),
        (text(), text()).prop_map(|(key, variant)| {
            serde_json::json!({ "flags": { key: { "variants": { &variant: true }, "defaultVariant": variant } } }).to_string().into_bytes()
        }),
    ]
}

fn percent() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), Just(Some(f64::NAN)), Just(Some(f64::INFINITY)), Just(Some(-0.0)), any::<f64>().prop_map(Some)]
}

#[derive(Debug, Clone)]
enum Call {
    CreateEnvironment(CreateEnvironmentRequest),
    CopyEnvironment(CopyEnvironmentRequest),
    ListFlags(ListFlagsRequest),
    GetFlag(GetFlagRequest),
    ListSegments(ListSegmentsRequest),
    Apply(ApplyRequest),
    DeleteFlag(DeleteFlagRequest),
    FlagHistory(FlagHistoryRequest),
    RevertFlag(RevertFlagRequest),
    KillFlag(KillFlagRequest),
    RestoreFlag(RestoreFlagRequest),
    ListAudit(ListAuditRequest),
    AwaitApplied(AwaitAppliedRequest),
    ListPods(ListPodsRequest),
    RestoreBackup(Vec<BackupChunk>),
}

fn calls() -> impl Strategy<Value = Call> {
    let item = || (text(), text(), some_intent(), kind());
    let chunk = (document(), some_intent()).prop_map(|(data, intent)| BackupChunk { data: data.into(), intent });
    prop_oneof![
        (text(), some_intent()).prop_map(|(name, intent)| Call::CreateEnvironment(CreateEnvironmentRequest { name, intent })),
        (text(), text(), some_intent()).prop_map(|(from, to, intent)| Call::CopyEnvironment(CopyEnvironmentRequest { from, to, intent })),
        (text(), some_selector()).prop_map(|(environment, selector)| Call::ListFlags(ListFlagsRequest { environment, selector })),
        (text(), text(), number()).prop_map(|(environment, key, revision)| Call::GetFlag(GetFlagRequest { environment, key, revision })),
        text().prop_map(|environment| Call::ListSegments(ListSegmentsRequest { environment })),
        (text(), document(), any::<bool>(), some_intent()).prop_map(|(environment, document, dry_run, intent)| Call::Apply(ApplyRequest {
            environment,
            document,
            dry_run,
            intent
        })),
        item().prop_map(|(environment, key, intent, kind)| Call::DeleteFlag(DeleteFlagRequest { environment, key, intent, kind })),
        (item(), any::<u32>()).prop_map(|((environment, key, _, kind), limit)| Call::FlagHistory(FlagHistoryRequest {
            environment,
            key,
            limit,
            kind
        })),
        (item(), number()).prop_map(|((environment, key, intent, kind), to_revision)| {
            Call::RevertFlag(RevertFlagRequest { environment, key, to_revision, intent, kind })
        }),
        item().prop_map(|(environment, key, intent, _)| Call::KillFlag(KillFlagRequest { environment, key, intent })),
        (item(), percent()).prop_map(|((environment, key, intent, _), percent)| {
            Call::RestoreFlag(RestoreFlagRequest { environment, key, percent, intent })
        }),
        (text(), text(), any::<u32>(), number()).prop_map(|(environment, flag_key, limit, before_seq)| {
            Call::ListAudit(ListAuditRequest { environment, flag_key, limit, before_seq })
        }),
        (text(), text(), number(), 1_u32..5).prop_map(|(environment, flag_key, revision, timeout_ms)| {
            Call::AwaitApplied(AwaitAppliedRequest { environment, revision, flag_key, timeout_ms })
        }),
        text().prop_map(|environment| Call::ListPods(ListPodsRequest { environment })),
        prop::collection::vec(chunk, 0..3).prop_map(Call::RestoreBackup),
    ]
}

async fn ask(mut admin: Client, call: Call) -> Result<(), Status> {
    match call {
        Call::CreateEnvironment(request) => admin.create_environment(request).await.map(drop),
        Call::CopyEnvironment(request) => admin.copy_environment(request).await.map(drop),
        Call::ListFlags(request) => admin.list_flags(request).await.map(drop),
        Call::GetFlag(request) => admin.get_flag(request).await.map(drop),
        Call::ListSegments(request) => admin.list_segments(request).await.map(drop),
        Call::Apply(request) => admin.apply(request).await.map(drop),
        Call::DeleteFlag(request) => admin.delete_flag(request).await.map(drop),
        Call::FlagHistory(request) => admin.flag_history(request).await.map(drop),
        Call::RevertFlag(request) => admin.revert_flag(request).await.map(drop),
        Call::KillFlag(request) => admin.kill_flag(request).await.map(drop),
        Call::RestoreFlag(request) => admin.restore_flag(request).await.map(drop),
        Call::ListAudit(request) => admin.list_audit(request).await.map(drop),
        Call::ListPods(request) => admin.list_pods(request).await.map(drop),
        Call::RestoreBackup(chunks) => admin.restore_backup(tokio_stream::iter(chunks)).await.map(drop),
        Call::AwaitApplied(request) => {
            let mut progress = admin.await_applied(request).await?.into_inner();
            while progress.message().await?.is_some() {}
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_message_is_answered_or_refused(call in calls()) {
        let (runtime, control, admin) = server();
        let answered = runtime.block_on(ask(admin.clone(), call));
        if let Err(refused) = answered {
            let blames_the_caller = [Code::InvalidArgument, Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition, Code::Aborted];
            prop_assert!(blames_the_caller.contains(&refused.code()), "{refused:?}");
        }
        let state = control.running.ledger.state(DEFAULT_ENVIRONMENT).unwrap();
        prop_assert_eq!(state.digest, yardarm::flag::Digest::of(&state.items, &state.kills));
    }
}
