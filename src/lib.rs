//! Yardarm: feature flags whose kill switch is a fact. This page is the map.
//!
//! ```text
//!   people, pipelines                                         applications, in any language
//!        |  Admin                                                  |  Evaluate, WatchFlags
//!        v                                                         v
//!   +---------------- control ----------------+   Replication   +------------- sidecar -------------+
//!   | admin -> ledger -> store (redb, memory) |  Follow, Urgent |  evaluate  stream  watch  health  |
//!   |            |  durable, then published   | --------------> |        reads | changes            |
//!   |            v                            |    deltas,      |              v                    |
//!   | publish (one cursor a session) -> fleet | <-------------- |  replica: dashmap <- one Writer   |
//!   +-----------------------------------------+   kills, acks   +---- follow ------------- disk ----+
//!       evidence (who was served what, what became of them)  <-- Report --  evidence <- Track, outcomes
//! ```
//!
//! # Parts
//! - [`flag`]: what a flag is, and what it answers: document, templates of rollouts, compile, decide, flagd's `targeting` (`logic`), explain,
//!   the state of an environment and its digest. Pure.
//! - [`rollout`]: how a flag's traffic moves by a plan: the engine, its gates, triggers and their statistics. Pure.
//! - [`wire`]: the messages of `proto/` and every conversion between them and the domain. Protobuf stops there.
//! - [`replica`]: the map of compiled flags and its one writer; `follow` keeps it at the control plane's heels, `disk` over restarts.
//! - [`sources`]: flags without a control plane, for `yardarm start`: files, web servers and flagd's sync service, merged into a replica.
//! - [`sidecar`]: our own accept loop, the dialects that are spoken (gRPC, gRPC-Web, Connect), and a file for each thing that is served:
//!   evaluate, stream, watch, flagd and ofrep (by way of `sdk`, where what SDKs are sent is kept), sync, health, management, metrics (with
//!   `requests`, flagd's metrics of them).
//!   `evidence` notes who was served what, attributes outcomes, and reports both; its guards trip flags while the control plane is away.
//! - `control` (feature `control`): `store`, `ledger` (the only path to a write), `audit`, `publish` and `fleet` (who holds what), `admin`,
//!   `evidence` (a trait; durable or in memory): what sidecars report of exposures and outcomes, each report and each unit once,
//!   `hooks` (URLs that kill a flag when an alert fires), `rollouts` (the conductor, and what people ask of it).
//! - [`telemetry`]: logs, spans by OTLP, and the decision log (`decisions`), which a sidecar's `observe` feeds.
//! - [`lifecycle`]: shutdown in phases, readiness by name. [`clock`], [`backoff`]: leaves.
//! - [`cli`]: the executable's commands, `dev` and `bench` among them.
//!
//! # Who may import whom
//! ```text
//! main -> cli -> sidecar -> replica -> wire -> rollout -> flag    flag imports nothing; sidecar and control never import each other
//!          \---> sources --> replica                              sources -> wire, flag, lifecycle, backoff, clock
//!          \---> control -----------> wire, rollout, flag         sidecar, control -> telemetry -> flag; leaves: lifecycle, backoff, clock
//! ```
//! `tests/it/architecture.rs` holds these arrows.
//!
//! # Invariants
//! - Evaluation never touches the network, the disk or the control plane, and does not allocate to decide, but for a `targeting` that reads or
//!   makes lists and objects, and for a split by `murmur3` of a key of more than about 100 bytes. A sidecar whose upstream is gone serves what
//!   it holds for ever, and says how old it is.
//! - `flag::compile` is the only place where a flag can be refused; `decide` is total. There is no evaluation error besides an unknown flag,
//!   a type that was not asked for, a sidecar that never had a state, and a `targeting` that names no variant or needs too many steps;
//!   in `yardarm start`, where a document is served for all that is wrong in it, also a flag whose rule could not be read.
//! - A kill is a register above everything else in the state, with a revision of its own: it may overtake the log and cannot be lost by a
//!   resync, a restart or a flag that does not compile.
//! - A sidecar kills a flag by itself only while it cannot hear the control plane, for its own pod alone, and until somebody has decided since.
//! - Nothing is published before it is durable, and nothing is durable without its audit entry: both are one transaction of the ledger.
//! - One task writes a replica: [`replica::Writer`] is not `Clone`. A change becomes visible whole or not at all.
//! - Of a large environment, a flag that nobody has asked for is kept as its definition. The writer has compiled it before, so that it was
//!   refused by name if it had to be; after a start from disk it is served first and looked through at once.
//! - What is measured costs an answer one look into a table of fixed size; memory of attribution is bounded, and told in `/metrics`.
//! - No reader has a queue. A session or a watcher is a cursor; what it missed comes as the latest state of each key, kills first.
//! - There is no clock, no randomness and no I/O in [`flag`] and [`rollout`]; no `unsafe` anywhere; no panic on input.
//! - Absent on purpose: modules named util, common or config. A setting lives beside what it sets.
//!
//! # Ports
//! | port | who serves | what | why there |
//! |---|---|---|---|
//! | 8013 | sidecar | evaluation and tracking, ours and flagd's: gRPC, gRPC-Web, Connect; OFREP | flagd's port, so that its clients find us |
//! | a Unix socket | sidecar | the same | a third less CPU for a caller in the same pod |
//! | 8014 | sidecar | `/healthz`, `/readyz`, `/metrics`, gRPC health, `POST /ofrep/v1/track` | apart, so that probes and scrapes never need the evaluation port |
//! | 8015 | sidecar | flags as flagd documents, gRPC | flagd's port for it, and apart: who may ask for a flag need not see all of them |
//! | 8016 | sidecar | OFREP, HTTP/1.1 and HTTP/2 | flagd's port for it |
//! | 8020 | control plane | Admin, Rollouts, Replication and Evidence, gRPC | one port to guard |
//! | 8021 | control plane | webhooks that kill | apart, so that alerting systems never need the port that may change everything |

pub mod backoff;
pub mod clock;
pub mod flag;
pub mod lifecycle;
pub mod replica;
pub mod rollout;
pub mod sidecar;
pub mod sources;
pub mod telemetry;
pub mod wire;

pub mod cli;
#[cfg(feature = "control")]
pub mod control;
