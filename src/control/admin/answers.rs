//! Answers, from the domain.

use crate::control::audit::{Hash, Record};
use crate::control::ledger::{Committed, EnvironmentInfo, Error, HistoryEntry, ItemChange, Ledger, Restored};
use crate::wire::admin::{item_change, timestamp};
use crate::wire::v1;

/// Definitions that one answer to an apply carries at most, bytes; beyond it the changes come without them.
const APPLY_BYTES: usize = 48 << 20;
/// Definitions that one audit entry carries at most, bytes.
const ENTRY_BYTES: usize = 4 << 20;

pub(super) fn environment(pods: usize, info: EnvironmentInfo) -> v1::Environment {
    let EnvironmentInfo { name, position, flags, segments } = info;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Environment { name, position: Some(position.into()), flags: count(flags), segments: count(segments), pods: count(pods) }
}

pub(super) fn apply(Committed { position, changed, changes }: Committed) -> v1::ApplyResponse {
    let bytes: usize = changes.iter().map(|change| length(&change.before) + length(&change.after)).sum();
    let keep = bytes <= APPLY_BYTES;
    let change = |ItemChange { item, before, after }| item_change(item, before.filter(|_| keep), after.filter(|_| keep));
    v1::ApplyResponse { position: Some(position.into()), changed, changes: changes.into_iter().map(change).collect() }
}

/// As many as fit into `bytes`, but one at least.
pub(super) fn history(entries: Vec<HistoryEntry>, bytes: usize) -> Vec<v1::HistoryEntry> {
    let mut sum = 0;
    let mut answered = Vec::new();
    for HistoryEntry { revision, at_us, actor, action, reason, before, after } in entries {
        sum += length(&before) + length(&after);
        if sum > bytes && !answered.is_empty() {
            break;
        }
        let json = |definition: Option<bytes::Bytes>| definition.unwrap_or_default().into();
        let (at, action) = (Some(timestamp(at_us)), action.as_str().to_owned());
        answered.push(v1::HistoryEntry { revision, at, actor, reason, action, before: json(before), after: json(after) });
    }
    answered
}

/// The changes of an audit record with their definitions, as far as those are kept and small enough.
pub(super) async fn item_changes(ledger: &Ledger, record: &Record) -> Result<Vec<v1::ItemChange>, Error> {
    let changes = ledger.item_changes(record, ENTRY_BYTES).await?;
    Ok(changes.into_iter().map(|ItemChange { item, before, after }| item_change(item, before, after)).collect())
}

pub(super) fn audit_entry(record: Record, changes: Vec<v1::ItemChange>) -> v1::AuditEntry {
    let hash = |hash: Option<Hash>| hash.map(Vec::from).unwrap_or_default();
    let (before_hash, after_hash) = (hash(record.before_hash()), hash(record.after_hash()));
    let Record { seq, at_us, actor, action, environment, position, reason, detail, changes: touched, prev_hash, hash } = record;
    v1::AuditEntry {
        seq,
        at: Some(timestamp(at_us)),
        actor,
        action: action.as_str().to_owned(),
        environment,
        keys: touched.into_iter().map(|touched| touched.item.key).collect(),
        reason,
        position: Some(position.into()),
        before_hash,
        after_hash,
        prev_hash: prev_hash.to_vec(),
        hash: hash.to_vec(),
        changes,
        detail,
    }
}

pub(super) fn restored(Restored { epoch, environments, records, kills_kept }: Restored) -> v1::RestoreBackupResponse {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::RestoreBackupResponse { epoch, environments: count(environments), records: records as u64, kills_kept: count(kills_kept) }
}

fn length(definition: &Option<bytes::Bytes>) -> usize {
    definition.as_ref().map_or(0, bytes::Bytes::len)
}
