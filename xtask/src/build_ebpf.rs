//! `cargo xtask build-ebpf`: compiles the BPF program to `target/bpf/weir-tap`, where the agent's build takes it.
//!
//! It has a target directory of its own, so that cargo decides what to rebuild and never waits for, or undoes,
//! a build for the host.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    exec,
    toolchain::{self, Toolchain},
    workspace,
};

/// Compile the BPF program that the agent embeds.
#[derive(clap::Args)]
pub(crate) struct Options {}

const PACKAGE: &str = "weir-agent-ebpf";
const BINARY: &str = "weir-tap";

pub(crate) fn run(Options {}: &Options) -> Result<()> {
    build()
}

/// Builds the program if its sources changed.
pub(crate) fn build() -> Result<()> {
    let target_dir = workspace::target_dir()?;
    let found = Toolchain::find()?;
    let linker = toolchain::linker(&target_dir)?;
    eprintln!("building the BPF program with {} and {}", found.name, linker.display());

    let triple = if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };
    let build_dir = target_dir.join("bpf-build");
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=weir", workspace::root().display()),
    ];
    let Toolchain { rustc, cargo, llvm_dir, .. } = &found;
    let mut command = toolchain::clean(cargo);
    command
        .current_dir(workspace::root())
        .env("PATH", path_starting_with(rustc.parent().context("rustc is in no folder")?)?)
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", llvm_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["build", "--release", "--locked", "-Zbuild-std=core", "--target", triple])
        .args(["--package", PACKAGE, "--bin", BINARY, "--target-dir"])
        .arg(&build_dir);
    exec::run(&mut command)?;

    let object = build_dir.join(triple).join("release").join(BINARY);
    install(&object, &target_dir.join("bpf").join(BINARY))
}

/// Copies in one step, and only what is new, so that the agent is not rebuilt for nothing.
fn install(from: &Path, to: &Path) -> Result<()> {
    let object = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == object) {
        return Ok(());
    }
    let writing = || format!("writing {}", to.display());
    let fresh = to.with_extension("new");
    fs::create_dir_all(to.parent().context("a file in a folder")?).with_context(writing)?;
    fs::write(&fresh, object).with_context(writing)?;
    fs::rename(&fresh, to).with_context(writing)?;
    eprintln!("wrote {}", to.display());
    Ok(())
}

fn path_starting_with(dir: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [dir.to_owned()].into_iter().chain(env::split_paths(&path));
    env::join_paths(dirs).context("a folder in PATH has a colon in its name")
}
