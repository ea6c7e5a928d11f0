//! What one thread counts of its requests.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use tonic::Code;

use crate::sidecar::dialect::Dialect;
use crate::sidecar::histogram::{BYTES, Histogram, PLAIN, SECONDS};

use super::route::Route;

/// In front of a message that has a frame.
const HEAD: u64 = 5;

/// What a request is before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) route: Route,
    /// See [`verb`].
    pub(super) verb: &'static str,
    pub(super) is_encrypted: bool,
}

/// Protocol of a call, as flagd names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum System {
    Grpc,
    GrpcWeb,
    Connect,
}

/// A request that is over.
pub(super) struct Ended {
    pub(super) place: Place,
    /// 0: there was no answer.
    pub(super) status: u16,
    pub(super) took: Duration,
    /// Bytes of the request's body.
    pub(super) read: u64,
    /// Bytes of the answer's.
    pub(super) written: u64,
    /// `None`: it was no call.
    pub(super) call: Option<(System, Code)>,
    /// Of the answer.
    pub(super) messages: u64,
    /// Whether the request's message had one.
    pub(super) has_frames: bool,
}

/// Every key is of things that are served: no request can add to their number.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Table {
    pub(super) active: BTreeMap<Place, u64>,
    /// By status.
    pub(super) http: BTreeMap<(Place, u16), Http>,
    /// By gRPC's code.
    pub(super) calls: BTreeMap<(Route, System, i32), Calls>,
    pub(super) sizes: BTreeMap<(Route, System), Sizes>,
}

#[derive(Debug, Clone)]
pub(super) struct Http {
    pub(super) seconds: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
}

#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub(super) milliseconds: Histogram,
    pub(super) requests: Histogram,
    pub(super) responses: Histogram,
}

/// Of messages.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) request: Histogram,
    pub(super) response: Histogram,
}

/// A method of HTTP that is known, or `_OTHER`, as OpenTelemetry's conventions have it: anybody can send one of any name.
pub(super) fn verb(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["POST", "GET", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("_OTHER")
}

impl System {
    pub(super) fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Grpc => Self::Grpc,
            Dialect::GrpcWeb => Self::GrpcWeb,
            Dialect::Connect(_) | Dialect::ConnectStream(_) => Self::Connect,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc_web",
            Self::Connect => "connect_rpc",
        }
    }
}

impl Table {
    pub(super) fn began(&mut self, place: Place) {
        *self.active.entry(place).or_default() += 1;
    }

    /// One message of an answer.
    pub(super) fn answered_with(&mut self, route: Route, system: System, bytes: u64) {
        self.sizes.entry((route, system)).or_default().response.observe(bytes as f64);
    }

    pub(super) fn ended(&mut self, ended: &Ended) {
        let Ended { place, status, took, read, written, call, messages, has_frames } = ended;
        if let Some(active) = self.active.get_mut(place) {
            *active = active.saturating_sub(1);
        }
        if place.route.is_http() {
            let http = self.http.entry((*place, *status)).or_default();
            http.seconds.observe(took.as_secs_f64());
            http.request_bytes.observe(*read as f64);
            http.response_bytes.observe(*written as f64);
        }
        let Some((system, code)) = call else { return };
        let calls = self.calls.entry((place.route, *system, *code as i32)).or_default();
        calls.milliseconds.observe(took.as_secs_f64() * 1e3);
        // None of these methods takes more than one. One that is empty has no bytes where it has no frame.
        calls.requests.observe(1.0);
        calls.responses.observe(*messages as f64);
        let head = if *has_frames { HEAD } else { 0 };
        self.sizes.entry((place.route, *system)).or_default().request.observe(read.saturating_sub(head) as f64);
    }

    pub(super) fn add(&mut self, other: &Self) {
        other.active.iter().for_each(|(place, count)| *self.active.entry(*place).or_default() += count);
        for (key, Http { seconds, request_bytes, response_bytes }) in &other.http {
            let sum = self.http.entry(*key).or_default();
            sum.seconds.add(seconds);
            sum.request_bytes.add(request_bytes);
            sum.response_bytes.add(response_bytes);
        }
        for (key, Calls { milliseconds, requests, responses }) in &other.calls {
            let sum = self.calls.entry(*key).or_default();
            sum.milliseconds.add(milliseconds);
            sum.requests.add(requests);
            sum.responses.add(responses);
        }
        for (key, Sizes { request, response }) in &other.sizes {
            let sum = self.sizes.entry(*key).or_default();
            sum.request.add(request);
            sum.response.add(response);
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { seconds: Histogram::new(&SECONDS), request_bytes: Histogram::new(&PLAIN), response_bytes: Histogram::new(&BYTES) }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self { milliseconds: Histogram::new(&PLAIN), requests: Histogram::new(&PLAIN), responses: Histogram::new(&PLAIN) }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self { request: Histogram::new(&PLAIN), response: Histogram::new(&PLAIN) }
    }
}
