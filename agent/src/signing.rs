//! The agent's signing key.
//!
//! Owns the key file: OpenSSH's format, ed25519, readable by the agent alone, made at the first start. Its
//! public half is written beside the state in the form of `ssh-keygen -Y verify`'s allowed signers.
//! Signatures are deterministic (RFC 8032), so a signature that is made again is the same one.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ssh_key::{
    HashAlg, LineEnding, PrivateKey, PublicKey, SshSig,
    private::{Ed25519Keypair, KeypairData},
};
use weir_common::recording::{SIGNATURE_NAMESPACE, SIGNER_IDENTITY};

/// Name of the file with the public half, in the state directory.
pub const ALLOWED_SIGNERS: &str = "allowed_signers";

const SIGNERS_MODE: u32 = 0o644;

/// What went wrong with the key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The file system said no.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a usable key.
    #[error("{} is not an unencrypted OpenSSH private key: {source}", path.display())]
    Parse {
        /// The key file.
        path: PathBuf,
        /// Why not.
        source: ssh_key::Error,
    },
    /// Another kind of key.
    #[error("{} is not an ed25519 key; make one with: ssh-keygen -t ed25519 -N '' -f {0}", path.display())]
    NotEd25519 {
        /// The key file.
        path: PathBuf,
    },
    /// Others can read it.
    #[error("{} can be read by others than its owner; run: chmod 600 {0}", path.display())]
    Readable {
        /// The key file.
        path: PathBuf,
    },
    /// The key could not be used.
    #[error("cannot {op} the signing key: {source}")]
    Key {
        /// What was tried.
        op: &'static str,
        /// Why not.
        source: ssh_key::Error,
    },
}

/// The signing key. `Debug` shows nothing of it.
pub struct SigningKey(PrivateKey);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Reads the key file, or makes it if there is none.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn load_or_make(path: &Path) -> Result<Self, SigningError> {
        match fs::read(path) {
            Ok(pem) => Self::parse(path, &pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path),
            Err(source) => Err(failed("read", path)(source)),
        }
    }

    fn parse(path: &Path, pem: &[u8]) -> Result<Self, SigningError> {
        let mode = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SigningError::Readable { path: path.to_owned() });
        }
        let key = PrivateKey::from_openssh(pem)
            .and_then(|key| if key.is_encrypted() { Err(ssh_key::Error::Encrypted) } else { Ok(key) })
            .map_err(|source| SigningError::Parse { path: path.to_owned(), source })?;
        match key.key_data() {
            KeypairData::Ed25519(_) => Ok(Self(key)),
            _ => Err(SigningError::NotEd25519 { path: path.to_owned() }),
        }
    }

    fn make(path: &Path) -> Result<Self, SigningError> {
        let random = Path::new("/dev/urandom");
        let mut seed = [0; 32];
        let source = fs::File::open(random).and_then(|mut file| file.read_exact(&mut seed));
        source.map_err(failed("read", random))?;
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
        let key_error = |op| move |source| SigningError::Key { op, source };
        let key = PrivateKey::new(pair, SIGNER_IDENTITY).map_err(key_error("make"))?;
        let pem = key.to_openssh(LineEnding::LF).map_err(key_error("write"))?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed("make", dir))?;
        }
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(failed("write", path))?;
        Ok(Self(key))
    }

    /// The key's fingerprint, `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The public half as a line of an allowed signers file.
    ///
    /// # Errors
    /// [`SigningError::Key`].
    pub fn allowed_signer(&self) -> Result<String, SigningError> {
        let mut public = self.0.public_key().clone();
        public.set_comment("");
        let public = public.to_openssh().map_err(|source| SigningError::Key { op: "write", source })?;
        Ok(format!("{SIGNER_IDENTITY} namespaces=\"{SIGNATURE_NAMESPACE}\" {}\n", public.trim_end()))
    }

    /// Puts this key into the allowed signers file in the state directory. Keys of before stay there: what they signed
    /// is to be verified for years.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn write_allowed_signers(&self, state_dir: &Path) -> Result<(), SigningError> {
        let path = state_dir.join(ALLOWED_SIGNERS);
        let mut text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed("read", &path)(source)),
        };
        let line = self.allowed_signer()?;
        if text.lines().any(|known| known == line.trim_end()) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&line);
        // Whole or not at all: an empty file would trust nobody.
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(fs::Permissions::from_mode(SIGNERS_MODE))?;
            file.as_file().sync_all()?;
            file.persist(&path).map(drop).map_err(io::Error::from)
        };
        write().map_err(failed("write", &path))
    }

    /// Signs, in the form of `ssh-keygen -Y sign -n weir`.
    ///
    /// # Errors
    /// [`SigningError::Key`].
    pub fn sign(&self, message: &[u8]) -> Result<String, SigningError> {
        self.0
            .sign(SIGNATURE_NAMESPACE, HashAlg::Sha512, message)
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(|source| SigningError::Key { op: "sign with", source })
    }
}

/// The most bytes of a signature.
pub const SIGNATURE_MAX: u64 = 64 * 1024;

/// The fingerprint of the key that made this signature of the message for recordings; `None` if it is none. Whether the
/// key is one to trust is for whoever verifies the recording.
#[must_use]
pub fn signed_by(armored: &[u8], message: &[u8]) -> Option<String> {
    let signature = SshSig::from_pem(armored).ok()?;
    let key = PublicKey::from(signature.public_key().clone());
    key.verify(SIGNATURE_NAMESPACE, message, &signature).ok()?;
    // Verifiers want the very bytes that a signer writes.
    let canonical = signature.to_pem(LineEnding::LF).ok()?;
    (canonical.as_bytes() == armored).then(|| key.fingerprint(HashAlg::Sha256).to_string())
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SigningError {
    move |source| SigningError::Io { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state/key");
        let made = SigningKey::load_or_make(&path).expect("made");
        let read = SigningKey::load_or_make(&path).expect("read");
        assert_eq!(made.fingerprint(), read.fingerprint());
        assert_eq!(made.sign(b"x").expect("signs"), read.sign(b"x").expect("signs"));
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        SigningKey::load_or_make(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("own file");
        let error = SigningKey::load_or_make(&path).expect_err("readable by its group");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        fs::write(&path, "no key").expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own file");
        let error = SigningKey::load_or_make(&path).expect_err("not a key");
        assert!(error.to_string().contains("key"), "{error}");
        assert!(matches!(error, SigningError::Parse { .. }));
    }

    #[test]
    fn ssh_keygen_accepts_a_signature_and_only_of_what_was_signed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = SigningKey::load_or_make(&dir.path().join("key")).expect("made");
        key.write_allowed_signers(dir.path()).expect("writable");
        let signature = dir.path().join("sig");
        fs::write(&signature, key.sign(b"signed").expect("signs")).expect("writable");
        let verify = |message: &str| {
            let file = dir.path().join("message");
            fs::write(&file, message).expect("writable");
            std::process::Command::new("ssh-keygen")
                .args(["-Y", "verify", "-I", SIGNER_IDENTITY, "-n", SIGNATURE_NAMESPACE, "-f"])
                .arg(dir.path().join(ALLOWED_SIGNERS))
                .arg("-s")
                .arg(&signature)
                .stdin(fs::File::open(&file).expect("just written"))
                .output()
                .expect("ssh-keygen runs")
                .status
                .success()
        };
        assert!(verify("signed"));
        assert!(!verify("other"));
    }
}
