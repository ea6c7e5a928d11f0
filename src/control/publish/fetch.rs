//! The poll fallback: what a stream would have sent, in one answer.

use std::sync::Arc;

use crate::wire::replication::{Ack, Basis, environment, identity};
use crate::wire::v1;
use tonic::Status;

use super::feed::{Step, not_before};
use super::hear::refused;
use super::session::heartbeat;
use super::{Hub, unknown_environment};

pub async fn fetch(hub: Arc<Hub>, request: v1::FetchRequest) -> Result<v1::FetchResponse, Status> {
    let v1::FetchRequest { environment: name, identity: who, basis, ack } = request;
    let name = environment(name).map_err(refused)?;
    let who = identity(who).map_err(refused)?;
    let basis = basis.map(Basis::try_from).transpose().map_err(refused)?;
    let ack = ack.map(Ack::try_from).transpose().map_err(refused)?;
    let feed = hub.feed(&name)?;
    // Without a basis it wants everything anew, and still says where it stands.
    let held = basis.map(|basis| basis.position).or(ack.as_ref().map(|ack| ack.position)).unwrap_or_default();
    hub.fleet.polled(&name, who, basis, ack);

    let gone = || unknown_environment(&hub.ledger, &name);
    let head = (*feed.head().borrow()).ok_or_else(gone)?;
    let snapshot_from = match (feed.first_step(basis, head), basis) {
        (Step::UpToDate, _) => return Ok(answer(v1::fetch_response::Answer::NotModified(heartbeat(Some(head), &hub, &name)))),
        (Step::Snapshot { least, .. }, Some(_)) => least,
        (Step::Snapshot { .. }, None) => not_before(held, head.position),
        (Step::Frames(..), basis) => match basis.and_then(|basis| feed.delta(basis.position, head)) {
            Some(delta) => return Ok(answer(v1::fetch_response::Answer::Delta(delta))),
            None => head.position,
        },
    };
    let snapshot = feed.snapshot(snapshot_from, true).await?.ok_or_else(gone)?;
    Ok(answer(v1::fetch_response::Answer::Snapshot(v1::Snapshot { chunks: snapshot.chunks()? })))
}

fn answer(answer: v1::fetch_response::Answer) -> v1::FetchResponse {
    v1::FetchResponse { answer: Some(answer) }
}
