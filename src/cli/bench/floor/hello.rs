//! The floor of a request: hyper's HTTP/2 server, one current-thread runtime, a 200 that says "hello".

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Bound;

pub fn serve(bound: Bound) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (tcp, unix) = bound.for_tokio()?;
        loop {
            tokio::select! {
                accepted = tcp.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    tokio::spawn(hello(TokioIo::new(stream)));
                }
                accepted = unix.accept() => drop(tokio::spawn(hello(TokioIo::new(accepted?.0)))),
            }
        }
    })
}

async fn hello(stream: impl Read + Write + Unpin + Send + 'static) {
    let answer = service_fn(|_| async { Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"hello")))) });
    // A client that hangs up in the middle is how every run ends.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, answer).await;
}
