//! What a sidecar says on its stream: acknowledgements, wishes, goodbye. Everything in it is hostile until proven otherwise.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::{Status, Streaming};

use crate::control::fleet::Presence;
use crate::wire::replication::{FromSidecar, Hello, Malformed, ResyncCause};
use crate::wire::v1;

/// From the head of the request to its first message.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// What the hearing side of a session tells the sending side.
#[derive(Debug, Default)]
pub struct Signals {
    raised: Notify,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    resync: Option<ResyncCause>,
    end: Option<Status>,
}

/// What the sending side does about it.
#[derive(Debug)]
pub enum Signal {
    Resync(ResyncCause),
    End(Status),
}

impl Signals {
    pub fn take(&self) -> Option<Signal> {
        let mut pending = self.pending.lock();
        match pending.end.take() {
            Some(status) => Some(Signal::End(status)),
            None => pending.resync.take().map(Signal::Resync),
        }
    }

    /// Returns when there may be something to take.
    pub async fn raised(&self) {
        self.raised.notified().await;
    }

    fn end(&self, status: Status) {
        self.pending.lock().end = Some(status);
        self.raised.notify_one();
    }

    fn resync(&self, cause: ResyncCause) {
        self.pending.lock().resync = Some(cause);
        self.raised.notify_one();
    }
}

pub fn refused(malformed: Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

/// The first message of a stream.
pub async fn hello(incoming: &mut Streaming<v1::FollowRequest>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, incoming.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded(format!("no Hello came within {} s", HELLO_WITHIN.as_secs())))??;
    let first = first.ok_or_else(|| Status::invalid_argument("the stream ended before its Hello"))?;
    match FromSidecar::try_from(first).map_err(refused)? {
        FromSidecar::Hello(hello) => Ok(hello),
        other => Err(Status::invalid_argument(format!("the first message is {}, expected Hello", name(&other)))),
    }
}

/// Listens until the sidecar leaves; the presence ends with this.
pub async fn listen(mut incoming: Streaming<v1::FollowRequest>, presence: Presence, signals: Arc<Signals>) {
    let end = loop {
        let message = match incoming.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break Status::ok(""),
            Err(status) => break status,
        };
        match FromSidecar::try_from(message) {
            Ok(FromSidecar::Ack(ack)) => presence.acked(ack),
            Ok(FromSidecar::Resync(cause)) => signals.resync(cause),
            Ok(FromSidecar::Goodbye { .. }) => {
                presence.goodbye();
                return signals.end(Status::ok(""));
            }
            Ok(FromSidecar::Hello(_)) => break Status::invalid_argument("a second Hello came on a stream that had one"),
            Err(malformed) => break refused(malformed),
        }
    };
    drop(presence);
    signals.end(end);
}

fn name(said: &FromSidecar) -> &'static str {
    match said {
        FromSidecar::Hello(_) => "Hello",
        FromSidecar::Ack(_) => "Ack",
        FromSidecar::Goodbye { .. } => "Goodbye",
        FromSidecar::Resync(_) => "ResyncRequest",
    }
}
