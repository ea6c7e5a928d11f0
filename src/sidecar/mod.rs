//! What runs in every pod: answers `Evaluate` and `WatchFlags` from memory, whatever becomes of the control plane.
//!
//! ```text
//! listen -> start (entrance) -> serve (tls, sniff; HTTP/2, outbox; HTTP/1.1) -> route -> call, evaluate, stream, watch, flagd, ofrep -> decide
//!                  |                                                            |                  ^                            -> replica
//!               workers                        health, reflection; dialect, connect, cors   bell
//! flagd, ofrep -> sdk -> decide: what OpenFeature's SDKs are sent is kept whole (prepared)
//! sync (8015): flags as flagd documents, for clients that evaluate by themselves
//! management (8014) -> metrics <- tally, prepared                      observe (decision log) <- tally
//! evidence: who was served what, what became of them, and the reports of both to the control plane
//! ```
//! One `Pod` for all threads, one `Desk` for each: nothing that an answer writes is shared by two threads.

mod args;
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
mod health;
mod impressions;
mod listen;
mod management;
mod metrics;
mod observe;
mod ofrep;
mod outbox;
mod pod;
mod prepared;
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
