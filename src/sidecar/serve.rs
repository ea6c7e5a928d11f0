//! Accepting and holding connections: hyper's HTTP/2 and HTTP/1.1 with limits that are ours.
//!
//! Neither tonic nor axum closes a connection that is silent or stuck in the middle of a header, and at shutdown they wait for it
//! (platform.md 6.1). Here everything that a peer may leave half done has a deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

use crate::lifecycle::Phase;

use super::Limits;
use super::authority::Named;
use super::listen::UnixSocket;
use super::outbox::{Outbox, Sending};
use super::route::Router;
use super::sniff::{Begun, Speaks, listen_to};
use super::tls::Tls;

/// Connections that may wait to be accepted when the shutdown begins: as many as the backlog holds.
const MAX_WAITING: usize = 1024;

/// For the first bytes of a connection that came as the shutdown began.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(250);

/// A peer that has not acknowledged anything for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(45);

/// Streams of one connection: a watcher beyond the limit would hang in silence (performance.md, trap 2).
pub(super) const MAX_STREAMS: u32 = 20_000;

/// Answers of one stream that wait in memory for their reader. It is what a watch puts between a kill and a reader that has stalled.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Of a request, all of it together; `--max-request-header` of `start` may say otherwise.
pub(super) const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// hyper has no smaller one.
const LEAST_BUFFER_BYTES: usize = 8192;

/// A connection of HTTP/1.1 that asks nothing is kept for so many intervals of HTTP/2's pings: longer than the pools of clients keep theirs
/// (Go's 90 s), so that it is they who close, and no request meets a connection that is being closed here.
const HTTP1_IDLE_PINGS: u32 = 10;

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// A connection on its way from the acceptor to the thread that will answer it.
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                found_out_when_gone(&SockRef::from(&stream))?;
                Ok(Socket::Tcp(stream.into_std()?))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Socket::Unix(stream.into_std()?))
            }
        }
    }
}

impl Listener {
    /// Admits those that wait, and closes. Asked of the system itself: the runtime may not have heard of them yet. As many as the backlog
    /// holds, so that nobody keeps it here by coming again and again.
    fn leave(self, admit: impl Fn(Socket)) {
        let mut waiting: Box<dyn FnMut() -> io::Result<Socket>> = match self {
            Self::Tcp(listener) => match listener.into_std() {
                Ok(listener) => Box::new(move || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    found_out_when_gone(&SockRef::from(&stream))?;
                    Ok(Socket::Tcp(stream))
                }),
                Err(_) => return,
            },
            Self::Unix(socket) => match socket.into_std() {
                Ok(listener) => Box::new(move || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Socket::Unix(stream))
                }),
                Err(_) => return,
            },
        };
        for _ in 0..MAX_WAITING {
            match waiting() {
                Ok(socket) => admit(socket),
                Err(error) if is_of_the_peer(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// Accepts until `end` and gives each socket to `admit`; then also those whose peers believe that they are connected.
pub(super) async fn accept(listener: Listener, end: impl Future<Output = ()>, admit: impl Fn(Socket)) {
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.as_mut() => break,
        };
        match accepted {
            Ok(socket) => admit(socket),
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = 100, "no connection can be accepted; the process may be out of file descriptors");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    listener.leave(admit);
}

/// HTTP/1.1 has no pings: of a peer that is gone, or does not read what it asked for, the kernel says so.
fn found_out_when_gone(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(GONE_AFTER))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
    Ok(())
}

/// The peer left between its handshake and our accept.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::InvalidInput)
}

/// Settings of the connections of a pod.
#[derive(Debug, Clone)]
pub(super) struct Protocol {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    first_bytes: Duration,
    /// By TCP; who may open a Unix socket is on this machine.
    tls: Option<Tls>,
}

