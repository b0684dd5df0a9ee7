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
    let object = object(&target_dir(&out_dir));
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = fs::copy(&object, out_dir.join("weir-tap")) {
        println!("cargo::error=no BPF object at {} ({error})", object.display());
        println!("cargo::error=run `cargo xtask build-ebpf` first");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The BPF object: this build's, else the workspace's, where a build of `fuzz/` has a target directory of its own.
fn object(target_dir: &Path) -> PathBuf {
    let [own, workspace] = [target_dir, &workspace_target_dir()].map(|dir| dir.join("bpf/weir-tap"));
    if own.exists() || !workspace.exists() { own } else { workspace }
}

fn workspace_target_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// The target directory that `out_dir` is in: cargo leaves its cache tag there.
fn target_dir(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .map_or_else(workspace_target_dir, Path::to_owned)
}
