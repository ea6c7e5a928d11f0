//! Accepting and holding connections: hyper's HTTP/2 with limits that are ours.
//!
//! Neither tonic nor axum closes a connection that is silent or stuck in the middle of a header, and at shutdown they wait for it
//! (platform.md 6.1). Here everything that a peer may leave half done has a deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::lifecycle::Phase;

use super::Limits;
use super::listen::UnixSocket;
use super::outbox::{Outbox, Sending};
use super::route::Router;

/// What HTTP/2 sends first, `PRI * HTTP/2.0 …`, in bytes.
const PREFACE_BYTES: usize = 24;

/// Streams of one connection: a watcher beyond the limit would hang in silence (performance.md, trap 2).
const MAX_STREAMS: u32 = 20_000;

/// Answers of one stream that wait in memory for their reader. It is what a watch puts between a kill and a reader that has stalled.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

pub(super) const MAX_HEADER_BYTES: u32 = 16 * 1024;

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
                Ok(Socket::Tcp(stream.into_std()?))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Socket::Unix(stream.into_std()?))
            }
        }
    }
}

/// Accepts until `end` and gives each socket to `admit`.
pub(super) async fn accept(listener: Listener, end: impl Future<Output = ()>, admit: impl Fn(Socket)) {
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.as_mut() => return,
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
}

/// The peer left between its handshake and our accept.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::InvalidInput)
}

/// Settings of the connections of a pod.
#[derive(Debug, Clone)]
pub(super) struct Protocol {
    http2: http2::Builder<TokioExecutor>,
    first_bytes: Duration,
}

impl Protocol {
    pub(super) fn new(limits: &Limits) -> Self {
        let keep_alive = Duration::from_millis(limits.keep_alive_ms);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            // A peer that is gone, or stuck in the middle of a frame, does not answer pings.
            .keep_alive_interval(keep_alive)
            .keep_alive_timeout(keep_alive / 2)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .max_header_list_size(limits.max_request_header)
            // Rapid reset (CVE-2023-44487) and its sister MadeYouReset (CVE-2025-8671).
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(1024)
            // gRPC has no use for it, and it costs 2 % of an answer.
            .auto_date_header(false);
        // The windows stay at hyper's 1 MB: a smaller connection window makes h2 close the connection of a caller with many calls in
        // flight (performance.md, trap 1).
        Self { http2, first_bytes: Duration::from_millis(limits.first_bytes_ms) }
    }

    pub(super) async fn serve(&self, socket: Socket, router: Router) {
        let served = match socket {
            Socket::Tcp(stream) => match TcpStream::from_std(stream) {
                Ok(stream) => {
                    self.connection(stream, router).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Socket::Unix(stream) => match UnixStream::from_std(stream) {
                Ok(stream) => {
                    self.connection(stream, router).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            tracing::warn!(%error, "a connection was accepted but cannot be served");
        }
    }

    /// Until the peer leaves, breaks a rule, or the shutdown has come to its end of patience. Errors are the peer's and are not logged:
    /// whoever can connect could fill the log.
    async fn connection<I>(&self, io: I, router: Router)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let desk = Arc::clone(&router.desk);
        let (greeting, greeted) = Greeting::of(io);
        let outbox = Outbox::new(greeting);
        let connection = std::pin::pin!(self.http2.serve_connection(TokioIo::new(outbox.clone()), router));
        let mut connection = Sending { future: connection, outbox };
        tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(self.first_bytes) => {}
            () = desk.pod.shutdown.requested() => {}
        }
        if !greeted.load(Ordering::Relaxed) {
            return;
        }
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
}

/// Notices that the peer has sent as much as the preface of HTTP/2. No request of HTTP/1.1 is shorter.
pub(super) struct Greeting<I> {
    io: I,
    missing: usize,
    greeted: Arc<AtomicBool>,
}

impl<I> Greeting<I> {
    /// And what turns when it has.
    pub(super) fn of(io: I) -> (Self, Arc<AtomicBool>) {
        let greeted = Arc::new(AtomicBool::new(false));
        (Self { io, missing: PREFACE_BYTES, greeted: Arc::clone(&greeted) }, greeted)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Greeting<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.missing > 0 {
            self.missing = self.missing.saturating_sub(buf.filled().len() - before);
            self.greeted.store(self.missing == 0, Ordering::Relaxed);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Greeting<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
