//! Compiles the .proto files in pure Rust: no `protoc` is needed to build.

use std::error::Error;

const FILES: [&str; 7] = [
    "proto/discovery.proto",
    "proto/workload.proto",
    "proto/authorization.proto",
    "proto/l7.proto",
    "proto/zds.proto",
    "proto/citadel.proto",
    "proto/handover.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Ordered maps: a resource's version is a hash of its encoding.
        .btree_map(".")
        .include_file("generated.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
