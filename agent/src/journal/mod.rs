//! The journal: spool and ledger kept in step.
//!
//! Owns *append, then apply*: nothing is known to the ledger that is not in the spool, and whatever is in the
//! spool the ledger knows. Also when a new file begins, with a checkpoint of every session, and when an old
//! one may go: once no unsealed record lies in it and everything that says so is flushed to the disk. They go in
//! any order, so that a session that cannot be stored keeps the files that its own records lie in, and no others. And what may
//! leave for the store: what a power cut would not undo ([`leaving`]).
//!
//! Not here: when sessions open, seal and close (`core`).

mod leaving;
mod replay;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use nix::sys::eventfd::EventFd;
use tracing::{debug, error};
use weir_common::session::SessionId;

use self::leaving::Leaving;
pub use self::replay::Damage;
use crate::{
    ledger::{Accounted, Checkpoint, Ledger, LedgerError, StateEntry},
    spool::{
        self, FileNo, Place, Space, Spool, SpoolError, SpoolLock, SpoolOptions,
        entry::{Entry, HEADER_LEN, Kind},
    },
    tap::RingId,
};

/// A file of less than this stays, though nothing in it is needed.
const REST_BYTES: u64 = 1024 * 1024;

/// What went wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Disk trouble; it may pass.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A change that does not go with what came before; nothing was written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A state that cannot be written as JSON.
    #[error("cannot write a state entry: {source}")]
    Encode {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
    /// Not everything in it is stored.
    #[error("the spool has {sessions} sessions that are not stored")]
    Needed {
        /// How many.
        sessions: usize,
    },
    /// An intact entry that this version cannot read.
    #[error("spool file {file} has an entry at {offset} that this version cannot read: {reason}")]
    Unreadable {
        /// The file.
        file: FileNo,
        /// Where in it.
        offset: u64,
        /// Why.
        reason: String,
    },
}

/// A record of the ring and where the ring goes on behind it.
#[derive(Clone, Copy)]
pub struct RingRecord<'a> {
    /// Header and message, without padding.
    pub bytes: &'a [u8],
    /// The ring position behind it.
    pub end: u64,
}

/// What lies in a spool.
#[derive(Debug)]
pub struct Inspected {
    /// What its entries add up to.
    pub ledger: Ledger,
    /// Its files and the bytes of each.
    pub files: BTreeMap<FileNo, u64>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    _lock: SpoolLock,
    spool: Spool,
    ledger: Ledger,
    position: u64,
    /// Bytes of the checkpoint of the file that is appended to.
    checkpoint_bytes: u64,
    /// These files go when the marker is flushed.
    deletable: Option<(BTreeSet<FileNo>, u64)>,
    leaving: Leaving,
}

impl Journal {
    /// Replays the spool in `dir` and opens it for appending.
    ///
    /// # Errors
    /// [`JournalError`]. Damage that a crash explains is no error: see `replay`.
    pub fn open(dir: &Path, options: SpoolOptions) -> Result<Self, JournalError> {
        Self::open_in(dir, options, options.space())
    }

