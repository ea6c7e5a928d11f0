//! The audit record of a metric that was pushed. It changes no flag, so that it has no revision, as those of hooks.

use std::sync::Arc;

use super::Ledger;
use super::authorize::authorize_actor;
use super::command::Actor;
use super::error::Error;
use super::hook::{Edit, Noted};
use super::turn::Urgency;
use crate::control::audit::Action;
use crate::flag::ItemName;

/// Which values of which metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedMetric {
    pub environment: String,
    pub flag: String,
    pub metric: String,
    pub version: u64,
    /// Up to when they are complete. Unix time, microseconds.
    pub watermark_us: i64,
}

impl Ledger {
    /// Durable when it returns. Dropping the future does not stop it.
    pub async fn note_push(self: &Arc<Self>, actor: &Actor, reason: &str, pushed: &PushedMetric) -> Result<(), Error> {
        authorize_actor(actor, reason)?;
        let PushedMetric { environment, flag, metric, version, watermark_us } = pushed;
        let flag = ItemName::flag(flag);
        self.get(environment, &flag)?;
        let until = jiff::Timestamp::from_microsecond(*watermark_us).map_or_else(|_| watermark_us.to_string(), |at| at.to_string());
        let detail = format!("metric {metric}, version {version}, complete up to {until}");
        let (environment, actor, reason, action) = (environment.clone(), actor.clone(), reason.to_owned(), Action::PushMetric);
        self.edit(Urgency::Normal, Edit::Note(Noted { environment, flag, actor, reason, action, detail })).await.map(drop)
    }
}
