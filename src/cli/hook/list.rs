//! `yardarm hook list`.

use std::time::Duration;

use serde::Serialize;

use super::Target;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::Out;
use crate::cli::table::{Rows, plain};
use crate::cli::view::{clock, time};
use crate::cli::{duration, status};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag whose hooks are listed [default: all]
    key: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    environment: String,
    /// Where the control plane takes webhooks.
    listen: Option<String>,
    hooks: Vec<Hook>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    id: String,
    flag: String,
    created_at: Option<String>,
    actor: String,
    reason: String,
    max_age_ms: u64,
    last_alert_at: Option<String>,
    #[serde(skip)]
    last_alert: String,
}

pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let request = v1::ListHooksRequest { environment: environment.name.clone(), key: args.key.unwrap_or_default() };
    let answer = control.connect().await?.list_hooks(control.ask(request)).await.map_err(status::of_control)?.into_inner();
    let v1::ListHooksResponse { hooks, listen } = answer;
    let listen = Some(listen).filter(|listen| !listen.is_empty());
    out.answer(&Listed { environment: environment.name, listen, hooks: hooks.into_iter().map(Hook::from).collect() }, print)?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, listed: &Listed) -> Result<(), Failure> {
    if listed.hooks.is_empty() {
        return out.line("no hook yet; make one with `yardarm hook create KEY --reason WHY`");
    }
    let mut rows = Rows::under(["HOOK", "FLAG", "LAST ALERT", "MAX AGE", "BY", "REASON"]);
    for Hook { id, flag, actor, reason, max_age_ms, last_alert, .. } in &listed.hooks {
        let age = duration::rough(Duration::from_millis(*max_age_ms));
        rows.row([id.clone(), flag.clone(), last_alert.clone(), age, actor.clone(), reason.clone()], plain());
    }
    rows.print(out)
}

impl From<v1::Hook> for Hook {
    fn from(hook: v1::Hook) -> Self {
        let v1::Hook { id, flag_key, created_at, actor, reason, max_age_ms, last_alert_at } = hook;
        let (created_at, last_alert) = (time(created_at), clock(last_alert_at));
        Self { id, flag: flag_key, created_at, actor, reason, max_age_ms, last_alert_at: time(last_alert_at), last_alert }
    }
}
