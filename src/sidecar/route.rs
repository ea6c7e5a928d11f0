//! From the path of a call to what answers it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::Status;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use super::body::Body;
use super::call::Call;
use super::connect;
use super::dialect::{Dialect, Translated};
use super::evaluate::{evaluate, evaluate_batch};
use super::flagd;
use super::grpc::{refuse, respond};
use super::ofrep;
use super::pod::Desk;
use super::request_body::RequestBody;
use super::requests::{Meter, Route};
use super::stream::evaluate_stream;
use super::sync;
use super::watch::watch_flags;

/// A service that tonic generated, behind one pointer.
pub(super) type Generated = BoxCloneSyncService<Request<RequestBody>, Response<tonic::body::Body>, Infallible>;

/// Everything that is served besides evaluation.
#[derive(Clone)]
pub(super) struct Others {
    pub(super) health: Generated,
    pub(super) tracking: Generated,
    /// `None`: not served.
    pub(super) reflection: Option<Generated>,
    pub(super) reflection_alpha: Option<Generated>,
}

/// Until a generated service has its message and begins to answer.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);

/// What answers the calls of one connection.
#[derive(Clone)]
pub(super) struct Router {
    pub(super) desk: Arc<Desk>,
    pub(super) others: Arc<Others>,
    pub(super) door: Door,
    pub(super) is_encrypted: bool,
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Everything that is served to applications.
    Evaluation,
    /// Flags as documents, and health.
    Sync,
    /// OFREP alone.
    Ofrep,
}

impl hyper::service::Service<Request<Incoming>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: Request<Incoming>) -> Call {
        if self.desk.requests.is_some() {
            return self.measured(request);
        }
        self.any(request.map(|body| RequestBody::new(body, None)))
    }
}

impl Router {
    #[cold]
    fn measured(&self, request: Request<Incoming>) -> Call {
        let route = Route::of(self.door, request.uri().path());
        let begin = |route| Meter::begin(&self.desk, route, request.method(), Dialect::of(&request), self.is_encrypted);
        let Some(meter) = route.and_then(begin) else { return self.any(request.map(|body| RequestBody::new(body, None))) };
        let call = self.any(request.map(|body| RequestBody::new(body, Some(Arc::clone(&meter)))));
        call.map(move |response| meter.answers(response))
    }

    #[inline]
    fn any(&self, request: Request<RequestBody>) -> Call {
        let is_grpc = self.door != Door::Ofrep && request.method() == Method::POST && Dialect::of(&request) == Some(Dialect::Grpc);
        if is_grpc { self.by_grpc(request) } else { self.by_another(request) }
    }

    fn by_grpc(&self, request: Request<RequestBody>) -> Call {
        if request.version() < Version::HTTP_2 {
            // Its status is in trailers, which are not to be had of HTTP/1.1 by the clients of gRPC.
            return Call::answered(only(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
        }
        self.at(request)
    }

    fn at(&self, request: Request<RequestBody>) -> Call {
        match self.door {
            Door::Evaluation => self.evaluation(request),
            Door::Sync => self.sync(request),
            Door::Ofrep => nothing_at(request.uri().path()),
        }
    }

    fn evaluation(&self, request: Request<RequestBody>) -> Call {
        let desk = &self.desk;
        match request.uri().path() {
            "/yardarm.v1.Evaluation/Evaluate" => evaluate(desk, request),
            "/yardarm.v1.Evaluation/EvaluateBatch" => evaluate_batch(desk, request),
            // Questions without an end want the pings of HTTP/2.
            "/yardarm.v1.Evaluation/EvaluateStream" if request.version() < Version::HTTP_2 => {
                Call::answered(only(StatusCode::HTTP_VERSION_NOT_SUPPORTED))
            }
            "/yardarm.v1.Evaluation/EvaluateStream" => Call::answered(respond(evaluate_stream(desk, request))),
            "/yardarm.v1.Evaluation/WatchFlags" => Call::waiting(watch_flags(Arc::clone(desk), request)),
            path => match (flagd::at(path), self.others.at(path)) {
                (Some(called), _) => flagd::call(desk, called, request),
                (None, Some(service)) => generated(service, desk, request),
                (None, None) => nothing_at(path),
            },
        }
    }

    fn sync(&self, request: Request<RequestBody>) -> Call {
        let path = request.uri().path();
        if path.starts_with("/grpc.health.v1.Health/") {
            return generated(self.others.health.clone(), &self.desk, request);
        }
        match sync::method(path) {
            Some(method) => sync::call(&self.desk, method, request),
            None => nothing_at(path),
        }
    }

    /// Where browsers ask too.
    #[cold]
    fn by_another(&self, request: Request<RequestBody>) -> Call {
        let cors = &self.desk.pod.cors;
        if let Some(answer) = cors.preflight(&request) {
            return Call::answered(answer);
        }
        let admitted = cors.admits(request.headers());
        let call = self.in_dialect(request);
        let Some(admitted) = admitted else { return call };
        call.map(|mut response| {
            admitted.tell(response.headers_mut());
            response
        })
    }

    fn in_dialect(&self, mut request: Request<RequestBody>) -> Call {
        let path = request.uri().path();
        let is_here = self.door == Door::Evaluation;
        if self.door == Door::Ofrep || is_here && ofrep::is_at(path) {
            return Call::waiting(ofrep::answer(Arc::clone(&self.desk), request));
        }
        if request.method() != Method::POST {
            return Call::answered(only(StatusCode::METHOD_NOT_ALLOWED));
        }
        match (Dialect::of(&request), flagd::at(path).filter(|_| is_here)) {
            (Some(Dialect::GrpcWeb), _) => {
                request.headers_mut().insert(header::CONTENT_TYPE, Dialect::Grpc.content_type());
                self.at(request).map(|response| {
                    let mut response = response.map(|body| Translated::into_body(body, Dialect::GrpcWeb));
                    response.headers_mut().insert(header::CONTENT_TYPE, Dialect::GrpcWeb.content_type());
                    response
                })
            }
            (Some(dialect), Some(called)) => connect::call(&self.desk, called, dialect, request),
            // Connect is spoken for flagd's services, whose clients speak it.
            (Some(Dialect::Connect(_)), None) => {
                let what = format!("nothing is served at {path} by Connect; Yardarm's own services are served by gRPC and gRPC-Web");
                Call::answered(connect::failed(&Status::unimplemented(what)))
            }
            _ => Call::answered(only(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
        }
    }
}

/// A status of HTTP, for what is none of ours.
fn only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Plain(Bytes::new()));
    *response.status_mut() = status;
    response
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

fn generated(mut service: Generated, desk: &Desk, request: Request<RequestBody>) -> Call {
    let shutdown = desk.pod.shutdown.clone();
    let drain = async move { shutdown.requested().await };
    Call::waiting(async move {
        match timeout(BEGUN_WITHIN, service.call(request)).await {
            Ok(Ok(response)) => response.map(|body| Body::generated(body, drain)),
            Ok(Err(never)) => match never {},
            Err(_) => refuse(Status::deadline_exceeded("the call did not arrive within 10 s")),
        }
    })
}
