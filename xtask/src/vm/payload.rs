//! What runs in the virtual machine, built here: the kernel-facing tests and the agent.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::init::{AUTHORITIES, TESTS, TOOLS};
use crate::{build_ebpf, exec, test, workspace};

/// The programs, without symbols.
pub(super) struct Payload {
    /// The agent's tests against the real kernel, by their names.
    pub(super) tests: Vec<(&'static str, PathBuf)>,
    /// The agent.
    pub(super) agent: PathBuf,
    /// Where the tests look for the agent: where cargo put it.
    pub(super) agent_at: String,
    /// This program, which is the machine's init.
    pub(super) init: PathBuf,
}

impl Payload {
    /// Builds everything; copies are in `dir`.
    pub(super) fn build(dir: &Path) -> Result<Self> {
        for (tool, package) in TOOLS.iter().chain([&AUTHORITIES]) {
            ensure!(Path::new(tool).exists(), "{tool} is missing: apt-get install {package}");
        }
        build_ebpf::build()?;
        eprintln!("Building the tests and the agent");
        let mut build = workspace::cargo();
        // Of the same packages and with the same profile as `cargo xtask test`, so that nothing is built twice.
        build.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
        build.args(test::PACKAGES).args(TESTS.iter().flat_map(|name| ["--test", name]));
        let messages = exec::output(&mut build)?;
        let executable = |kind: &str, name: &str| {
            let found = messages.lines().find_map(|message| executable(message, kind, name));
            found.with_context(|| format!("cargo built no {kind} {name}"))
        };
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let agent = executable("bin", "weir-agent")?;
        let tests =
            TESTS.iter().map(|name| Ok((*name, stripped(&executable("test", name)?, &dir.join(name))?)));
        Ok(Self {
            tests: tests.collect::<Result<_>>()?,
            agent_at: agent.to_str().context("the target directory's path is no UTF-8")?.to_owned(),
            agent: stripped(&agent, &dir.join("weir-agent"))?,
            init: stripped(
                &std::env::current_exe().context("asking where this program is")?,
                &dir.join("init"),
            )?,
        })
    }

    /// The shared libraries and loaders of the programs, where they look for them.
    pub(super) fn libraries(&self) -> Result<BTreeSet<String>> {
        let Self { tests, agent, agent_at: _, init } = self;
        let tests = tests.iter().map(|(_, path)| path.as_path());
        let tools = TOOLS.iter().map(|(tool, _)| Path::new(*tool));
        let mut libraries = BTreeSet::new();
        for program in tests.chain(tools).chain([agent.as_path(), init]) {
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
    exec::run(Command::new("strip").arg("-o").arg(to).arg(program))?;
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
