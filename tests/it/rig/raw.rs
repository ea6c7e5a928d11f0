//! The sidecar's end of the wire, in the hands of the test.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use yardarm::flag::Position;
use yardarm::wire::replication::{Ack, Basis, FromSidecar, Hello, Identity};
use yardarm::wire::v1;
use yardarm::wire::v1::follow_response::Message;
use yardarm::wire::v1::replication_client::ReplicationClient;

use super::{ENVIRONMENT, identity, within};

/// A stream that reads only when it is told to.
pub struct Raw {
    pub says: mpsc::Sender<v1::FollowRequest>,
    pub hears: Streaming<v1::FollowResponse>,
}

pub async fn connect(control_plane: SocketAddr) -> ReplicationClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{control_plane}")).unwrap();
    // The windows of a real sidecar.
    let endpoint = endpoint.initial_stream_window_size(64 << 10).initial_connection_window_size(2 << 20).tcp_nodelay(true);
    let channel = within("the test connects", endpoint.connect()).await.unwrap();
    ReplicationClient::new(channel).max_decoding_message_size(64 << 20)
}

pub fn hello(pod: &str, basis: Option<Basis>) -> Hello {
    let environment = ENVIRONMENT.to_owned();
    Hello { environment, identity: identity(pod), basis, capabilities: Vec::new(), accepts_lz4: true }
}

impl Raw {
    pub async fn open(client: &mut ReplicationClient<Channel>, hello: Hello) -> Result<Self, Status> {
        Self::say(client, FromSidecar::Hello(hello).into()).await
    }

    /// Opens a stream with any first message.
    pub async fn say(client: &mut ReplicationClient<Channel>, first: v1::FollowRequest) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(16);
        says.send(first).await.unwrap();
        let hears = within("the stream is answered", client.follow(ReceiverStream::new(said))).await?.into_inner();
        Ok(Self { says, hears })
    }

    pub async fn ack(&self, ack: Ack) {
        self.says.send(FromSidecar::Ack(ack).into()).await.unwrap();
    }

    pub async fn next(&mut self) -> Result<Message, Status> {
        let message = within("the next message", self.hears.message()).await?;
        Ok(message.ok_or_else(|| Status::ok("the stream ended"))?.message.unwrap())
    }

    pub async fn welcome(&mut self) -> v1::Welcome {
        match self.next().await.unwrap() {
            Message::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }

    /// The next message that is not a sign of life.
    pub async fn news(&mut self) -> Message {
        loop {
            match self.next().await.unwrap() {
                Message::Heartbeat(_) => {}
                news => return news,
            }
        }
    }

    /// Reads until the position is reached; answers the number of messages and of bytes that it took.
    pub async fn reach(&mut self, position: Position) -> (usize, usize) {
        let (mut messages, mut bytes) = (0, 0);
        loop {
            let news = self.news().await;
            messages += 1;
            let arrived = match news {
                Message::Delta(delta) => {
                    bytes += prost::Message::encoded_len(&delta);
                    Position { epoch: delta.epoch, revision: delta.revision }
                }
                Message::SnapshotChunk(chunk) => {
                    bytes += chunk.data.len();
                    if chunk.index + 1 < chunk.count {
                        continue;
                    }
                    chunk.position.unwrap().into()
                }
                other => panic!("{other:?}"),
            };
            if arrived == position {
                return (messages, bytes);
            }
        }
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

pub async fn urgent(client: &mut ReplicationClient<Channel>, who: Identity) -> Result<Streaming<v1::KillNotice>, Status> {
    let request = v1::UrgentRequest { environment: ENVIRONMENT.to_owned(), identity: Some(who.into()) };
    Ok(within("the kill lane is answered", client.urgent(request)).await?.into_inner())
}

/// The next kill or restore.
pub async fn notice(lane: &mut Streaming<v1::KillNotice>) -> v1::KillRegister {
    loop {
        if let Some(kill) = within("the next notice", lane.message()).await.unwrap().expect("the lane is open").kill {
            return kill;
        }
    }
}
