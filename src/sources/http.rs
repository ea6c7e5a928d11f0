//! A web server, asked again and again. `ETag` spares it what did not change; what it says once too often makes no change either.

use std::time::Duration;

use ::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::flag::limits;

use super::place::Server;
use super::{Desk, Report};

/// For one question and its answer.
const WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn follow(server: &Server, desk: &Desk) {
    let mut tick = interval(server.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tag = None;
    loop {
        tick.tick().await;
        let report = match timeout(WITHIN, ask(server, tag.as_ref())).await {
            Ok(Ok(Answer::Document { text, tag: new })) => {
                tag = new;
                Report::Document(text)
            }
            Ok(Ok(Answer::Unchanged)) => Report::Unchanged,
            Ok(Err(error)) => Report::Lost(error.to_string()),
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

async fn ask(server: &Server, tag: Option<&HeaderValue>) -> anyhow::Result<Answer> {
    let authority = server.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let (host, port) = (server.uri.host().unwrap_or_default(), server.uri.port_u16().unwrap_or(80));
    // An address of IPv6 stands in brackets there.
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
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
