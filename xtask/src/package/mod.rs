//! `cargo xtask package`: the Debian packages, in `target/packages`.
//!
//! Their contents are gathered in one directory, which debhelper makes packages of: `deploy/debian` says what goes
//! where. debhelper and not cargo-deb, because it knows sysusers and all that maintainer scripts have to do, comes as
//! a package, and is what cargo-deb imitates.

#[cfg(test)]
mod tests;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{build_ebpf, exec, prerequisites, workspace};

/// Make the Debian packages weir-agent, weir-proxy and weir, in `target/packages`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The cargo profile of what goes into them.
    #[arg(long, default_value = "release", value_parser = ["release", "dev"])]
    profile: String,
    /// Appended to the version, for example `+2`, to have something to upgrade to.
    #[arg(long, value_name = "SUFFIX", default_value = "")]
    version_suffix: String,
    /// Take the binaries that are there.
    #[arg(long)]
    no_build: bool,
    /// Where they go, instead of target/packages. What else is there stays.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Options {
    /// Packages of dev binaries, in a folder that is nobody else's.
    pub(crate) fn dev(out: &Path) -> Self {
        let (profile, version_suffix) = ("dev".to_owned(), String::new());
        Self { profile, version_suffix, no_build: false, out: Some(out.to_owned()) }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    for package in make(options)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// Makes them, and returns where they are.
pub(crate) fn make(options: &Options) -> Result<Vec<PathBuf>> {
    prerequisites::ensure_packaging()?;
    if !options.no_build {
        build_ebpf::build()?;
        build(&options.profile)?;
    }
    let target = workspace::target_dir()?;
    let packages = Packages {
        binaries: target.join(if options.profile == "dev" { "debug" } else { "release" }),
        version: version(&options.version_suffix)?,
        out: out_dir(options.out.as_deref(), &target)?,
        // Of dev binaries nobody keeps the packages, and thorough compression would take a minute.
        quick: options.profile == "dev",
    };
    packages.make()
}

/// debhelper runs elsewhere, and needs to hear the whole path.
fn out_dir(wanted: Option<&Path>, target: &Path) -> Result<PathBuf> {
    let out = wanted.map_or_else(|| target.join("packages"), Path::to_owned);
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    out.canonicalize().with_context(|| format!("cannot find {}", out.display()))
}

fn build(profile: &str) -> Result<()> {
    eprintln!("Building {} with the profile {profile}", PROGRAMS.join(", "));
    let mut build = workspace::cargo();
    build.args(["build", "--locked", "--bins", "--profile", profile]);
    for package in ["weir-agent", "weir-proxy", "weir-console"] {
        build.args(["--package", package]);
    }
    exec::run(&mut build)
}

fn version(suffix: &str) -> Result<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "+.~".contains(c);
    ensure!(suffix.chars().all(fine), "{suffix:?} can't be in a version: write letters, digits, + . ~");
    Ok(format!("{}{suffix}", env!("CARGO_PKG_VERSION")))
}

/// What is to be made.
struct Packages {
    /// Where the programs are.
    binaries: PathBuf,
    version: String,
    /// Where packages go.
    out: PathBuf,
    /// Whether compression is to be quick instead of thorough.
    quick: bool,
}

impl Packages {
    /// Makes them, and returns where they are.
    fn make(&self) -> Result<Vec<PathBuf>> {
        let (tree, made) = (self.out.join("tree"), self.out.join("made"));
        let dirs = [&tree, &made];
        for dir in dirs.iter().filter(|dir| dir.exists()) {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        self.gather(&tree)?;
        fs::create_dir_all(&made).with_context(|| format!("cannot make {}", made.display()))?;
        self.run_debhelper(&tree, &made)?;
        let mut packages = Vec::new();
        for item in fs::read_dir(&made).with_context(|| format!("cannot read {}", made.display()))? {
            let item = item.with_context(|| format!("cannot read {}", made.display()))?;
            let to = self.out.join(item.file_name());
            fs::rename(item.path(), &to).with_context(|| format!("cannot write {}", to.display()))?;
            packages.push(to);
        }
        packages.sort();
        // Some 100 MB that nobody looks at; where something failed they stay.
        for dir in dirs {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        Ok(packages)
    }

    /// Has debhelper make the packages of this tree in that directory.
    fn run_debhelper(&self, tree: &Path, made: &Path) -> Result<()> {
        let compression = if self.quick { "-Zgzip -z1" } else { "-Zxz" };
        let (mut rules, log) = (Command::new("debian/rules"), self.out.join("debhelper.log"));
        rules.current_dir(tree).arg("binary");
        rules.args([format!("PACKAGES={}", made.display()), format!("COMPRESSION={compression}")]);
        // Files belong to root in the packages, whoever makes them; and two runs make the same bytes.
        rules.env("DEB_RULES_REQUIRES_ROOT", "no").env("SOURCE_DATE_EPOCH", committed("%ct")?);
        let told = exec::output(&mut rules).context("debhelper could not make the packages")?;
        fs::write(&log, told).with_context(|| format!("cannot write {}", log.display()))
    }

    /// Everything that goes into packages, and debhelper's directions, in one place.
    fn gather(&self, tree: &Path) -> Result<()> {
        let (bin, completions, man) = (tree.join("bin"), tree.join("completions"), tree.join("man"));
        for dir in [&bin, &completions, &man] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        for program in PROGRAMS {
            let (from, to) = (self.binaries.join(program), bin.join(program));
            // A link where it can be one: with what is there for debuggers each has more than 100 MB.
            let linked = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop));
            linked.with_context(|| format!("cannot take {}; was it built?", from.display()))?;
        }
        let weir = bin.join("weir");
        exec::output(Command::new(&weir).args(["man", "--out"]).arg(&man))?;
        for (shell, name) in [("bash", "weir"), ("zsh", "_weir"), ("fish", "weir.fish")] {
            let script = exec::output(Command::new(&weir).args(["completions", shell]))?;
            fs::write(completions.join(name), script)?;
        }
        for dir in ["deploy", "docs"] {
            exec::run(Command::new("cp").arg("-R").arg(workspace::root().join(dir)).arg(tree))?;
        }
        let debian = tree.join("debian");
        fs::rename(tree.join("deploy/debian"), &debian).context("deploy/debian is not there")?;
        fs::write(debian.join("changelog"), self.changelog()?)?;
        Ok(())
    }

    /// What debhelper takes the version from.
    fn changelog(&self) -> Result<String> {
        let (version, date) = (&self.version, committed("%cD")?);
        let (commit, maintainer) = (committed("%h")?, "Weir maintainers <maintainers@weir.invalid>");
        Ok(format!(
            "weir ({version}) unstable; urgency=medium\n\n  * Built of commit {commit}.\n\n -- {maintainer}  {date}\n"
        ))
    }
}

/// Something about the commit that is checked out, as `git log` formats it.
fn committed(format: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["log", "-1", &format!("--format={format}")]);
    Ok(exec::output(&mut git)?.trim_end().to_owned())
}

const PROGRAMS: [&str; 3] = ["weir-agent", "weir-proxy", "weir"];
