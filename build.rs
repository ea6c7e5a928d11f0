//! Compiles `proto/` without a system protoc and keeps the descriptor set for gRPC reflection.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 10] = [
    "yardarm/v1/evaluation.proto",
    "yardarm/v1/tracking.proto",
    "yardarm/v1/replication.proto",
    "yardarm/v1/evidence.proto",
    "yardarm/v1/admin.proto",
    "yardarm/v1/rollout.proto",
    "flagd/evaluation/v1/evaluation.proto",
    "flagd/evaluation/v2/evaluation.proto",
    "flagd/schema/v1/schema.proto",
    "flagd/sync/v1/sync.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    if loads_packed_relocations() {
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

/// Addresses to relocate at the start may stand in the executable as bits and not as 24 bytes each. Every start reads them once, and what it
/// read stays resident: half a megabyte of an idle sidecar. musl knows that since 1.2.4, which Rust brings along, and glibc since 2.36; an
/// older one would refuse to start the executable, so that it is asked, and not asked when the executable is for another machine.
fn loads_packed_relocations() -> bool {
    let cargo = |name: &str| std::env::var(name).unwrap_or_default();
    match (cargo("CARGO_CFG_TARGET_OS").as_str(), cargo("CARGO_CFG_TARGET_ENV").as_str()) {
        ("linux", "musl") => true,
        ("linux", "gnu") if cargo("HOST") == cargo("TARGET") => {
            let version = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok();
            let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
            let parts = version.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
            parts.and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))) >= Some((2, 36))
        }
        _ => false,
    }
}
