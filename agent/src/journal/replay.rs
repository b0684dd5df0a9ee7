//! Reading the spool back: from its files to the ledger.
//!
//! The oldest file's checkpoint is where the replay begins; the checkpoints of later files say what it knows
//! already. Three kinds of damage are told apart:
//!
//! - *The last file ends in the middle of an entry*, as a killed agent leaves it: the rest is cut off. Its
//!   records are still in the ring. If not even the file's checkpoint is whole, the file goes.
//! - *A file has a bad entry with good ones behind it*, or is not the last: the rest of that file is unreadable. The replay goes on with the next
//!   file's checkpoint; the records in between count as gone, sessions that have none of them are not
//!   affected.
//! - *Records that a checkpoint counts lie in a file that was deleted*, before the first file or between two:
//!   gone too, and since a file is deleted only after the store has everything in it, a later entry says that
//!   they were sealed.
//!
//! Gone records that no entry says are sealed are lost. The session goes on and is stored; its manifest has
//! more accepted records than events, and so every verification of it fails, as it must.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    path::Path,
};

use serde::Serialize;
use tracing::{debug, error, info, warn};

use super::JournalError;
use crate::{
    ledger::{Checkpoint, Ledger, StateEntry},
    session::Session,
    spool::{
        self, FileNo, Place,
        entry::{BadEntry, Entry, Kind},
        reader::Reader,
    },
};

/// What the spool's files add up to.
pub(super) struct Replayed {
    pub(super) ledger: Ledger,
    /// The ring position up to which everything is in the spool.
    pub(super) position: u64,
    /// Every file and its bytes; the last one's good bytes.
    pub(super) files: BTreeMap<FileNo, u64>,
    /// Bytes of the last file's checkpoint.
    pub(super) checkpoint_bytes: u64,
    /// Whether the last file that stays is good to its end, or is cut there: only then may anything be appended to it.
    pub(super) appendable: bool,
    /// The last file, if not even its checkpoint is whole: it goes.
    pub(super) headless: Option<FileNo>,
    /// What could not be read.
    pub(super) damage: Vec<Damage>,
}

/// A stretch of the spool that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "damage")]
pub enum Damage {
    /// The last file ends in the middle of an entry, as a killed agent leaves it.
    TornTail {
        /// The file.
        file: FileNo,
        /// How many bytes.
        bytes: u64,
    },
    /// The rest of an earlier file.
    Unreadable {
        /// The file.
        file: FileNo,
        /// How many bytes.
        bytes: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { file, bytes } => {
                write!(
                    f,
                    "the last file, {file}, has a torn tail of {bytes} bytes, as a killed agent leaves it"
                )
            }
            Self::Unreadable { file, bytes } => {
                write!(f, "{bytes} bytes of file {file} are damaged and cannot be read")
            }
        }
    }
}

struct Replay {
    ledger: Ledger,
    position: u64,
    /// The next checkpoint is news: it is the first, or what is before it could not be read.
    take_checkpoint: bool,
    /// Bytes of the last whole checkpoint.
    checkpoint_bytes: u64,
}

/// Replays the spool in `dir`, and changes nothing there.
pub(super) fn replay(dir: &Path) -> Result<Replayed, JournalError> {
    let numbers = spool::list(dir)?;
    let last = numbers.last().copied();
    let mut files = BTreeMap::new();
    let mut replay =
        Replay { ledger: Ledger::default(), position: 0, take_checkpoint: true, checkpoint_bytes: 0 };
    let mut before = None;
    let (mut headless, mut damage, mut appendable) = (None, Vec::new(), true);
    for no in numbers {
        if before.replace(no).is_some_and(|before| before.0 + 1 != no.0) {
            debug!(file = %no, "spool files before this one are gone; going on with its checkpoint");
            replay.take_checkpoint = true;
        }
        let path = spool::path(dir, no);
        let file = File::open(&path).map_err(spool::failed("open", &path))?;
        let len = file.metadata().map_err(spool::failed("look at", &path))?.len();
        let good = replay.file(no, &path, file)?;
        let cut = len - good;
        // An agent that was killed right after it had made a file leaves an empty one. What is appended to that would be
        // lost: nobody reads behind a checkpoint that is not there.
        let is_torn = Some(no) == last && (cut > 0 || good == 0) && !has_entry_behind(&path, good)?;
        if is_torn && good == 0 {
            warn!(file = %no, bytes = len, "the last spool file has no whole checkpoint; it goes");
            damage.push(Damage::TornTail { file: no, bytes: len });
            headless = Some(no);
            continue;
        }
        if is_torn {
            info!(file = %no, bytes = cut, "cutting the torn tail of the spool");
            damage.push(Damage::TornTail { file: no, bytes: cut });
        } else if cut > 0 {
            error!(file = %no, bytes = cut, "the rest of a spool file is unreadable; going on behind it");
            damage.push(Damage::Unreadable { file: no, bytes: cut });
            replay.take_checkpoint = true;
        }
        appendable = cut == 0 || is_torn;
        files.insert(no, if is_torn { good } else { len });
    }
    for session in replay.ledger.sessions() {
        let gone = session.gone_records();
        if gone > 0 {
            error!(session = %session.id(), records = gone, "records of a session were lost with the spool");
        }
    }
    let Replay { ledger, position, take_checkpoint: _, checkpoint_bytes } = replay;
    Ok(Replayed { ledger, position, files, checkpoint_bytes, appendable, headless, damage })
}

