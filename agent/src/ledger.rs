//! The ledger: what the spool's entries add up to.
//!
//! Owns the relation from socket cookie to session, channel and direction. Live and in a replay the same
//! entries go through the same two functions, [`Ledger::record`] and [`Ledger::apply`], so what a restarted
//! agent knows is what the one before knew. Not here: writing entries (`journal`), and anything that is not
//! in the spool.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_common::{
    abi::{RECORD_GAP, RecordHeader},
    frame::{Direction, FrameError},
    recording::{Clock, Count, Gap, Recorder, SegmentEntry},
    session::{ChannelNo, SessionId, SessionMeta, SocketCookie, TargetPeer},
};

use crate::{
    gap::SpooledGap,
    session::{Captured, ChannelKernel, End, RecordError, Session, StepError, TapCookies, Unrecorded},
    spool::{FileNo, Place},
    tap::RingId,
    withholding::Carried,
};

/// A change of state, as it stands in the spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case", deny_unknown_fields)]
pub enum StateEntry {
    /// Ring positions from here on are of this ring.
    RingAdopted {
        /// The ring.
        ring: RingId,
    },
    /// Records that the ring had given out are not in the spool: a part of it was lost that no reader finds missing.
    RecordsLost,
    /// A session begins.
    Opened {
        /// The access context.
        meta: Box<SessionMeta>,
        /// How to read its records' times.
        clock: Clock,
        /// Who records it.
        recorder: Recorder,
        /// When the agent registered it.
        opened_at: Timestamp,
    },
    /// The session's target is connected.
    Connected {
        /// The session.
        session: SessionId,
        /// The target.
        target: TargetPeer,
    },
    /// A channel's tap is about to be armed.
    Armed {
        /// The session.
        session: SessionId,
        /// The channel.
        channel: ChannelNo,
        /// The socket at the target end.
        c2t: SocketCookie,
        /// The socket at the client end.
        t2c: SocketCookie,
    },
    /// Arming failed; the channel's number is free again.
    ArmFailed {
        /// The session.
        session: SessionId,
        /// The channel.
        channel: ChannelNo,
    },
    /// A channel is over: the kernel lets nothing pass, and everything it captured is in the spool. Its sockets
    /// may still be in the kernel's maps.
    Disarmed {
        /// The session.
        session: SessionId,
        /// The channel and its kernel's counters.
        kernel: ChannelKernel,
    },
    /// The oldest pending records are to be the next segment.
    SealStarted {
        /// The session.
        session: SessionId,
        /// The segment's number.
        index: u32,
        /// How many records.
        records: u64,
    },
    /// The segment is in the store.
    Sealed {
        /// The session.
        session: SessionId,
        /// What is in the store.
        segment: SegmentEntry,
        /// What the next segment goes on from, if file content is left out.
        #[serde(default, skip_serializing_if = "Carried::is_empty")]
        carried: Carried,
    },
    /// The session's grant is over: the kernel lets nothing pass, and no agent may arm another tap for it. An agent that
    /// does not know of this does not start on such a spool, rather than forget it.
    Frozen {
        /// The session.
        session: SessionId,
    },
    /// The session is over: the kernel lets nothing pass, and everything it captured is in the spool.
    Closed {
        /// The session.
        session: SessionId,
        /// How and when.
        end: End,
        /// The kernel's counters.
        kernel: Vec<ChannelKernel>,
    },
    /// Everything about the session is in the store.
    Finished {
        /// The session.
        session: SessionId,
    },
}

impl StateEntry {
    /// Whether it begins something. All others lead to where space is given back, or stop something.
    #[must_use]
    pub fn is_beginning(&self) -> bool {
        match self {
            Self::Opened { .. } | Self::Connected { .. } | Self::Armed { .. } => true,
            Self::RingAdopted { .. }
            | Self::RecordsLost
            | Self::ArmFailed { .. }
            | Self::Disarmed { .. }
            | Self::SealStarted { .. }
            | Self::Sealed { .. }
            | Self::Frozen { .. }
            | Self::Closed { .. }
            | Self::Finished { .. } => false,
        }
    }
}

/// The head of a spool file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The ring that positions are of.
    pub ring: Option<RingId>,
    /// How many sessions follow.
    pub sessions: u32,
}

/// An entry that does not go with what came before it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No such session.
    #[error("there is no session {session}")]
    NoSession {
        /// Its id.
        session: SessionId,
    },
    /// The id is taken.
    #[error("there is a session {session} already")]
    SessionExists {
        /// Its id.
        session: SessionId,
    },
    /// A socket can be one channel's only.
    #[error("socket {} is another channel's", cookie.0)]
    SocketUsed {
        /// The socket.
        cookie: SocketCookie,
    },
    /// Out of order.
    #[error("session {session}: {source}")]
    Step {
        /// Its id.
        session: SessionId,
        /// What is wrong.
        source: StepError,
    },
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Accounted {
    /// It is counted in this session.
    To(SessionId),
    /// It ended its stream: the message is no frame.
    Ended(SessionId, ChannelNo, Direction, FrameError),
    /// It says that messages passed unrecorded.
    Gap {
        /// The session.
        session: SessionId,
        /// What passed, and why.
        gap: Gap,
        /// Whether the session's policy permits it.
        permitted: bool,
    },
    /// Its socket is no armed channel's, or the record is not of this program's making.
    Orphan,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    session: SessionId,
    channel: ChannelNo,
    direction: Direction,
}

