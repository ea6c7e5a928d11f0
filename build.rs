//! Compiles `proto/` without a system protoc and keeps the descriptor set for gRPC reflection.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 6] = [
    "yardarm/v1/evaluation.proto",
    "yardarm/v1/tracking.proto",
    "yardarm/v1/replication.proto",
    "yardarm/v1/evidence.proto",
    "yardarm/v1/admin.proto",
    "yardarm/v1/rollout.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The addresses to relocate at the start as bits and not as 24 bytes each: every start reads them once, and what it read stays
        // resident (half a megabyte of an idle sidecar). Needs glibc 2.36 or musl 1.2.4; a linker that does not know it leaves them as they are.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Definitions and chunks are shared between many readers: `Bytes` is cloned by reference.
    tonic_prost_build::configure()
        .bytes(".yardarm.v1.SnapshotChunk.data")
        .bytes(".yardarm.v1.Item.definition")
        .bytes(".yardarm.v1.FlagState.definition")
        .bytes(".yardarm.v1.FlagInfo.definition")
        .bytes(".yardarm.v1.BackupChunk.data")
        .compile_fds(descriptors)?;
    Ok(())
}
