//! The Replication service over HTTP. tonic's generated server would encode every message for every stream; this one hands out frames that
//! were encoded once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http_body::Body;
use prost::Message;
use tonic::codec::Codec as _;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::wire::replication::{FROM_SIDECAR_BYTES, environment, identity};
use crate::wire::{frame, v1};

use super::fetch::fetch;
use super::hear::{Signals, hello, listen, refused};
use super::session::{Session, go_away};
use super::urgent::Lane;
use super::{Args, Hub};

type Response = http::Response<tonic::body::Body>;

/// Serves `yardarm.v1.Replication`. Clones are the same service.
#[derive(Clone)]
pub struct Publish {
    hub: Arc<Hub>,
}

impl Publish {
    pub(super) fn of(hub: Hub) -> Self {
        Self { hub: Arc::new(hub) }
    }

    pub fn args(&self) -> &Args {
        &self.hub.args
    }
}

impl NamedService for Publish {
    const NAME: &'static str = "yardarm.v1.Replication";
}

impl<B> tower::Service<http::Request<B>> for Publish
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let hub = self.hub.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            let answer = match method.as_str() {
                "Follow" => follow(hub, incoming(request)).await,
                "Urgent" => urgent(hub, incoming(request)).await,
                "Fetch" => poll(hub, incoming(request)).await,
                _ => Err(Status::unimplemented(format!("yardarm.v1.Replication has no method `{method}`"))),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

fn incoming<M, B>(request: http::Request<B>) -> Streaming<M>
where
    M: Message + Default + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let decoder = ProstCodec::<M, M>::default().decoder();
    Streaming::new_request(decoder, request.into_body(), None, Some(FROM_SIDECAR_BYTES))
}

async fn follow(hub: Arc<Hub>, mut incoming: Streaming<v1::FollowRequest>) -> Result<Response, Status> {
    let hello = hello(&mut incoming).await?;
    let feed = hub.feed(&hello.environment)?;
    let admission = match hub.admit() {
        Ok(admission) => admission,
        Err((window, reason)) => {
            let last_words = [Ok(go_away(window, reason)), Err(Status::unavailable(reason))];
            return Ok(frame::response(stream::iter(last_words)));
        }
    };
    let presence = hub.fleet.join(&hello.environment, hello.identity.clone(), hello.basis);
    let signals = Arc::new(Signals::default());
    let hearing = tokio::spawn(listen(incoming, presence, signals.clone())).abort_handle();
    let session = Session::new(hub, admission, feed, &hello, signals, hearing);
    Ok(frame::response(session.into_frames()))
}

async fn urgent(hub: Arc<Hub>, mut incoming: Streaming<v1::UrgentRequest>) -> Result<Response, Status> {
    let request = only(&mut incoming).await?;
    let name = environment(request.environment).map_err(refused)?;
    identity(request.identity).map_err(refused)?;
    let feed = hub.feed(&name)?;
    Ok(frame::response(Lane::new(hub, feed).into_frames()))
}

async fn poll(hub: Arc<Hub>, mut incoming: Streaming<v1::FetchRequest>) -> Result<Response, Status> {
    let request = only(&mut incoming).await?;
    let answer = fetch(hub, request).await?;
    Ok(frame::response(stream::iter([Ok(frame::encode(&answer))])))
}

/// The message of a unary request.
async fn only<M>(incoming: &mut Streaming<M>) -> Result<M, Status> {
    incoming.message().await?.ok_or_else(|| Status::invalid_argument("the request has no message"))
}