/// Every session that is not finished.
#[derive(Debug, Default)]
pub struct Ledger {
    ring: Option<RingId>,
    sessions: BTreeMap<SessionId, Session>,
    sockets: HashMap<SocketCookie, Socket>,
    orphans: Count,
}

impl Ledger {
    /// The ring that positions are of.
    #[must_use]
    pub fn ring(&self) -> Option<&RingId> {
        self.ring.as_ref()
    }

    /// Every session.
    pub fn sessions(&self) -> impl ExactSizeIterator<Item = &Session> {
        self.sessions.values()
    }

    /// A session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Records that are no session's.
    #[must_use]
    pub fn orphans(&self) -> Count {
        self.orphans
    }

    /// The spool files that unsealed records need.
    #[must_use]
    pub fn needed_files(&self) -> BTreeSet<FileNo> {
        self.sessions().flat_map(Session::files).collect()
    }

    /// The session that an armed socket belongs to, and the sequence number of the frame that would be taken next from it.
    #[must_use]
    pub fn next_seq(&self, cookie: SocketCookie) -> Option<(SessionId, u64)> {
        let Socket { session, channel, direction } = *self.sockets.get(&cookie)?;
        Some((session, self.sessions.get(&session)?.next_seq(channel, direction)?))
    }

    /// Accounts for a record that lies in the spool at `place`, in an entry of `entry_len` bytes.
    pub fn record(&mut self, record: &[u8], place: Place, entry_len: u64) -> Accounted {
        let Some((header, message)) = RecordHeader::split(record) else {
            self.orphans.add(record.len() as u64);
            return Accounted::Orphan;
        };
        let socket = self.sockets.get(&SocketCookie(header.cookie)).copied();
        let found = socket.and_then(|socket| Some((socket, self.sessions.get_mut(&socket.session)?)));
        let Some((Socket { session: id, channel, direction }, session)) = found else {
            self.orphans.add(message.len() as u64);
            return Accounted::Orphan;
        };
        if header.kind == RECORD_GAP {
            let spooled = SpooledGap::from_message(message);
            let gap = spooled.map(|spooled| spooled.gap);
            let recorded = spooled.map(|SpooledGap { seq, gap }| {
                let count = Count { records: gap.records, bytes: gap.bytes };
                let gap = Unrecorded { seq, count, boot_ns: header.boot_ns, entry_len };
                session.gap(channel, direction, gap, place)
            });
            let (Some(gap), Some(Ok(()) | Err(RecordError::Gap))) = (gap, &recorded) else {
                self.orphans.add(message.len() as u64);
                return Accounted::Orphan;
            };
            return Accounted::Gap { session: id, gap, permitted: recorded == Some(Ok(())) };
        }
        let captured = Captured { boot_ns: header.boot_ns, message, entry_len };
        match session.record(channel, direction, captured, place) {
            Ok(()) => Accounted::To(id),
            Err(RecordError::NoFrame(error)) => Accounted::Ended(id, channel, direction, error),
            Err(RecordError::NoTap | RecordError::Gap) => {
                self.orphans.add(message.len() as u64);
                Accounted::Orphan
            }
        }
    }

    /// Whether [`Self::apply`] would succeed.
    ///
    /// # Errors
    /// The [`LedgerError`] that it would return.
    pub fn check(&self, entry: &StateEntry) -> Result<(), LedgerError> {
        let step = |id: SessionId, may: &dyn Fn(&Session) -> Result<(), StepError>| {
            let session = self.sessions.get(&id).ok_or(LedgerError::NoSession { session: id })?;
            may(session).map_err(|source| LedgerError::Step { session: id, source })
        };
        match entry {
            StateEntry::RingAdopted { .. } | StateEntry::RecordsLost => Ok(()),
            StateEntry::Opened { meta, .. } if self.sessions.contains_key(&meta.session_id) => {
                Err(LedgerError::SessionExists { session: meta.session_id })
            }
            StateEntry::Opened { .. } => Ok(()),
            StateEntry::Connected { session, .. } => step(*session, &Session::may_connect),
            &StateEntry::Armed { session, channel, c2t, t2c } => {
                self.may_arm(session, channel, TapCookies { c2t, t2c })
            }
            &StateEntry::ArmFailed { session, channel } => {
                step(session, &|session| session.may_take_back(channel))
            }
            &StateEntry::Disarmed { session, kernel } => {
                step(session, &|session| session.may_disarm(kernel.channel))
            }
            &StateEntry::SealStarted { session, index, records } => {
                step(session, &|session| session.may_begin_seal(index, records))
            }
            StateEntry::Sealed { session, segment, carried: _ } => {
                step(*session, &|session| session.may_be_sealed(segment.index))
            }
            StateEntry::Frozen { session } | StateEntry::Closed { session, .. } => {
                step(*session, &Session::may_close)
            }
            StateEntry::Finished { session } => step(*session, &Session::may_be_finished),
        }
    }

