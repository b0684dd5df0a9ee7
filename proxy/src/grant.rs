//! Grants: who may connect, to what, until when.
//!
//! A grant is a TOML file in the grants directory; its file name without `.toml` is the grant id, which the user
//! gives as the SSH login name. Files are read at every login, so a changed, added or removed grant counts from
//! the next login on, and nothing is ever stale.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use jiff::Timestamp;
use serde::Deserialize;
use ssh_key::PublicKey;
use tokio::io::AsyncReadExt;
use weir_common::session::Permission;

use crate::limits;

/// A grant's id: a plain file name of letters, digits, `.`, `_` and `-`, at most 64 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GrantId(String);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for GrantId {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let valid = (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain);
        if valid { Ok(Self(text.to_owned())) } else { Err(GrantError::Id) }
    }
}

/// A grant, as the file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The grant.
    pub id: GrantId,
    /// The person.
    pub user: String,
    /// The resource, by the name it has in the proxy's configuration.
    pub resource: String,
    /// The login on the target.
    pub target_login: String,
    /// The access request behind it.
    pub request_id: String,
    /// Who approved the access request.
    pub approvers: Vec<String>,
    /// The access flow it went through.
    pub access_flow: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// The keys by which the user may prove who they are.
    pub public_keys: Vec<PublicKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    user: String,
    resource: String,
    target_login: String,
    request_id: String,
    #[serde(default)]
    approvers: Vec<String>,
    access_flow: String,
    expires_at: String,
    #[serde(default = "default_permissions")]
    permissions: Vec<Permission>,
    public_keys: Vec<String>,
}

fn default_permissions() -> Vec<Permission> {
    vec![Permission::Shell, Permission::Exec, Permission::Subsystem]
}

/// Why there is no grant to go by.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Not the form of an id.
    #[error("not a grant id: 1 to 64 letters, digits, '.', '_' or '-' expected")]
    Id,
    /// No file of that name.
    #[error("no such grant")]
    Unknown,
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a grant.
    #[error("malformed grant file {path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its time is over.
    #[error("the grant expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// The user's key is not in the grant.
    #[error("the key {fingerprint} is not listed in the grant")]
    Key {
        /// The key's fingerprint.
        fingerprint: String,
    },
}

impl Grant {
    fn parse(id: GrantId, text: &str) -> Result<Self, String> {
        let raw: RawGrant = toml::from_str(text).map_err(|error| error.to_string())?;
        let RawGrant {
            user,
            resource,
            target_login,
            request_id,
            approvers,
            access_flow,
            expires_at,
            permissions,
            public_keys,
        } = raw;
        for (field, value) in [
            ("user", &user),
            ("resource", &resource),
            ("target_login", &target_login),
            ("request_id", &request_id),
            ("access_flow", &access_flow),
        ] {
            if value.trim().is_empty() {
                return Err(format!("{field} is empty"));
            }
        }
        let expires_at = expires_at
            .parse()
            .map_err(|error| format!("expires_at: {error}; expected a time like 2030-01-31T18:00:00Z"))?;
        let public_keys = public_keys
            .iter()
            .enumerate()
            .map(|(index, key)| {
                PublicKey::from_openssh(key).map_err(|error| format!("public_keys[{index}]: {error}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if public_keys.is_empty() {
            return Err("public_keys lists no key".to_owned());
        }
        Ok(Self {
            id,
            user,
            resource,
            target_login,
            request_id,
            approvers,
            access_flow,
            expires_at,
            permissions,
            public_keys,
        })
    }

    /// Checks that the grant covers this key now.
    ///
    /// # Errors
    /// [`GrantError::Expired`] or [`GrantError::Key`].
    pub fn check(&self, key: &PublicKey, now: Timestamp) -> Result<(), GrantError> {
        if now >= self.expires_at {
            return Err(GrantError::Expired { at: self.expires_at });
        }
        if !self.public_keys.iter().any(|listed| listed.key_data() == key.key_data()) {
            let fingerprint = key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
            return Err(GrantError::Key { fingerprint });
        }
        Ok(())
    }
}

/// The grants directory.
#[derive(Clone, Debug)]
pub struct Grants {
    dir: PathBuf,
}

impl Grants {
    /// Grants from this directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Reads a grant.
    ///
    /// # Errors
    /// [`GrantError`] if there is none of that id, or its file is malformed.
    pub async fn lookup(&self, id: &str) -> Result<Grant, GrantError> {
        let id: GrantId = id.parse()?;
        let path = self.dir.join(format!("{id}.toml"));
        let text = read_bounded(&path).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => GrantError::Unknown,
            _ => GrantError::Read { path: path.clone(), source },
        })?;
        Grant::parse(id, &text).map_err(|reason| GrantError::Malformed { path, reason })
    }

    /// Reads every grant file, for the log at start-up: how many are good, and what is wrong with the others.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub async fn survey(&self) -> io::Result<(usize, Vec<GrantError>)> {
        let (mut good, mut bad) = (0, Vec::new());
        let mut entries = tokio::fs::read_dir(&self.dir).await?;
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".toml")) else { continue };
            match self.lookup(id).await {
                Ok(_) => good += 1,
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }
}

async fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(limits::GRANT_FILE_BYTES + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > limits::GRANT_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("longer than {} KiB", limits::GRANT_FILE_BYTES >> 10),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVnCHT1mUGFW9MPVYvJ2CLS5gHQ3MzQbXxcKu4m6rVp ada";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4fdbSd4m4YsQq4yqoVjUjrDFsUCSrLkTyWb1Xo8tGk eve";

    fn text(expires_at: &str, key: &str) -> String {
        format!(
            r#"
            user = "ada@example.com"
            resource = "web-1"
            target_login = "deploy"
            request_id = "REQ-1042"
            approvers = ["grace@example.com"]
            access_flow = "on-call"
            expires_at = "{expires_at}"
            public_keys = ["{key}"]
            "#
        )
    }

    fn grant(expires_at: &str) -> Grant {
        Grant::parse("g-1".parse().expect("an id"), &text(expires_at, KEY)).expect("a good grant")
    }

    #[test]
    fn a_grant_covers_a_listed_key_until_it_expires() {
        let grant = grant("2030-01-01T00:00:00Z");
        let key = PublicKey::from_openssh(KEY).expect("a key");
        let before = "2029-12-31T23:59:59Z".parse().expect("a time");
        assert!(grant.check(&key, before).is_ok());
        assert!(matches!(grant.check(&key, grant.expires_at), Err(GrantError::Expired { .. })));
        let other = PublicKey::from_openssh(OTHER).expect("a key");
        assert!(matches!(grant.check(&other, before), Err(GrantError::Key { .. })));
    }

    #[test]
    fn what_is_wrong_with_a_grant_file_is_named() {
        let table = [
            (text("soon", KEY), "expires_at"),
            (text("2030-01-01T00:00:00Z", "ssh-ed25519 AAAA"), "public_keys[0]"),
            (text("2030-01-01T00:00:00Z", KEY).replace("deploy", " "), "target_login is empty"),
            (text("2030-01-01T00:00:00Z", KEY).replace("user =", "usr ="), "unknown field `usr`"),
            (text("2030-01-01T00:00:00Z", KEY).replace("user =", "# user ="), "missing field `user`"),
            ("user = [".to_owned(), "TOML"),
        ];
        for (text, expected) in table {
            let error = Grant::parse("g".parse().expect("an id"), &text).expect_err(expected);
            assert!(error.contains(expected), "{error} should name {expected}");
        }
    }

    #[tokio::test]
    async fn a_grant_file_is_read_anew_at_every_lookup_and_unreadable_ones_say_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let grants = Grants::new(dir.path().to_owned());
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Unknown)));
        let file = dir.path().join("g-1.toml");
        std::fs::write(&file, text("2030-01-01T00:00:00Z", KEY)).expect("written");
        assert_eq!(grants.lookup("g-1").await.expect("a grant").user, "ada@example.com");
        std::fs::write(&file, "nonsense").expect("written");
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Malformed { .. })));
        std::fs::write(&file, vec![b'#'; 70_000]).expect("written");
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Read { .. })));
        let (good, bad) = grants.survey().await.expect("readable");
        assert_eq!((good, bad.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn an_id_never_leaves_the_grants_directory(text in ".*") {
            if let Ok(id) = text.parse::<GrantId>() {
                let path = Path::new("/grants").join(format!("{id}.toml"));
                prop_assert_eq!(path.parent(), Some(Path::new("/grants")));
                prop_assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(text.as_str()));
            }
        }

        #[test]
        fn arbitrary_text_is_refused_as_a_grant_without_panic(text in ".*") {
            prop_assert!(Grant::parse("g".parse().expect("an id"), &text).is_err());
        }
    }
}
