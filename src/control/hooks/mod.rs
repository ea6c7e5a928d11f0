//! Incoming webhooks: a URL per flag that kills it when an alert fires, and can do nothing else.
//!
//! `POST /hooks/v1/{environment}/{flag}/{hook}/{token}`, or without the token and with `Authorization: Bearer TOKEN`. Neither
//! Alertmanager nor every Grafana can sign what it sends, so the token is what is known: 256 random bits, of which the store has the
//! SHA-256. Both can send the header, which is the better way, because a URL is shown in places where a header is not. There is no TLS here;
//! put what ends it in front when the network is not yours.
//!
//! Whoever does not know a token learns nothing: every wrong address is the same 404. The answer to an accepted request says for each alert
//! what was done with it. Alertmanager comes back after a 5xx and after no 4xx, so what is worth coming back for is a 503.

mod counts;
mod payload;
mod rates;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Ledger;
use super::audit::{Hash, sha256};
use super::ledger::{Alert, Alerted, Error, HookName};
use crate::clock::Clock;
use crate::lifecycle::{Phase, Shutdown};

use counts::{Answer, Counts};
use rates::Rates;

/// Where webhooks are taken; nowhere when it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

/// Bytes of a payload.
pub const BODY_BYTES: usize = 256 << 10;
/// From the first byte of a request to the end of its header, and from there to the end of its body.
const HEADER_WITHIN: Duration = Duration::from_secs(5);
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Monitors are few; whoever opens more is none.
const CONNECTIONS: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);

struct Desk {
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    rates: Rates,
    counts: Counts,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Ok(Self(None)),
            address => address
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| format!("`{address}` is no address; expected IP:PORT, as 127.0.0.1:8021, or nothing for no webhooks")),
        }
    }
}

/// Where a hook is reached, without its token.
pub fn path(HookName { environment, flag, id }: &HookName) -> String {
    format!("/hooks/v1/{environment}/{flag}/{id}")
}

/// Serves until the shutdown begins; what was begun is answered.
pub async fn serve(listener: TcpListener, ledger: Arc<Ledger>, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    let router = router(Arc::new(Desk { ledger, clock, shutdown: shutdown.clone(), rates: Rates::default(), counts: Counts::default() }));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // One too many is closed at once.
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    tokio::spawn(connection(stream, router.clone(), shutdown.clone(), place));
                }
            }
            Err(problem) => {
                tracing::warn!(%problem, pause_ms = PAUSE.as_millis(), "a connection for a webhook could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/hooks/v1/{environment}/{flag}/{hook}", post(with_header))
        .route("/hooks/v1/{environment}/{flag}/{hook}/{token}", post(with_path))
        .route("/metrics", get(metrics))
        .with_state(desk)
}

async fn connection(stream: TcpStream, router: Router, shutdown: Shutdown, _place: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How it ends is the peer's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shutdown.requested() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.begun(Phase::StopReplication) => {}
    }
}

type FromPath<T> = Result<Path<T>, PathRejection>;

async fn with_header(State(desk): State<Arc<Desk>>, path: FromPath<(String, String, String)>, request: Request) -> Response {
    let bearer = bearer(request.headers()).map(str::to_owned);
    match (path, bearer) {
        (Ok(Path((environment, flag, id))), Some(token)) => desk.receive(HookName { environment, flag, id }, &token, request).await,
        _ => desk.answer(Answer::Unknown),
    }
}

async fn with_path(State(desk): State<Arc<Desk>>, path: FromPath<(String, String, String, String)>, request: Request) -> Response {
    match path {
        Ok(Path((environment, flag, id, token))) => desk.receive(HookName { environment, flag, id }, &token, request).await,
        Err(_) => desk.answer(Answer::Unknown),
    }
}

