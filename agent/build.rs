//! Hands the BPF object over to the agent, which embeds it.
//!
//! `cargo xtask build-ebpf` builds it, since that takes another compiler than the rest.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = target_dir(&out_dir).join("bpf/weir-tap");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = fs::copy(&object, out_dir.join("weir-tap")) {
        println!("cargo::error=no BPF object at {} ({error})", object.display());
        println!("cargo::error=run `cargo xtask build-ebpf` first");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The target directory that `out_dir` is in: cargo leaves its cache tag there.
fn target_dir(out_dir: &Path) -> PathBuf {
    let workspace = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).map_or_else(workspace, Path::to_owned)
}
