//! Reading the spool back: from its files to the ledger.
//!
//! The oldest file's checkpoint is where the replay begins; the checkpoints of later files say what it knows
//! already. Four kinds of damage are told apart:
//!
//! - *The last file ends in the middle of an entry*, as a killed agent leaves it: the rest is cut off. Its
//!   records are still in the ring. If not even the file's checkpoint is whole, the file goes.
//! - *A stretch of a file is damaged, and the entries behind it say that no change of state was in it*: the replay goes on
//!   behind it. Records were lost; each stream finds out by its sequence numbers whether any was its own
//!   (`session::loss`), and those that lost none are whole.
//! - *A change of state may have been in such a stretch*: what the entries behind it mean cannot be concluded without a later
//!   checkpoint. If a later file has one, the replay goes on as above, and a session whose records are not exactly as many as the
//!   checkpoint says has them gone. If none has, or the checkpoint itself is damaged, the rest of the file is left unread.
//! - *Records that a checkpoint counts lie in a file that was deleted*, before the first file or between two:
//!   gone too, and since a file is deleted only after the store has everything in it, a later entry says that
//!   they were sealed.
//!
//! Gone records that no entry says are sealed are lost. The session goes on and is stored; its manifest has
//! more accepted records than events, and so every verification of it fails, as it must.

use std::{collections::BTreeMap, fmt, fs::File, path::Path};

use serde::Serialize;
use tracing::{debug, error, info, warn};

use super::JournalError;
use crate::{
    ledger::{Checkpoint, Ledger, StateEntry},
    session::Session,
    spool::{
        self, FileNo, Place,
        entry::{BadEntry, Entry, Kind, Stamp},
        reader::{Behind, Reader},
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
    /// What goes on in the last file that stays, if it is good to its end, or is cut there: only then may anything be
    /// appended to it.
    pub(super) appendable: Option<Stamp>,
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
    /// A stretch of a file, or the rest of it.
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
    let (mut headless, mut damage, mut appendable) = (None, Vec::new(), None);
    for &no in &numbers {
        if before.replace(no).is_some_and(|before| before.0 + 1 != no.0) {
            debug!(file = %no, "spool files before this one are gone; going on with its checkpoint");
            replay.lose();
        }
        let path = spool::path(dir, no);
        let file = File::open(&path).map_err(spool::failed("open", &path))?;
        let len = file.metadata().map_err(spool::failed("look at", &path))?.len();
        let Read { good, stretches, rest, stamp } =
            replay.file(no, &path, file, &Later { dir, numbers: &numbers })?;
        let cut = len - good;
        for &bytes in &stretches {
            error!(file = %no, bytes, "a stretch of a spool file is unreadable; going on behind it");
            damage.push(Damage::Unreadable { file: no, bytes });
        }
        // An agent that was killed right after it had made a file leaves an empty one. What is appended to that would be
        // lost: nobody reads behind a checkpoint that is not there.
        let is_torn = Some(no) == last && (cut > 0 || good == 0) && rest == Rest::Nothing;
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
            replay.lose();
        }
        // What is appended behind damage that was passed over would hang on its being passed over again.
        appendable = stamp.filter(|_| (cut == 0 || is_torn) && stretches.is_empty());
        files.insert(no, if appendable.is_some() { good } else { len });
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

/// What a file was found to be.
struct Read {
    /// Bytes up to the end of the last entry that was read.
    good: u64,
    /// Bytes of each damaged stretch among these that was passed over.
    stretches: Vec<u64>,
    /// What lies behind them.
    rest: Rest,
    /// What goes on there.
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// No entry, so whatever it is may be cut off.
    Nothing,
    /// Entries that are not read, or something that may be some.
    Unread,
}

impl Replay {
    /// Replays a file.
    fn file(&mut self, no: FileNo, path: &Path, file: File, later: &Later<'_>) -> Result<Read, JournalError> {
        let read = |source| spool::failed("read", path)(source);
        let mut entries = Reader::new(file);
        let mut found = Read { good: 0, stretches: Vec::new(), rest: Rest::Nothing, stamp: None };
        let Some(checkpoint) = read_checkpoint(no, path, &mut entries)? else {
            let is_something = match behind(no, path, &mut entries)? {
                Some(behind) => behind != Behind::Nothing,
                None => entries.next().map_err(read)?.is_some(),
            };
            found.rest = if is_something { Rest::Unread } else { Rest::Nothing };
            return Ok(found);
        };
        self.checkpoint_bytes = entries.offset();
        if std::mem::take(&mut self.take_checkpoint) {
            self.position = checkpoint.position;
            self.ledger.restore(checkpoint.head.ring, checkpoint.sessions);
        }
        loop {
            while let Some((offset, entry)) = entries.next().map_err(read)? {
                self.entry(Place { file: no, offset }, &entry)?;
                self.position = entry.position;
            }
            (found.good, found.stamp) = (entries.offset(), entries.stamp());
            match behind(no, path, &mut entries)? {
                Some(Behind::Entry { offset, states_missing })
                    if !states_missing || later.has_checkpoint(no)? =>
                {
                    found.stretches.push(offset - found.good);
                    self.lose();
                }
                None | Some(Behind::Nothing) => return Ok(found),
                Some(Behind::Entry { .. } | Behind::Unsure) => {
                    found.rest = Rest::Unread;
                    return Ok(found);
                }
            }
        }
    }

    /// Something is missing here, and the next checkpoint says more than is known.
    fn lose(&mut self) {
        self.ledger.lose();
        self.take_checkpoint = true;
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

/// The files of the spool.
struct Later<'a> {
    dir: &'a Path,
    numbers: &'a [FileNo],
}

impl Later<'_> {
    /// Whether a file behind this one begins with a whole checkpoint.
    fn has_checkpoint(&self, no: FileNo) -> Result<bool, JournalError> {
        for &later in self.numbers.iter().filter(|&&later| later > no) {
            let path = spool::path(self.dir, later);
            let file = File::open(&path).map_err(spool::failed("open", &path))?;
            if read_checkpoint(later, &path, &mut Reader::new(file))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What lies behind the damage that the reading ended with; `None` if it ended with the file.
fn behind(no: FileNo, path: &Path, entries: &mut Reader<File>) -> Result<Option<Behind>, JournalError> {
    // Not for this version to cut off.
    let refuse = |offset, bad| match bad {
        Some(reason @ (BadEntry::UnknownKind { .. } | BadEntry::Unmarked)) => {
            Err(unreadable(no, offset, &reason))
        }
        other => Ok(other),
    };
    let Some(_) = refuse(entries.offset(), entries.damage())? else { return Ok(None) };
    let behind = entries.resume().map_err(spool::failed("read", path))?;
    refuse(entries.offset(), entries.damage())?;
    Ok(Some(behind))
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
