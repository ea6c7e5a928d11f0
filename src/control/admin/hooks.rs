//! Hooks, from and to messages. The token is minted here and leaves with the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tonic::Status;

use super::status::{malformed, status};
use crate::control::audit::sha256;
use crate::control::ledger::{Actor, HookName, Ledger, ListedHook, NewHook};
use crate::control::{hex, hooks};
use crate::wire::admin::{Intent, intent, timestamp};
use crate::wire::v1;

const DEFAULT_AGE: Duration = Duration::from_secs(3_600);

pub(super) async fn create(
    ledger: &Arc<Ledger>,
    webhooks: Option<SocketAddr>,
    request: v1::CreateHookRequest,
) -> Result<v1::CreateHookResponse, Status> {
    let v1::CreateHookRequest { environment, key, max_age_ms, intent: by } = request;
    let Intent { actor, reason, .. } = intent(by).map_err(malformed)?;
    let max_age = if max_age_ms == 0 { DEFAULT_AGE } else { Duration::from_millis(max_age_ms) };
    let name = HookName { environment, flag: key, id: hex::encode(&rand::rng().random::<[u8; 6]>()) };
    let token = hex::encode(&rand::rng().random::<[u8; 32]>());
    let hook = NewHook { name: name.clone(), token: sha256(token.as_bytes()), max_age };
    ledger.create_hook(&Actor::new(actor), &reason, hook).await.map_err(status)?;
    let hook = ledger.hook(&name).await.map_err(status)?;
    let path = hooks::path(&name);
    let hook = hook.map(|hook| message(ListedHook { flag: name.flag, hook }));
    Ok(v1::CreateHookResponse { hook, token, path, listen: told(webhooks) })
}

pub(super) async fn list(
    ledger: &Ledger,
    webhooks: Option<SocketAddr>,
    request: v1::ListHooksRequest,
) -> Result<v1::ListHooksResponse, Status> {
    let v1::ListHooksRequest { environment, key } = request;
    let flag = Some(key.as_str()).filter(|key| !key.is_empty());
    let hooks = ledger.hooks(&environment, flag).await.map_err(status)?;
    Ok(v1::ListHooksResponse { hooks: hooks.into_iter().map(message).collect(), listen: told(webhooks) })
}

pub(super) async fn revoke(ledger: &Arc<Ledger>, request: v1::RevokeHookRequest) -> Result<v1::RevokeHookResponse, Status> {
    let v1::RevokeHookRequest { environment, key, id, intent: by } = request;
    let Intent { actor, reason, .. } = intent(by).map_err(malformed)?;
    let name = HookName { environment, flag: key, id };
    ledger.revoke_hook(&Actor::new(actor), &reason, name).await.map_err(status)?;
    Ok(v1::RevokeHookResponse {})
}

fn message(ListedHook { flag, hook }: ListedHook) -> v1::Hook {
    v1::Hook {
        id: hook.id,
        flag_key: flag,
        created_at: Some(timestamp(hook.created_us)),
        actor: hook.actor,
        reason: hook.reason,
        max_age_ms: u64::try_from(hook.max_age_us / 1_000).unwrap_or_default(),
        last_alert_at: hook.seen.last().map(|seen| timestamp(seen.at_us)),
    }
}

fn told(webhooks: Option<SocketAddr>) -> String {
    webhooks.map(|address| address.to_string()).unwrap_or_default()
}
