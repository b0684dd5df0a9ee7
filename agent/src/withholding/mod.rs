//! Leaving file content out of segments, where a session's grant says that it is not to be kept.
//!
//! Which bytes of a channel are content is found out by following its transfer ([`Transfer`]) from the channel's
//! beginning on, segment after segment: [`Carried`] is what the next segment goes on from. It stands in the spool's
//! `sealed` entries and checkpoints, so that a segment has the same bytes whenever and by whomever it is encoded.
//!
//! Owns three rules.
//! - *What is left out, the recording shows to be a file transfer*: a program that the target accepted, by the name of one of
//!   those that its administrator has installed, on a channel without a terminal, and of which both sides have spoken the
//!   protocol. What comes before that is recorded, and everything of what never does it; so is everything where the request
//!   itself may have been lost.
//! - *Where the track of such a transfer is lost* (a gap, lost records, too much state, bytes that break the protocol) *nothing
//!   more of its data is kept*: the grant says that content is not to be, and what is content cannot be told any more. Sizes
//!   and digests are kept, of each event by itself.
//! - *Bounded*: so many channels, so many bytes of state.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_analysis::{
    requests::{Request, Requests},
    transfers::{ContentRange, Transfer},
};
use weir_common::{
    digest::Sha256,
    frame::{ChannelType, Direction, Header, Kind, Message},
    recording::Part,
    session::ChannelNo,
};

/// The most channels that are known at a time: as many as can be armed. The oldest of those that were closed are given
/// up first.
const CHANNELS_MAX: usize = crate::session::ARMED_MAX;
/// The most bytes of all transfers' state between two segments, as they are written. The largest are given up first, as if
/// their track were lost.
const TRANSFERS_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of a channel, as it is written, besides its transfer's state.
const CHANNEL_BYTES_MAX: usize = 320;

/// What is known of a session's channels at the end of a segment. `Debug` shows no content.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Carried(Vec<CarriedChannel>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarriedChannel {
    channel: ChannelNo,
    state: State,
    /// The state of its transfer, as the version of `weir-analysis` that made it writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transfer: Option<String>,
}

/// What is known of a channel, besides its transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    used_for: Use,
    /// The sequence numbers that the next frames have: from the client, from the target.
    next: [u64; 2],
    /// Requests that the target has not answered yet.
    unanswered: u32,
    /// Which of the answers that are to come is the one to the program's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<u32>,
    /// Whether a terminal was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    terminal: bool,
    /// Who has closed it.
    closed: [bool; 2],
    /// Who has spoken its protocol.
    spoken: [bool; 2],
}

/// What a channel is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Use {
    /// No program was asked for yet, or the target refused it.
    Nothing,
    /// Anything but files: all of it is recorded.
    Other,
    /// A file transfer that is followed, if the target accepts it and both sides speak its protocol.
    Files,
    /// A file transfer whose track is lost: nothing of it is recorded.
    Lost,
}

/// What is left out of a segment, and known of a session's channels meanwhile.
pub struct Withholding {
    channels: BTreeMap<ChannelNo, Channel>,
    ranges: Vec<ContentRange>,
}

struct Channel {
    state: State,
    transfer: Option<Box<Transfer>>,
}

impl Carried {
    /// Whether nothing is known, as at a session's beginning.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The most bytes that what the next segment goes on from may have as it is written, if so many channels are opened until
    /// then.
    #[must_use]
    pub fn next_bytes_max(&self, opened: usize) -> usize {
        TRANSFERS_BYTES_MAX + (self.0.len() + opened).min(CHANNELS_MAX) * CHANNEL_BYTES_MAX
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carried({} channels)", self.0.len())
    }
}

impl Withholding {
    /// Goes on where the segment before ended.
    #[must_use]
    pub fn after(carried: &Carried) -> Self {
        let taken_up = |CarriedChannel { channel, state, transfer }: &CarriedChannel| {
            let transfer = transfer.as_deref().and_then(|text| serde_json::from_str(text).ok()).map(Box::new);
            let mut state = *state;
            if state.used_for == Use::Files && transfer.is_none() {
                // Another version wrote it.
                state.lose_track();
            }
            (*channel, Channel { state, transfer })
        };
        Self { channels: carried.0.iter().take(CHANNELS_MAX).map(taken_up).collect(), ranges: Vec::new() }
    }

