//! The stream of the log: says hello with what is held, hands on what comes, and connects anew whenever it ends, for whatever reason.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};

use crate::backoff::{self, Backoff};
use crate::flag::{Delta, Position};
use crate::wire::replication::{Basis, FromSidecar, Hello, digest};
use crate::wire::v1;
use crate::wire::v1::follow_response::Message;

use super::board::Word;
use super::metrics::Ended;
use super::owner::FromLog;
use super::snapshot::{Joined, Joiner};
use super::{Following, LOST_AFTER_HEARTBEATS, heartbeat};

/// From the call to the welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// A failure that repeats is told again after this long.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// A snapshot shorter than this is decoded on the spot.
const SMALL: usize = 64 << 10;

/// How a stream ended.
struct End {
    ended: Ended,
    message: String,
    /// The control plane said when to come back.
    retry_after: Option<Duration>,
}

fn end<T>(ended: Ended, message: impl Into<String>) -> Result<T, End> {
    Err(End { ended, message: message.into(), retry_after: None })
}

/// Never returns before the sidecar leaves.
pub async fn run(following: Arc<Following>, log: mpsc::Sender<FromLog>) {
    let mut backoff = Backoff::default();
    let mut told: Option<Instant> = None;
    while !following.leaving.is_cancelled() {
        let (generation, client) = following.link.client();
        let mut session = Session { following: &following, log: &log, client, joiner: Joiner::default(), welcomed: None };
        let End { ended, message, retry_after } = match session.run().await {
            Ok(()) => return,
            Err(end) => end,
        };
        if following.leaving.is_cancelled() {
            return;
        }
        if let Some(welcomed) = session.welcomed {
            backoff.held_for(welcomed.elapsed());
            told = None;
            // An owner that has ended needs no word.
            let _ = log.send(FromLog::End).await;
        }
        following.down();
        following.link.broken(generation);
        following.metrics.reconnect(ended);
        let wait = retry_after.unwrap_or_else(|| backoff.next(&mut rand::rng()));
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            told = Some(Instant::now());
            let (age_ms, retry_ms) = (following.replica.age().as_millis() as u64, wait.as_millis() as u64);
            tracing::warn!(reason = ended.name(), message, retry_ms, age_ms, "not connected to the control plane: serving what is held");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = following.leaving.cancelled() => {}
        }
    }
}

struct Session<'f> {
    following: &'f Arc<Following>,
    log: &'f mpsc::Sender<FromLog>,
    client: super::link::Client,
    joiner: Joiner,
    welcomed: Option<Instant>,
}

impl Session<'_> {
    /// Returns when the sidecar leaves.
    async fn run(&mut self) -> Result<(), End> {
        let call = self.client.follow(words(self.following.clone()));
        let answered = tokio::select! {
            answered = timeout(WELCOME_WITHIN, call) => answered,
            () = self.following.leaving.cancelled() => return Ok(()),
        };
        let mut incoming = match answered {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return refused(&status),
            Err(_) => return end(Ended::Silent, format!("no answer within {} s", WELCOME_WITHIN.as_secs())),
        };
        let mut silence = WELCOME_WITHIN;
        let mut leave_at: Option<Instant> = None;
        loop {
            let message = tokio::select! {
                biased;
                message = next(&mut incoming, silence) => message,
                () = self.following.board.given_up() => return end(Ended::Resyncs, "snapshot after snapshot did not fit"),
                () = sleep_until(leave_at) => return end(Ended::GoAway, "the control plane asked to connect anew"),
                () = self.following.left() => return Ok(()),
            };
            let message = match (message, leave_at) {
                (Ok(message), _) => message,
                // It said when to come back, and then closed.
                (Err(_), Some(at)) => {
                    let retry_after = Some(at.saturating_duration_since(Instant::now()));
                    return Err(End { ended: Ended::GoAway, message: "the control plane asked to connect anew".into(), retry_after });
                }
                (Err(end), None) => return Err(end),
            };
            if let Message::GoAway(v1::GoAway { retry_after_min_ms, retry_after_max_ms, .. }) = message {
                let [min, max] = [retry_after_min_ms, retry_after_max_ms].map(|ms| Duration::from_millis(ms.into()).min(LATEST_RETURN));
                leave_at.get_or_insert(Instant::now() + backoff::within(min, max, &mut rand::rng()));
                continue;
            }
            if let Message::Welcome(v1::Welcome { heartbeat_ms, .. }) = &message {
                silence = heartbeat(*heartbeat_ms) * LOST_AFTER_HEARTBEATS;
            }
            self.hear(message).await?;
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Welcome(welcome) if self.welcomed.is_none() => self.welcome(welcome).await,
            Message::Welcome(_) => end(Ended::Protocol, "a second welcome came"),
            _ if self.welcomed.is_none() => end(Ended::Protocol, "something came before the welcome"),
            Message::SnapshotChunk(chunk) => match self.joiner.push(chunk) {
                Ok(None) => Ok(()),
                Ok(Some(joined)) => {
                    let said = decoded(joined).await;
                    self.hand_on(said).await
                }
                Err(refused) => {
                    tracing::warn!(reason = %refused, "asking for another snapshot");
                    self.hand_on(FromLog::Corrupt).await
                }
            },
            Message::Delta(delta) => match owned(delta) {
                Ok(delta) => self.hand_on(FromLog::Delta(delta)).await,
                Err(malformed) => end(Ended::Protocol, format!("a change is malformed: {malformed}")),
            },
            Message::Heartbeat(v1::Heartbeat { head, digest: sum, pods, .. }) => {
                self.hear_of_pods(pods).await?;
                // Without a head it is a sign of life and no more.
                let Some(head) = head else {
                    self.following.board.alive();
                    return Ok(());
                };
                match digest(&sum) {
                    Ok(digest) => self.hand_on(FromLog::Head(head.into(), digest)).await,
                    Err(malformed) => end(Ended::Protocol, format!("a heartbeat is malformed: {malformed}")),
                }
            }
            Message::GoAway(_) => Ok(()),
        }
    }

    async fn welcome(&mut self, welcome: v1::Welcome) -> Result<(), End> {
        self.welcomed = Some(Instant::now());
        let (mode, head) = (welcome.mode(), welcome.head.map_or_else(Position::default, Position::from));
        let v1::Welcome { session_id, heartbeat_ms, reason, pods, .. } = welcome;
        self.following.up(heartbeat(heartbeat_ms));
        let held = self.following.replica.position();
        tracing::info!(session_id, mode = mode.as_str_name(), reason, %head, %held, "connected to the control plane");
        self.hand_on(FromLog::Begin { head }).await?;
        self.hear_of_pods(pods).await?;
        if mode == v1::welcome::Mode::UpToDate { self.hand_on(FromLog::UpToDate(head)).await } else { Ok(()) }
    }

    /// An older control plane says nothing of them.
    async fn hear_of_pods(&self, pods: u32) -> Result<(), End> {
        let is_news = pods != 0 && pods != self.following.replica.pods();
        if is_news { self.hand_on(FromLog::Pods(pods)).await } else { Ok(()) }
    }

    /// Waits while the owner is busy: then nothing is read, and the control plane merges what it would have sent.
    async fn hand_on(&self, said: FromLog) -> Result<(), End> {
        self.log.send(said).await.or_else(|_| end(Ended::Closed, "the sidecar is ending"))
    }
}

