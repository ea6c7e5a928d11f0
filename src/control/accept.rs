//! Connections, as far as tonic's server does not guard them: it never closes one that says nothing, or half of a greeting, and it asks a
//! listener that has no descriptors left again and again without a pause.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Length of HTTP/2's greeting.
const GREETING_BYTES: usize = 24;
const GREETING_WITHIN: Duration = Duration::from_secs(5);
/// After a failed accept: descriptors come back when connections end.
const PAUSE: Duration = Duration::from_millis(100);

/// Every connection that comes. Never ends.
pub fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<Guarded>> + Send {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => return Some((Ok(Guarded::new(stream, GREETING_WITHIN)), listener)),
                Err(problem) => {
                    tracing::warn!(%problem, pause_ms = PAUSE.as_millis(), "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

/// A connection that is closed when its greeting does not come in time.
pub struct Guarded {
    stream: TcpStream,
    /// What is still to come of the greeting, and until when.
    awaited: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Guarded {
    fn new(stream: TcpStream, within: Duration) -> Self {
        Self { stream, awaited: Some((GREETING_BYTES, Box::pin(sleep(within)))) }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some((missing, deadline)) = &mut this.awaited else { return read };
        match read {
            Poll::Pending => {
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 greeting came")))
            }
            done => {
                *missing = missing.saturating_sub(buffer.filled().len() - before);
                if *missing == 0 {
                    this.awaited = None;
                }
                done
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    async fn pair(within: Duration) -> (TcpStream, Guarded) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Guarded::new(listener.accept().await.unwrap().0, within))
    }

    #[tokio::test]
    async fn who_says_nothing_or_half_a_greeting_is_sent_away() {
        for said in [0, 1, GREETING_BYTES - 1] {
            let (mut client, mut guarded) = pair(SHORT).await;
            client.write_all(&vec![b'x'; said]).await.unwrap();
            let mut heard = Vec::new();
            let problem = guarded.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((problem.kind(), heard.len()), (io::ErrorKind::TimedOut, said));
        }
    }

    #[tokio::test]
    async fn who_has_greeted_may_be_silent() {
        let (mut client, mut guarded) = pair(SHORT).await;
        client.write_all(&[b'x'; GREETING_BYTES]).await.unwrap();
        let mut greeting = [0; GREETING_BYTES];
        guarded.read_exact(&mut greeting).await.unwrap();
        let silence = tokio::time::timeout(5 * SHORT, guarded.read_u8()).await;
        assert!(silence.is_err(), "the connection was closed: {silence:?}");
    }
}
