//! How often somebody may try: limits per source address.
//!
//! A source is an IPv4 address or an IPv6 /64, which is what one customer has. A source whose logins fail too often is
//! refused at accept for a while, and for twice as long each time it happens again soon. What is remembered has a bound:
//! the source that has failed least recently is forgotten first. [`Table`] is pure, with the time as an argument.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::limits;

/// How often one source may try.
#[derive(Clone, Debug)]
pub struct SourceLimits {
    /// Logins that may fail within the window; 0 for any number.
    pub failures_max: u32,
    /// The window, and the first time that a source is refused for.
    pub window: Duration,
    /// Whom no limit concerns.
    pub exempt: Vec<IpNet>,
}

/// What counts as one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// What is remembered of a source.
#[derive(Debug)]
struct Record {
    /// When the window began.
    since: Instant,
    /// Failures in the window.
    failures: u32,
    /// Refused until then.
    until: Option<Instant>,
    /// How long it was refused for last.
    refused_for: Duration,
    /// Its place in [`Table::by_age`].
    turn: u64,
}

/// Failures by source.
#[derive(Debug, Default)]
pub struct Table {
    records: HashMap<Source, Record>,
    /// The sources in the order of their last failure.
    by_age: BTreeMap<u64, Source>,
    turns: u64,
}

impl Table {
    /// How much longer this source is refused, if it is.
    #[must_use]
    pub fn refused(&self, source: Source, now: Instant) -> Option<Duration> {
        let left = self.records.get(&source)?.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Notes failures of a source. Returns for how long it is refused from now on, if they were too many.
    pub fn fail(
        &mut self,
        source: Source,
        failures: u32,
        limits: &SourceLimits,
        now: Instant,
    ) -> Option<Duration> {
        let turn = self.next_turn(source);
        let fresh = || Record { since: now, failures: 0, until: None, refused_for: Duration::ZERO, turn };
        let record = self.records.entry(source).or_insert_with(fresh);
        record.turn = turn;
        if now.saturating_duration_since(record.since) >= limits.window {
            (record.since, record.failures) = (now, 0);
        }
        record.failures = record.failures.saturating_add(failures);
        if record.failures < limits.failures_max {
            return None;
        }
        let again = record.until.is_some_and(|until| {
            now.saturating_duration_since(until) < record.refused_for.max(limits.window)
        });
        let refused_for = if again { record.refused_for * 2 } else { limits.window };
        record.refused_for = refused_for.min(REFUSED_MAX.max(limits.window));
        record.until = Some(now + record.refused_for);
        record.failures = 0;
        Some(record.refused_for)
    }

    /// Makes the source the youngest, and room for it.
    fn next_turn(&mut self, source: Source) -> u64 {
        if let Some(record) = self.records.get(&source) {
            self.by_age.remove(&record.turn);
        } else if self.records.len() >= limits::SOURCES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.records.remove(&oldest);
        }
        self.turns += 1;
        self.by_age.insert(self.turns, source);
        self.turns
    }
}

/// The longest time that a source is refused for.
const REFUSED_MAX: Duration = Duration::from_secs(3600);

/// The limits, and who is at them.
#[derive(Debug)]
pub struct Sources {
    limits: SourceLimits,
    table: Arc<Mutex<Table>>,
}

impl Sources {
    /// With these limits.
    #[must_use]
    pub fn new(limits: SourceLimits) -> Arc<Self> {
        Arc::new(Self { limits, table: Arc::default() })
    }

    /// What is remembered, under other limits.
    #[must_use]
    pub fn with_limits(&self, limits: SourceLimits) -> Arc<Self> {
        Arc::new(Self { limits, table: self.table.clone() })
    }

    /// How much longer this peer's source is refused, if it is.
    #[must_use]
    pub fn refused(&self, peer: IpAddr) -> Option<Duration> {
        if self.is_exempt(peer) { None } else { self.table().refused(Source::from(peer), Instant::now()) }
    }

    /// Notes that a login of this peer failed.
    pub fn failed(&self, peer: IpAddr) {
        if self.limits.failures_max == 0 || self.is_exempt(peer) {
            return;
        }
        let refused = self.table().fail(Source::from(peer), 1, &self.limits, Instant::now());
        if let Some(refused_for) = refused {
            tracing::warn!(%peer, ?refused_for, "too many logins have failed: its source is refused for a while");
        }
    }