    /// Makes a change of state.
    ///
    /// # Errors
    /// [`LedgerError`] if it does not go with what came before; then nothing is changed.
    pub fn apply(&mut self, entry: StateEntry) -> Result<(), LedgerError> {
        self.check(&entry)?;
        match entry {
            StateEntry::RingAdopted { ring } => self.ring = Some(ring),
            StateEntry::RecordsLost => self.lose(),
            StateEntry::Opened { meta, clock, recorder, opened_at } => {
                let session = Session::new(meta, clock, recorder, opened_at);
                self.sessions.insert(session.id(), session);
            }
            StateEntry::Connected { session, target } => {
                self.step(session, |session| session.connect(target))?;
            }
            StateEntry::Armed { session, channel, c2t, t2c } => {
                self.with_sockets(session, |session| session.arm(channel, TapCookies { c2t, t2c }))?;
            }
            StateEntry::ArmFailed { session, channel } => {
                self.with_sockets(session, |session| session.take_back(channel))?;
            }
            StateEntry::Disarmed { session, kernel } => {
                self.with_sockets(session, |session| session.disarm(kernel))?;
            }
            StateEntry::SealStarted { session, index, records } => {
                self.step(session, |session| session.begin_seal(index, records))?;
            }
            StateEntry::Sealed { session, segment, carried } => {
                self.step(session, |session| session.sealed(segment, carried))?;
            }
            StateEntry::Frozen { session } => self.step(session, Session::freeze)?,
            StateEntry::Closed { session, end, kernel } => {
                self.with_sockets(session, |session| session.close(end, &kernel))?;
            }
            StateEntry::Finished { session } => drop(self.sessions.remove(&session)),
        }
        Ok(())
    }

    /// Records behind the ones that are known may have been lost, of any session.
    pub fn lose(&mut self) {
        self.sessions.values_mut().for_each(Session::lose);
    }

    /// Takes the state that a checkpoint says. What a replay found before is kept where it agrees with it.
    pub fn restore(&mut self, ring: Option<RingId>, sessions: Vec<Session>) {
        let mut found = std::mem::take(self);
        self.ring = ring;
        self.orphans = found.orphans;
        for session in sessions {
            let id = session.id();
            let session = match found.sessions.remove(&id) {
                Some(mut before) => {
                    before.reconcile(session);
                    before
                }
                None => session,
            };
            self.sessions.insert(id, session);
            self.map_sockets(id);
        }
    }

    fn may_arm(&self, id: SessionId, channel: ChannelNo, cookies: TapCookies) -> Result<(), LedgerError> {
        let session = self.sessions.get(&id).ok_or(LedgerError::NoSession { session: id })?;
        session.may_arm(channel, cookies).map_err(|source| LedgerError::Step { session: id, source })?;
        let used = |cookie: &SocketCookie| {
            let other = |socket: &Socket| (socket.session, socket.channel) != (id, channel);
            self.sockets.get(cookie).is_some_and(other)
        };
        match [cookies.c2t, cookies.t2c].into_iter().find(used) {
            Some(cookie) => Err(LedgerError::SocketUsed { cookie }),
            None if cookies.c2t == cookies.t2c => Err(LedgerError::SocketUsed { cookie: cookies.c2t }),
            None => Ok(()),
        }
    }

    fn step(
        &mut self,
        id: SessionId,
        step: impl FnOnce(&mut Session) -> Result<(), StepError>,
    ) -> Result<(), LedgerError> {
        let session = self.sessions.get_mut(&id).ok_or(LedgerError::NoSession { session: id })?;
        step(session).map_err(|source| LedgerError::Step { session: id, source })
    }

    /// A step that changes which sockets are whose.
    fn with_sockets(
        &mut self,
        id: SessionId,
        step: impl FnOnce(&mut Session) -> Result<(), StepError>,
    ) -> Result<(), LedgerError> {
        let before: Vec<_> = self.sessions.get(&id).into_iter().flat_map(Session::armed_sockets).collect();
        self.step(id, step)?;
        for (cookie, _, _) in before {
            self.sockets.remove(&cookie);
        }
        self.map_sockets(id);
        Ok(())
    }

    fn map_sockets(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.end().is_none()) else {
            return;
        };
        for (cookie, channel, direction) in session.armed_sockets() {
            self.sockets.insert(cookie, Socket { session: id, channel, direction });
        }
    }
}
