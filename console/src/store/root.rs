//! A whole store: its days, and the sessions of each.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::civil::Date;
use weir_common::session::SessionId;

use super::{Bucket, Entry, EntryKind, SessionDir, StoreError, local};

/// The most days of a store that are listed.
const DAYS_MAX: usize = 100_000;
/// The most sessions of a day that are listed.
const SESSIONS_MAX: usize = 1_000_000;

/// A store: `<prefix>/v1/dt=YYYY-MM-DD/<session id>/` below a directory or a bucket's prefix.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Local(PathBuf),
    Bucket(Arc<Bucket>),
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { path: path.to_owned(), place: Place::Local(local::resolve(path)?) })
    }

    pub(super) fn in_bucket(bucket: Arc<Bucket>) -> Self {
        Self { path: bucket.location(""), place: Place::Bucket(bucket) }
    }

    /// Where it lies, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The days on which sessions began (UTC), in their order.
    ///
    /// # Errors
    /// If they can't be listed, or it is no store.
    pub fn days(&self) -> Result<Vec<Date>, StoreError> {
        let entries = match self.below("v1", DAYS_MAX) {
            Err(error) if error.is_missing() => Vec::new(),
            entries => entries?,
        };
        if entries.is_empty() {
            return Err(StoreError::NoStore { path: self.path.clone() });
        }
        let day = |name: &str| {
            let text = name.strip_prefix("dt=")?;
            text.parse::<Date>().ok().filter(|day| day.to_string() == text)
        };
        let mut days: Vec<Date> = directories(&entries).filter_map(day).collect();
        days.sort_unstable();
        Ok(days)
    }

    /// The sessions that began on a day, in the order in which their ids were made.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn sessions(&self, day: Date) -> Result<Vec<SessionId>, StoreError> {
        let id = |name: &str| name.parse::<SessionId>().ok().filter(|id| id.to_string() == name);
        let entries = self.below(&day_path(day), SESSIONS_MAX)?;
        let mut ids: Vec<SessionId> = directories(&entries).filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// A session; nothing of it is read yet.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn session(&self, day: Date, id: SessionId) -> Result<SessionDir, StoreError> {
        let path = format!("{}/{id}", day_path(day));
        match &self.place {
            Place::Local(root) => SessionDir::open(&root.join(path)),
            Place::Bucket(bucket) => Ok(SessionDir::in_bucket(Arc::clone(bucket), path)),
        }
    }

    fn below(&self, path: &str, max: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = match &self.place {
            Place::Local(root) => local::list(&root.join(path), max)?,
            Place::Bucket(bucket) => bucket.list(path, max)?,
        };
        entries.ok_or_else(|| StoreError::TooManySessions { path: self.path.join(path), max })
    }
}

fn day_path(day: Date) -> String {
    format!("v1/dt={day}")
}

/// Directories only: a link may lead anywhere.
fn directories(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().filter(|entry| entry.kind == EntryKind::Directory).map(|entry| entry.name.as_str())
}
