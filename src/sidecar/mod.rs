//! What runs in every pod: answers `Evaluate` and `WatchFlags` from memory, whatever becomes of the control plane.
//!
//! ```text
//! listen -> start (entrance) -> serve (tls, authority, sniff; HTTP/2, outbox; HTTP/1.1) -> route -> answers -> decide -> replica
//!                  |                                                                       |         ^
//!               workers                                  dialect, connect, cors; health, reflection  bell
//! answers: evaluate, call, stream, watch; flagd and ofrep by way of sdk, where what OpenFeature's SDKs are sent is kept whole (prepared)
//! sync (8015): flags as flagd documents, for clients that evaluate by themselves
//! management (8014) -> metrics <- tally, prepared, requests (flagd's metrics of them, in its place alone)
//!                                            observe (decision log) <- tally
//! evidence: who was served what, what became of them, and the reports of both to the control plane
//! ```
//! One `Pod` for all threads, one `Desk` for each: nothing that an answer writes is shared by two threads.

mod args;
mod authority;
mod bell;
mod body;
mod call;
mod connect;
mod context;
mod cors;
mod decide;
mod dialect;
mod evaluate;
mod evidence;
mod flagd;
mod grpc;
mod handshakes;
mod health;
mod histogram;
mod impressions;
mod listen;
mod management;
mod metrics;
mod observe;
mod ofrep;
mod outbox;
mod pod;
mod prepared;
mod request_body;
mod requests;
mod route;
mod sdk;
mod serve;
mod sniff;
mod start;
mod stream;
mod sync;
mod tally;
mod tls;
mod watch;
mod whole;
mod workers;

pub use args::{Args, Limits, Listen, Serve, Upstream, pairs};
pub use listen::BindError;
pub use observe::{INSPECTION, PURPOSE};
pub use start::{Flags, Running, StandIn, is_served, serve, serve_in_place_of_flagd, start};
pub use tls::{Tls, Unusable};
pub use workers::Workers;
