//! Finding what compiles and links BPF.
//!
//! A compiler is usable if the sources of its standard library are installed (core is built for the BPF
//! target) and if it is built on the LLVM that the linker expects: bpf-linker has none of its own and loads the
//! compiler's. Unstable options are needed, which `RUSTC_BOOTSTRAP=1` also unlocks in a stable compiler.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{debian, exec, workspace};

/// The linker's version. It is the last line that loads the compiler's own LLVM.
const LINKER_VERSION: &str = "0.10.3";
/// The major version of LLVM that this linker loads.
const LLVM_MAJOR: &str = "22";
/// Debian's packages with a compiler and library sources that match each other.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A usable compiler.
pub(crate) struct Toolchain {
    /// What it is, for the user.
    pub(crate) name: String,
    /// Its rustc.
    pub(crate) rustc: PathBuf,
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Where its LLVM is.
    pub(crate) llvm_dir: PathBuf,
}

impl Toolchain {
    /// Finds one, or installs Debian's if that is possible.
    pub(crate) fn find() -> Result<Self> {
        let mut reasons = Vec::new();
        match Self::search(&mut reasons) {
            Some(found) => return Ok(found),
            None if debian::can_install()? => {
                eprintln!("No usable compiler for BPF yet");
                debian::install(&DEBIAN_PACKAGES)?;
            }
            None => bail!("{}", advice(&reasons)),
        }
        Self::search(&mut reasons).with_context(|| advice(&reasons))
    }

    fn search(reasons: &mut Vec<String>) -> Option<Self> {
        reasons.clear();
        rustup_toolchains().into_iter().chain([Ok(debian())]).find_map(|candidate| {
            let usable = candidate.and_then(Toolchain::check);
            usable.map_err(|reason| reasons.push(format!("{reason:#}"))).ok()
        })
    }

    fn check(self) -> Result<Self> {
        let Self { name, rustc, cargo, .. } = &self;
        for tool in [rustc, cargo] {
            if !tool.exists() {
                bail!("{name}: there is no {}", tool.display());
            }
        }
        let version = exec::output(clean(rustc).arg("-vV"))?;
        let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let llvm = llvm.with_context(|| format!("{name}: does not tell its LLVM version"))?;
        if llvm.split('.').next() != Some(LLVM_MAJOR) {
            bail!("{name}: built on LLVM {llvm}, bpf-linker {LINKER_VERSION} needs {LLVM_MAJOR}");
        }
        let sysroot = exec::output(clean(rustc).args(["--print", "sysroot"]))?;
        let core = Path::new(sysroot.trim_end()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !core.exists() {
            bail!("{name}: no library sources (component rust-src) at {}", core.display());
        }
        let release = version.lines().next().unwrap_or_default();
        Ok(Self { name: format!("{name} ({release}, LLVM {llvm})"), ..self })
    }
}

/// A command without what the outer cargo and rustup leave in the environment.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    let inherited = ["CARGO", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "LD_LIBRARY_PATH", "RUSTC"];
    let flags = ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
    for name in inherited.iter().chain(&flags) {
        command.env_remove(name);
    }
    command
}

/// Finds the linker, or installs it below the target directory.
pub(crate) fn linker(target_dir: &Path) -> Result<PathBuf> {
    let own = target_dir.join("bpf-tools");
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(cargo_home().map(|home| home.join("bin")));
    let found = |dir: PathBuf| {
        let linker = dir.join("bpf-linker");
        let version = exec::output(clean(&linker).arg("--version")).ok()?;
        (version.split_whitespace().nth(1) == Some(LINKER_VERSION)).then_some(linker)
    };
    if let Some(linker) = dirs.chain([own.join("bin")]).find_map(found) {
        return Ok(linker);
    }
    println!("installing bpf-linker {LINKER_VERSION} into {}", own.display());
    let mut install = workspace::cargo();
    install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--root"]).arg(&own);
    exec::run(&mut install).with_context(|| {
        format!("install it by hand: cargo install bpf-linker --version {LINKER_VERSION}")
    })?;
    found(own.join("bin")).context("bpf-linker was installed and does not start")
}

fn rustup_toolchains() -> Vec<Result<Toolchain>> {
    let Ok(list) = exec::output(Command::new("rustup").args(["toolchain", "list", "--quiet"])) else {
        return vec![];
    };
    let mut names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    let toolchain = |name: &str| {
        let which = |tool| {
            let path = exec::output(Command::new("rustup").args(["which", "--toolchain", name, tool]))?;
            anyhow::Ok(PathBuf::from(path.trim_end()))
        };
        let (rustc, cargo) = (which("rustc")?, which("cargo")?);
        let llvm_dir =
            rustc.parent().and_then(Path::parent).context("rustc is in no bin folder")?.join("lib");
        Ok(Toolchain { name: format!("rustup's {name}"), rustc, cargo, llvm_dir })
    };
    names.into_iter().map(toolchain).collect()
}

fn debian() -> Toolchain {
    Toolchain {
        name: "Debian's".into(),
        rustc: "/usr/bin/rustc".into(),
        cargo: "/usr/bin/cargo".into(),
        llvm_dir: format!("/usr/lib/{}-linux-gnu", env::consts::ARCH).into(),
    }
}

fn advice(reasons: &[String]) -> String {
    format!(
        "no compiler on this machine can build the BPF program:\n  {}\n\
         Install either a Rust nightly on LLVM {LLVM_MAJOR} with its sources:\n  \
         rustup toolchain install nightly --component rust-src\n\
         or, as root on Debian, the compiler that comes in packages:\n  \
         apt-get install -y --no-install-recommends {}",
        reasons.join("\n  "),
        DEBIAN_PACKAGES.join(" ")
    )
}

fn cargo_home() -> Option<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").filter(|dir| *dir != OsString::new()).map(PathBuf::from).or_else(home)
}
