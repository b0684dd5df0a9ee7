//! The file that keeps the first host key seen of each host, where the configuration wants that
//! (`host_key_policy = "learn"`). It is in `known_hosts` format.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use ssh_key::{Fingerprint, HashAlg, PublicKey};

use super::known_hosts::{KnownHosts, KnownHostsError, host_name};

/// Why a key could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// Another was there already.
    #[error("{known} was learned meanwhile")]
    Other {
        /// That one.
        known: Fingerprint,
    },
    /// The file can't be read.
    #[error("the file {0}")]
    Read(#[from] KnownHostsError),
    /// The file can't be written.
    #[error("the file cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// What was learned so far; nothing, if the file is not there yet.
pub(super) fn read(path: &Path) -> Result<KnownHosts, KnownHostsError> {
    match KnownHosts::read(path) {
        Err(KnownHostsError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(KnownHosts::default())
        }
        read => read,
    }
}

/// Keeps the key of a host that none is known of, durably, before it is trusted. Among those who learn at the same
/// time the first counts.
pub(super) fn keep(path: &Path, host: &str, port: u16, key: &PublicKey) -> Result<(), LearnError> {
    let created = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // Held until the file is closed; other processes of this connector may learn into the same file.
    file.lock()?;
    let known = KnownHosts::read_from(&file)?.lookup_exact(host, port).keys;
    if known.iter().any(|known| known.key_data() == key.key_data()) {
        return Ok(());
    }
    if let Some(known) = known.first() {
        return Err(LearnError::Other { known: known.fingerprint(HashAlg::Sha256) });
    }
    let line = format!(
        "{}{} {} {}\n",
        newline_if_torn(&mut file)?,
        host_name(host, port),
        key.algorithm(),
        blob(key)?
    );
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    if created && let Some(dir) = path.parent() {
        // The file's name has to be on the disk too.
        File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()?;
    }
    Ok(())
}

/// A line that a crash cut short must not swallow the next.
fn newline_if_torn(file: &mut File) -> io::Result<&'static str> {
    use std::io::Read;

    if file.metadata()?.len() == 0 {
        return Ok("");
    }
    let mut last = [0];
    file.seek(io::SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(if last == [b'\n'] { "" } else { "\n" })
}

fn blob(key: &PublicKey) -> io::Result<String> {
    let text = key.to_openssh().map_err(io::Error::other)?;
    text.split(' ').nth(1).map(str::to_owned).ok_or_else(|| io::Error::other("a key without a blob"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PublicKey {
        let key = ssh_key::PrivateKey::random(&mut rand::rng(), ssh_key::Algorithm::Ed25519).expect("a key");
        key.public_key().clone()
    }

    #[test]
    fn the_first_key_is_kept_and_another_one_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("learned");
        assert_eq!(read(&path).expect("not there is empty"), KnownHosts::default());
        let (first, second) = (key(), key());
        keep(&path, "web-1", 2222, &first).expect("kept");
        keep(&path, "web-1", 2222, &first).expect("known");
        assert!(matches!(keep(&path, "web-1", 2222, &second), Err(LearnError::Other { .. })));
        keep(&path, "web-2", 22, &second).expect("kept");
        let known = read(&path).expect("readable");
        assert_eq!(known.lookup("web-1", 2222).keys[0].key_data(), first.key_data());
        assert_eq!(known.lookup("web-2", 22).keys[0].key_data(), second.key_data());
        assert_eq!(std::fs::read_to_string(&path).expect("readable").lines().count(), 2);
    }

    #[test]
    fn of_many_who_learn_at_once_one_key_wins() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("learned");
        let kept = std::thread::scope(|scope| {
            let learners: Vec<_> =
                (0..16).map(|_| scope.spawn(|| keep(&path, "web-1", 22, &key()).is_ok())).collect();
            learners.into_iter().filter_map(|learner| learner.join().ok()).filter(|&kept| kept).count()
        });
        assert_eq!(kept, 1);
        assert_eq!(read(&path).expect("readable").lookup("web-1", 22).keys.len(), 1);
    }

    #[test]
    fn a_line_that_was_cut_short_swallows_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("learned");
        std::fs::write(&path, "web-1 ssh-ed25519 AAAAC3Nz").expect("written");
        let key = key();
        keep(&path, "web-2", 22, &key).expect("kept");
        let known = read(&path).expect("readable");
        assert_eq!(known.lookup("web-2", 22).keys[0].key_data(), key.key_data());
    }

    #[test]
    fn a_key_that_can_not_be_kept_is_an_error() {
        assert!(matches!(
            keep(Path::new("/nowhere/learned"), "web-1", 22, &key()),
            Err(LearnError::Write(_))
        ));
    }
}
