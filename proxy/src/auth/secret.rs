//! Secrets that are good for one login.
//!
//! A grant holds an Argon2id hash as a PHC string, which a person's own words may stand behind as well as 128 random bits.
//! A check takes the same time and memory whether there is such a grant or not, few run at a time, and none on a
//! thread that serves connections. A secret is spent before its login is answered: a file of its name is created
//! durably, which exactly one of several logins can do.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::{Output, Salt},
};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{grant::GrantId, limits};

/// The hash of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(PasswordHash);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// Not a hash that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; `weir-proxy hash-secret` makes one")]
pub struct SecretHashError(String);

/// What a grant's hash may cost to check: memory in KiB and passes, both ends included. The least is what OWASP recommends.
const MEMORY_KIB: (u32, u32) = (7 << 10, 64 << 10);
const PASSES: (u32, u32) = (1, 10);
const LANES_MAX: u32 = 4;

impl std::str::FromStr for SecretHash {
    type Err = SecretHashError;

    fn from_str(text: &str) -> Result<Self, SecretHashError> {
        let refuse = |reason: &str| Err(SecretHashError(reason.to_owned()));
        let Ok(hash) = PasswordHash::new(text) else {
            return refuse("not a PHC string like $argon2id$v=19$m=19456,t=2,p=1$…");
        };
        if hash.algorithm != Algorithm::Argon2id.ident() || hash.version != Some(Version::V0x13.into()) {
            return refuse("not argon2id, version 19");
        }
        let Ok(params) = Params::try_from(&hash) else { return refuse("its parameters are wrong") };
        if !(MEMORY_KIB.0..=MEMORY_KIB.1).contains(&params.m_cost())
            || !(PASSES.0..=PASSES.1).contains(&params.t_cost())
            || params.p_cost() > LANES_MAX
        {
            return refuse("its cost is not within m=7168 to 65536, t=1 to 10, p=1 to 4");
        }
        let long_enough = hash.salt.is_some_and(|salt| salt.len() >= 8)
            && hash.hash.as_ref().is_some_and(|hash| hash.len() >= 16);
        if !long_enough {
            return refuse("its salt is shorter than 8 bytes or its hash shorter than 16");
        }
        Ok(Self(hash))
    }
}

impl SecretHash {
    /// The hash of a secret, with a fresh salt. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn of(secret: &[u8]) -> Result<Self, argon2::password_hash::Error> {
        Argon2::default().hash_password(secret).map(Self)
    }

    /// Matches no secret that can be found, and costs what [`Self::of`] costs.
    fn decoy() -> Self {
        let output = Output::new(&[0x5a; 32]).ok();
        let salt = Salt::new(&[0xa5; 16]).ok();
        let params = Params::default();
        Self(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: (&params).try_into().unwrap_or_default(),
            salt,
            hash: output,
        })
    }

    /// Whether the secret is the one. The comparison takes the same time whatever differs. Blocks.
    #[must_use]
    pub fn matches(&self, secret: &[u8]) -> bool {
        Argon2::default().verify_password(secret, &self.0).is_ok()
    }

    /// The name of this hash among a grant's spent ones.
    fn name(&self, grant: &GrantId) -> String {
        let digest = Sha256::digest(self.0.to_string());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{grant}.{hex}")
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a secret could not be spent.
#[derive(Debug, thiserror::Error)]
pub enum SpendError {
    /// It was before.
    #[error("the one-time secret was used before")]
    Spent,
    /// It can't be recorded, so it must not be used.
    #[error("cannot record in {path} that a one-time secret is spent: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Checks secrets and remembers which were spent.
#[derive(Debug)]
pub struct Secrets {
    spent: PathBuf,
    checks: Arc<Semaphore>,
    decoy: SecretHash,
}

impl Secrets {
    /// Remembers in this directory, which is made if need be.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let spent = state_dir.join("spent");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&spent)?;
        Ok(Self {
            spent,
            checks: Arc::new(Semaphore::new(limits::SECRET_CHECKS)),
            decoy: SecretHash::decoy(),
        })
    }

    /// Whether the secret is the expected one. Costs the same if none is expected.
    pub async fn check(&self, expected: Option<SecretHash>, secret: Vec<u8>) -> bool {
        let Ok(turn) = self.checks.clone().acquire_owned().await else { return false };
        let known = expected.is_some();
        let hash = expected.unwrap_or_else(|| self.decoy.clone());
        let matches = spawn_blocking(move || {
            // Held until the work is done, also when nobody waits for it any more.
            let _turn = turn;
            hash.matches(&secret)
        });
        matches.await.unwrap_or(false) && known
    }

    /// Spends a grant's secret, durably. Of several at once exactly one succeeds.
    ///
    /// # Errors
    /// [`SpendError`].
    pub async fn spend(&self, grant: &GrantId, hash: &SecretHash) -> Result<(), SpendError> {
        let path = self.spent.join(hash.name(grant));
        let failed = path.clone();
        let spending = spawn_blocking(move || record(&path));
        let recorded = spending.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        recorded.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SpendError::Spent,
            _ => SpendError::Record { path: failed, source },
        })
    }
}

