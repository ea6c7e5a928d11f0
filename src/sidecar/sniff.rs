//! Which HTTP a new connection speaks. Its first bytes are read once, and handed on with the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What HTTP/2 begins with (RFC 9113, 3.4). No request of HTTP/1.1 begins with more than its first letter.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

/// A connection with what was read of it.
#[derive(Debug)]
pub(super) struct Begun<I> {
    io: I,
    head: [u8; PREFACE.len()],
    given: u8,
    read: u8,
}

/// `None`: the peer left before it was known. It is for the caller to bound the time.
pub(super) async fn listen_to<I: AsyncRead + Unpin>(mut io: I) -> Option<(Speaks, Begun<I>)> {
    let (mut head, mut read) = ([0; PREFACE.len()], 0);
    let speaks = loop {
        match io.read(&mut head[read..]).await {
            Ok(0) | Err(_) => return None,
            Ok(more) => read += more,
        }
        match PREFACE.strip_prefix(&head[..read]) {
            None => break Speaks::Http1,
            Some([]) => break Speaks::Http2,
            Some(_) => {}
        }
    };
    Some((speaks, Begun { io, head, given: 0, read: u8::try_from(read).ok()? }))
}

impl<I: AsyncRead + Unpin> AsyncRead for Begun<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given == self.read {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let Self { head, given, read, .. } = &mut *self;
        let waiting = &head[usize::from(*given)..usize::from(*read)];
        let taken = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..taken]);
        // Of 24 bytes.
        *given += taken as u8;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Begun<I> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    /// Whatever pieces it arrives in, and nothing of it is lost.
    async fn heard(pieces: &[&[u8]]) -> Option<(Speaks, Vec<u8>)> {
        let (near, mut far) = duplex(1024);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        tokio::spawn(async move {
            for piece in pieces {
                far.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (speaks, mut begun) = listen_to(near).await?;
        let mut all = Vec::new();
        begun.read_to_end(&mut all).await.unwrap();
        Some((speaks, all))
    }

    #[tokio::test]
    async fn a_connection_is_known_by_its_first_bytes_and_keeps_them() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more";
        assert_eq!(heard(&[preface]).await, Some((Speaks::Http2, preface.to_vec())));
        assert_eq!(heard(&[&preface[..1], &preface[1..20], &preface[20..]]).await, Some((Speaks::Http2, preface.to_vec())));
        for request in [&b"POST / HTTP/1.1\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n", b"\0"] {
            assert_eq!(heard(&[&request[..1], &request[1..]]).await, Some((Speaks::Http1, request.to_vec())));
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_in_the_middle_speaks_nothing() {
        assert_eq!(heard(&[]).await, None);
        assert_eq!(heard(&[&PREFACE[..23]]).await, None);
    }
}
