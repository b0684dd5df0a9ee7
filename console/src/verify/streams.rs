//! Follows the streams of a recording across its segments: one direction of one channel each.
//!
//! A stream's frames are numbered from 0 and their kernel times never go back. Where numbers are missing, a gap event
//! stands in their place, and the session's capture policy has to permit that. Across streams nothing is
//! said: records of different sockets reach the ring nearly, but not exactly, in the order of their times.

use std::collections::HashMap;

use weir_common::{
    frame::Direction,
    recording::{Count, Event, Gap, What},
    session::{CapturePolicy, ChannelNo},
};

use super::report::Gaps;

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
    passed: Count,
}

/// All streams of a session.
pub(super) struct Streams {
    streams: HashMap<StreamId, Stream>,
    /// The manifest's channels; `None` if there is no manifest.
    known: Option<Vec<ChannelNo>>,
    /// `None` as long as nothing says it.
    policy: Option<CapturePolicy>,
    gaps: Gaps,
    complete: bool,
}

impl Streams {
    /// Nothing seen yet; `known` are the channels that may turn up, and `policy` says whether gaps may.
    pub(super) fn new(mut known: Option<Vec<ChannelNo>>, policy: Option<CapturePolicy>) -> Self {
        if let Some(known) = &mut known {
            known.sort_unstable();
        }
        Self { streams: HashMap::new(), known, policy, gaps: Gaps::default(), complete: true }
    }

    /// Takes the policy from where it is told, unless it is known.
    pub(super) fn learn_policy(&mut self, policy: CapturePolicy) {
        self.policy.get_or_insert(policy);
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
        let (frames, problem_of_gap) = match &event.what {
            What::Gap(gap) => {
                self.gaps.add(gap);
                stream.passed.records = stream.passed.records.saturating_add(gap.records);
                stream.passed.bytes = stream.passed.bytes.saturating_add(gap.bytes);
                (gap.records, problem_of_gap(gap, event.t, stream.last_t, self.policy))
            }
            _ => {
                stream.accepted.add(event.message_bytes());
                (1, None)
            }
        };
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
            _ => problem_of_gap,
        };
        let after = event.seq.saturating_add(frames);
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

    /// What a stream's frames amount to.
    pub(super) fn accepted(&self, stream: StreamId) -> Count {
        self.streams.get(&stream).map_or(Count::default(), |stream| stream.accepted)
    }

    /// What a stream's gaps amount to.
    pub(super) fn passed(&self, stream: StreamId) -> Count {
        self.streams.get(&stream).map_or(Count::default(), |stream| stream.passed)
    }

    /// What all gaps amount to.
    pub(super) fn gaps(&self) -> Gaps {
        self.gaps
    }
}

/// What is wrong with a gap, besides its place.
fn problem_of_gap(gap: &Gap, t: u64, last_t: u64, policy: Option<CapturePolicy>) -> Option<String> {
    let Gap { records, bytes: _, since, cause: _ } = *gap;
    if policy == Some(CapturePolicy::FailClosed) {
        return Some(format!(
            "is a gap: {records} frames passed unrecorded, and the capture policy is fail_closed"
        ));
    }
    if records == 0 {
        return Some("is a gap in which nothing passed".to_owned());
    }
    let within = (last_t..=t).contains(&since);
    (!within).then(|| {
        format!("is a gap from kernel time {since} ns to {t} ns, and the frame before it is of {last_t} ns")
    })
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
    use weir_common::recording::GapCause;

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
        let new = || Streams::new(Some(vec![ChannelNo(0)]), None);
        assert_eq!(problems(&mut new(), &[0, 1, 2, 3]), NONE);
        assert_eq!(problems(&mut new(), &[1, 2]), [1]);
        assert_eq!(problems(&mut new(), &[0, 2, 3]), [2]);
        assert_eq!(problems(&mut new(), &[0, 1, 1, 2]), [1]);
        assert_eq!(problems(&mut new(), &[0, 2, 1, 3]), [2, 1]);
        assert_eq!(problems(&mut new(), &[0, u64::MAX, u64::MAX]), [u64::MAX]);
    }

    #[test]
    fn time_that_goes_back_and_unknown_channels_are_found() {
        let mut streams = Streams::new(Some(vec![ChannelNo(0)]), None);
        assert_eq!(streams.take(&event(0, 5)), None);
        assert!(streams.take(&event(1, 4)).expect("a problem").contains("earlier than 5 ns"));
        let other = Event { ch: ChannelNo(1), ..event(0, 5) };
        assert!(streams.take(&other).expect("a problem").contains("channel 1"));
    }

    #[test]
    fn a_gap_stands_for_its_frames_where_the_policy_permits_it_and_is_a_problem_elsewhere() {
        let gap = |seq, t, records, since| {
            let what = What::Gap(Gap { records, bytes: 100, since, cause: GapCause::RingFull });
            Event { what, ..event(seq, t) }
        };
        let new = |policy| Streams::new(Some(vec![ChannelNo(0)]), policy);
        let mut streams = new(Some(CapturePolicy::BestEffort));
        for event in [event(0, 5), gap(1, 9, 3, 6), event(4, 10), gap(5, 12, 1, 11)] {
            assert_eq!(streams.take(&event), None);
        }
        let id = (ChannelNo(0), Direction::ClientToTarget);
        assert_eq!(streams.passed(id), Count { records: 4, bytes: 200 });
        assert_eq!(streams.accepted(id).records, 2);
        assert_eq!(streams.gaps(), Gaps { gaps: 2, records: 4, bytes: 200 });
        assert!(streams.take(&event(5, 13)).expect("a problem").contains("repetition"));
        for (wrong, problem) in [
            (gap(2, 9, 3, 6), "frames are missing"),
            (gap(1, 9, 0, 6), "nothing passed"),
            (gap(1, 9, 3, 4), "the frame before it is of 5 ns"),
            (gap(1, 9, 3, 10), "to 9 ns"),
        ] {
            let mut streams = new(Some(CapturePolicy::BestEffort));
            assert_eq!(streams.take(&event(0, 5)), None);
            let found = streams.take(&wrong).expect(problem);
            assert!(found.contains(problem), "{found}");
        }
        let mut streams = new(None);
        streams.learn_policy(CapturePolicy::FailClosed);
        assert!(streams.take(&gap(0, 9, 3, 6)).expect("a problem").contains("fail_closed"));
    }

    #[test]
    fn after_events_that_could_not_be_read_numbering_starts_anew() {
        let mut streams = Streams::new(None, None);
        assert_eq!(problems(&mut streams, &[0, 1]), NONE);
        streams.lose_track();
        assert_eq!(problems(&mut streams, &[7, 8, 10]), [10]);
        assert!(!streams.is_complete());
    }
}
