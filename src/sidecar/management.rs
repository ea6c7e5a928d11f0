//! The management port: `/healthz`, `/readyz` and `/metrics`, and gRPC's health by HTTP/2, where flagd has it. No flag and no decision is
//! readable here. Outcomes are taken here too, at `POST /ofrep/v1/track`, from applications that speak no gRPC.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::lifecycle::{Phase, Shutdown};

use super::evidence::{self, Evidence};
use super::metrics::{self, Metrics};
use super::pod::{Place, Places, Pod};
use super::serve::{Listener, Socket, accept};
use super::sniff::listen_to;

/// Of HTTP/2, by which a peer that is gone is found out.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Probes that one connection may have open.
const MAX_STREAMS: u32 = 16;

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
    health: HealthReporter,
    is_stand_in: bool,
) {
    let not_ready = if is_stand_in { StatusCode::PRECONDITION_FAILED } else { StatusCode::SERVICE_UNAVAILABLE };
    let shutdown = pod.shutdown.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .route("/ofrep/v1/track", post(track).layer(DefaultBodyLimit::max(evidence::BODY_BYTES)))
        .with_state(Management { pod, metrics, evidence, not_ready })
        .route_service("/grpc.health.v1.Health/{method}", HealthServer::new(HealthService::from_health_reporter(health)));
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
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(header_deadline);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE / 2)
        .max_concurrent_streams(MAX_STREAMS);
    // Until the first bytes are there, it is not known which of the two it will be, and neither has a deadline for them.
    let begun = tokio::select! {
        begun = listen_to(stream) => begun,
        () = tokio::time::sleep(header_deadline) => None,
        () = shutdown.begun(Phase::StopReplication) => None,
    };
    let Some((_, stream)) = begun else { return };
    tokio::select! {
        // How it ended is the peer's affair.
        _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)) => {}
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
