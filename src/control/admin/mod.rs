//! What people and pipelines ask: the Admin service. A handler reads its message, asks the ledger, and writes the answer.

mod answers;
mod hooks;
mod status;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::backup::Reader;
use super::evidence::{self, Evidence, FlagName, PushError, Pushes};
use super::ledger::{Actor, Command, Committed, Ledger};
use super::{Fleet, fleet};
use crate::flag::{Flag, Item, ItemKind};
use crate::lifecycle::Shutdown;
use crate::wire::admin::{
    AuditQuery, Intent, MESSAGE_BYTES, Selector, Target, audit_query, document, flag_info, intent, limit, mutation, revision, selector,
    target,
};
use crate::wire::v1;
use crate::wire::v1::admin_server::AdminServer;

use answers::{apply, audit_entry, environment, history, item_changes};
use status::draining;
pub(super) use status::{malformed, status};

pub struct Admin {
    ledger: Arc<Ledger>,
    fleet: Arc<Fleet>,
    /// Where webhooks are taken.
    webhooks: Option<SocketAddr>,
    evidence: Arc<dyn Evidence>,
    pushes: Pushes,
    shutdown: Shutdown,
}

/// The service, for a tonic router. With `shutdown` every stream ends with UNAVAILABLE.
pub fn service(
    ledger: Arc<Ledger>,
    fleet: Arc<Fleet>,
    webhooks: Option<SocketAddr>,
    evidence: Arc<dyn Evidence>,
    shutdown: Shutdown,
) -> AdminServer<Admin> {
    let pushes = Pushes::new(Arc::clone(&ledger), Arc::clone(&evidence));
    let admin = Admin { ledger, fleet, webhooks, evidence, pushes, shutdown };
    AdminServer::new(admin).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES)
}

