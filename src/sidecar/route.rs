//! From the path of a call to what answers it.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::Status;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use super::body::Body;
use super::call::Call;
use super::evaluate::{evaluate, evaluate_batch};
use super::flagd;
use super::grpc::{refuse, respond};
use super::pod::Desk;
use super::stream::evaluate_stream;
use super::sync;
use super::watch::watch_flags;

/// A service that tonic generated, behind one pointer.
pub(super) type Generated = BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, Infallible>;

/// Everything that is served besides evaluation.
#[derive(Clone)]
pub(super) struct Others {
    pub(super) health: Generated,
    pub(super) tracking: Generated,
    /// `None`: not served.
    pub(super) reflection: Option<Generated>,
    pub(super) reflection_alpha: Option<Generated>,
}

/// What is served behind a listener, besides health.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    Evaluation,
    Sync,
}

/// What answers the calls of one connection.
#[derive(Clone)]
pub(super) struct Router {
    pub(super) desk: Arc<Desk>,
    pub(super) others: Arc<Others>,
    pub(super) door: Door,
}

impl hyper::service::Service<Request<Incoming>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: Request<Incoming>) -> Call {
        if let Some(status) = not_grpc(&request) {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = status;
            return Call::answered(response);
        }
        match self.door {
            Door::Evaluation => self.evaluation(request),
            Door::Sync => self.sync(request),
        }
    }
}

impl Router {
    fn evaluation(&self, request: Request<Incoming>) -> Call {
        let desk = &self.desk;
        match request.uri().path() {
            "/yardarm.v1.Evaluation/Evaluate" => evaluate(desk, request),
            "/yardarm.v1.Evaluation/EvaluateBatch" => evaluate_batch(desk, request),
            "/yardarm.v1.Evaluation/EvaluateStream" => Call::answered(respond(evaluate_stream(desk, request))),
            "/yardarm.v1.Evaluation/WatchFlags" => Call::waiting(watch_flags(Arc::clone(desk), request)),
            path => match (flagd::at(path), self.others.at(path)) {
                (Some(called), _) => flagd::call(desk, called, request),
                (None, Some(service)) => generated(service, desk, request),
                (None, None) => nothing_at(path),
            },
        }
    }

    fn sync(&self, request: Request<Incoming>) -> Call {
        let path = request.uri().path();
        if path.starts_with("/grpc.health.v1.Health/") {
            return generated(self.others.health.clone(), &self.desk, request);
        }
        match sync::method(path) {
            Some(method) => sync::call(&self.desk, method, request),
            None => nothing_at(path),
        }
    }
}

impl Others {
    fn at(&self, path: &str) -> Option<Generated> {
        match path.split('/').nth(1)? {
            "yardarm.v1.Tracking" => Some(self.tracking.clone()),
            "grpc.health.v1.Health" => Some(self.health.clone()),
            "grpc.reflection.v1.ServerReflection" => self.reflection.clone(),
            "grpc.reflection.v1alpha.ServerReflection" => self.reflection_alpha.clone(),
            _ => None,
        }
    }
}

fn nothing_at(path: &str) -> Call {
    Call::answered(refuse(Status::unimplemented(format!("nothing is served at {path}"))))
}

fn generated(mut service: Generated, desk: &Desk, request: Request<Incoming>) -> Call {
    let shutdown = desk.pod.shutdown.clone();
    let drain = async move { shutdown.requested().await };
    Call::waiting(async move {
        match service.call(request).await {
            Ok(response) => response.map(|body| Body::generated(body, drain)),
            Err(never) => match never {},
        }
    })
}

/// What gRPC over HTTP/2 prescribes for requests that are none of its own.
fn not_grpc(request: &Request<Incoming>) -> Option<StatusCode> {
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    (!content_type.is_some_and(|value| value.starts_with(b"application/grpc"))).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}
