//! What a request is for, as far as it is measured: a fixed list, so that nobody can make series by asking for things.

use crate::sidecar::flagd::{self, Called, Method};
use crate::sidecar::route::Door;
use crate::sidecar::{ofrep, sync};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sidecar) enum Route {
    Evaluation(Called),
    Sync(sync::Method),
    Ofrep(ofrep::Endpoint),
    /// Nothing is served there.
    Nowhere,
}

impl Route {
    /// `None`: of Yardarm's own services, which have metrics of their own, and of health and reflection.
    pub(in crate::sidecar) fn of(door: Door, path: &str) -> Option<Self> {
        match door {
            Door::Evaluation => match flagd::at(path) {
                Some(called) => Some(Self::Evaluation(called)),
                None if ofrep::is_at(path) => Some(Self::ofrep(path)),
                None if ["/yardarm.v1.", "/grpc."].iter().any(|ours| path.starts_with(ours)) => None,
                None => Some(Self::Nowhere),
            },
            Door::Ofrep => Some(Self::ofrep(path)),
            Door::Sync => sync::method(path).map(Self::Sync),
        }
    }

    fn ofrep(path: &str) -> Self {
        ofrep::Endpoint::at(path).map_or(Self::Nowhere, Self::Ofrep)
    }

    /// By HTTP, where flagd counts requests; its sync service counts calls only.
    pub(super) fn is_http(self) -> bool {
        !matches!(self, Self::Sync(_))
    }

    /// Its service and method.
    pub(super) fn call(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Evaluation(called) => Some((called.service_name(), called.method.name())),
            Self::Sync(method) => Some((sync::SERVICE, method.name())),
            Self::Ofrep(_) | Self::Nowhere => None,
        }
    }

    /// It goes on until somebody leaves.
    pub(super) fn is_stream(self) -> bool {
        matches!(
            self,
            Self::Evaluation(Called { method: Method::EventStream, .. })
                | Self::Sync(sync::Method::SyncFlags)
                | Self::Ofrep(ofrep::Endpoint::Events)
        )
    }

    /// As a path, with a name where it varies.
    pub(super) fn template(self) -> String {
        match self {
            Self::Ofrep(endpoint) => endpoint.template().to_owned(),
            Self::Nowhere => String::new(),
            Self::Evaluation(_) | Self::Sync(_) => self.call().map_or_else(String::new, |(service, method)| format!("/{service}/{method}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_what_is_served_and_nothing_that_is_asked_for() {
        let template = |door, path| Route::of(door, path).map(Route::template);
        for (door, path, expected) in [
            (Door::Evaluation, "/flagd.evaluation.v2.Service/ResolveInt", "/flagd.evaluation.v2.Service/ResolveInt"),
            (Door::Evaluation, "/schema.v1.Service/EventStream", "/schema.v1.Service/EventStream"),
            (Door::Evaluation, "/ofrep/v1/evaluate/flags/a", "/ofrep/v1/evaluate/flags/{key}"),
            (Door::Ofrep, "/ofrep/v1/evaluate/flags/", "/ofrep/v1/evaluate/flags"),
            (Door::Ofrep, "/ofrep/v1/sse/flagSetId=a", "/ofrep/v1/sse"),
            (Door::Sync, "/flagd.sync.v1.FlagSyncService/SyncFlags", "/flagd.sync.v1.FlagSyncService/SyncFlags"),
            (Door::Evaluation, "/flagd.evaluation.v3.Service/ResolveInt", ""),
            (Door::Ofrep, "/flagd.evaluation.v2.Service/ResolveInt", ""),
            (Door::Ofrep, "/admin.php", ""),
        ] {
            assert_eq!(template(door, path).as_deref(), Some(expected), "{path}");
        }
        for (door, path) in [
            (Door::Evaluation, "/yardarm.v1.Evaluation/Evaluate"),
            (Door::Evaluation, "/grpc.health.v1.Health/Check"),
            (Door::Sync, "/grpc.health.v1.Health/Watch"),
        ] {
            assert_eq!(template(door, path), None, "{path}");
        }
    }
}
