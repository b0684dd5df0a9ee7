//! What others read from a session's state, and the manifest that is made of it.

use jiff::Timestamp;
use weir_common::{
    abi::RECORD_HEADER_LEN,
    digest::Sha256,
    frame::Direction,
    recording::{
        ChannelTotals, Count, FORMAT_VERSION, Manifest, Opened, Recorder, SegmentHeader, session_path,
    },
    session::{ChannelNo, SessionId, SessionMeta, SocketCookie, TargetPeer},
};

use super::{Channel, End, Sealing, Session, TapCookies};
use crate::{
    spool::{FileNo, entry::HEADER_LEN},
    withholding::Carried,
};

impl Session {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.meta.session_id
    }

    /// Its access context.
    #[must_use]
    pub fn meta(&self) -> &SessionMeta {
        &self.meta
    }

    /// Its target, once it is connected.
    #[must_use]
    pub fn target(&self) -> Option<&TargetPeer> {
        self.target.as_ref()
    }

    /// Who records it.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Its directory in the store.
    #[must_use]
    pub fn path(&self) -> String {
        session_path(self.opened_at, self.id())
    }

    /// When the agent registered it.
    #[must_use]
    pub fn opened_at(&self) -> Timestamp {
        self.opened_at
    }

    /// When it was last heard of: the time of its newest record, or of its beginning.
    #[must_use]
    pub fn last_heard_of(&self) -> Timestamp {
        let newest = self.clock.at(self.last_boot_ns).filter(|_| self.last_boot_ns > 0);
        newest.map_or(self.opened_at, |newest| newest.max(self.opened_at))
    }

    /// The calendar time of this kernel time, as the two stood to each other when the session was opened: a calendar that
    /// jumps meanwhile does not change how long the session took.
    #[must_use]
    pub fn calendar(&self, boot_ns: u64) -> Timestamp {
        self.clock.at(boot_ns).map_or(self.opened_at, |at| at.max(self.opened_at))
    }

    /// How many of its records are not in the store, and their bytes.
    #[must_use]
    pub fn unsealed(&self) -> Count {
        let sealing = self.sealing.as_ref().map_or_else(Count::default, |sealing| sealing.records.total());
        sealing + self.pending.total()
    }

    /// Its end, if it has ended.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether its grant is over, so that nothing passes its taps any more.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The segment that is on its way into the store.
    #[must_use]
    pub fn sealing(&self) -> Option<&Sealing> {
        self.sealing.as_ref()
    }

    /// The number of the segment after the ones in the store.
    #[must_use]
    pub fn next_index(&self) -> u32 {
        self.segments.last().map_or(1, |segment| segment.index.saturating_add(1))
    }

    /// What the next segment goes on from, if the grant says that file content is not to be kept.
    #[must_use]
    pub fn withhold(&self) -> Option<Carried> {
        (!self.meta.record_file_content).then(|| self.carried.clone())
    }

    /// Bytes that notes of its unsealed records' segments, of at most so many bytes each, may take in the spool besides what
    /// any session's do: where file content is left out, each says what the next segment goes on from.
    #[must_use]
    pub fn notes_bytes_max(&self, segment_max_bytes: u64) -> u64 {
        let unsealed = self.unsealed();
        if self.meta.record_file_content || unsealed.records == 0 {
            return 0;
        }
        let segments = unsealed.bytes / segment_max_bytes.max(1) + 1;
        segments.saturating_mul(self.carried.next_bytes_max(self.channels.len()) as u64)
    }

    /// The first line of the next segment, as far as it is known before the segment is encoded.
    #[must_use]
    pub fn segment_header(&self) -> SegmentHeader {
        SegmentHeader {
            weir: FORMAT_VERSION,
            session: self.id(),
            index: self.next_index(),
            previous: self.previous(),
            bulk: None,
            opened: self.segments.is_empty().then(|| Box::new(self.opened())),
        }
    }

    fn opened(&self) -> Opened {
        // What became known since the segment was begun would change its bytes.
        let target = self.sealing.as_ref().map_or(&self.target, |sealing| &sealing.target);
        Opened {
            session: (*self.meta).clone(),
            target: target.clone(),
            recorder: self.recorder.clone(),
            opened_at: self.opened_at,
            clock: self.clock,
        }
    }

    fn previous(&self) -> Option<Sha256> {
        self.segments.last().map(|segment| segment.segment.sha256)
    }

    /// Every armed channel with the cookies of its receiving sockets.
    pub fn taps(&self) -> impl Iterator<Item = (ChannelNo, TapCookies)> {
        self.armed().map(|totals| (totals.channel, cookies(&totals)))
    }

    /// The cookies of an armed channel's receiving sockets.
    #[must_use]
    pub fn tap(&self, channel: ChannelNo) -> Option<TapCookies> {
        self.taps().find(|&(no, _)| no == channel).map(|(_, cookies)| cookies)
    }

    /// Every armed receiving socket and what it is for.
    pub fn armed_sockets(&self) -> impl Iterator<Item = (SocketCookie, ChannelNo, Direction)> {
        self.armed().flat_map(|totals| sockets(&totals))
    }

    /// Every receiving socket and what it is for, or was: records of it may be unsealed.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketCookie, ChannelNo, Direction)> {
        self.all().flat_map(|totals| sockets(&totals))
    }

    /// Whether this channel was disarmed.
    #[must_use]
    pub fn is_disarmed(&self, channel: ChannelNo) -> bool {
        self.disarmed.contains_key(&channel)
    }

    /// Every armed channel, counted.
    pub fn armed(&self) -> impl Iterator<Item = ChannelTotals> {
        self.channels.iter().map(Channel::totals)
    }

    /// Every channel, counted, in the order of their numbers.
    #[must_use]
    pub fn totals(&self) -> Vec<ChannelTotals> {
        let mut totals: Vec<_> = self.all().collect();
        totals.sort_unstable_by_key(|totals| totals.channel);
        totals
    }

    /// How many records are the session's events, gaps included.
    #[must_use]
    pub fn accepted_records(&self) -> u64 {
        let frames = self.all().map(|totals| totals.c2t.accepted + totals.t2c.accepted);
        frames.fold(self.gaps, |sum, frames| sum.saturating_add(frames.records))
    }

    /// The sequence number of the frame that would be taken next from this direction of an armed channel.
    #[must_use]
    pub fn next_seq(&self, channel: ChannelNo, direction: Direction) -> Option<u64> {
        let channel = self.channels.iter().rev().find(|other| other.no == channel)?;
        Some(match direction {
            Direction::ClientToTarget => channel.c2t.inbound.next_seq(),
            Direction::TargetToClient => channel.t2c.inbound.next_seq(),
        })
    }

    fn all(&self) -> impl Iterator<Item = ChannelTotals> {
        self.disarmed.values().copied().chain(self.armed())
    }

    /// How many of them are in the store.
    #[must_use]
    pub fn sealed_records(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.events.records))
    }

    /// How many of its unsealed records cannot be read any more.
    #[must_use]
    pub fn gone_records(&self) -> u64 {
        let sealing = self.sealing.as_ref().map_or(0, |sealing| sealing.records.gone_records());
        sealing.saturating_add(self.pending.gone_records())
    }

    /// Kernel time of the oldest record that is not in the store, as far as it is known.
    #[must_use]
    pub fn oldest_unstored_boot_ns(&self) -> Option<u64> {
        let sealing = self.sealing.as_ref().and_then(|sealing| sealing.records.oldest_boot_ns());
        sealing.or_else(|| self.pending.oldest_boot_ns()).filter(|&boot_ns| boot_ns > 0)
    }

    /// The spool files that its unsealed records need.
    pub fn files(&self) -> impl Iterator<Item = FileNo> {
        let sealing = self.sealing.as_ref().into_iter().flat_map(|sealing| sealing.records.files());
        sealing.chain(self.pending.files()).chain(self.held_files())
    }

    /// Bytes that its unsealed records take in the spool.
    #[must_use]
    pub fn unsealed_bytes(&self) -> u64 {
        let sealing = self.sealing.as_ref().map_or_else(Count::default, |sealing| sealing.records.total());
        let Count { records, bytes } = sealing + self.pending.total();
        bytes.saturating_add(records.saturating_mul((HEADER_LEN + RECORD_HEADER_LEN) as u64))
    }

    /// Kernel time of the oldest record that waits for a segment.
    #[must_use]
    pub fn oldest_pending_boot_ns(&self) -> Option<u64> {
        self.pending.oldest_boot_ns()
    }

    /// The manifest, once the session has ended.
    #[must_use]
    pub fn manifest(&self) -> Option<Manifest> {
        let end = self.end.as_ref()?;
        Some(Manifest {
            weir: FORMAT_VERSION,
            session: (*self.meta).clone(),
            target: self.target.clone(),
            recorder: self.recorder.clone(),
            opened_at: self.opened_at,
            closed_at: end.closed_at,
            clock: self.clock,
            outcome: end.outcome.clone(),
            channels: self.totals(),
            segments: self.segments.clone(),
            findings: None,
        })
    }
}

/// The cookies of a channel's receiving sockets.
fn cookies(totals: &ChannelTotals) -> TapCookies {
    TapCookies { c2t: totals.c2t.cookie, t2c: totals.t2c.cookie }
}

fn sockets(totals: &ChannelTotals) -> [(SocketCookie, ChannelNo, Direction); 2] {
    let TapCookies { c2t, t2c } = cookies(totals);
    [(c2t, totals.channel, Direction::ClientToTarget), (t2c, totals.channel, Direction::TargetToClient)]
}
