//! The generated messages, and every conversion between them and the domain. Protobuf stops here.

/// Messages, clients and servers of `proto/yardarm/v1`.
pub mod v1 {
    #![allow(clippy::all)]
    tonic::include_proto!("yardarm.v1");
}

/// Messages and clients of `proto/flagd`, for tests and whoever wants to ask as a flagd provider does.
pub mod flagd {
    #![allow(clippy::all)]
    pub mod v1 {
        tonic::include_proto!("flagd.evaluation.v1");
    }
    pub mod v2 {
        tonic::include_proto!("flagd.evaluation.v2");
    }
    pub mod schema {
        tonic::include_proto!("schema.v1");
    }
    pub mod sync {
        tonic::include_proto!("flagd.sync.v1");
    }
}

pub mod admin;
pub mod evaluation;
pub mod evidence;
pub mod fleet;
pub mod frame;
pub mod json;
pub mod replication;
pub mod trip;

/// Keys and tags that a selector may name.
pub const SELECTOR_NAMES: usize = 20_000;

/// For gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