async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    ([(header::CONTENT_TYPE, counts::CONTENT_TYPE)], desk.counts.render()).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Desk {
    async fn receive(&self, hook: HookName, token: &str, request: Request) -> Response {
        match self.accept(hook, token, request).await {
            Ok(response) => response,
            Err(answer) => self.answer(answer),
        }
    }

    async fn accept(&self, name: HookName, token: &str, request: Request) -> Result<Response, Answer> {
        let _drained = self.shutdown.hold(Phase::Drain, "a webhook");
        let hook = self.ledger.hook(&name).await.map_err(|problem| failed(&name, problem))?;
        // A hook that is not there takes as long as one that is.
        let expected = hook.as_ref().map_or([0; 32], |hook| hook.token);
        if !is_same(&expected, &sha256(token.as_bytes())) || hook.is_none() {
            return Err(Answer::Unknown);
        }
        if !self.rates.admit(&name, self.clock.now_us()) {
            return Err(Answer::TooMany);
        }
        if !is_json(request.headers()) {
            return Err(Answer::NoJson);
        }
        let alerts = payload::parse(&read(request.into_body()).await?).map_err(|problem| {
            tracing::warn!(environment = name.environment, flag = name.flag, hook = name.id, %problem, "a webhook was not understood");
            Answer::Malformed(problem.to_string())
        })?;
        let alerted = self.ledger.alert(name.clone(), alerts.clone()).await.map_err(|problem| failed(&name, problem))?;
        Ok(self.told(&name, &alerts, &alerted))
    }

    fn told(&self, HookName { environment, flag, id }: &HookName, alerts: &[Alert], alerted: &Alerted) -> Response {
        self.counts.accepted(&alerted.verdicts);
        let Alerted { verdicts, killed_at } = alerted;
        if let Some(position) = killed_at {
            let alert = alerts.iter().zip(verdicts).find(|(_, verdict)| verdict.is_acted_on()).map_or("", |(alert, _)| alert.name.as_str());
            tracing::info!(environment, flag, hook = id, alert, revision = position.revision, "an alert killed a flag");
        }
        let told = alerts.iter().zip(verdicts).map(|(alert, verdict)| {
            let began = jiff::Timestamp::from_microsecond(alert.began_us).map(|at| at.to_string()).unwrap_or_default();
            json!({ "alert": alert.name, "fingerprint": alert.fingerprint, "began": began, "outcome": verdict.as_str() })
        });
        let told: Vec<_> = told.collect();
        let body = json!({ "environment": environment, "flag": flag, "killedAt": killed_at.map(|at| at.revision), "alerts": told });
        axum::Json(body).into_response()
    }

    fn answer(&self, answer: Answer) -> Response {
        self.counts.refused(&answer);
        let text = |status: StatusCode, text: String| (status, text + "\n").into_response();
        match answer {
            Answer::Unknown => text(StatusCode::NOT_FOUND, "not found".to_owned()),
            Answer::TooMany => later("too many requests came by this hook; try again"),
            Answer::NoJson => text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected the content type application/json".to_owned()),
            Answer::TooLarge => {
                text(StatusCode::PAYLOAD_TOO_LARGE, format!("the payload is too large, expected at most {BODY_BYTES} bytes"))
            }
            Answer::TooSlow => text(StatusCode::REQUEST_TIMEOUT, format!("the payload did not come within {} s", BODY_WITHIN.as_secs())),
            Answer::Malformed(problem) => text(StatusCode::BAD_REQUEST, problem),
            Answer::Failed => later("the control plane could not write; try again"),
        }
    }
}

fn later(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], format!("{text}\n")).into_response()
}

fn failed(HookName { environment, flag, id }: &HookName, problem: Error) -> Answer {
    match problem {
        // Revoked, or its flag deleted, since it was let in.
        Error::UnknownHook { .. } | Error::UnknownItem { .. } | Error::UnknownEnvironment { .. } => Answer::Unknown,
        problem => {
            tracing::error!(environment, flag, hook = id, %problem, "an alert could not be carried out");
            Answer::Failed
        }
    }
}

async fn read(body: Body) -> Result<Vec<u8>, Answer> {
    match tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(Answer::TooLarge),
        Ok(Err(problem)) => Err(Answer::Malformed(format!("the payload ended early: {problem}"))),
        Err(_) => Err(Answer::TooSlow),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    named.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// In a time that does not depend on where they differ.
fn is_same(one: &Hash, other: &Hash) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_no_listener_and_a_wrong_one_is_told() {
        assert_eq!("".parse(), Ok(Listen(None)));
        assert_eq!("127.0.0.1:8021".parse(), Ok(Listen(Some(SocketAddr::from(([127, 0, 0, 1], 8021))))));
        assert!("8021".parse::<Listen>().is_err_and(|problem| problem.contains("127.0.0.1:8021")));
    }

    #[test]
    fn hashes_are_the_same_in_every_byte_or_not_at_all() {
        let hash = sha256(b"token");
        assert!(is_same(&hash, &hash));
        for at in 0..hash.len() {
            let mut other = hash;
            other[at] ^= 1;
            assert!(!is_same(&hash, &other), "byte {at}");
        }
    }

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc").as_deref(), Some("abc"));
        assert_eq!((of("Basic abc"), of("abc")), (None, None));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
