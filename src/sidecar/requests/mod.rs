//! What is measured of the requests of flagd's clients, under the names that flagd has for it (flagd.md 1.10): only in flagd's place, where
//! dashboards and alerts were made for them.
//!
//! ```text
//! route -> Meter (one for each request) -> its two bodies; dropped with the last of them -> Table of the thread -> export (/metrics)
//! ```
//! Two labels are better than flagd's. The status is the one that was answered, where flagd says 200 of whatever its handler did not set; and
//! a path where nothing is served is no route, where flagd makes a series of everything that somebody asks for.

mod export;
mod route;
mod table;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use tonic::{Code, Status};

use super::body::Body;
use super::dialect::{self, Dialect};
use super::pod::Desk;

pub(super) use export::Requests;
pub(super) use route::Route;
pub(super) use table::Table;

use table::{Ended, Place, System};

/// Of a call whose end was not said.
const NO_CODE: u16 = u16::MAX;

/// One request, from its header to the end of its answer.
pub(super) struct Meter {
    desk: Arc<Desk>,
    place: Place,
    /// `None`: no call, or one that is not understood.
    dialect: Option<Dialect>,
    began: Instant,
    read: AtomicU64,
    written: AtomicU64,
    messages: AtomicU64,
    /// 0: there is no answer yet.
    status: AtomicU16,
    code: AtomicU16,
}

/// In the extensions of an answer that says in its body how the call failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed(pub(super) Code);

impl Meter {
    /// `None`: nothing is measured here.
    pub(super) fn begin(
        desk: &Arc<Desk>,
        route: Route,
        method: &Method,
        dialect: Option<Dialect>,
        is_encrypted: bool,
    ) -> Option<Arc<Self>> {
        let requests = desk.requests.as_ref()?;
        let place = Place { route, verb: table::verb(method), is_encrypted };
        requests.lock().began(place);
        Some(Arc::new(Self {
            desk: Arc::clone(desk),
            place,
            dialect: dialect.filter(|_| route.call().is_some()),
            began: Instant::now(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            status: AtomicU16::new(0),
            code: AtomicU16::new(NO_CODE),
        }))
    }

    pub(super) fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn answers(self: Arc<Self>, response: Response<Body>) -> Response<Body> {
        self.status.store(response.status().as_u16(), Ordering::Relaxed);
        if let Some(Failed(code)) = response.extensions().get() {
            self.ended(*code);
        } else if response.status() == StatusCode::OK && matches!(self.dialect, Some(Dialect::Connect(_))) {
            self.ended(Code::Ok);
        }
        // Here of a call that was refused at once.
        self.ends(response.headers());
        response.map(|body| body.metered(self))
    }

    /// By the trailers of gRPC.
    pub(super) fn ends(&self, trailers: &HeaderMap) {
        if let Some(code) = trailers.get(Status::GRPC_STATUS) {
            self.ended(Code::from_bytes(code.as_bytes()));
        }
    }

    fn ended(&self, code: Code) {
        self.code.store(code as u16, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, data: &Bytes) {
        self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        let Some((system, requests)) = self.dialect.map(System::of).zip(self.desk.requests.as_ref()) else { return };
        let count = |bytes: usize| {
            self.messages.fetch_add(1, Ordering::Relaxed);
            requests.lock().answered_with(self.place.route, system, bytes as u64);
        };
        if self.has_frames() {
            dialect::messages(data).for_each(|message| count(message.len()));
        } else if self.status.load(Ordering::Relaxed) == StatusCode::OK {
            count(data.len());
        }
    }

    fn has_frames(&self) -> bool {
        !matches!(self.dialect, Some(Dialect::Connect(_)))
    }

    /// How the call ended. `None`: it was none.
    fn end_of_call(&self, status: u16) -> Option<Code> {
        match (self.code.load(Ordering::Relaxed), status) {
            (NO_CODE, 200) if self.place.route.is_stream() => Some(Code::Ok),
            (NO_CODE, 0 | 200) => Some(Code::Cancelled),
            // Refused by HTTP alone.
            (NO_CODE, _) => None,
            (code, _) => Some(Code::from_i32(code.into())),
        }
    }
}

/// Whoever asked has left, or has its whole answer.
impl Drop for Meter {
    fn drop(&mut self) {
        let Some(requests) = &self.desk.requests else { return };
        let status = self.status.load(Ordering::Relaxed);
        let call = self.dialect.map(System::of).zip(self.end_of_call(status));
        requests.lock().ended(&Ended {
            place: self.place,
            status,
            took: self.began.elapsed(),
            read: self.read.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            call,
            messages: self.messages.load(Ordering::Relaxed),
            has_frames: self.has_frames(),
        });
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("place", &self.place).finish_non_exhaustive()
    }
}
