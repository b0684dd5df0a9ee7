//! Reports that wait in another node's state directory, which never comes back: they go into the queue here.
//!
//! Owns that a report is in one of both at every moment: a file goes from there, if it is to, once it is flushed here. What this version
//! does not read, or finds no room for, stays where it is.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use weir_common::{
    report::{MAX_REPORT, SessionReport},
    session::SessionId,
};

use super::{
    QueueError, Reports,
    queue::{Key, Kind, failed, names},
};

/// What became of the reports in a directory.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The stored sessions whose reports are in the queue now.
    pub stored: BTreeSet<SessionId>,
    /// How many reports stay where they are.
    pub left: usize,
    /// Why the last of these does.
    pub why: Option<String>,
}

/// How many reports wait in a directory of such.
///
/// # Errors
/// [`QueueError::Io`]. That there is no such directory is none.
pub fn waiting_in(dir: &Path) -> Result<usize, QueueError> {
    Ok(keys(dir)?.len())
}

fn keys(dir: &Path) -> Result<Vec<Key>, QueueError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    Ok(names(dir)?.iter().filter_map(|name| Key::parse(name)).collect())
}

impl Reports {
    /// Takes the reports over that wait in this directory, and leaves them there if they are to be kept. Blocks.
    ///
    /// # Errors
    /// [`QueueError::Io`] if the directory cannot be read.
    pub fn adopt(&self, dir: &Path, keep: bool) -> Result<Adopted, QueueError> {
        let mut adopted = Adopted::default();
        // Of a queue's own directory they are in it.
        let is_own = dir.canonicalize().is_ok_and(|dir| self.queue.is_in(&dir));
        for key in keys(dir)? {
            match if is_own { Ok(()) } else { self.take_over(&key.file_in(dir), key, keep) } {
                Ok(()) if key.kind == Kind::Stored => drop(adopted.stored.insert(key.session)),
                Ok(()) => {}
                Err(why) => {
                    adopted.left += 1;
                    adopted.why = Some(why);
                }
            }
        }
        Ok(adopted)
    }

    fn take_over(&self, path: &PathBuf, key: Key, keep: bool) -> Result<(), String> {
        let text = |error: QueueError| error.to_string();
        let file = fs::File::open(path).map_err(failed("open", path)).map_err(text)?;
        let mut body = Vec::new();
        let read = file.take(MAX_REPORT as u64 + 1).read_to_end(&mut body);
        read.map_err(failed("read", path)).map_err(text)?;
        let report =
            serde_json::from_slice::<SessionReport>(&body).ok().filter(|report| Key::of(report) == key);
        let report =
            report.ok_or_else(|| format!("{} is not a report that this version reads", path.display()))?;
        self.queue.put(&report).map_err(text)?;
        if keep {
            return Ok(());
        }
        fs::remove_file(path).map_err(failed("remove", path)).map_err(text)
    }
}