    /// Whether no limit concerns this peer.
    #[must_use]
    pub fn is_exempt(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.limits.exempt.iter().any(|network| network.contains(&peer))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn source_limits() -> SourceLimits {
        SourceLimits { failures_max: 5, window: MINUTE, exempt: Vec::new() }
    }

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_source_that_fails_too_often_in_a_window_is_refused_longer_each_time() {
        let (mut table, limits, start) = (Table::default(), source_limits(), Instant::now());
        let (eve, ada) = (source("192.0.2.1"), source("192.0.2.2"));
        for _ in 0..4 {
            assert_eq!(table.fail(eve, 1, &limits, start), None);
        }
        assert_eq!(table.refused(eve, start), None);
        assert_eq!(table.fail(eve, 1, &limits, start), Some(MINUTE));
        assert_eq!(table.refused(eve, start + MINUTE / 2), Some(MINUTE / 2));
        assert_eq!(table.refused(ada, start), None);
        let later = start + MINUTE;
        assert_eq!(table.refused(eve, later), None);
        assert_eq!(table.fail(eve, 5, &limits, later), Some(2 * MINUTE));
        let much_later = later + 2 * MINUTE + 2 * MINUTE;
        assert_eq!(table.fail(eve, 5, &limits, much_later), Some(MINUTE), "forgiven");
    }

    #[test]
    fn failures_of_another_window_do_not_count_and_the_longest_refusal_has_a_bound() {
        let (mut table, limits, mut now) = (Table::default(), source_limits(), Instant::now());
        let eve = source("192.0.2.1");
        for _ in 0..20 {
            assert_eq!(table.fail(eve, 4, &limits, now), None);
            now += MINUTE;
        }
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            longest = table.fail(eve, 5, &limits, now).expect("refused");
            now += longest;
        }
        assert_eq!(longest, REFUSED_MAX);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_the_oldest_goes_first() {
        let (mut table, limits, now) = (Table::default(), source_limits(), Instant::now());
        let numbered = |n: u32| Source::from(IpAddr::from(n.to_be_bytes()));
        let sources = u32::try_from(limits::SOURCES).expect("small");
        for n in 0..sources {
            table.fail(numbered(n), 5, &limits, now);
        }
        table.fail(numbered(0), 1, &limits, now);
        table.fail(numbered(sources), 1, &limits, now);
        assert_eq!((table.records.len(), table.by_age.len()), (limits::SOURCES, limits::SOURCES));
        assert!(table.refused(numbered(0), now).is_some(), "it failed again");
        assert!(table.refused(numbered(1), now).is_none(), "forgotten");
    }

    #[test]
    fn a_source_is_refused_unless_it_is_exempt_and_other_limits_forget_nothing() {
        let exempt = || vec!["203.0.113.0/24".parse().expect("a network")];
        let sources = Sources::new(SourceLimits { exempt: exempt(), ..source_limits() });
        let [eve, proxy] = ["192.0.2.3", "203.0.113.9"].map(|peer| peer.parse().expect("an address"));
        for peer in [eve, proxy].repeat(5) {
            sources.failed(peer);
        }
        assert!(sources.refused(eve).is_some() && sources.refused(proxy).is_none());
        let reloaded = sources.with_limits(SourceLimits { exempt: Vec::new(), ..source_limits() });
        assert!(reloaded.refused(eve).is_some());
        (0..5).for_each(|_| reloaded.failed(proxy));
        assert!(sources.refused(proxy).is_none() && reloaded.refused(proxy).is_some());
    }

    proptest! {
        #[test]
        fn the_table_and_its_order_agree(failures in prop::collection::vec((0_u8..20, 0_u32..7, 0_u64..90), 0..200)) {
            let (mut table, limits, mut now) = (Table::default(), source_limits(), Instant::now());
            for (n, count, seconds) in failures {
                now += Duration::from_secs(seconds);
                table.fail(Source::from(IpAddr::from([10, 0, 0, n])), count, &limits, now);
                prop_assert_eq!(table.records.len(), table.by_age.len());
                for (turn, source) in &table.by_age {
                    prop_assert_eq!(table.records[source].turn, *turn);
                }
            }
        }
    }
}
