//! The control plane's end of the wire, in the hands of the test.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use yardarm::flag::{Delta, Digest, Item, Kill, Position, State};
use yardarm::wire::replication::{Ack, FromSidecar, Hello, ResyncCause};
use yardarm::wire::v1;
use yardarm::wire::v1::follow_response::Message;
use yardarm::wire::v1::replication_server::{Replication, ReplicationServer};

use super::{serve, within};

/// Each stream that a sidecar opens is handed to the test.
pub struct Script {
    pub address: SocketAddr,
    /// What polls are answered; UNAVAILABLE until there is something.
    pub poll: watch::Sender<Option<v1::FetchResponse>>,
    pub follows: mpsc::Receiver<Follow>,
    pub lanes: mpsc::Receiver<Lane>,
}

pub struct Follow {
    pub hello: Hello,
    pub says: mpsc::Sender<Result<v1::FollowResponse, Status>>,
    hears: Streaming<v1::FollowRequest>,
}

pub type Lane = mpsc::Sender<Result<v1::KillNotice, Status>>;

struct Service {
    poll: watch::Receiver<Option<v1::FetchResponse>>,
    follows: mpsc::Sender<Follow>,
    lanes: mpsc::Sender<Lane>,
}

impl Script {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (follows, from_follows) = mpsc::channel(16);
        let (lanes, from_lanes) = mpsc::channel(16);
        let (poll, polled) = watch::channel(None);
        let service = ReplicationServer::new(Service { poll: polled, follows, lanes });
        tokio::spawn(serve(listener, service));
        Self { address, poll, follows: from_follows, lanes: from_lanes }
    }

    pub async fn follow(&mut self) -> Follow {
        within("a sidecar follows", self.follows.recv()).await.unwrap()
    }

    pub async fn lane(&mut self) -> Lane {
        within("a sidecar listens to the kill lane", self.lanes.recv()).await.unwrap()
    }
}

impl Follow {
    pub async fn say(&self, message: Message) {
        self.answer(v1::FollowResponse { message: Some(message) }).await;
    }

    pub async fn answer(&self, response: v1::FollowResponse) {
        // A sidecar that hung up is found by what it does next.
        let _ = self.says.send(Ok(response)).await;
    }

    pub async fn welcome(&self, head: Position, mode: v1::welcome::Mode, heartbeat_ms: u32) {
        let (session_id, reason) = ("script".into(), String::new());
        self.say(Message::Welcome(v1::Welcome { session_id, head: Some(head.into()), heartbeat_ms, mode: mode.into(), reason, pods: 0 }))
            .await;
    }

    /// Welcome, and the state as a snapshot of one chunk.
    pub async fn welcome_with(&self, state: State) {
        self.welcome(state.position, v1::welcome::Mode::Snapshot, 5_000).await;
        self.snapshot(state).await;
    }

    pub async fn snapshot(&self, state: State) {
        self.say(Message::SnapshotChunk(chunk(state))).await;
    }

    pub async fn delta(&self, delta: Delta) {
        self.say(Message::Delta(delta.into())).await;
    }

    pub async fn heartbeat(&self, head: Position, digest: Digest) {
        let digest = digest.to_bytes().to_vec();
        self.say(Message::Heartbeat(v1::Heartbeat { head: Some(head.into()), digest, server_time_us: 0, pods: 0 })).await;
    }

    pub async fn hear(&mut self) -> Option<FromSidecar> {
        let said = within("the sidecar says something", self.hears.message()).await.ok()??;
        Some(FromSidecar::try_from(said).expect("a sidecar says nothing malformed"))
    }

    pub async fn ack(&mut self) -> Ack {
        match self.hear().await {
            Some(FromSidecar::Ack(ack)) => ack,
            other => panic!("{other:?}"),
        }
    }

    /// The first acknowledgement of a position.
    pub async fn acked(&mut self, position: Position) -> Ack {
        loop {
            let ack = self.ack().await;
            if ack.position == position {
                return ack;
            }
        }
    }

    pub async fn resync(&mut self) -> ResyncCause {
        loop {
            match self.hear().await {
                Some(FromSidecar::Resync(cause)) => return cause,
                Some(_) => {}
                None => panic!("the sidecar hung up"),
            }
        }
    }
}

pub fn chunk(state: State) -> v1::SnapshotChunk {
    let position = Some(state.position.into());
    let data = prost::Message::encode_to_vec(&v1::State::from(state));
    let (crc32, state_bytes) = (crc32fast::hash(&data), data.len() as u64);
    v1::SnapshotChunk { position, index: 0, count: 1, data: data.into(), crc32, encoding: 0, state_bytes }
}

/// A state with a true digest.
pub fn state(position: Position, items: Vec<Item>, kills: Vec<Kill>) -> State {
    let digest = Digest::of(&items, &kills);
    State { position, items, kills, digest, origin_time_us: 0 }
}

#[tonic::async_trait]
impl Replication for Service {
    type FollowStream = ReceiverStream<Result<v1::FollowResponse, Status>>;
    type UrgentStream = ReceiverStream<Result<v1::KillNotice, Status>>;

    async fn follow(&self, request: Request<Streaming<v1::FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let mut hears = request.into_inner();
        let first = hears.message().await?.ok_or_else(|| Status::internal("no hello"))?;
        let Ok(FromSidecar::Hello(hello)) = FromSidecar::try_from(first) else { return Err(Status::internal("no hello")) };
        let (says, said) = mpsc::channel(64);
        self.follows.send(Follow { hello, says, hears }).await.map_err(|_| Status::unavailable("the script is over"))?;
        Ok(Response::new(ReceiverStream::new(said)))
    }

    async fn urgent(&self, _: Request<v1::UrgentRequest>) -> Result<Response<Self::UrgentStream>, Status> {
        let (says, said) = mpsc::channel(64);
        self.lanes.send(says).await.map_err(|_| Status::unavailable("the script is over"))?;
        Ok(Response::new(ReceiverStream::new(said)))
    }

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let answer = self.poll.borrow().clone();
        answer.map(Response::new).ok_or_else(|| Status::unavailable("the script has no answer"))
    }
}
