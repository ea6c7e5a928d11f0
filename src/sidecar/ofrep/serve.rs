//! Connections of OFREP: HTTP/1.1 and HTTP/2 on one port, answered by the threads that answer everything else. Whatever a peer leaves half
//! done has a deadline here too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use crate::lifecycle::Phase;
use crate::sidecar::Limits;
use crate::sidecar::pod::{Desk, Places};
use crate::sidecar::serve::{Greeting, Listener, Socket, accept};
use crate::sidecar::workers::Workers;

/// Applications of one pod keep few; each may hold a body in memory.
const MAX_CONNECTIONS: usize = 256;

/// hyper has no smaller one.
const LEAST_BUFFER_BYTES: usize = 8192;

/// Requests that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 128;

/// Serves until the shutdown begins; what was begun is answered. `desks` are by number of the thread.
pub(in crate::sidecar) async fn serve(listener: Listener, desks: Vec<Arc<Desk>>, workers: Workers, limits: Limits) {
    let Some(shutdown) = desks.first().map(|desk| desk.pod.shutdown.clone()) else { return };
    let hold = Arc::new(shutdown.hold(Phase::Drain, "OFREP connections"));
    let places = Places::new(MAX_CONNECTIONS);
    let protocol = Arc::new(Protocol::new(&limits));
    accept(listener, shutdown.requested(), |socket| {
        // Over the limit it is closed at once.
        let (Some(place), Socket::Tcp(stream)) = (places.take(), socket) else { return };
        let number = workers.least_loaded();
        let occupied = workers.occupy(number);
        let (protocol, hold) = (Arc::clone(&protocol), Arc::clone(&hold));
        let Some(desk) = desks.get(number).map(Arc::clone) else { return };
        workers.get(number).runtime().spawn(async move {
            protocol.connection(stream, desk).await;
            drop((place, occupied, hold));
        });
    })
    .await;
}

struct Protocol {
    http: auto::Builder<TokioExecutor>,
    first_bytes: Duration,
}

impl Protocol {
    fn new(limits: &Limits) -> Self {
        let keep_alive = Duration::from_millis(limits.keep_alive_ms);
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            // hyper counts the time between two requests too: an idle connection ends by it, as one that is stuck in a header.
            .header_read_timeout(keep_alive)
            // Of a header: a longer one is answered with 431.
            .max_buf_size((limits.max_request_header as usize).max(LEAST_BUFFER_BYTES));
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive)
            .keep_alive_timeout(keep_alive / 2)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(limits.max_request_header)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(1024);
        Self { http, first_bytes: Duration::from_millis(limits.first_bytes_ms) }
    }

    async fn connection(&self, stream: std::net::TcpStream, desk: Arc<Desk>) {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let shutdown = desk.pod.shutdown.clone();
        let (greeting, greeted) = Greeting::of(stream);
        let service = hyper::service::service_fn(move |request| super::answer(Arc::clone(&desk), request));
        let mut connection = std::pin::pin!(self.http.serve_connection(TokioIo::new(greeting), service));
        tokio::select! {
            // How it ended is the peer's affair.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(self.first_bytes) => {}
            () = shutdown.requested() => {}
        }
        if !greeted.load(Ordering::Relaxed) {
            return;
        }
        tokio::select! {
            _ = connection.as_mut() => return,
            () = shutdown.requested() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = shutdown.begun(Phase::StopReplication) => {}
        }
    }
}
