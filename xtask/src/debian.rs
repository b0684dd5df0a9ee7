//! Installing packages where this is root on Debian.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::exec;

/// Whether this process is root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(exec::output(Command::new("id").arg("-u"))?.trim_end() == "0")
}

/// Whether [`install`] can work here.
pub(crate) fn can_install() -> Result<bool> {
    Ok(is_root()? && Path::new("/usr/bin/apt-get").exists())
}

/// Installs packages, and says so.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    eprintln!("Installing {} with apt-get", packages.join(", "));
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    exec::run(apt_get().arg("update"))?;
    exec::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}
