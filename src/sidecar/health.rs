//! gRPC health and reflection.
//!
//! Health has a name for each of Kubernetes' probes, so that a `grpc` probe can ask for what it means: `liveness` is true while anybody
//! answers, `readiness` (and the empty name, and the evaluation service) once the sidecar can serve and until it drains, `startup` once it
//! could serve for the first time. In flagd's place the empty name means on the management port what it means there.

use std::sync::{Arc, OnceLock};

use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use crate::lifecycle::{Readiness, Shutdown};
use crate::wire;

use super::evidence::{self, Evidence};
use super::pod::Sdk;
use super::route::{Generated, Others};

const EVALUATION: &str = "yardarm.v1.Evaluation";

/// Names that turn with readiness, and back when the sidecar drains.
const READINESS: [&str; 3] = ["", "readiness", EVALUATION];

/// Everything that tonic serves.
pub(super) fn services(reporter: &HealthReporter, evidence: Evidence, reflection: bool) -> Others {
    let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    let tracking = BoxCloneSyncService::new(evidence::service(evidence));
    let mut others = Others { health: BoxCloneSyncService::new(health), tracking, reflection: None, reflection_alpha: None };
    if reflection {
        others.reflection = Some(when_asked(|| Ok(BoxCloneSyncService::new(descriptors().build_v1()?))));
        // What grpcurl asks for first.
        others.reflection_alpha = Some(when_asked(|| Ok(BoxCloneSyncService::new(descriptors().build_v1alpha()?))));
    }
    others
}

/// Descriptors are decoded and sorted when somebody asks for them, which in most pods nobody ever does.
fn when_asked(build: fn() -> Result<Generated, tonic_reflection::server::Error>) -> Generated {
    let built = Arc::new(OnceLock::new());
    BoxCloneSyncService::new(tower::service_fn(move |request| {
        let service: Result<Generated, String> = built.get_or_init(|| build().map_err(|error| error.to_string())).clone();
        async move {
            match service {
                Ok(mut service) => service.call(request).await,
                Err(error) => Ok(Status::internal(format!("the descriptors cannot be read: {error}")).into_http()),
            }
        }
    }))
}

/// Only what is served here: the descriptors hold the control plane's services too.
fn descriptors() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(EVALUATION)
        .with_service_name("yardarm.v1.Tracking")
        .with_service_name(Sdk::FlagdV2.name())
        .with_service_name(Sdk::FlagdV1.name())
        .with_service_name(Sdk::FlagdSchema.name())
        .with_service_name("grpc.health.v1.Health")
}

pub(super) async fn report(reporter: HealthReporter, readiness: Readiness, shutdown: Shutdown) {
    tokio::select! {
        () = readiness.wait() => {
            for name in READINESS.into_iter().chain(["startup"]) {
                reporter.set_service_status(name, ServingStatus::Serving).await;
            }
        }
        () = shutdown.requested() => {}
    }
    shutdown.requested().await;
    for name in READINESS {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
}

/// Before anybody can ask.
pub(super) async fn reporter() -> HealthReporter {
    let reporter = HealthReporter::new();
    for name in READINESS.into_iter().chain(["startup"]) {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
    reporter.set_service_status("liveness", ServingStatus::Serving).await;
    reporter
}

/// What flagd says on its management port: to whoever asks for no service it is SERVING from the moment that it listens, whether it has flags
/// or not, and a probe that was made for it would wait here for a source that may never come. Our own names mean there what they mean elsewhere.
pub(super) async fn flagds() -> HealthReporter {
    let reporter = reporter().await;
    reporter.set_service_status("", ServingStatus::Serving).await;
    reporter
}
