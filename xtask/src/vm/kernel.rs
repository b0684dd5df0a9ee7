//! Debian's cloud kernels: which package holds a series today, and its image.
//!
//! The names of these packages change with every security update, so they are looked up each time: in the
//! metapackage, and for a series that it has left behind among the packages that are still there.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use super::apt::{Apt, Package};
use crate::exec;

const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel series, for example 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    major: u16,
    minor: u16,
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse().ok();
        let parts = text.split_once('.').and_then(|(major, minor)| Some((parse(major)?, parse(minor)?)));
        let (major, minor) = parts.ok_or("a kernel series is two numbers, for example 6.1")?;
        Ok(Self { major, minor })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not field by field, so that tables can align it.
        out.pad(&format!("{}.{}", self.major, self.minor))
    }
}

impl Series {
    /// The Debian suite that has it.
    pub(super) fn suite(self) -> &'static str {
        match (self.major, self.minor) {
            (5, 10) => "bullseye",
            (6, 1) => "bookworm",
            (6, 12) => "trixie",
            _ => "trixie-backports",
        }
    }
}

/// A kernel that can be booted.
pub(super) struct Kernel {
    pub(super) series: Series,
    pub(super) image: PathBuf,
}

/// Finds the newest kernel of a series, and fetches it if it is not below `dir` already. Where a newer one can't be had, the one
/// that was fetched before does.
pub(super) fn fetch(apt: &Apt, dir: &Path, series: Series) -> Result<Kernel> {
    let dir = dir.join(series.to_string());
    let image = dir.join("vmlinuz");
    let fetched = fetch_newest(apt, &dir, series).or_else(|error| {
        // Lists may name a version that a security update has replaced since.
        eprintln!("warning: {error:#}; reading the package lists again");
        apt.update()?;
        fetch_newest(apt, &dir, series)
    });
    match fetched {
        Err(error) if image.exists() => {
            eprintln!("warning: {error:#}; taking the kernel {series} that was fetched before");
        }
        other => other?,
    }
    Ok(Kernel { series, image })
}

fn fetch_newest(apt: &Apt, dir: &Path, series: Series) -> Result<()> {
    let package = find(apt, series)?;
    let stamp = format!("{}={}\n", package.name, package.version);
    let present = fs::read_to_string(dir.join("package")).is_ok_and(|present| present == stamp);
    if !present {
        eprintln!("Fetching {} {}", package.name, package.version);
        let unpacked = dir.join("unpacked");
        apt.unpack(&[holder_of_the_image(apt, &package)?], &unpacked)?;
        // The modules are most of it, and nothing that Weir needs is one.
        let image = find_image(&unpacked)?.with_context(|| format!("{} has no vmlinuz", package.name))?;
        fs::rename(&image, dir.join("vmlinuz")).with_context(|| format!("moving {}", image.display()))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("removing {}", unpacked.display()))?;
        fs::write(dir.join("package"), stamp).context("noting the kernel's package")?;
    }
    Ok(())
}

fn find(apt: &Apt, series: Series) -> Result<Package> {
    let prefix = format!("{series}.");
    let offered = exec::output(apt.cache().args(["madison", METAPACKAGE]))?;
    // Newest first.
    let version = column(&offered, 1).find(|version| version.starts_with(&prefix));
    let name = match version {
        Some(version) => {
            let shown = exec::output(apt.cache().arg("show").arg(format!("{METAPACKAGE}={version}")))?;
            dependency(&shown, "linux-image-").context("the metapackage depends on no kernel")?
        }
        None => {
            let names = exec::output(apt.cache().args(["pkgnames", &format!("linux-image-{prefix}")]))?;
            let names = names.lines().filter(|name| name.ends_with("-cloud-amd64"));
            match names.max_by_key(|name| numbers(name)) {
                Some(name) => name.to_owned(),
                None => bail!(
                    "{} has no kernel {series}; the metapackages offer {}",
                    series.suite(),
                    column(&offered, 1).collect::<Vec<_>>().join(", ")
                ),
            }
        }
    };
    let versions = exec::output(apt.cache().args(["madison", &name]))?;
    let version = column(&versions, 1).next().with_context(|| format!("no version of {name}"))?;
    Ok(Package { version: version.to_owned(), name })
}

/// The package of the image that [`fetch`] fetched.
pub(super) fn fetched_package(dir: &Path, series: Series) -> Result<Package> {
    let file = dir.join(series.to_string()).join("package");
    let stamp = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let (name, version) = stamp.trim_end().split_once('=').context("the kernel's package was not noted")?;
    Ok(Package { name: name.to_owned(), version: version.to_owned() })
}

/// The packages that together have its modules, and the list of those that are built in.
pub(super) fn holders_of_the_modules(apt: &Apt, package: &Package) -> Result<Vec<Package>> {
    let modules = holder(apt, package, "linux-modules-")?;
    if modules == *package {
        // Its dependency of the other kind has nothing of it, and does not stay as long in the archive.
        return Ok(vec![modules]);
    }
    Ok(vec![modules, holder(apt, package, "linux-base-")?])
}

fn holder_of_the_image(apt: &Apt, package: &Package) -> Result<Package> {
    holder(apt, package, "linux-binary-")
}

/// The package itself, or from 6.19 on the one that it depends on for this part.
fn holder(apt: &Apt, package: &Package, part: &str) -> Result<Package> {
    let Package { name, version } = package;
    let shown = exec::output(apt.cache().arg("show").arg(format!("{name}={version}")))?;
    let name = dependency(&shown, part).unwrap_or_else(|| name.clone());
    Ok(Package { name, version: version.clone() })
}

fn find_image(dir: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry.with_context(|| format!("listing {}", dir.display()))?;
        let kind = entry.file_type().context("looking at an unpacked file")?;
        if kind.is_file() && entry.file_name().to_string_lossy().starts_with("vmlinuz") {
            return Ok(Some(entry.path()));
        }
        if kind.is_dir()
            && let Some(found) = find_image(&entry.path())?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A column of the table that `apt-cache madison` prints.
fn column(table: &str, number: usize) -> impl Iterator<Item = &str> {
    table.lines().filter_map(move |line| Some(line.split('|').nth(number)?.trim()))
}

/// The first package with this prefix and a version in its name that a package depends on.
fn dependency(shown: &str, prefix: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split([',', '|']).filter_map(|entry| entry.split_whitespace().next());
    let versioned = |name: &&str| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    names.into_iter().find(versioned).map(str::to_owned)
}

/// The numbers in a name, to compare versions by.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_versioned_dependency() {
        let shown = "Package: linux-image-cloud-amd64\nDepends: linux-base-cloud-amd64 (= 7.3.4-1), \
                     linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)\n";
        assert_eq!(dependency(shown, "linux-image-").as_deref(), Some("linux-image-7.3.4+deb13-cloud-amd64"));
        assert_eq!(dependency(shown, "linux-binary-"), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        let names = ["linux-image-6.18.9+deb13-cloud-amd64", "linux-image-6.18.15+deb13-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[1]));
    }

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!("5.10".parse::<Series>().map(|series| series.to_string()), Ok("5.10".to_owned()));
        for wrong in ["5", "5.10.1", "a.b", ""] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }
}
