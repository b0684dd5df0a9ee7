//! What runs in the virtual machine, built here: the kernel-facing tests and the agent.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{build_ebpf, exec, workspace};

/// The programs, without debugging information.
pub(super) struct Payload {
    /// The agent's tests against the real kernel.
    pub(super) tests: PathBuf,
    /// The agent.
    pub(super) agent: PathBuf,
    /// This program, which is the machine's init.
    pub(super) init: PathBuf,
}

impl Payload {
    /// Builds everything; copies are in `dir`.
    pub(super) fn build(dir: &Path) -> Result<Self> {
        build_ebpf::build()?;
        eprintln!("Building the tests and the agent");
        let mut build = workspace::cargo();
        build.args(["test", "--locked", "--no-run", "--package", "weir-agent", "--test", "tap"]);
        // Most of the time goes into making and comparing messages, and an emulated processor is slow enough.
        build.args(["--config", "profile.dev.opt-level=2", "--message-format=json-render-diagnostics"]);
        let messages = exec::output(&mut build)?;
        let executable = |kind: &str, name: &str| {
            let found = messages.lines().find_map(|message| executable(message, kind, name));
            found.with_context(|| format!("cargo built no {kind} {name}"))
        };
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let init = std::env::current_exe().context("asking where this program is")?;
        Ok(Self {
            tests: stripped(&executable("test", "tap")?, &dir.join("tests"))?,
            agent: stripped(&executable("bin", "weir-agent")?, &dir.join("weir-agent"))?,
            init: stripped(&init, &dir.join("init"))?,
        })
    }

    /// The shared libraries and loaders of the programs, where they look for them.
    pub(super) fn libraries(&self) -> Result<BTreeSet<String>> {
        let Self { tests, agent, init } = self;
        let mut libraries = BTreeSet::new();
        for program in [tests, agent, init] {
            libraries.extend(libraries_in(&exec::output(Command::new("ldd").arg(program))?));
        }
        Ok(libraries)
    }
}

/// The executable that a message of cargo's announces, if it is this target's.
fn executable(message: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    if target["name"] != name || target["kind"] != serde_json::json!([kind]) {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

fn stripped(program: &Path, to: &Path) -> Result<PathBuf> {
    exec::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(program))?;
    Ok(to.to_owned())
}

/// The paths in what `ldd` prints: `name => path (address)`, or `path (address)`.
fn libraries_in(printed: &str) -> impl Iterator<Item = String> {
    printed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_those_with_a_path() {
        let printed = "\tlinux-vdso.so.1 (0x00007fe591821000)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe59142e000)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007fe591823000)\n";
        let found: Vec<_> = libraries_in(printed).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn an_executable_is_found_in_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"tap"},"executable":"/t/tap-1"}"#;
        assert_eq!(executable(message, "test", "tap"), Some(PathBuf::from("/t/tap-1")));
        assert_eq!(executable(message, "bin", "tap"), None);
        assert_eq!(executable("not JSON", "bin", "tap"), None);
    }
}
