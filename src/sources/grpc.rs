//! flagd's sync service, of a flagd or of a Yardarm: each message is everything. While the peer is away, what it said last is served.

use std::time::{Duration, Instant};

use ::http::Uri;
use ::http::uri::Authority;
use hyper_util::rt::TokioIo;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Status};

use crate::backoff::Backoff;
use crate::flag::limits;
use crate::wire::flagd::sync::SyncFlagsRequest;
use crate::wire::flagd::sync::flag_sync_service_client::FlagSyncServiceClient;

use super::place::Peer;
use super::tls::{Trust, bare};
use super::{Desk, Report};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A peer that is gone without a word is found out by this.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Beside a document in a message.
const ROOM: usize = 1024 * 1024;

pub(super) async fn follow(name: &str, peer: &Peer, desk: &Desk) {
    let (mut backoff, mut rng) = (Backoff::default(), StdRng::from_os_rng());
    loop {
        let began = Instant::now();
        let why = match listen(peer, desk).await {
            Ok(Ended::Nobody) => return,
            Ok(Ended::ByPeer) => format!("{name} ended the stream"),
            Err(error) => error.to_string(),
        };
        if !desk.report(Report::Lost(why)).await {
            return;
        }
        backoff.held_for(began.elapsed());
        tokio::time::sleep(backoff.next(&mut rng)).await;
    }
}

enum Ended {
    ByPeer,
    /// Nobody listens here any more.
    Nobody,
}

async fn listen(peer: &Peer, desk: &Desk) -> anyhow::Result<Ended> {
    let Peer { authority, roots, provider_id, selector, max_message } = peer;
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE / 2);
    let connected = match roots {
        None => endpoint.connect().await,
        Some(roots) => by_tls(endpoint, authority, roots.read(b"h2")?).await?,
    };
    let channel = connected.map_err(|error| anyhow::anyhow!("{}", innermost(&error)))?;
    let most = max_message.unwrap_or(limits::DOCUMENT_BYTES + ROOM);
    let mut client = FlagSyncServiceClient::new(channel).max_decoding_message_size(most);
    let mut request = Request::new(SyncFlagsRequest { provider_id: provider_id.clone(), selector: selector.clone() });
    if !selector.is_empty() {
        request.metadata_mut().insert("flagd-selector", MetadataValue::try_from(selector)?);
    }
    let told = |status: Status| anyhow::anyhow!("{:?}: {}", status.code(), status.message());
    let mut stream = client.sync_flags(request).await.map_err(told)?.into_inner();
    while let Some(message) = stream.message().await.map_err(told)? {
        if !desk.report(Report::Document(message.flag_configuration)).await {
            return Ok(Ended::Nobody);
        }
    }
    Ok(Ended::ByPeer)
}

async fn by_tls(endpoint: Endpoint, authority: &Authority, trust: Trust) -> anyhow::Result<Result<Channel, Error>> {
    let (host, port) = (authority.host().to_owned(), authority.port_u16().unwrap_or(443));
    let connect = tower::service_fn(move |_: Uri| {
        let (host, trust) = (host.clone(), trust.clone());
        async move {
            let stream = TcpStream::connect((bare(&host), port)).await?;
            anyhow::Ok(TokioIo::new(trust.connect(&host, stream).await?))
        }
    });
    // The scheme of its requests is that of the origin.
    Ok(endpoint.origin(Uri::try_from(format!("https://{authority}"))?).connect_with_connector(connect).await)
}

/// The cause that says what to do.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