    /// Takes the next frame, and says what is to be recorded of its body, if that is not all of it.
    pub fn frame(
        &mut self,
        channel: ChannelNo,
        direction: Direction,
        header: Header,
        body: &[u8],
    ) -> Option<Vec<Part>> {
        let Header { kind, len: _, seq } = header;
        if kind == Kind::Open && direction == Direction::ClientToTarget {
            let is_session = matches!(
                Message::decode(kind, Bytes::copy_from_slice(body)),
                Ok(Message::Open(ChannelType::Session))
            );
            if is_session {
                self.make_room();
                self.channels.insert(channel, Channel::new());
            }
        }
        let known = self.channels.get_mut(&channel)?;
        known.in_sequence(direction, seq);
        if matches!(kind, Kind::Stdin | Kind::Stdout) {
            return known.data(direction, body, &mut self.ranges);
        }
        known.control(direction, kind, body);
        let State { used_for, closed, .. } = known.state;
        // Who asked for a channel can ask nothing more of it once it has closed it, but a transfer's data may be on its way.
        let is_over = closed == [true; 2] || (closed[0] && !matches!(used_for, Use::Files | Use::Lost));
        if is_over {
            self.channels.remove(&channel);
        }
        None
    }

    /// What the next segment goes on from.
    ///
    /// # Errors
    /// If a transfer's state cannot be written.
    pub fn carried(self) -> Result<Carried, serde_json::Error> {
        let mut carried = Vec::with_capacity(self.channels.len());
        for (no, Channel { state, transfer }) in self.channels {
            let transfer = transfer.map(|transfer| serde_json::to_string(&transfer)).transpose()?;
            carried.push(CarriedChannel { channel: no, state, transfer });
        }
        give_up_the_largest(&mut carried);
        Ok(Carried(carried))
    }

    /// Gives a channel up if there are too many: one that is closed, the oldest one if there is none.
    fn make_room(&mut self) {
        if self.channels.len() >= CHANNELS_MAX {
            let closed = self.channels.iter().find(|(_, channel)| channel.state.closed != [false; 2]);
            let given_up = closed.or_else(|| self.channels.first_key_value()).map(|(&no, _)| no);
            given_up.map(|no| self.channels.remove(&no));
        }
    }
}

/// Keeps the state of transfers within its bound.
fn give_up_the_largest(channels: &mut [CarriedChannel]) {
    let bytes =
        |channels: &[CarriedChannel]| -> usize { channels.iter().map(CarriedChannel::transfer_bytes).sum() };
    while bytes(channels) > TRANSFERS_BYTES_MAX {
        let largest = channels.iter_mut().max_by_key(|channel| channel.transfer_bytes());
        let Some(largest) = largest else { return };
        largest.state.lose_track();
        largest.transfer = None;
    }
}

impl CarriedChannel {
    fn transfer_bytes(&self) -> usize {
        let written =
            |transfer: &String| serde_json::to_string(transfer).map_or(transfer.len(), |text| text.len());
        self.transfer.as_ref().map_or(0, written)
    }
}

impl State {
    fn requests(&self) -> Requests {
        Requests { unanswered: self.unanswered, answer: self.answer, terminal: self.terminal }
    }

    fn keep_requests(&mut self, requests: Requests) {
        let Requests { unanswered, answer, terminal } = requests;
        (self.unanswered, self.answer, self.terminal) = (unanswered, answer, terminal);
    }

    /// Whether the recording shows a file transfer: the target has accepted it, and both sides speak its protocol.
    fn is_shown(&self) -> bool {
        self.used_for == Use::Files && self.answer.is_none() && self.spoken == [true; 2]
    }

    /// It is not known any more what is content: nothing is kept of what was shown to be a transfer, everything of the rest.
    fn lose_track(&mut self) {
        self.used_for = match self.used_for {
            Use::Files if self.is_shown() => Use::Lost,
            Use::Files => Use::Other,
            used_for => used_for,
        };
    }
}

impl Channel {
    fn new() -> Self {
        let state = State {
            used_for: Use::Nothing,
            next: [0; 2],
            unanswered: 0,
            answer: None,
            terminal: false,
            closed: [false; 2],
            spoken: [false; 2],
        };
        Self { state, transfer: None }
    }

    /// Notes which frame it is, and that some are missing if it is not the next.
    fn in_sequence(&mut self, direction: Direction, seq: u64) {
        let next = &mut self.state.next[side(direction)];
        let missing = *next != seq;
        *next = seq.saturating_add(1);
        if missing {
            self.state.lose_track();
            if self.state.used_for == Use::Nothing {
                // A program may be among what is missing, and the answers that come may be to that.
                self.state.used_for = Use::Other;
            }
            let mut requests = self.state.requests();
            requests.lose_track();
            self.state.keep_requests(requests);
            self.transfer = None;
        }
    }