impl Protocol {
    /// `streams`: that one connection of HTTP/2 may have open.
    pub(super) fn new(limits: &Limits, streams: u32) -> Self {
        let keep_alive = Duration::from_millis(limits.keep_alive_ms);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // hyper counts the time between two requests too.
            .header_read_timeout(keep_alive * HTTP1_IDLE_PINGS)
            // Of a header: a longer one is answered with 431.
            .max_buf_size((limits.max_request_header as usize).max(LEAST_BUFFER_BYTES));
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            // A peer that is gone, or stuck in the middle of a frame, does not answer pings.
            .keep_alive_interval(keep_alive)
            .keep_alive_timeout(keep_alive / 2)
            .max_concurrent_streams(streams)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .max_header_list_size(limits.max_request_header)
            // Rapid reset (CVE-2023-44487) and its sister MadeYouReset (CVE-2025-8671).
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(1024)
            // gRPC has no use for it, and it costs 2 % of an answer.
            .auto_date_header(false);
        // The windows stay at hyper's 1 MB: a smaller connection window makes h2 close the connection of a caller with many calls in
        // flight (performance.md, trap 1).
        Self { http1, http2, first_bytes: Duration::from_millis(limits.first_bytes_ms), tls: None }
    }

    pub(super) fn over(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    pub(super) async fn serve(&self, socket: Socket, router: Router) {
        let served = match socket {
            Socket::Tcp(stream) => match TcpStream::from_std(stream) {
                Ok(stream) => {
                    match &self.tls {
                        None => self.connection(self.in_clear(stream), router).await,
                        // A plain connection has no room for what TLS holds.
                        Some(tls) => {
                            let peer = stream.peer_addr().ok();
                            let router = Router { is_encrypted: true, ..router };
                            Box::pin(self.connection(tls.listen_to(stream, peer, self.first_bytes), router)).await;
                        }
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Socket::Unix(stream) => match UnixStream::from_std(stream) {
                Ok(stream) => {
                    self.connection(self.in_clear(Named::new(stream)), router).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            tracing::warn!(%error, "a connection was accepted but cannot be served");
        }
    }

    /// `None`: the peer left, or said nothing in time.
    async fn in_clear<I: AsyncRead + Unpin>(&self, io: I) -> Option<(Speaks, Begun<I>)> {
        timeout(self.first_bytes, listen_to(io)).await.ok()?
    }

    /// Until the peer leaves, breaks a rule, or the shutdown has come to its end of patience. Errors are the peer's and are not logged:
    /// whoever can connect could fill the log. It is for `begun` to bound its time.
    async fn connection<I>(&self, begun: impl Future<Output = Option<(Speaks, Begun<I>)>>, router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = tokio::select! {
            begun = begun => begun,
            () = self.farewell(&router) => None,
        };
        match begun {
            Some((Speaks::Http2, io)) => self.by_http2(io, router).await,
            Some((Speaks::Http1, io)) => self.by_http1(io, router).await,
            None => {}
        }
    }

    /// A connection that has only just come is not closed without a word: its first request is on its way, and would fail.
    async fn farewell(&self, router: &Router) {
        router.desk.pod.shutdown.requested().await;
        tokio::time::sleep(LAST_WORDS_WITHIN).await;
    }

    async fn by_http2<I>(&self, io: Begun<I>, router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let desk = Arc::clone(&router.desk);
        let outbox = Outbox::new(io);
        let connection = std::pin::pin!(self.http2.serve_connection(TokioIo::new(outbox.clone()), router));
        let mut connection = Sending { future: connection, outbox };
        let seat = desk.farewell.seat();
        let mut waits = false;
        let ended = std::future::poll_fn(|cx| {
            // This runs at each request: one look at a flag, where asking the shutdown takes a lock. A task keeps its waker.
            if !std::mem::replace(&mut waits, true) {
                seat.wait(cx.waker());
            }
            if desk.is_draining() {
                return Poll::Ready(false);
            }
            Pin::new(&mut connection).poll(cx).map(|_| true)
        });
        if ended.await {
            return;
        }
        connection.future.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = desk.pod.shutdown.begun(Phase::StopReplication) => {}
        }
    }

    async fn by_http1<I>(&self, io: Begun<I>, router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shutdown = router.desk.pod.shutdown.clone();
        let mut connection = std::pin::pin!(self.http1.serve_connection(TokioIo::new(io), router));
        tokio::select! {
            // First: hyper closes a connection of which it has read nothing yet, and its request has already come.
            biased;
            // How it ended is the peer's affair.
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
