//! Which service answers a call. tonic's own router would bring axum's into the gRPC path for what is a look at the first part of a path.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// gRPC services by name. Clones are the same services.
#[derive(Clone, Default)]
pub struct Routes(Arc<BTreeMap<&'static str, Boxed>>);

impl Routes {
    pub fn with<S>(self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let mut services = Arc::unwrap_or_clone(self.0);
        services.insert(S::NAME, BoxCloneSyncService::new(service));
        Self(Arc::new(services))
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<tower::util::Oneshot<Boxed, Request<Body>>, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A clone of the service is asked, when the call comes.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.0.get(name) {
            Some(service) => Either::Left(service.clone().oneshot(request)),
            None => {
                let shown: String = name.chars().take(100).collect();
                let known: Vec<_> = self.0.keys().copied().collect();
                let status = Status::unimplemented(format!("no service `{shown}` here, only {}", known.join(", ")));
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}
