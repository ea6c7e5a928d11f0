//! The laws of the ledger.

mod commands;
mod conflicts;
mod deltas;
mod durability;
mod limits;
mod problems;
pub mod world;
