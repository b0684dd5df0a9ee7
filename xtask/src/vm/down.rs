//! `cargo xtask vm down`: ends the machines and everything around them, however far `up` got.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};

use super::{lab, libvirt};

/// End the machines of the whole-system tests, their libvirt and their network. Takes root.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Remove the box and the boot files, too, and the logs of tests.
    #[arg(long)]
    purge: bool,
}

/// What belongs to one life of the machines: libvirt's folders, disks, what Vagrant knows of machines, keys.
const OF_THE_MACHINES: &[&str] = &["libvirt", "pool", "machines", "vagrant/data", "keys"];

pub(crate) fn run(options: &Options) -> Result<()> {
    lab::ensure_root()?;
    let dir = lab::dir()?;
    clear(&dir)?;
    if options.purge {
        remove(&dir)?;
    }
    Ok(())
}

/// Ends what runs and removes what it leaves; nothing needs to be there.
///
/// Vagrant is not asked to destroy the machines: it could not after an interruption, and takes seconds for each.
pub(super) fn clear(dir: &Path) -> Result<()> {
    libvirt::stop(dir)?;
    lab::forget(dir)?;
    for folder in OF_THE_MACHINES {
        remove(&dir.join(folder))?;
    }
    for machine in lab::MACHINES {
        remove(&lab::console(dir, machine))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