fn record(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.sync_all()?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// `weir-proxy hash-secret`: makes a secret, or reads one, and prints what belongs into the grant.
///
/// # Errors
/// If there is nothing to read, or no randomness.
pub fn hash_secret(generate: bool) -> io::Result<()> {
    let secret = if generate { random()? } else { read()? };
    let hash = SecretHash::of(secret.as_bytes()).map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    if generate {
        writeln!(out, "# For the user, by another way than the grant; it is not kept: {secret}")?;
    }
    writeln!(out, "one_time_secret = \"{hash}\"")
}

/// 128 random bits, in groups that can be read out.
fn random() -> io::Result<String> {
    let bytes: [u8; 16] = rand::random();
    let hex: Vec<_> = bytes
        .chunks(4)
        .map(|four| four.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        .collect();
    Ok(hex.join("-"))
}

fn read() -> io::Result<String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        eprint!("Secret (it will be shown): ");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    let secret = line.trim_end_matches(['\r', '\n']);
    if secret.chars().count() < SECRET_CHARS_MIN {
        let short = format!("a secret has at least {SECRET_CHARS_MIN} characters");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, short));
    }
    Ok(secret.to_owned())
}

/// Of a secret that somebody thought of.
const SECRET_CHARS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> GrantId {
        "g-1".parse().expect("an id")
    }

    #[test]
    fn a_hash_matches_its_secret_only_and_survives_being_written_down() {
        let hash = SecretHash::of(b"correct horse").expect("a hash");
        let read: SecretHash = hash.to_string().parse().expect("its own text");
        assert_eq!(read, hash);
        assert!(read.matches(b"correct horse"));
        assert!(!read.matches(b"correct horse ") && !read.matches(b""));
        let again = SecretHash::of(b"correct horse").expect("a hash");
        assert_ne!(again, hash, "the salt is fresh");
        let decoy = SecretHash::decoy();
        assert!(!decoy.matches(b"correct horse"));
        let text = decoy.to_string();
        assert_eq!(text.parse::<SecretHash>().expect("a hash like others"), decoy);
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_eq!(hash.to_string().len(), text.len());
    }

    #[test]
    fn hashes_that_cost_too_little_or_too_much_are_refused() {
        let good = SecretHash::of(b"x").expect("a hash").to_string();
        let table = [
            (good.replace("argon2id", "argon2i"), "not argon2id"),
            (good.replace("v=19", "v=16"), "not argon2id"),
            (good.replace("m=19456", "m=8"), "cost"),
            (good.replace("m=19456", "m=4194304"), "cost"),
            (good.replace("t=2", "t=1000000"), "cost"),
            (good.replace("p=1", "p=64"), "cost"),
            (good[..good.rfind('$').expect("there")].to_owned(), "shorter"),
            ("5e884898da28047151d0e56f8dc62927".to_owned(), "PHC"),
            (String::new(), "PHC"),
        ];
        for (text, expected) in table {
            let error = text.parse::<SecretHash>().expect_err(expected).to_string();
            assert!(error.contains(expected), "{text}: {error} should name {expected}");
        }
    }

    #[tokio::test]
    async fn a_secret_is_spent_once_also_by_two_at_a_time_and_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let secrets = Arc::new(Secrets::open(dir.path()).expect("a directory"));
        let hash = SecretHash::of(b"x").expect("a hash");
        let attempts: Vec<_> = (0..8)
            .map(|_| {
                let (secrets, hash) = (secrets.clone(), hash.clone());
                tokio::spawn(async move { secrets.spend(&id(), &hash).await.is_ok() })
            })
            .collect();
        let mut spent = 0;
        for attempt in attempts {
            spent += usize::from(attempt.await.expect("no panic"));
        }
        assert_eq!(spent, 1);
        let later = Secrets::open(dir.path()).expect("a directory");
        assert!(matches!(later.spend(&id(), &hash).await, Err(SpendError::Spent)));
        let fresh = SecretHash::of(b"x").expect("a hash");
        assert!(later.spend(&id(), &fresh).await.is_ok(), "a new hash is a new secret");
        assert!(later.spend(&"g-2".parse().expect("an id"), &hash).await.is_ok());
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_recorded_is_not_spent() {
        let dir = tempfile::tempdir().expect("a directory");
        let secrets = Secrets::open(dir.path()).expect("a directory");
        fs::remove_dir_all(dir.path().join("spent")).expect("removed");
        let hash = SecretHash::of(b"x").expect("a hash");
        assert!(matches!(secrets.spend(&id(), &hash).await, Err(SpendError::Record { .. })));
    }

    #[tokio::test]
    async fn nothing_matches_where_no_secret_is_expected() {
        let dir = tempfile::tempdir().expect("a directory");
        let secrets = Secrets::open(dir.path()).expect("a directory");
        assert!(!secrets.check(None, b"x".to_vec()).await);
        let hash = SecretHash::of(b"x").expect("a hash");
        assert!(secrets.check(Some(hash.clone()), b"x".to_vec()).await);
        assert!(!secrets.check(Some(hash), b"y".to_vec()).await);
    }

    #[test]
    fn generated_secrets_have_128_bits_and_differ() {
        let (one, other) = (random().expect("randomness"), random().expect("randomness"));
        assert_eq!(one.replace('-', "").len(), 32);
        assert_ne!(one, other);
    }
}