/// The control plane may ask for no more patience than this.
const LATEST_RETURN: Duration = Duration::from_secs(60);

/// The next message that says something.
async fn next(incoming: &mut Streaming<v1::FollowResponse>, silence: Duration) -> Result<Message, End> {
    match timeout(silence, incoming.message()).await {
        Ok(Ok(Some(v1::FollowResponse { message: Some(message) }))) => Ok(message),
        Ok(Ok(Some(v1::FollowResponse { message: None }))) => {
            end(Ended::Protocol, "a message is empty, or of a kind that is not known here")
        }
        Ok(Ok(None)) => end(Ended::Closed, "the control plane ended the stream"),
        Ok(Err(status)) => refused(&status),
        Err(_) => end(Ended::Silent, format!("nothing was heard for {} ms", silence.as_millis())),
    }
}

fn refused<T>(status: &Status) -> Result<T, End> {
    use std::error::Error as _;
    let is_transport = status.source().is_some();
    let ended = match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown if is_transport => Ended::Unreachable,
        tonic::Code::Unavailable | tonic::Code::Cancelled => Ended::Closed,
        _ if is_transport => Ended::Closed,
        _ => Ended::Refused,
    };
    end(ended, format!("{}: {}", status.code(), status.message()))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

pub async fn decoded(joined: Joined) -> FromLog {
    let decoded = match joined.len() {
        0..SMALL => Ok(joined.decode()),
        _ => tokio::task::spawn_blocking(|| joined.decode()).await,
    };
    match decoded {
        Ok(Ok(state)) => FromLog::Snapshot(state),
        Ok(Err(refused)) => {
            tracing::warn!(reason = %refused, "asking for another snapshot");
            FromLog::Corrupt
        }
        Err(_) => FromLog::Corrupt,
    }
}

/// A definition is kept for long: it must not keep the buffer alive that it came in.
pub fn owned(delta: v1::Delta) -> Result<Delta, crate::wire::replication::Malformed> {
    let mut delta = Delta::try_from(delta)?;
    for item in &mut delta.upserts {
        item.definition = bytes::Bytes::copy_from_slice(&item.definition);
    }
    Ok(delta)
}

/// What this side says: hello, then where it stands, and goodbye.
fn words(following: Arc<Following>) -> impl Stream<Item = v1::FollowRequest> + Send {
    let voice = following.board.session_begins();
    let hello = stream::iter([FromSidecar::Hello(hello(&following)).into()]);
    hello.chain(stream::unfold(Some((following, voice)), |speaking| async move {
        let (following, mut voice) = speaking?;
        tokio::select! {
            biased;
            () = following.leaving.cancelled() => {
                let goodbye = FromSidecar::Goodbye { reason: "the sidecar is shutting down".into() };
                Some((goodbye.into(), None))
            }
            word = voice.next() => {
                let said = match word? {
                    Word::Ack(ack) => FromSidecar::Ack(ack),
                    Word::Resync(cause) => FromSidecar::Resync(cause),
                };
                Some((said.into(), Some((following, voice))))
            }
        }
    }))
}

fn hello(following: &Following) -> Hello {
    let replica = &following.replica;
    let basis = replica.is_usable().then(|| Basis { position: replica.position(), digest: replica.digest() });
    let (environment, identity) = (following.settings.environment.clone(), following.settings.identity.clone());
    Hello { environment, identity, basis, capabilities: vec!["flag-document-1".into()], accepts_lz4: true }
}
