//! The control plane: keeps the truth, takes changes, and tells every sidecar.

pub mod admin;
pub mod audit;
pub mod backup;
pub mod evidence;
pub mod fleet;
pub mod hex;
pub mod hooks;
pub mod ledger;
pub mod publish;
pub mod rollouts;
pub mod store;
mod stored;

mod accept;
mod routes;
mod start;

pub use fleet::Fleet;
pub use ledger::Ledger;
pub use start::{Args, DEFAULT_ENVIRONMENT, Running, start};
