//! An apt of our own: the host's mirror and settings, suites as needed, no installed packages, its files in a
//! folder below `target/vm`. It looks up and downloads; it can't install.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::sources::Sources;
use crate::exec;

/// Debian's keys of all its releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long package lists are good for.
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// A package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// See the module's documentation.
pub(super) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Sets it up for these suites and their security updates, with lists that are at most a day old.
    pub(super) fn open(dir: &Path, sources: &Sources, suites: &[&str]) -> Result<Self> {
        ensure!(Path::new(KEYRING).exists(), "no {KEYRING}; install debian-archive-keyring");
        let apt = Self { dir: dir.to_owned() };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("status", "")?;
        write("apt.conf", &configuration(dir))?;
        let list = sources_list(sources, suites);
        write("sources.list", &list)?;
        if !apt.lists_are_fresh(&list) {
            eprintln!("Reading the package lists of {}", suites.join(", "));
            match apt.update() {
                Ok(()) => write("updated", &list)?,
                // What was fetched before may do; if not, looking up a package says so.
                Err(error) => eprintln!("warning: {error:#}"),
            }
        }
        Ok(apt)
    }

    /// Reads the package lists anew.
    pub(super) fn update(&self) -> Result<()> {
        exec::output(self.get().arg("update")).map(drop)
    }

    /// `apt-get` on our files.
    pub(super) fn get(&self) -> Command {
        self.command("apt-get")
    }

    /// `apt-cache` on our files.
    pub(super) fn cache(&self) -> Command {
        self.command("apt-cache")
    }

    /// Downloads packages and unpacks them into a folder, in one step: it is there complete or not at all.
    pub(super) fn unpack(&self, packages: &[Package], into: &Path) -> Result<()> {
        let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", into.display()));
        let (fresh, debs) = (beside("new"), beside("debs"));
        for dir in [&fresh, &debs, into] {
            remove_dir(dir)?;
        }
        for dir in [&fresh, &debs] {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let mut download = self.get();
        download.current_dir(&debs).arg("download");
        download.args(packages.iter().map(|Package { name, version }| format!("{name}={version}")));
        exec::output(&mut download)?;
        for deb in fs::read_dir(&debs).with_context(|| format!("listing {}", debs.display()))? {
            let deb = deb.context("listing what was downloaded")?.path();
            exec::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&fresh))?;
        }
        remove_dir(&debs)?;
        fs::rename(&fresh, into)
            .with_context(|| format!("renaming {} to {}", fresh.display(), into.display()))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-qq").arg("--config-file").arg(self.dir.join("apt.conf"));
        command
    }

    fn lists_are_fresh(&self, list: &str) -> bool {
        let stamp = self.dir.join("updated");
        let age = fs::metadata(&stamp).and_then(|found| found.modified()).map(|time| time.elapsed());
        matches!(age, Ok(Ok(age)) if age < LISTS_MAX_AGE)
            && fs::read_to_string(stamp).is_ok_and(|of| of == list)
    }
}

/// `sources.list(5)`.
fn sources_list(sources: &Sources, suites: &[&str]) -> String {
    let mut lines = Vec::new();
    let mut line = |archive: &str, suite: &str| {
        lines.push(format!("deb [signed-by={KEYRING} target=Packages] {archive} {suite} main\n"));
    };
    for suite in suites {
        line(&sources.archive, suite);
        // Backports have no security updates of their own.
        if let Some(security) = sources.security.as_ref().filter(|_| !suite.contains('-')) {
            line(security, &format!("{suite}-security"));
        }
    }
    lines.concat()
}

/// Read after the host's own settings, so that its proxies and credentials hold and its hooks do not.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "amd64";
APT::Sandbox::User "root";
Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::Retries "3";
// Suites that are closed have no newer lists, and their kernels are what is wanted of them.
Acquire::Check-Valid-Until "false";
"#
    )
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_updates_come_with_every_suite_that_has_some() {
        let sources = Sources {
            codename: "bookworm".to_owned(),
            archive: "http://mirror.example/debian".to_owned(),
            security: Some("http://mirror.example/security".to_owned()),
        };
        let list = sources_list(&sources, &["trixie", "trixie-backports"]);
        let places: Vec<_> =
            list.lines().filter_map(|line| line.split_once("] ")).map(|(_, at)| at).collect();
        let expected = [
            "http://mirror.example/debian trixie main",
            "http://mirror.example/security trixie-security main",
            "http://mirror.example/debian trixie-backports main",
        ];
        assert_eq!(places, expected);
    }
}
