//! flagd's sync service (flagd.md 1.3), on a port of its own: whoever evaluates by itself (an in-process provider, a flagd) follows the flags
//! here, as a flagd document.
//!
//! ```text
//! replica -> press (one task: translates what changed, writes each selection once) -> edition -> subscribers of all threads
//! ```
//! A subscriber is the number of the last edition that it was sent, and sleeps on a bell. A client has a limit of its own for a message, which
//! is 4 MB in gRPC's libraries unless it was raised; what is sent here is not cut.

mod counts;
mod fragment;
mod press;
mod subscriber;

use std::sync::Arc;

use http::Request as HttpRequest;
use tonic::Status;

use crate::wire::evaluation::selection::Selection;
use crate::wire::evaluation::sync::{self as wire, Request};

use super::body::Body;
use super::call::Call;
use super::flagd::SELECTOR;
use super::grpc::{Only, contained, refuse, respond};
use super::pod::Desk;
use super::request_body::RequestBody;

pub(super) use counts::{Counts, Ended};
pub(super) use press::{Press, Told};

/// A provider's name for itself, and a selector.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Subscribers at one time; further ones end with RESOURCE_EXHAUSTED. A pod has a handful.
pub(super) const MAX_SUBSCRIBERS: usize = 1_024;

/// Connections at one time; further ones are closed at once.
pub(super) const MAX_CONNECTIONS: usize = 256;

pub(super) const SERVICE: &str = "flagd.sync.v1.FlagSyncService";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    SyncFlags,
    FetchAllFlags,
    GetMetadata,
}

pub(super) fn method(path: &str) -> Option<Method> {
    let name = path.strip_prefix('/')?.strip_prefix(SERVICE)?.strip_prefix('/')?;
    [Method::SyncFlags, Method::FetchAllFlags, Method::GetMetadata].into_iter().find(|method| method.name() == name)
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SyncFlags => "SyncFlags",
            Self::FetchAllFlags => "FetchAllFlags",
            Self::GetMetadata => "GetMetadata",
        }
    }
}

pub(super) fn call(desk: &Arc<Desk>, method: Method, request: HttpRequest<RequestBody>) -> Call {
    let desk = Arc::clone(desk);
    match method {
        Method::SyncFlags => Call::waiting(subscriber::sync_flags(desk, request)),
        Method::FetchAllFlags => Call::waiting(fetch_all(desk, request)),
        Method::GetMetadata => Call::waiting(get_metadata(desk, request)),
    }
}

/// The header goes before the field, also if it is empty.
fn selection(header: Option<&http::HeaderValue>, field: &str) -> Result<Selection, Status> {
    let selector = match header {
        Some(header) => header.to_str().map_err(|_| Status::invalid_argument("the selector is no text"))?,
        None => field,
    };
    Selection::parse(selector).map_err(Status::invalid_argument)
}

async fn read(desk: &Desk, request: HttpRequest<RequestBody>) -> Result<Selection, Status> {
    let header = request.headers().get(SELECTOR).cloned();
    let message = Only::new(request.into_body(), MAX_REQUEST_BYTES).wait(&desk.pod.shutdown).await?;
    let Request { provider_id: _, selector } = Request::read(&message).map_err(|malformed| Status::invalid_argument(malformed.0))?;
    selection(header.as_ref(), selector)
}

async fn fetch_all(desk: Arc<Desk>, request: HttpRequest<RequestBody>) -> hyper::Response<Body> {
    let fetched = async {
        let selection = read(&desk, request).await?;
        let edition = desk.pod.press.current(&selection, &desk.pod.shutdown).await?;
        let configuration = edition.configuration()?;
        contained(|| Ok(configuration.fetched()))
    };
    answered(fetched.await)
}

async fn get_metadata(desk: Arc<Desk>, request: HttpRequest<RequestBody>) -> hyper::Response<Body> {
    let said = async {
        Only::new(request.into_body(), MAX_REQUEST_BYTES).wait(&desk.pod.shutdown).await?;
        let press = &desk.pod.press;
        let Told { context, has_metadata, .. } = press.told();
        if !has_metadata {
            return Err(Status::unimplemented("metadata are not served here; sync_context has them"));
        }
        let mut fields = context.clone();
        // Without a state nothing is left out yet, and a client that waits for its metadata is not kept waiting.
        if desk.pod.replica.is_usable() {
            press.current(&Selection::All, &desk.pod.shutdown).await?;
            fields.extend(press.left_out().map(|keys| (LEFT_OUT.to_owned(), keys.into())));
        }
        Ok(wire::metadata(&fields))
    };
    answered(said.await)
}

/// In the metadata: keys of flags that cannot be said in flagd's format.
const LEFT_OUT: &str = "yardarm.leftOut";

fn answered(message: Result<bytes::Bytes, Status>) -> hyper::Response<Body> {
    match message {
        Ok(message) => respond(Body::Message(message)),
        Err(status) => refuse(status),
    }
}
