//! Follows the streams of a recording across its segments: one direction of one channel each.
//!
//! A stream's frames are numbered from 0 without gap and their kernel times never go back. Across streams nothing is
//! said: records of different sockets reach the ring nearly, but not exactly, in the order of their times.

use std::collections::HashMap;

use weir_common::{
    frame::Direction,
    recording::{Count, Event},
    session::ChannelNo,
};

/// The most channels that are followed; the connector opens far fewer.
pub(super) const CHANNELS_MAX: usize = 65_536;

/// One direction of one channel.
pub(super) type StreamId = (ChannelNo, Direction);

#[derive(Default)]
struct Stream {
    /// `None` where it is not known what was missed.
    next_seq: Option<u64>,
    last_t: u64,
    accepted: Count,
}

/// All streams of a session.
pub(super) struct Streams {
    streams: HashMap<StreamId, Stream>,
    /// The manifest's channels; `None` if there is no manifest.
    known: Option<Vec<ChannelNo>>,
    complete: bool,
}

impl Streams {
    /// Nothing seen yet; `known` are the channels that may turn up.
    pub(super) fn new(mut known: Option<Vec<ChannelNo>>) -> Self {
        if let Some(known) = &mut known {
            known.sort_unstable();
        }
        Self { streams: HashMap::new(), known, complete: true }
    }

    /// Takes the next event of the recording and says what is wrong with its place in its stream.
    pub(super) fn take(&mut self, event: &Event) -> Option<String> {
        if self.known.as_ref().is_some_and(|known| known.binary_search(&event.ch).is_err()) {
            return Some(format!("belongs to channel {}, which the manifest does not name", event.ch));
        }
        let id = (event.ch, event.dir);
        if self.streams.len() >= 2 * CHANNELS_MAX && !self.streams.contains_key(&id) {
            return Some(format!(
                "belongs to channel {}, one more than the {CHANNELS_MAX} that are followed",
                event.ch
            ));
        }
        let fresh = Stream { next_seq: self.complete.then_some(0), ..Stream::default() };
        let stream = self.streams.entry(id).or_insert(fresh);
        stream.accepted.add(event.message_bytes());
        let problem = match stream.next_seq {
            Some(next) if event.seq > next => {
                Some(format!("follows frame {}: frames are missing", Before(next)))
            }
            Some(next) if event.seq < next => {
                Some(format!("comes after frame {}: it is a repetition or out of order", Before(next)))
            }
            _ if event.t < stream.last_t => Some(format!(
                "has kernel time {} ns, earlier than {} ns of the frame before it",
                event.t, stream.last_t
            )),
            _ => None,
        };
        let after = event.seq.saturating_add(1);
        stream.next_seq = Some(stream.next_seq.map_or(after, |next| next.max(after)));
        stream.last_t = event.t;
        problem
    }

    /// Notes that events could not be read: what follows can't be expected to join on to what came before.
    pub(super) fn lose_track(&mut self) {
        self.complete = false;
        self.streams.values_mut().for_each(|stream| stream.next_seq = None);
    }

    /// Whether every event was read.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Kernel time of the newest event; 0 if there is none.
    pub(super) fn last_t(&self) -> u64 {
        self.streams.values().map(|stream| stream.last_t).max().unwrap_or_default()
    }

    /// What a stream amounts to.
    pub(super) fn accepted(&self, stream: StreamId) -> Count {
        self.streams.get(&stream).map_or(Count::default(), |stream| stream.accepted)
    }
}

/// The frame before this sequence number, in words.
struct Before(u64);

impl std::fmt::Display for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.checked_sub(1) {
            Some(before) => write!(f, "{before}"),
            None => f.write_str("none at all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::recording::What;

    use super::*;

    const NONE: [u64; 0] = [];

    fn event(seq: u64, t: u64) -> Event {
        Event { t, dir: Direction::ClientToTarget, ch: ChannelNo(0), seq, len: 0, what: What::Eof }
    }

    fn problems(streams: &mut Streams, seqs: &[u64]) -> Vec<u64> {
        seqs.iter().copied().filter(|&seq| streams.take(&event(seq, 1)).is_some()).collect()
    }

    #[test]
    fn gaps_repetitions_and_swaps_are_found_where_they_are() {
        let new = || Streams::new(Some(vec![ChannelNo(0)]));
        assert_eq!(problems(&mut new(), &[0, 1, 2, 3]), NONE);
        assert_eq!(problems(&mut new(), &[1, 2]), [1]);
        assert_eq!(problems(&mut new(), &[0, 2, 3]), [2]);
        assert_eq!(problems(&mut new(), &[0, 1, 1, 2]), [1]);
        assert_eq!(problems(&mut new(), &[0, 2, 1, 3]), [2, 1]);
        assert_eq!(problems(&mut new(), &[0, u64::MAX, u64::MAX]), [u64::MAX]);
    }

    #[test]
    fn time_that_goes_back_and_unknown_channels_are_found() {
        let mut streams = Streams::new(Some(vec![ChannelNo(0)]));
        assert_eq!(streams.take(&event(0, 5)), None);
        assert!(streams.take(&event(1, 4)).expect("a problem").contains("earlier than 5 ns"));
        let other = Event { ch: ChannelNo(1), ..event(0, 5) };
        assert!(streams.take(&other).expect("a problem").contains("channel 1"));
    }

    #[test]
    fn after_events_that_could_not_be_read_numbering_starts_anew() {
        let mut streams = Streams::new(None);
        assert_eq!(problems(&mut streams, &[0, 1]), NONE);
        streams.lose_track();
        assert_eq!(problems(&mut streams, &[7, 8, 10]), [10]);
        assert!(!streams.is_complete());
    }
}