/// Whether a good entry lies anywhere behind `good` bytes of the file: then what is bad there is no torn tail.
fn has_entry_behind(path: &Path, good: u64) -> Result<bool, JournalError> {
    let bytes = fs::read(path).map_err(spool::failed("read", path))?;
    let good = usize::try_from(good).unwrap_or(usize::MAX);
    let rest = bytes.get(good.saturating_add(1)..).unwrap_or_default();
    Ok((0..rest.len()).any(|at| Entry::may_begin(&rest[at..]) && Entry::decode(&rest[at..]).is_ok()))
}

impl Replay {
    /// Replays a file and says how many of its bytes are good.
    fn file(&mut self, no: FileNo, path: &Path, file: File) -> Result<u64, JournalError> {
        let read = |source| spool::failed("read", path)(source);
        let mut entries = Reader::new(file);
        let Some(checkpoint) = read_checkpoint(no, path, &mut entries)? else {
            return match entries.damage() {
                Some(reason @ BadEntry::UnknownKind { .. }) => Err(unreadable(no, entries.offset(), &reason)),
                _ => Ok(0),
            };
        };
        self.checkpoint_bytes = entries.offset();
        if std::mem::take(&mut self.take_checkpoint) {
            self.position = checkpoint.position;
            self.ledger.restore(checkpoint.head.ring, checkpoint.sessions);
        }
        while let Some((offset, entry)) = entries.next().map_err(read)? {
            self.entry(Place { file: no, offset }, &entry)?;
            self.position = entry.position;
        }
        match entries.damage() {
            // Not for this version to cut off.
            Some(reason @ BadEntry::UnknownKind { .. }) => Err(unreadable(no, entries.offset(), &reason)),
            _ => Ok(entries.offset()),
        }
    }

    fn entry(&mut self, place: Place, entry: &Entry<'_>) -> Result<(), JournalError> {
        match entry.kind {
            Kind::Record => {
                self.ledger.record(entry.payload, place, entry.len());
            }
            Kind::State => {
                let change: StateEntry = serde_json::from_slice(entry.payload)
                    .map_err(|error| unreadable(place.file, place.offset, &error))?;
                if let Err(error) = self.ledger.apply(change) {
                    // Behind a gap an entry may be about something that only the gap knew.
                    error!(file = %place.file, offset = place.offset, %error, "a spool entry does not fit");
                }
            }
            Kind::Checkpoint | Kind::CheckpointSession => {
                return Err(unreadable(place.file, place.offset, &"a checkpoint inside a file"));
            }
        }
        Ok(())
    }
}

struct Head {
    position: u64,
    head: Checkpoint,
    sessions: Vec<Session>,
}

/// The checkpoint at the beginning of a file; `None` if it is not whole.
fn read_checkpoint(
    no: FileNo,
    path: &Path,
    entries: &mut Reader<File>,
) -> Result<Option<Head>, JournalError> {
    let read = |source| spool::failed("read", path)(source);
    let Some((offset, Entry { kind: Kind::Checkpoint, position, payload })) = entries.next().map_err(read)?
    else {
        return Ok(None);
    };
    let head: Checkpoint = serde_json::from_slice(payload).map_err(|error| unreadable(no, offset, &error))?;
    let mut sessions = Vec::new();
    for _ in 0..head.sessions {
        let Some((offset, Entry { kind: Kind::CheckpointSession, payload, .. })) =
            entries.next().map_err(read)?
        else {
            return Ok(None);
        };
        sessions.push(serde_json::from_slice(payload).map_err(|error| unreadable(no, offset, &error))?);
    }
    Ok(Some(Head { position, head, sessions }))
}

fn unreadable(file: FileNo, offset: u64, reason: &impl ToString) -> JournalError {
    JournalError::Unreadable { file, offset, reason: reason.to_string() }
}
