//! A BPF file system for a test: mounted by it, or, where it may not mount, a directory on one that was mounted for it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// Names a directory on a BPF file system that tests which run as an ordinary user may write to.
const PREPARED: &str = "WEIR_TEST_BPFFS";

/// What nobody else uses, at a path of the test's choice; gone with this value.
pub(crate) struct Bpffs {
    at: PathBuf,
    /// What is at the path where nothing was mounted.
    prepared: Option<TempDir>,
}

impl Bpffs {
    /// At a path that does not exist yet.
    pub(crate) fn at(at: &Path) -> Self {
        let prepared = env::var_os(PREPARED).map(|prepared| {
            // Such a file system keeps names with a dot to itself.
            let dir = tempfile::Builder::new().prefix("test").tempdir_in(prepared);
            dir.expect("WEIR_TEST_BPFFS names a directory that may be written to")
        });
        match &prepared {
            Some(dir) => std::os::unix::fs::symlink(dir.path(), at),
            None => fs::create_dir(at),
        }
        .expect("a fresh path");
        let bpffs = Self { at: at.to_owned(), prepared };
        bpffs.mount();
        bpffs
    }

    /// Leaves it as if it had been mounted anew, which is what a restart of the node does.
    pub(crate) fn forget(&self) {
        match &self.prepared {
            Some(dir) => fs::remove_dir_all(dir.path()).and_then(|()| fs::create_dir(dir.path())),
            None => self.unmount(),
        }
        .expect("it is our own");
        self.mount();
    }

    fn mount(&self) {
        if self.prepared.is_none() {
            mount(Some("bpf"), &self.at, Some("bpf"), MsFlags::empty(), None::<&str>)
                .expect("mounting a bpffs, which takes root");
        }
    }

    fn unmount(&self) -> io::Result<()> {
        Ok(umount2(&self.at, MntFlags::MNT_DETACH)?)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if self.prepared.is_none() {
            // A test that has failed already says why.
            let _ = self.unmount();
        }
    }
}