    /// The same, for a spool that shares its space with others.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_in(dir: &Path, options: SpoolOptions, space: Arc<Space>) -> Result<Self, JournalError> {
        let lock = spool::lock(dir)?;
        let replay::Replayed { ledger, position, files, checkpoint_bytes, appendable, headless, damage } =
            replay::replay(dir)?;
        for unreadable in &damage {
            if let Damage::Unreadable { file, .. } = unreadable {
                set_aside(dir, *file);
            }
        }
        if let Some(no) = headless {
            let path = spool::path(dir, no);
            fs::remove_file(&path).map_err(spool::failed("remove", &path))?;
        }
        let spool = Spool::open(dir, options, space, files, appendable)?;
        let leaving = Leaving::new(spool.flush_marker(), spool.flush_interval());
        let mut journal =
            Self { _lock: lock, spool, ledger, position, checkpoint_bytes, deletable: None, leaving };
        if journal.spool.active_file().is_none() {
            journal.with_reserve(true, Self::start_file)?;
        }
        journal.spool.space().keep_reserve(dir);
        Ok(journal)
    }

    /// Says what lies in the spool, and changes nothing.
    ///
    /// # Errors
    /// [`JournalError`], as [`Self::open`].
    pub fn inspect(dir: &Path) -> Result<Inspected, JournalError> {
        let _lock = spool::lock(dir)?;
        let replay::Replayed { ledger, files, damage, .. } = replay::replay(dir)?;
        Ok(Inspected { ledger, files, damage })
    }

    /// Deletes the whole spool, once every session is stored and that is on the disk; says how many bytes that gave back.
    ///
    /// # Errors
    /// [`JournalError::Needed`] and nothing is deleted; [`JournalError::Spool`].
    pub fn retire(self) -> Result<u64, JournalError> {
        match self.ledger.sessions().len() {
            0 => Ok(self.spool.delete_all()?),
            sessions => Err(JournalError::Needed { sessions }),
        }
    }

    /// What the spool's entries add up to.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The ring position up to which everything is in the spool.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file that is appended to.
    #[must_use]
    pub fn active_file(&self) -> Option<FileNo> {
        self.spool.active_file()
    }

    /// What of the space each session keeps: of every file that is not appended to any more, those that have unsealed records
    /// in it keep equal parts, whoever else's lies there.
    #[must_use]
    pub fn kept_bytes(&self) -> HashMap<SessionId, u64> {
        let mut keepers: HashMap<FileNo, Vec<SessionId>> = HashMap::new();
        for session in self.ledger.sessions() {
            for file in session.files().collect::<BTreeSet<_>>() {
                keepers.entry(file).or_default().push(session.id());
            }
        }
        let mut kept = HashMap::new();
        for (file, keepers) in keepers.iter().filter(|(file, _)| self.spool.active_file() != Some(**file)) {
            let part = self.spool.bytes_of(*file) / keepers.len() as u64;
            for &session in keepers {
                *kept.entry(session).or_insert(0) += part;
            }
        }
        kept
    }

    /// The spool's directory.
    #[must_use]
    pub fn spool_dir(&self) -> &Path {
        self.spool.dir()
    }

    /// Bytes of the spool.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.spool.total_bytes()
    }

    /// What [`Self::is_flushed`] must be asked for everything appended so far.
    #[must_use]
    pub fn flush_marker(&self) -> u64 {
        self.spool.flush_marker()
    }

    /// Whether everything up to this marker is on the disk.
    #[must_use]
    pub fn is_flushed(&self, marker: u64) -> bool {
        self.spool.is_flushed(marker)
    }

    /// The newest marker up to which everything is on the disk.
    #[must_use]
    pub fn flushed(&self) -> u64 {
        self.spool.flushed()
    }

    /// Flushes now, whatever the interval.
    ///
    /// # Errors
    /// [`JournalError::Spool`].
    pub fn flush(&self) -> Result<(), JournalError> {
        Ok(self.spool.flush()?)
    }

    /// Has this one woken whenever something was flushed.
    pub fn wake_when_flushed(&self, wake: Arc<EventFd>) {
        self.spool.wake_when_flushed(wake);
    }

    /// Whether what is begun of a session, its segment or its end, may be stored: not before everything that it follows
    /// from is on the disk.
    #[must_use]
    pub fn may_leave(&self, session: SessionId) -> bool {
        self.leaving.may_leave(session, self.spool.flushed(), Instant::now())
    }

    /// The space that its spool has with others.
    #[must_use]
    pub fn space(&self) -> &Space {
        self.spool.space()
    }

    /// Has records leave room on the disk for changes of state that may take so many bytes besides the usual reserve.
    pub fn reserve_for_states(&mut self, bytes: u64) {
        self.spool.reserve_for_states(bytes);
    }

    /// Puts records into the spool and accounts for each.
    ///
    /// # Errors
    /// [`JournalError`]; then none of them is in the spool.
    pub fn append_records<'a>(
        &mut self,
        records: &[RingRecord<'a>],
        mut each: impl FnMut(Accounted),
    ) -> Result<(), JournalError> {
        let Some(last) = records.last() else {
            return Ok(());
        };
        self.rotate_if_full()?;
        let entry = |record: &RingRecord<'a>| Entry {
            kind: Kind::Record,
            position: record.end,
            payload: record.bytes,
        };
        let entries: Vec<_> = records.iter().map(entry).collect();
        let Place { file, mut offset } = self.spool.append(&entries)?;
        self.position = last.end;
        for entry in entries {
            each(self.ledger.record(entry.payload, Place { file, offset }, entry.len()));
            offset += entry.len();
        }
        Ok(())
    }

    /// Makes a change of state.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing is changed.
    pub fn append(&mut self, change: StateEntry) -> Result<(), JournalError> {
        self.rotate_if_full()?;
        // A refused change must not be in the spool, where every replay would stumble over it.
        self.ledger.check(&change)?;
        let payload = serde_json::to_vec(&change)?;
        self.with_reserve(!change.is_beginning(), |journal| {
            let entry = Entry { kind: Kind::State, position: journal.position, payload: &payload };
            Ok(journal.spool.append(&[entry])?)
        })?;
        self.leaving.appended(&change, self.spool.flush_marker());
        self.ledger.apply(change)?;
        Ok(())
    }

    /// Makes the change that this ring's positions count from now on.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing is changed.
    pub fn adopt_ring(&mut self, ring: RingId, position: u64) -> Result<(), JournalError> {
        let before = std::mem::replace(&mut self.position, position);
        self.append(StateEntry::RingAdopted { ring }).inspect_err(|_| self.position = before)
    }

    /// Makes the change that what the ring gave out up to this position is not all in the spool, and goes on behind it.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing is changed.
    pub fn note_loss(&mut self, position: u64) -> Result<(), JournalError> {
        let before = std::mem::replace(&mut self.position, position);
        self.append(StateEntry::RecordsLost).inspect_err(|_| self.position = before)
    }

    /// Gives back the space of files that are not needed any more, the one that is appended to included: what
    /// was said in sessions does not lie here longer than it must.
    ///
    /// # Errors
    /// [`JournalError`] if a file cannot be deleted, or the next one not begun.
    pub fn give_back(&mut self) -> Result<(), JournalError> {
        self.spool.space().keep_reserve(self.spool.dir());
        if self.spool.has_lost() {
            self.start_file_if_possible(true)?;
        }
        if self.deletable.as_ref().is_some_and(|&(_, marker)| !self.spool.is_flushed(marker)) {
            return Ok(());
        }
        if let Some((files, _)) = self.deletable.take() {
            let freed = self.spool.delete(&files)?;
            debug!(freed, "gave spool space back");
        }
        let mut kept = self.ledger.needed_files();
        let active_is_needed = self.spool.active_file().is_some_and(|no| kept.contains(&no));
        if !active_is_needed && self.spool.active_bytes() >= self.rest_bytes() {
            self.start_file_if_possible(true)?;
        }
        kept.extend(self.spool.active_file());
        let files: BTreeSet<_> = self.spool.files().filter(|no| !kept.contains(no)).collect();
        if !files.is_empty() {
            self.deletable = Some((files, self.spool.flush_marker()));
        }
        Ok(())
    }

    /// What may stay in a file that nothing is needed of.
    fn rest_bytes(&self) -> u64 {
        REST_BYTES.max(self.worthwhile_bytes())
    }

    /// A file is worth its checkpoint when as much stands behind it. If the next one began before that,
    /// checkpoints would be all that is written once they are large.
    fn worthwhile_bytes(&self) -> u64 {
        self.checkpoint_bytes * 2
    }

    /// A full disk may have room for an entry and none for a checkpoint: then the file at hand grows on, lest what gives
    /// space back could not be noted any more.
    fn rotate_if_full(&mut self) -> Result<(), JournalError> {
        let worthwhile = self.spool.active_bytes() >= self.worthwhile_bytes();
        if self.spool.is_file_full() && worthwhile {
            self.start_file_if_possible(false)?;
        }
        Ok(())
    }

    /// Does it once more with the room that is held for this, where there was none.
    fn with_reserve<T>(
        &mut self,
        may: bool,
        write: impl Fn(&mut Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        match write(self) {
            Err(JournalError::Spool(error))
                if may && error.is_no_room() && self.spool.space().give_up_reserve() =>
            {
                write(self)
            }
            outcome => outcome,
        }
    }

    fn start_file_if_possible(&mut self, gives_back: bool) -> Result<(), JournalError> {
        match self.with_reserve(gives_back, Self::start_file) {
            Err(JournalError::Spool(error)) if self.spool.active_file().is_some() => {
                debug!(%error, "no new spool file now; the one at hand grows on");
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn start_file(&mut self) -> Result<(), JournalError> {
        let sessions = self.ledger.sessions();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let head = Checkpoint { ring: self.ledger.ring().cloned(), sessions: count };
        let head = serde_json::to_vec(&head)?;
        let sessions = sessions.map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
        let entry = |kind, payload| Entry { kind, position: self.position, payload };
        let mut entries = vec![entry(Kind::Checkpoint, &head[..])];
        entries.extend(sessions.iter().map(|session| entry(Kind::CheckpointSession, session)));
        self.spool.start_file(&entries)?;
        self.checkpoint_bytes = self.spool.active_bytes();
        Ok(())
    }
}

/// Keeps the bytes of a damaged file under another name, for when the file is not needed any more: somebody may be able
/// to read more of it.
fn set_aside(dir: &Path, no: FileNo) {
    let path = spool::path(dir, no);
    let aside = path.with_extension("log.damaged");
    match fs::hard_link(&path, &aside) {
        Ok(()) => error!(file = %aside.display(), "a damaged spool file is kept under this name"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => error!(file = %path.display(), %error, "a damaged spool file cannot be kept"),
    }
}

/// Bytes that a record of this many bytes takes in the spool.
#[must_use]
pub fn entry_bytes(record_bytes: usize) -> u64 {
    (HEADER_LEN + record_bytes) as u64
}

#[cfg(test)]
mod tests;
