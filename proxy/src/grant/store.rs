//! The grants directory.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use super::{Grant, GrantId};
use crate::limits;

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
        let (this, path) = (self.clone(), self.path(&id));
        let read = spawn_blocking(move || {
            let text = this.text(&id)?;
            this.parse(&id, &text)
        });
        read.await.unwrap_or_else(|error| Err(GrantError::Read { path, source: io::Error::other(error) }))
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

    /// The text of a grant's file. Blocks.
    ///
    /// # Errors
    /// [`GrantError::Unknown`] or [`GrantError::Read`].
    pub(super) fn text(&self, id: &GrantId) -> Result<String, GrantError> {
        let path = self.path(id);
        read_bounded(&path).map_err(|source| match source.kind() {
            // A directory that is away says nothing about what is in it.
            io::ErrorKind::NotFound if self.dir.is_dir() => GrantError::Unknown,
            _ => GrantError::Read { path, source },
        })
    }

    pub(super) fn parse(&self, id: &GrantId, text: &str) -> Result<Grant, GrantError> {
        Grant::parse(id.clone(), text).map_err(|reason| GrantError::Malformed { path: self.path(id), reason })
    }

    fn path(&self, id: &GrantId) -> PathBuf {
        self.dir.join(format!("{id}.toml"))
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits::GRANT_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::GRANT_FILE_BYTES {
        let longer = format!("longer than {} KiB", limits::GRANT_FILE_BYTES >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, longer));
    }
    // What is not text is malformed, which is the parser's to say.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::good;

    #[tokio::test]
    async fn a_grant_file_is_read_anew_at_every_lookup_and_unreadable_ones_say_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let grants = Grants::new(dir.path().to_owned());
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Unknown)));
        let file = dir.path().join("g-1.toml");
        std::fs::write(&file, good()).expect("written");
        assert_eq!(grants.lookup("g-1").await.expect("a grant").user, "ada@example.com");
        std::fs::write(&file, "nonsense").expect("written");
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Malformed { .. })));
        std::fs::write(&file, [0xff, 0xfe]).expect("written");
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Malformed { .. })));
        std::fs::write(&file, vec![b'#'; 70_000]).expect("written");
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Read { .. })));
        let (good, bad) = grants.survey().await.expect("readable");
        assert_eq!((good, bad.len()), (0, 1));
        drop(dir);
        assert!(matches!(grants.lookup("g-1").await, Err(GrantError::Read { .. })), "not: no such grant");
    }
}
