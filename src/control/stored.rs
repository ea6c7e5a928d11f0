//! What is kept in the store, under which key and in which spelling. The same for every store, so that a backup of one restores into
//! another.
//!
//! ```text
//! format                                   the number of this layout
//! audit-head                               the newest record of the audit chain
//! audit/{seq}                              one record of it
//! environment/{env}                        epoch, revision, digest, reach of the log
//! env/{env}/flag/{key}                     a definition and the revision of its last change; `segment` likewise
//! env/{env}/kill/{key}                     a kill that stands
//! env/{env}/log/{revision}                 what a change touched: for readers that resume; cut at the old end
//! env/{env}/version/{kind}/{key}/{revision}   every definition that an item ever had
//! env/{env}/rollout/{key}                  where a flag's rollout is
//! env/{env}/decision/{key}/{revision}      what decided it, with all that it was decided from
//! env/{env}/hook/{flag}/{id}               a URL that kills a flag; it goes with the flag and is not copied with the environment
//! env/{env}/restored/{flag}                when the newest kill of a flag was ended: Unix time, microseconds, as text
//! ```
//! Numbers in keys are 16 hexadecimal digits, so that they sort.

mod codec;
mod hook;
mod rollout;
mod version;

use super::audit::kind_name;
use super::store::Range;
use crate::flag::{ItemKind, ItemName, Revision};

pub use codec::{HeadRecord, LogRecord, decode_item, decode_kill, encode_item, encode_kill};
pub use hook::{Hook, Identity, Seen};
pub use rollout::{Decision, decode_rollout, encode_rollout};
pub use version::Version;

pub const FORMAT: &str = "format";
/// The layout that this version writes, and the only one that it reads.
pub const FORMAT_NOW: &str = "1";

pub const AUDIT_HEAD: &str = "audit-head";

pub fn audit(seq: u64) -> String {
    format!("audit/{seq:016x}")
}

pub fn audits() -> Range {
    Range::under("audit/")
}

pub fn environment(name: &str) -> String {
    format!("environment/{name}")
}

pub fn environments() -> Range {
    Range::under("environment/")
}

/// Everything of one environment but its head.
pub fn content(environment: &str) -> Range {
    Range::under(format!("env/{environment}/"))
}

pub fn item(environment: &str, ItemName { kind, key }: &ItemName) -> String {
    format!("env/{environment}/{}/{key}", kind_name(*kind))
}

pub fn items(environment: &str, kind: ItemKind) -> Range {
    Range::under(format!("env/{environment}/{}/", kind_name(kind)))
}

pub fn kill(environment: &str, flag: &str) -> String {
    format!("env/{environment}/kill/{flag}")
}

pub fn kills(environment: &str) -> Range {
    Range::under(format!("env/{environment}/kill/"))
}

pub fn rollout(environment: &str, flag: &str) -> String {
    format!("env/{environment}/rollout/{flag}")
}

pub fn rollouts(environment: &str) -> Range {
    Range::under(format!("env/{environment}/rollout/"))
}

pub fn decision(environment: &str, flag: &str, revision: Revision) -> String {
    format!("env/{environment}/decision/{flag}/{revision:016x}")
}

pub fn decisions(environment: &str, flag: &str) -> Range {
    Range::under(format!("env/{environment}/decision/{flag}/"))
}

pub fn log(environment: &str, revision: Revision) -> String {
    format!("env/{environment}/log/{revision:016x}")
}

pub fn logs(environment: &str) -> Range {
    Range::under(format!("env/{environment}/log/"))
}

pub fn version(environment: &str, item: &ItemName, revision: Revision) -> String {
    format!("{}{revision:016x}", versions_prefix(environment, item))
}

pub fn versions(environment: &str, item: &ItemName) -> Range {
    Range::under(versions_prefix(environment, item))
}

/// Of every item.
pub fn all_versions(environment: &str) -> Range {
    Range::under(format!("env/{environment}/version/"))
}

fn versions_prefix(environment: &str, ItemName { kind, key }: &ItemName) -> String {
    format!("env/{environment}/version/{}/{key}/", kind_name(*kind))
}

pub fn hook(environment: &str, flag: &str, id: &str) -> String {
    format!("env/{environment}/hook/{flag}/{id}")
}

pub fn hooks(environment: &str, flag: &str) -> Range {
    Range::under(format!("env/{environment}/hook/{flag}/"))
}

/// Of every flag.
pub fn all_hooks(environment: &str) -> Range {
    Range::under(format!("env/{environment}/hook/"))
}

/// The flag of a hook's key.
pub fn flag_of_hook(key: &str) -> &str {
    key.rsplit('/').nth(1).unwrap_or_default()
}

pub fn restored(environment: &str, flag: &str) -> String {
    format!("env/{environment}/restored/{flag}")
}

/// Whether a key is one of this layout, in an environment that there is.
pub fn is_ours(key: &str, is_environment: impl Fn(&str) -> bool) -> bool {
    let mut parts = key.split('/');
    match parts.next() {
        Some(FORMAT | AUDIT_HEAD) => parts.next().is_none(),
        Some("audit") => parts.next().is_some() && parts.next().is_none(),
        Some("environment") => parts.next().is_some_and(is_environment) && parts.next().is_none(),
        Some("env") => {
            let is_there = parts.next().is_some_and(is_environment);
            let expected = match parts.next() {
                Some("flag" | "segment" | "kill" | "log" | "rollout" | "restored") => 1,
                Some("decision" | "hook") => 2,
                Some("version") => 3,
                _ => return false,
            };
            is_there && parts.count() == expected
        }
        _ => false,
    }
}

/// The last part of a stored key: a flag's key, or a number.
pub fn last_part(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, last)| last)
}

/// The number that a stored key ends with.
pub fn number(key: &str) -> Option<u64> {
    u64::from_str_radix(last_part(key), 16).ok()
}
