//! A web server, asked again and again. `ETag` spares it what did not change; what it says once too often makes no change either.

use std::time::Duration;

use ::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::flag::limits;

use super::place::Server;
use super::tls::{Trust, bare};
use super::{Desk, Report};

/// For one question and its answer.
const WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn follow(server: &Server, desk: &Desk) {
    let mut tick = interval(server.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tag, mut trust) = (None, None);
    loop {
        tick.tick().await;
        let report = match timeout(WITHIN, ask(server, &mut trust, tag.as_ref())).await {
            Ok(Ok(Answer::Document { text, tag: new })) => {
                tag = new;
                Report::Document(text)
            }
            Ok(Ok(Answer::Unchanged)) => Report::Unchanged,
            Ok(Err(error)) => Report::Lost(format!("{error:#}")),
            Err(_) => Report::Lost(format!("no answer within {} s", WITHIN.as_secs())),
        };
        if !desk.report(report).await {
            return;
        }
    }
}

#[derive(Debug)]
enum Answer {
    Document { text: String, tag: Option<HeaderValue> },
    Unchanged,
}

/// What is trusted is read once, at the first question that finds it.
async fn ask(server: &Server, trust: &mut Option<Trust>, tag: Option<&HeaderValue>) -> anyhow::Result<Answer> {
    let host = server.uri.host().unwrap_or_default();
    let connect = async |usual| TcpStream::connect((bare(host), server.uri.port_u16().unwrap_or(usual))).await;
    let Some(roots) = &server.roots else {
        return exchange(server, connect(80).await?, tag).await;
    };
    let trust = match trust {
        Some(trust) => trust,
        None => trust.insert(roots.read(b"http/1.1")?),
    };
    exchange(server, trust.connect(host, connect(443).await?).await?, tag).await
}

async fn exchange<I>(server: &Server, stream: I, tag: Option<&HeaderValue>) -> anyhow::Result<Answer>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let authority = server.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(server.uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json, application/yaml;q=0.9, */*;q=0.1")
        .header(header::USER_AGENT, concat!("yardarm/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &server.authorization {
        let mut value = HeaderValue::try_from(&secret.0)?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let answered = answer(sender.send_request(request.body(Empty::<Bytes>::new())?).await?).await;
    connection.abort();
    answered
}

async fn answer(response: ::http::Response<hyper::body::Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    match head.status {
        StatusCode::NOT_MODIFIED => return Ok(Answer::Unchanged),
        StatusCode::OK => {}
        status => anyhow::bail!("found status {status}, expected 200 or 304 (redirections are not followed)"),
    }
    let body = Limited::new(body, limits::DOCUMENT_BYTES).collect().await.map_err(|error| anyhow::anyhow!("the body: {error}"))?;
    let text = String::from_utf8(body.to_bytes().into()).map_err(|_| anyhow::anyhow!("found a body that is no UTF-8"))?;
    Ok(Answer::Document { text, tag: head.headers.get(header::ETAG).cloned() })
}
