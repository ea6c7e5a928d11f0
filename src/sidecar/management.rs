//! The management port: `/healthz`, `/readyz` and `/metrics`, over HTTP/1.1. No flag and no decision is readable here. Outcomes are taken
//! here too, at `POST /ofrep/v1/track`, from applications that speak no gRPC.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;

use crate::lifecycle::{Phase, Shutdown};

use super::evidence::{self, Evidence};
use super::metrics::{self, Metrics};
use super::pod::{Place, Places, Pod};
use super::serve::{Listener, Socket, accept};

/// Kubelets and scrapers are few, and so are the connections of the application in the pod.
const MAX_CONNECTIONS: usize = 64;

#[derive(Clone)]
struct Management {
    pod: Arc<Pod>,
    metrics: Arc<Metrics>,
    evidence: Evidence,
    not_ready: StatusCode,
}

/// Serves until the shutdown has drained: `/readyz` says 503 meanwhile, so that the endpoint leaves the load balancer.
///
/// In flagd's place it says 412 until it is ready.
pub(super) async fn serve(
    listener: Listener,
    pod: Arc<Pod>,
    metrics: Arc<Metrics>,
    evidence: Evidence,
    header_deadline: Duration,
    is_stand_in: bool,
) {
    let not_ready = if is_stand_in { StatusCode::PRECONDITION_FAILED } else { StatusCode::SERVICE_UNAVAILABLE };
    let shutdown = pod.shutdown.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .route("/ofrep/v1/track", post(track).layer(DefaultBodyLimit::max(evidence::BODY_BYTES)))
        .with_state(Management { pod, metrics, evidence, not_ready });
    let places = Places::new(MAX_CONNECTIONS);
    let admit = |socket| {
        if let (Some(place), Socket::Tcp(stream)) = (places.take(), socket) {
            tokio::spawn(connection(stream, router.clone(), header_deadline, shutdown.clone(), place));
        }
    };
    accept(listener, shutdown.begun(Phase::StopReplication), admit).await;
}

/// axum's own server would wait for ever for a header that is half sent, and would keep the shutdown waiting too (platform.md 6.1).
async fn connection(stream: std::net::TcpStream, router: Router, header_deadline: Duration, shutdown: Shutdown, _place: Place) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_deadline)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        // How it ended is the peer's affair.
        _ = connection => {}
        () = shutdown.begun(Phase::StopReplication) => {}
    }
}

async fn readyz(State(Management { pod, not_ready, .. }): State<Management>) -> Response {
    if pod.shutdown.is_requested() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    let missing = pod.readiness.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (not_ready, format!("waiting for: {}\n", missing.join(", "))).into_response()
}

async fn render(State(Management { metrics, .. }): State<Management>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")).into_response(),
    }
}

async fn track(State(Management { evidence, .. }): State<Management>, body: Result<Bytes, BytesRejection>) -> Response {
    evidence::track_http(evidence, body).await
}
