//! The connection to the control plane. Both streams share it: the kill lane has its own flow control, and a second connection for each
//! sidecar would cost the control plane half of those that it can hold.

use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};

use crate::wire::v1::replication_client::ReplicationClient;

use super::snapshot::MESSAGE_BYTES;

/// Chunks that are on their way when this side stops reading. What is left of the connection's window is for kills.
const STREAM_WINDOW: u32 = 64 << 10;
/// h2 ends a connection whose many small unread frames would take half of this window; a kill storm is made of small frames.
const CONNECTION_WINDOW: u32 = 2 << 20;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub type Client = ReplicationClient<Channel>;

pub struct Link {
    endpoints: Vec<Endpoint>,
    current: Mutex<Current>,
}

struct Current {
    generation: u64,
    channel: Channel,
}

impl Link {
    /// Connects when it is first used. At least one address; must be called inside a runtime.
    pub fn new(addresses: &[Uri], first: usize) -> Self {
        let endpoints: Vec<_> = addresses.iter().cloned().map(endpoint).collect();
        let generation = first as u64;
        let channel = dial(&endpoints, generation);
        Self { endpoints, current: Mutex::new(Current { generation, channel }) }
    }

    pub fn client(&self) -> (u64, Client) {
        let current = self.current.lock();
        (current.generation, client(current.channel.clone()))
    }

    /// The connection as it is now, for other services of the control plane.
    pub fn channel(&self) -> Channel {
        self.current.lock().channel.clone()
    }

    /// The connection of this generation is no good: the next one goes to the next address. Whoever comes second finds that done.
    pub fn broken(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.generation == generation {
            let generation = generation + 1;
            *current = Current { generation, channel: dial(&self.endpoints, generation) };
        }
    }

    /// A connection of its own, to another address when there is one.
    pub fn apart(&self) -> Client {
        client(dial(&self.endpoints, self.current.lock().generation + 1))
    }
}

fn endpoint(address: Uri) -> Endpoint {
    Endpoint::from(address)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

fn dial(endpoints: &[Endpoint], generation: u64) -> Channel {
    let turn = usize::try_from(generation % endpoints.len().max(1) as u64).unwrap_or_default();
    let endpoint = endpoints.get(turn).cloned().unwrap_or_else(|| Endpoint::from_static("http://127.0.0.1:8020"));
    endpoint.connect_lazy()
}

fn client(channel: Channel) -> Client {
    ReplicationClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
}
