//! `yardarm backup` and `yardarm restore-backup`: everything that the control plane holds, in one file.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::connect::{Author, ControlPlane};
use super::exit::{Exit, Failure, Outcome, innermost};
use super::output::{self, Out, count};
use super::replace::Replacement;
use super::status;
use crate::wire::v1::{BackupChunk, BackupRequest, RestoreBackupResponse};

/// Well under gRPC's usual bound of 4 MiB for a message.
const CHUNK: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    control: ControlPlane,
    /// Where to write it; `-` for standard output. An older file of this name is replaced when the new one is complete, also behind a link; a
    /// pipe or a device is written to
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    control: ControlPlane,
    #[command(flatten)]
    author: Author,
    /// What `yardarm backup` wrote; `-` for standard input
    file: PathBuf,
    /// Why, for the audit log
    #[arg(long, default_value = "backup restored from the command line")]
    reason: String,
    /// Replace everything without asking
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    file: PathBuf,
    bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    epoch: u64,
    environments: u32,
    records: u64,
    /// Kills that stood, are not in the backup, and were kept.
    kills_kept: u32,
}

pub async fn run(args: Args, out: &mut Out) -> Outcome {
    let Args { control, file } = args;
    let mut chunks = control.connect().await?.backup(BackupRequest {}).await.map_err(status::of_control)?.into_inner();
    // After the bytes no line may follow.
    if ["-", "/dev/stdout", "/dev/fd/1"].iter().any(|name| file.as_os_str() == *name) {
        while let Some(chunk) = chunks.next().await {
            out.bytes(&chunk.map_err(status::of_control)?.data)?;
        }
        return Ok(Exit::Done);
    }
    // A backup that broke off half-way must not take the place of an older one that is whole.
    let unwritable = |error: io::Error| Failure::unable(format!("cannot write {}: {}", file.display(), innermost(&error)));
    let mut target = Replacement::of(&file).map_err(unwritable)?;
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let data = chunk.map_err(status::of_control)?.data;
        target.write_all(&data).map_err(unwritable)?;
        bytes += data.len() as u64;
    }
    target.finish().map_err(unwritable)?;
    out.answer(&Written { file, bytes }, |out, Written { file, bytes }| {
        out.line(format!("wrote {bytes} bytes to {}; bring them back with `yardarm restore-backup {0}`", file.display()))
    })?;
    Ok(Exit::Done)
}

pub async fn restore(args: RestoreArgs, out: &mut Out) -> Outcome {
    let RestoreArgs { control, author, file, reason, yes } = args;
    let data = read(&file)?;
    let mut admin = control.connect().await?;
    output::confirm(yes, &format!("Replace every environment at {} with the backup {}?", control.url, file.display()))?;
    let first = BackupChunk { data: Default::default(), intent: Some(author.intends(reason, None)) };
    let chunks: Vec<_> = std::iter::once(first)
        .chain(
            (0..data.len())
                .step_by(CHUNK)
                .map(|start| BackupChunk { data: data.slice(start..data.len().min(start + CHUNK)), intent: None }),
        )
        .collect();
    let answer = admin.restore_backup(tokio_stream::iter(chunks)).await.map_err(status::of_change)?.into_inner();
    out.answer(&Restored::from(answer), |out, restored| {
        let Restored { environments, records, kills_kept, .. } = restored;
        if *kills_kept > 0 {
            out.note(format!("{} that stood and are not in the backup were kept", count(*kills_kept as usize, "kill")));
        }
        let environments = count(*environments as usize, "environment");
        out.line(format!("restored {environments} ({records} records); every sidecar takes all of it anew, see `yardarm pods`"))
    })?;
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<bytes::Bytes, Failure> {
    let unreadable = |error: io::Error| Failure::unable(format!("cannot read the backup {}: {}", file.display(), innermost(&error)));
    if file.as_os_str() == "-" {
        let mut data = Vec::new();
        io::stdin().read_to_end(&mut data).map_err(unreadable)?;
        return Ok(data.into());
    }
    std::fs::read(file).map(bytes::Bytes::from).map_err(unreadable)
}

impl From<RestoreBackupResponse> for Restored {
    fn from(answer: RestoreBackupResponse) -> Self {
        let RestoreBackupResponse { epoch, environments, records, kills_kept } = answer;
        Self { epoch, environments, records, kills_kept }
    }
}