/// Bytes of one answer to a list of changes; the caller asks on for the rest.
const ANSWER_BYTES: usize = 16 << 20;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Admin {
    async fn commit(&self, Intent { actor, reason, .. }: Intent, command: Command) -> Result<Committed, Status> {
        self.ledger.commit(&Actor::new(actor), &reason, command).await.map_err(status)
    }

    async fn change(&self, intent: Intent, command: Command) -> Answer<v1::MutationResponse> {
        let Committed { position, changed, .. } = self.commit(intent, command).await?;
        Ok(Response::new(mutation(position, changed)))
    }

    /// A stream lets go when the process is asked to end, and says so.
    fn stream<T: Send + 'static>(&self, stream: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Response<Answers<T>> {
        let running = Some((Box::pin(stream), self.shutdown.clone()));
        Response::new(Box::pin(stream::unfold(running, |running| async move {
            let (mut stream, shutdown) = running?;
            tokio::select! {
                next = stream.next() => next.map(|next| (next, Some((stream, shutdown)))),
                () = shutdown.requested() => Some((Err(draining()), None)),
            }
        })))
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Admin {
    async fn list_environments(&self, _: Request<v1::ListEnvironmentsRequest>) -> Answer<v1::ListEnvironmentsResponse> {
        let environments = self.ledger.environments().into_iter();
        let environments = environments.map(|info| environment(self.fleet.count(&info.name), info)).collect();
        Ok(Response::new(v1::ListEnvironmentsResponse { environments }))
    }

    async fn create_environment(&self, request: Request<v1::CreateEnvironmentRequest>) -> Answer<v1::MutationResponse> {
        let v1::CreateEnvironmentRequest { name, intent: by } = request.into_inner();
        self.change(intent(by).map_err(malformed)?, Command::CreateEnvironment { name }).await
    }

    async fn copy_environment(&self, request: Request<v1::CopyEnvironmentRequest>) -> Answer<v1::MutationResponse> {
        let v1::CopyEnvironmentRequest { from, to, intent: by } = request.into_inner();
        self.change(intent(by).map_err(malformed)?, Command::CopyEnvironment { from, to }).await
    }

    async fn list_flags(&self, request: Request<v1::ListFlagsRequest>) -> Answer<v1::ListFlagsResponse> {
        let v1::ListFlagsRequest { environment, selector: which } = request.into_inner();
        let which = selector(which).map_err(malformed)?;
        let (position, found) = self.ledger.list(&environment, ItemKind::Flag, |item| which.takes_key(&item.name.key)).map_err(status)?;
        let flags = found.into_iter().filter(|found| has_tags(&which, &found.item)).map(|found| flag_info(found.item, found.kill));
        Ok(Response::new(v1::ListFlagsResponse { position: Some(position.into()), flags: flags.collect() }))
    }

    async fn get_flag(&self, request: Request<v1::GetFlagRequest>) -> Answer<v1::GetFlagResponse> {
        let v1::GetFlagRequest { environment, key, revision } = request.into_inner();
        let at = (revision > 0).then_some(revision);
        let replay = self.ledger.replay(&environment, &key, at).await.map_err(status)?;
        Ok(Response::new(v1::GetFlagResponse {
            position: Some(replay.position.into()),
            flag: Some(flag_info(replay.flag.item, replay.flag.kill)),
            segments: replay.segments.into_iter().map(Into::into).collect(),
            prerequisites: replay.prerequisites.into_iter().map(|found| flag_info(found.item, found.kill)).collect(),
        }))
    }

    async fn list_segments(&self, request: Request<v1::ListSegmentsRequest>) -> Answer<v1::ListSegmentsResponse> {
        let v1::ListSegmentsRequest { environment } = request.into_inner();
        let (position, found) = self.ledger.list(&environment, ItemKind::Segment, |_| true).map_err(status)?;
        let segments = found.into_iter().map(|found| found.item.into()).collect();
        Ok(Response::new(v1::ListSegmentsResponse { position: Some(position.into()), segments }))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Answer<v1::ApplyResponse> {
        let v1::ApplyRequest { environment, document: text, dry_run, intent: by } = request.into_inner();
        let (by, document) = (intent(by).map_err(malformed)?, document(text).map_err(malformed)?);
        let command = Command::Apply { environment, document, expect: by.expect };
        let committed = match dry_run {
            true => self.ledger.plan(command).await.map_err(status)?,
            false => self.commit(by, command).await?,
        };
        Ok(Response::new(apply(committed)))
    }

    async fn delete_flag(&self, request: Request<v1::DeleteFlagRequest>) -> Answer<v1::MutationResponse> {
        let v1::DeleteFlagRequest { environment, key, intent: by, kind } = request.into_inner();
        let by = intent(by).map_err(malformed)?;
        let Target { environment, item } = target(environment, kind, key).map_err(malformed)?;
        let expect = by.expect;
        let flag = (item.kind == ItemKind::Flag).then(|| FlagName { environment: environment.clone(), key: item.key.clone() });
        let answer = self.change(by, Command::Delete { environment, item, expect }).await?;
        if let Some(flag) = flag
            && let Err(problem) = self.evidence.forget(flag).await
        {
            tracing::warn!(%problem, "evidence of a flag that was deleted is still there; it goes within a second if the flag stays away");
        }
        Ok(answer)
    }

    async fn flag_history(&self, request: Request<v1::FlagHistoryRequest>) -> Answer<v1::FlagHistoryResponse> {
        let v1::FlagHistoryRequest { environment, key, limit: most, kind } = request.into_inner();
        let Target { environment, item } = target(environment, kind, key).map_err(malformed)?;
        let entries = self.ledger.history(&environment, &item, limit(most)).await.map_err(status)?;
        Ok(Response::new(v1::FlagHistoryResponse { entries: history(entries, ANSWER_BYTES) }))
    }

    async fn revert_flag(&self, request: Request<v1::RevertFlagRequest>) -> Answer<v1::MutationResponse> {
        let v1::RevertFlagRequest { environment, key, to_revision, intent: by, kind } = request.into_inner();
        let (by, to) = (intent(by).map_err(malformed)?, revision(to_revision, "to_revision").map_err(malformed)?);
        let Target { environment, item } = target(environment, kind, key).map_err(malformed)?;
        let expect = by.expect;
        self.change(by, Command::Revert { environment, item, to, expect }).await
    }

    async fn kill_flag(&self, request: Request<v1::KillFlagRequest>) -> Answer<v1::MutationResponse> {
        let v1::KillFlagRequest { environment, key, intent: by } = request.into_inner();
        self.change(intent(by).map_err(malformed)?, Command::Kill { environment, flag: key }).await
    }

    async fn restore_flag(&self, request: Request<v1::RestoreFlagRequest>) -> Answer<v1::MutationResponse> {
        let v1::RestoreFlagRequest { environment, key, percent, intent: by } = request.into_inner();
        let by = intent(by).map_err(malformed)?;
        let expect = by.expect;
        self.change(by, Command::Restore { environment, flag: key, percent, expect }).await
    }

    async fn create_hook(&self, request: Request<v1::CreateHookRequest>) -> Answer<v1::CreateHookResponse> {
        hooks::create(&self.ledger, self.webhooks, request.into_inner()).await.map(Response::new)
    }

    async fn list_hooks(&self, request: Request<v1::ListHooksRequest>) -> Answer<v1::ListHooksResponse> {
        hooks::list(&self.ledger, self.webhooks, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_hook(&self, request: Request<v1::RevokeHookRequest>) -> Answer<v1::RevokeHookResponse> {
        hooks::revoke(&self.ledger, request.into_inner()).await.map(Response::new)
    }

    type AwaitAppliedStream = Answers<v1::Propagation>;

    async fn await_applied(&self, request: Request<v1::AwaitAppliedRequest>) -> Answer<Self::AwaitAppliedStream> {
        Ok(self.stream(fleet::await_applied(&self.ledger, &self.fleet, request.into_inner())?))
    }

    async fn list_pods(&self, request: Request<v1::ListPodsRequest>) -> Answer<v1::ListPodsResponse> {
        fleet::list_pods(&self.ledger, &self.fleet, request.into_inner()).map(Response::new)
    }

    type WatchPodsStream = Answers<v1::PodEvent>;

    async fn watch_pods(&self, request: Request<v1::ListPodsRequest>) -> Answer<Self::WatchPodsStream> {
        Ok(self.stream(fleet::watch_pods(&self.ledger, &self.fleet, request.into_inner())?))
    }

    async fn get_evidence(&self, request: Request<v1::GetEvidenceRequest>) -> Answer<v1::GetEvidenceResponse> {
        let v1::GetEvidenceRequest { environment, flag_key: key } = request.into_inner();
        self.ledger.replay(&environment, &key, None).await.map_err(status)?;
        Ok(Response::new(evidence::get_evidence(&*self.evidence, &FlagName { environment, key })))
    }

    async fn push_metric(&self, request: Request<v1::PushMetricRequest>) -> Answer<v1::PushMetricResponse> {
        let request = request.into_inner();
        let Intent { actor, reason, .. } = intent(request.intent.clone()).map_err(malformed)?;
        let replay = self.ledger.replay(&request.environment, &request.flag_key, None).await.map_err(status)?;
        let definition = Flag::from_json(&replay.flag.item.definition)
            .map_err(|problem| Status::internal(format!("the definition that is stored cannot be read: {problem}")))?;
        let taken = self.pushes.push(Actor::new(actor), reason, &definition, request).await.map_err(|error| match error {
            PushError::Malformed(problem) => malformed(problem),
            PushError::Ledger(problem) => status(problem),
            PushError::Store(status) => status,
        })?;
        Ok(Response::new(v1::PushMetricResponse { taken }))
    }

    async fn list_audit(&self, request: Request<v1::ListAuditRequest>) -> Answer<v1::ListAuditResponse> {
        let AuditQuery { environment, flag, limit, before_seq } = audit_query(request.into_inner());
        let is_about = |flag: &str, item: &crate::flag::ItemName| item.kind == ItemKind::Flag && item.key == flag;
        let records = self.ledger.audit(before_seq, limit, |record| {
            environment.as_ref().is_none_or(|environment| record.environment == *environment)
                && flag.as_ref().is_none_or(|flag| record.changes.iter().any(|touched| is_about(flag, &touched.item)))
        });
        let records = records.await.map_err(status)?;
        // No entries of a name that nobody ever used is a mistake, and not an answer.
        if let Some(environment) = environment.as_ref().filter(|_| records.is_empty()) {
            self.ledger.ensure_known(environment).await.map_err(status)?;
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for record in records {
            let changes = item_changes(&self.ledger, &record).await.map_err(status)?;
            bytes += changes.iter().map(|change| change.key.len() + change.before.len() + change.after.len()).sum::<usize>();
            if bytes > ANSWER_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(audit_entry(record, changes));
        }
        Ok(Response::new(v1::ListAuditResponse { entries }))
    }

    async fn verify_audit(&self, _: Request<v1::VerifyAuditRequest>) -> Answer<v1::VerifyAuditResponse> {
        let verdict = self.ledger.verify_audit().await.map_err(status)?;
        let (broken_at, problem) = verdict.broken.map(|broken| (broken.seq, broken.problem)).unzip();
        Ok(Response::new(v1::VerifyAuditResponse {
            intact: broken_at.is_none(),
            entries: verdict.entries,
            broken_at: broken_at.unwrap_or_default(),
            problem: problem.unwrap_or_default(),
            head_hash: verdict.head_hash.to_vec(),
        }))
    }

    type BackupStream = Answers<v1::BackupChunk>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Answer<Self::BackupStream> {
        let chunks = self.ledger.backup().await.map_err(status)?;
        Ok(self.stream(chunks.map(|chunk| chunk.map(|data| v1::BackupChunk { data, intent: None }).map_err(status))))
    }

    async fn restore_backup(&self, request: Request<Streaming<v1::BackupChunk>>) -> Answer<v1::RestoreBackupResponse> {
        let mut chunks = request.into_inner();
        let (mut by, mut reader) = (None, Reader::default());
        while let Some(v1::BackupChunk { data, intent: given }) = chunks.message().await? {
            if by.is_none() {
                by = Some(intent(given).map_err(malformed)?);
            }
            reader.push(&data).map_err(|problem| status(super::ledger::Error::BadBackup { problem }))?;
        }
        let Some(Intent { actor, reason, .. }) = by else {
            return Err(malformed(intent(None).err()));
        };
        let restored = self.ledger.restore_backup(&Actor::new(actor), &reason, reader).await.map_err(status)?;
        Ok(Response::new(answers::restored(restored)))
    }
}

fn has_tags(selector: &Selector, item: &Item) -> bool {
    selector.tags.is_empty() || Flag::from_json(&item.definition).is_ok_and(|flag| selector.takes_tags(&flag.tags))
}
