//! What runs in every pod: answers `Evaluate` and `WatchFlags` from memory, whatever becomes of the control plane.
//!
//! ```text
//! listen -> start (entrance) -> serve (HTTP/2, outbox) -> route -> call, evaluate, stream, watch, flagd -> decide -> replica
//!                  |                                |                  ^                          ^
//!               workers                      health, reflection      bell               ofrep (8016, HTTP)
//! sync (8015): flags as flagd documents, for clients that evaluate by themselves
//! management (8014) -> metrics <- tally, prepared                      observe (decision log) <- tally
//! evidence: who was served what, what became of them, and the reports of both to the control plane
//! ```
//! One `Pod` for all threads, one `Desk` for each: nothing that an answer writes is shared by two threads.

mod args;
mod bell;
mod body;
mod call;
mod decide;
mod evaluate;
mod evidence;
mod flagd;
mod grpc;
mod health;
mod listen;
mod management;
mod metrics;
mod observe;
mod ofrep;
mod outbox;
mod pod;
mod prepared;
mod route;
mod serve;
mod start;
mod stream;
mod sync;
mod tally;
mod watch;
mod workers;

pub use args::{Args, Limits, Listen, Serve, Upstream};
pub use listen::BindError;
pub use observe::{INSPECTION, PURPOSE};
pub use start::{Flags, Running, serve, start};
pub use workers::Workers;
