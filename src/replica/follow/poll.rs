//! The fallback: while there is no stream, asks for what a stream would have sent. Streaming may be what is broken.

use std::sync::Arc;

use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::flag::Position;
use crate::wire::replication::{Basis, digest};
use crate::wire::v1;
use crate::wire::v1::fetch_response::Answer;

use super::Following;
use super::metrics::count;
use super::owner::FromLog;
use super::snapshot::{Joiner, STATE_BYTES};
use super::stream::{decoded, owned};

/// Never returns before the sidecar leaves.
pub async fn run(following: Arc<Following>, log: mpsc::Sender<FromLog>) {
    let mut state = following.state.subscribe();
    loop {
        let down_since = state.borrow_and_update().down_since;
        let due = down_since.map(|since| since + following.settings.timing.poll_after);
        tokio::select! {
            () = following.leaving.cancelled() => return,
            _ = state.changed() => continue,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        tokio::select! {
            () = following.leaving.cancelled() => return,
            () = poll_until_up(&following, &log) => {}
        }
    }
}

async fn poll_until_up(following: &Following, log: &mpsc::Sender<FromLog>) {
    let every = following.settings.timing.poll_every;
    while following.state.borrow().down_since.is_some() {
        let next = Instant::now() + every.mul_f64(rand::rng().random_range(0.5..=1.5));
        match timeout(every, fetch(following)).await {
            Ok(Ok(said)) => {
                count(&following.metrics.polls);
                if log.send(said).await.is_err() {
                    return;
                }
            }
            Ok(Err(_)) | Err(_) => count(&following.metrics.poll_failures),
        }
        sleep_until(next).await;
    }
}

/// What failed is told by the stream, which goes on trying.
struct Failed;

async fn fetch(following: &Following) -> Result<FromLog, Failed> {
    let replica = &following.replica;
    let held = replica.position();
    let is_known = replica.is_usable() && !following.board.wants_snapshot();
    let basis = is_known.then(|| Basis { position: replica.position(), digest: replica.digest() });
    let request = v1::FetchRequest {
        environment: following.settings.environment.clone(),
        identity: Some(following.settings.identity.clone().into()),
        basis: basis.map(Into::into),
        ack: replica.is_usable().then(|| following.board.ack().into()),
    };
    let mut client = following.link.apart().max_decoding_message_size(STATE_BYTES as usize);
    let answer = client.fetch(request).await.map_err(|_| Failed)?.into_inner().answer.ok_or(Failed)?;
    Ok(FromLog::Polled { held, answer: Box::new(read(answer).await?) })
}

async fn read(answer: Answer) -> Result<FromLog, Failed> {
    match answer {
        Answer::NotModified(v1::Heartbeat { head, digest: sum, .. }) => {
            let head = head.map(Position::from).ok_or(Failed)?;
            Ok(FromLog::Head(head, digest(&sum).map_err(|_| Failed)?))
        }
        Answer::Delta(delta) => Ok(FromLog::Delta(owned(delta).map_err(|_| Failed)?)),
        Answer::Snapshot(v1::Snapshot { chunks }) => {
            let mut joiner = Joiner::default();
            let mut joined = None;
            for chunk in chunks {
                joined = joiner.push(chunk).map_err(|_| Failed)?;
            }
            Ok(decoded(joined.ok_or(Failed)?).await)
        }
    }
}