    /// A frame that is no data.
    fn control(&mut self, direction: Direction, kind: Kind, body: &[u8]) {
        match (direction, kind) {
            (_, Kind::Close) => self.state.closed[side(direction)] = true,
            (Direction::TargetToClient, Kind::OpenFailure) => self.state.closed = [true; 2],
            (Direction::TargetToClient, Kind::Success | Kind::Failure) => {
                self.answered(kind == Kind::Success);
            }
            (Direction::ClientToTarget, _) => self.asked(kind, body),
            _ => {}
        }
    }

    fn asked(&mut self, kind: Kind, body: &[u8]) {
        let Some(request) = Request::of_kind(kind) else { return };
        let state = &mut self.state;
        let mut requests = state.requests();
        // A server runs one program: who asks for another one behind it cannot change what the first one is.
        let is_its = requests.asked(request, state.used_for != Use::Nothing);
        state.keep_requests(requests);
        if !is_its {
            return;
        }
        let transfer = match kind {
            _ if state.terminal => None,
            Kind::Exec => Transfer::for_command(body),
            Kind::Subsystem => match Message::decode(kind, Bytes::copy_from_slice(body)) {
                Ok(Message::Subsystem(name)) => Transfer::for_subsystem(&name),
                _ => None,
            },
            _ => None,
        };
        // A program in a folder of the user's own may be anything.
        let transfer = transfer.filter(Transfer::has_content);
        state.used_for = if transfer.is_some() { Use::Files } else { Use::Other };
        self.transfer = transfer.map(Box::new);
    }

    fn answered(&mut self, success: bool) {
        let mut requests = self.state.requests();
        let runs = requests.answered(success);
        self.state.keep_requests(requests);
        if runs == Some(false) {
            (self.state.used_for, self.transfer) = (Use::Nothing, None);
        }
    }

    fn data(
        &mut self,
        direction: Direction,
        body: &[u8],
        ranges: &mut Vec<ContentRange>,
    ) -> Option<Vec<Part>> {
        match (&mut self.transfer, self.state.used_for) {
            (_, Use::Nothing | Use::Other) => None,
            (Some(transfer), Use::Files) => {
                ranges.clear();
                transfer.content(direction, body, ranges);
                if transfer.is_followed() {
                    self.state.spoken[side(direction)] |= !body.is_empty();
                    // Clients wait for the target's first words. Who does not may have no transfer.
                    return self.state.is_shown().then(|| parts(body, ranges)).flatten();
                }
                self.transfer = None;
                self.state.lose_track();
                (self.state.used_for == Use::Lost).then(|| whole(body)).flatten()
            }
            (_, Use::Files | Use::Lost) => whole(body),
        }
    }
}

fn side(direction: Direction) -> usize {
    usize::from(direction == Direction::TargetToClient)
}

/// Leaves all of the data out; by itself, since it is not known what it belongs to.
fn whole(body: &[u8]) -> Option<Vec<Part>> {
    (!body.is_empty()).then(|| vec![withheld(body.len(), Sha256::of(body))])
}

/// What is to be recorded of data with content in these ranges; `None` if that is all of it.
fn parts(body: &[u8], ranges: &[ContentRange]) -> Option<Vec<Part>> {
    let mut parts = Vec::with_capacity(ranges.len() * 2);
    let mut kept_from = 0;
    for ContentRange { range, sha256 } in ranges.iter().filter(|content| !content.range.is_empty()) {
        if let Some(kept) = body.get(kept_from..range.start).filter(|kept| !kept.is_empty()) {
            parts.push(Part::Kept(kept.to_vec()));
        }
        parts.push(withheld(range.len(), *sha256));
        kept_from = range.end;
    }
    if parts.is_empty() {
        return None;
    }
    if let Some(kept) = body.get(kept_from..).filter(|kept| !kept.is_empty()) {
        parts.push(Part::Kept(kept.to_vec()));
    }
    Some(parts)
}

fn withheld(len: usize, sha256: Sha256) -> Part {
    Part::Withheld { bytes: u32::try_from(len).expect("no frame has a body of 4 GiB"), sha256 }
}

#[cfg(test)]
mod tests;
