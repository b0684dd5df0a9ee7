//! A package to upgrade to: the agent that the machines have, under a higher version. What is tested is the change from one
//! process to the next, so nothing else may differ.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::exec;

/// What the version has behind the installed one's.
const SUFFIX: &str = "+upgrade";

/// Makes it of the agent's package in `packages`, below `dir`, anew each time.
///
/// # Errors
/// If there is not exactly one package of the agent: nobody could say which one the machines have.
pub(super) fn package(packages: &Path, dir: &Path) -> Result<PathBuf> {
    let installed = the_agents(packages)?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let tree = dir.join("tree");
    exec::run(Command::new("dpkg-deb").arg("--raw-extract").args([&installed, &tree]))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).with_context(|| format!("reading {}", control.display()))?;
    let (text, version) = with_higher_version(&text).context("the package has no version")?;
    fs::write(&control, text).with_context(|| format!("writing {}", control.display()))?;
    let package = dir.join(format!("weir-agent_{version}.deb"));
    // Quickly: nobody keeps it.
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]).args([&tree, &package]);
    exec::output(&mut build)?;
    fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    Ok(package)
}

fn the_agents(packages: &Path) -> Result<PathBuf> {
    let listed = fs::read_dir(packages).with_context(|| format!("listing {}", packages.display()))?;
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("weir-agent_") && name.ends_with(".deb")
    };
    let mut found: Vec<_> = listed.flatten().map(|entry| entry.path()).filter(is_it).collect();
    ensure!(found.len() == 1, "{} has {} packages of the agent: {found:?}", packages.display(), found.len());
    Ok(found.remove(0))
}

/// A package's control file with the other version, and that version.
fn with_higher_version(control: &str) -> Option<(String, String)> {
    let version = control.lines().find_map(|line| line.strip_prefix("Version: "))?.trim();
    let higher = format!("{version}{SUFFIX}");
    let line = |version: &str| format!("Version: {version}\n");
    Some((control.replacen(&line(version), &line(&higher), 1), higher))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "Package: weir-agent\nVersion: 1.2.3\nArchitecture: amd64\nMaintainer: W <w@weir.invalid>\n\
                           Description: d\n";

    /// A folder with one package of the agent, with one file and one script.
    fn packages(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("weir-upgrade-{name}-{}", std::process::id()));
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("DEBIAN")).expect("a temporary folder");
        let write = |path: &str, text: &str| fs::write(tree.join(path), text).expect("writable");
        write("DEBIAN/control", CONTROL);
        write("DEBIAN/prerm", "#!/bin/sh\n");
        write("agent", "an agent");
        exec::run(Command::new("chmod").arg("755").arg(tree.join("DEBIAN/prerm"))).expect("chmod works");
        let packages = dir.join("packages");
        fs::create_dir(&packages).expect("writable");
        let to = packages.join("weir-agent_1.2.3_amd64.deb");
        exec::output(Command::new("dpkg-deb").arg("--build").args([&tree, &to])).expect("dpkg-deb makes it");
        dir
    }

    #[test]
    fn the_package_to_upgrade_to_is_the_same_but_for_a_higher_version() {
        let dir = packages("same");
        // The second time nothing of the first is in the way.
        for _ in 0..2 {
            let made = package(&dir.join("packages"), &dir.join("upgrade")).expect("it is made");
            let told = |arguments: &[&str]| {
                exec::output(Command::new("dpkg-deb").args(&arguments[..1]).arg(&made).args(&arguments[1..]))
                    .expect("dpkg-deb reads it")
            };
            assert_eq!(told(&["-f", "Version"]), "1.2.3+upgrade\n");
            let compare = ["--compare-versions", "1.2.3+upgrade", "gt", "1.2.3"];
            exec::run(Command::new("dpkg").args(compare)).expect("dpkg would upgrade to it");
            assert_eq!(told(&["--info", "prerm"]), "#!/bin/sh\n");
            let out = dir.join("out");
            exec::run(Command::new("dpkg-deb").arg("-x").args([&made, &out])).expect("it unpacks");
            assert_eq!(fs::read_to_string(out.join("agent")).expect("it is there"), "an agent");
        }
        fs::remove_dir_all(&dir).expect("it was ours");
    }

    #[test]
    fn two_packages_of_the_agent_are_one_too_many() {
        let dir = packages("two");
        let folder = dir.join("packages");
        fs::copy(folder.join("weir-agent_1.2.3_amd64.deb"), folder.join("weir-agent_1.2.4_amd64.deb"))
            .expect("writable");
        let error = package(&folder, &dir.join("upgrade")).expect_err("which one?").to_string();
        assert!(error.contains("2 packages of the agent"), "{error}");
        fs::remove_dir_all(&dir).expect("it was ours");
    }
}
