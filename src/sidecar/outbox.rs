//! What a connection writes while it is polled, gathered for one write at the end of that.
//!
//! h2 writes small frames together, but flushes after each DATA frame of more than 255 bytes. Of batches and of changes for many watchers
//! each would be a system call of its own, and that was a quarter of what a batch cost. A flush therefore does nothing here; whoever polls the
//! connection sends afterwards.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much as one write carries. What is longer by itself is not gathered, so that it is not copied either.
const GATHERED_BYTES: usize = 64 * 1024;
const ALONE_BYTES: usize = 16 * 1024;

thread_local! {
    /// For the next connection that writes. A connection that cannot send all of it keeps it meanwhile.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Clones are the same connection: one for hyper, one for whoever sends.
pub(super) struct Outbox<I>(Arc<Mutex<Gathered<I>>>);

struct Gathered<I> {
    io: I,
    waiting: Vec<u8>,
    /// Bytes of `waiting` that were sent.
    sent: usize,
}

/// A future that writes into an outbox, and the outbox, which is sent each time that the future was polled.
pub(super) struct Sending<F, I> {
    pub(super) future: F,
    pub(super) outbox: Outbox<I>,
}

impl<I> Outbox<I> {
    pub(super) fn new(io: I) -> Self {
        Self(Arc::new(Mutex::new(Gathered { io, waiting: Vec::new(), sent: 0 })))
    }
}

impl<I> Clone for Outbox<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F, I> Future for Sending<F, I>
where
    F: Future + Unpin,
    I: AsyncWrite + Unpin,
{
    /// `None`: the peer takes no more, and the future had not ended.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.future).poll(cx);
        let sent = self.outbox.0.lock().poll_send(cx);
        match (polled, sent) {
            (Poll::Ready(output), _) => Poll::Ready(Some(output)),
            (Poll::Pending, Poll::Ready(Err(_))) => Poll::Ready(None),
            (Poll::Pending, _) => Poll::Pending,
        }
    }
}

impl<I: AsyncWrite + Unpin> Gathered<I> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        // Nothing is kept: ten thousand connections are silent most of the time, and one buffer serves all those of a thread.
        if self.waiting.capacity() > 0 {
            let mut spare = std::mem::take(&mut self.waiting);
            spare.clear();
            SPARE.set(spare);
        }
        self.sent = 0;
        // TLS may hold back what TCP did not take. Below a plain connection there is nothing to flush.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        // A part of it was sent: the peer reads slowly, and nothing more is gathered for it.
        let is_slow = self.sent > 0;
        if is_slow || bytes >= ALONE_BYTES || self.waiting.len() + bytes > GATHERED_BYTES {
            ready!(self.poll_send(cx))?;
            if bytes >= ALONE_BYTES {
                return Pin::new(&mut self.io).poll_write_vectored(cx, parts);
            }
        }
        if self.waiting.capacity() == 0 {
            self.waiting = SPARE.take();
            self.waiting.reserve(GATHERED_BYTES);
        }
        parts.iter().for_each(|part| self.waiting.extend_from_slice(part));
        Poll::Ready(Ok(bytes))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Outbox<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Outbox<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_gather(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_gather(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.lock();
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    async fn write(outbox: &mut Outbox<tokio::io::DuplexStream>, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *outbox).poll_write(cx, bytes)).await
    }

    fn send<I: AsyncWrite + Unpin>(outbox: &Outbox<I>) -> impl Future<Output = io::Result<()>> {
        poll_fn(|cx| outbox.0.lock().poll_send(cx))
    }

    #[tokio::test]
    async fn what_is_written_goes_out_in_order_and_only_when_it_is_sent() {
        let (near, mut far) = duplex(1 << 20);
        let mut outbox = Outbox::new(near);
        for part in ["one ", "two ", "three"] {
            assert_eq!(write(&mut outbox, part.as_bytes()).await.unwrap(), part.len());
            poll_fn(|cx| Pin::new(&mut outbox).poll_flush(cx)).await.unwrap();
        }
        let mut buffer = [0; 64];
        let nothing = poll_fn(|cx| Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut [0; 8])))).await;
        assert!(nothing.is_pending(), "it was sent by a flush");
        send(&outbox).await.unwrap();
        let read = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"one two three");
        assert_eq!(outbox.0.lock().waiting.capacity(), 0, "a silent connection keeps memory");
    }

    /// As TLS does with what TCP did not take.
    #[tokio::test]
    async fn what_the_connection_holds_back_is_sent_too() {
        let (near, mut far) = duplex(8);
        let outbox = Outbox::new(tokio::io::BufWriter::with_capacity(1024, near));
        let mut writer = outbox.clone();
        poll_fn(|cx| Pin::new(&mut writer).poll_write(cx, b"more than fits into the pipe")).await.unwrap();
        let sending = tokio::spawn(async move { send(&outbox).await });
        let mut buffer = [0; 28];
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"more than fits into the pipe");
        sending.await.unwrap().unwrap();
    }

    /// Whatever is written in whatever pieces, whoever is slow: the bytes arrive as they were written, and little waits.
    #[tokio::test]
    async fn nothing_is_lost_and_little_waits_for_a_slow_reader() {
        let (near, mut far) = duplex(1_000);
        let mut outbox = Outbox::new(near);
        let sizes = [1, 300, ALONE_BYTES, 5, GATHERED_BYTES, 60_000, 10_000, 2, ALONE_BYTES + 1, 70_000];
        let all: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
        let expected = all.clone();
        let writer = tokio::spawn(async move {
            let mut start = 0;
            for size in sizes {
                let mut rest = &all[start..start + size];
                start += size;
                while !rest.is_empty() {
                    let written = write(&mut outbox, rest).await.unwrap();
                    rest = &rest[written..];
                    assert!(outbox.0.lock().waiting.len() <= GATHERED_BYTES);
                }
            }
            poll_fn(|cx| Pin::new(&mut outbox).poll_shutdown(cx)).await.unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == expected, "{} bytes of {} arrived, or others", received.len(), expected.len());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_ends_what_writes_to_it() {
        let (near, far) = duplex(10);
        let mut outbox = Outbox::new(near);
        write(&mut outbox, b"more than fits into the pipe").await.unwrap();
        drop(far);
        let sending = Sending { future: std::future::pending::<()>(), outbox };
        assert_eq!(sending.await, None);
    }
}
