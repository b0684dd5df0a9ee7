//! Keys and certificates that are taken back: the file, and what it says.
//!
//! The file is a key revocation list as `ssh-keygen -k` writes it ([`krl`]), or the text that `ssh-keygen -k` reads
//! ([`list`]). It is read again whenever it changes, so that it counts from the next login on. A file that can't be read
//! or understood lets nobody in whom it could concern.

mod krl;
mod list;

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use ssh_key::{Certificate, encoding::Encode, public::KeyData};

use crate::limits;

/// Why a list of what is revoked can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be understood.
    #[error("{path} is not a list of revoked keys: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a key or certificate is revoked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Revocation {
    /// Itself.
    #[error("its key is revoked")]
    Key,
    /// The authority behind the certificate.
    #[error("its authority's key is revoked")]
    Authority,
    /// The certificate's serial number.
    #[error("its serial number is revoked")]
    Serial,
    /// The certificate's key id.
    #[error("its key id is revoked")]
    KeyId,
}

/// Everything that is revoked.
#[derive(Debug, Default)]
pub struct Revoked {
    keys: HashSet<Vec<u8>>,
    sha1: HashSet<Vec<u8>>,
    sha256: HashSet<Vec<u8>>,
    certificates: Vec<Certificates>,
}

/// Certificates that are revoked, of one authority or of all.
#[derive(Debug, Default)]
struct Certificates {
    /// The authority's key as it is on the wire; `None` for any.
    authority: Option<Vec<u8>>,
    /// First and last.
    serials: Vec<(u64, u64)>,
    bitmaps: Vec<Bitmap>,
    key_ids: HashSet<Vec<u8>>,
}

/// Serial numbers by bit: the last byte's lowest bit is the one of `offset`. Kept as it is in the file, so that a list
/// takes no more memory than its file has bytes.
#[derive(Debug)]
struct Bitmap {
    offset: u64,
    bytes: Vec<u8>,
}

impl Bitmap {
    fn contains(&self, serial: u64) -> bool {
        let Some(bit) = serial.checked_sub(self.offset) else { return false };
        let Ok(from_end) = usize::try_from(bit / 8) else { return false };
        self.bytes.iter().rev().nth(from_end).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }
}

impl Certificates {
    fn covers(&self, certificate: &Certificate, authority: &[u8]) -> Option<Revocation> {
        if self.authority.as_ref().is_some_and(|own| own != authority) {
            return None;
        }
        if self.key_ids.contains(certificate.key_id().as_bytes()) {
            return Some(Revocation::KeyId);
        }
        // Serial number 0 is what a certificate has whose authority does not number them.
        let serial = certificate.serial();
        let listed = serial != 0
            && (self.serials.iter().any(|&(first, last)| (first..=last).contains(&serial))
                || self.bitmaps.iter().any(|bitmap| bitmap.contains(serial)));
        listed.then_some(Revocation::Serial)
    }
}

/// A key as it is on the wire.
fn blob(key: &KeyData) -> Vec<u8> {
    // Every key that was decoded can be encoded.
    key.encode_vec().unwrap_or_default()
}

impl Revoked {
    /// Reads a list from its bytes, whichever form it has.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(krl::MAGIC) {
            return krl::parse(bytes);
        }
        list::parse(std::str::from_utf8(bytes).map_err(|_| "neither a KRL nor text".to_owned())?)
    }

    /// Checks that a key is not revoked.
    ///
    /// # Errors
    /// [`Revocation::Key`].
    pub fn check_key(&self, key: &KeyData) -> Result<(), Revocation> {
        let blob = blob(key);
        let revoked = self.keys.contains(&blob)
            || (!self.sha256.is_empty() && self.sha256.contains(Sha256::digest(&blob).as_slice()))
            || (!self.sha1.is_empty() && self.sha1.contains(sha1::Sha1::digest(&blob).as_slice()));
        if revoked { Err(Revocation::Key) } else { Ok(()) }
    }

    /// Checks that neither a certificate, nor its key, nor its authority is revoked.
    ///
    /// # Errors
    /// [`Revocation`].
    pub fn check_certificate(&self, certificate: &Certificate) -> Result<(), Revocation> {
        self.check_key(certificate.public_key())?;
        self.check_key(certificate.signature_key()).map_err(|_| Revocation::Authority)?;
        let authority = blob(certificate.signature_key());
        match self.certificates.iter().find_map(|some| some.covers(certificate, &authority)) {
            Some(revocation) => Err(revocation),
            None => Ok(()),
        }
    }
}

/// A file of revoked keys, read anew when it changes.
#[derive(Debug)]
pub struct RevokedKeys {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Arc<Revoked>)>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl RevokedKeys {
    /// Of this file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    /// What is revoked now. Blocks on the file.
    ///
    /// # Errors
    /// [`RevocationError`]: then nobody may get in whom it could concern.
    pub fn load(&self) -> Result<Arc<Revoked>, RevocationError> {
        let failed = |source| RevocationError::Read { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        let (stamp, settled) = stamp(&file).map_err(failed)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, revoked)) = &*read
            && *known == stamp
        {
            return Ok(revoked.clone());
        }
        let bytes = read_bounded(&mut file).map_err(failed)?;
        if bytes.is_empty() && !settled {
            let reason = "it is empty, and may be being written".to_owned();
            return Err(RevocationError::Malformed { path: self.path.clone(), reason });
        }
        let revoked = Revoked::parse(&bytes)
            .map_err(|reason| RevocationError::Malformed { path: self.path.clone(), reason })?;
        let revoked = Arc::new(revoked);
        // Within the clock's grain a file may change again and look the same.
        *read = settled.then(|| (stamp, revoked.clone()));
        Ok(revoked)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn stamp(file: &File) -> io::Result<(Stamp, bool)> {
    let metadata = file.metadata()?;
    let (now, modified) = (SystemTime::now(), metadata.modified()?);
    // Another host's clock may be ahead.
    let age = now.duration_since(modified).unwrap_or_else(|ahead| ahead.duration());
    let stamp = Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    Ok((stamp, age > GRAIN))
}

fn read_bounded(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limits::REVOKED_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::REVOKED_FILE_BYTES {
        let longer = format!("longer than {} MiB", limits::REVOKED_FILE_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, longer));
    }
    Ok(bytes)
}

/// Generous for the time stamps of any file system, network ones included.
const GRAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
