//! `yardarm hook revoke`.

use serde::Serialize;

use super::Target;
use crate::cli::connect::Author;
use crate::cli::exit::{Exit, Outcome};
use crate::cli::output::Out;
use crate::cli::status;
use crate::wire::v1;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The flag of the hook
    key: String,
    /// The hook; `yardarm hook list` shows them
    id: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    environment: String,
    flag: String,
    id: String,
}

/// Asks nothing: no flag changes, and another hook is one `hook create` away.
pub async fn run(target: Target, args: Args, out: &mut Out) -> Outcome {
    let Target { control, environment } = target;
    let Args { key, id, reason, author } = args;
    let intent = Some(author.intends(reason, None));
    let request = v1::RevokeHookRequest { environment: environment.name.clone(), key: key.clone(), id: id.clone(), intent };
    control.connect().await?.revoke_hook(control.ask(request)).await.map_err(status::of_change)?;
    out.answer(&Revoked { environment: environment.name, flag: key, id }, |out, revoked| {
        out.line(format!("revoked hook {} of {}", revoked.id, revoked.flag))
    })?;
    Ok(Exit::Done)
}
