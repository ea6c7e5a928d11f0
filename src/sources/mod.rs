//! Flags without a control plane: documents of files, of web servers and of flagd's sync service, merged by flagd's rules (flagd.md 2.4) into
//! one replica.
//!
//! ```text
//! place -> file, http, grpc (tls)  --(whole documents)-->  owner -> merge -> replica::Writer
//! ```
//! A source that fails keeps what it said last, and what one source says wrong leaves the others as they are.

mod file;
mod grpc;
mod http;
mod merge;
mod owner;
mod place;
mod secret;
mod tls;
#[cfg(target_os = "linux")]
mod watch;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::flag::Assumed;
use crate::lifecycle::{Readiness, Shutdown};
use crate::replica::Writer;

use owner::Owner;
pub use place::{Place, Refused, Source};

/// Documents that wait for the owner. A source waits when it is full.
const WAITING: usize = 16;

/// What a source has to say.
#[derive(Debug)]
enum Report {
    /// Everything that it says now.
    Document(String),
    /// It says what it said before.
    Unchanged,
    /// It cannot be heard. It will be tried again.
    Lost(String),
}

/// Where the task of a source reports to.
#[derive(Debug, Clone)]
struct Desk {
    number: usize,
    to: mpsc::Sender<(usize, Report)>,
}

impl Desk {
    /// False when nobody listens any more.
    async fn report(&self, report: Report) -> bool {
        self.to.send((self.number, report)).await.is_ok()
    }
}

/// Follows the sources until the shutdown; later ones win. `readiness` waits until each has said something once.
pub fn start(sources: Vec<Source>, writer: Writer, assumed: Assumed, readiness: &Readiness, shutdown: &Shutdown) {
    let (to, reports) = mpsc::channel(WAITING);
    let tokens = sources.iter().map(|source| readiness.token(format!("source {}", source.name))).collect();
    let names = sources.iter().map(|source| Arc::from(source.name.as_str())).collect();
    let owner = Owner::new(names, tokens, writer, assumed);
    tokio::spawn(owner.run(reports, shutdown.clone()));
    for (number, source) in sources.into_iter().enumerate() {
        let desk = Desk { number, to: to.clone() };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = follow(source, desk) => {}
                () = shutdown.requested() => {}
            }
        });
    }
}

async fn follow(Source { name, place }: Source, desk: Desk) {
    match place {
        Place::File(path) => file::follow(path, &desk).await,
        Place::Http(server) => http::follow(&server, &desk).await,
        Place::Grpc(peer) => grpc::follow(&name, &peer, &desk).await,
    }
}
