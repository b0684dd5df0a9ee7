//! Reads the points in time that a viewer names.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use weir_common::recording::Clock;

/// A point in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many nanoseconds after the start.
    After(u64),
    /// A time on the calendar.
    At(Timestamp),
    /// A time of day in UTC, the first at or after the start.
    TimeOfDay(civil::Time),
}

impl When {
    /// `+5m`, `+1h2m`, `90`, `1:30`, `1:02:03` after the start; `14:05:00Z` or a whole timestamp on the calendar.
    ///
    /// # Errors
    /// What would be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(offset) = text.strip_prefix('+') {
            return offset_ns(offset).map(Self::After).ok_or_else(|| HELP.to_owned());
        }
        if let Some(time) = text.strip_suffix('Z').and_then(|time| time.parse().ok()) {
            return Ok(Self::TimeOfDay(time));
        }
        let at = || text.parse().ok().map(Self::At);
        offset_ns(text).map(Self::After).or_else(at).ok_or_else(|| HELP.to_owned())
    }

    /// Nanoseconds after kernel time `start`; `None` if there is no clock to tell, or it is before the start.
    #[must_use]
    pub fn after(self, start: u64, clock: Option<Clock>) -> Option<u64> {
        let started = || clock.and_then(|clock| clock.at(start));
        let at = match self {
            Self::After(ns) => return Some(ns),
            Self::At(at) => at,
            Self::TimeOfDay(time) => {
                let begun = started()?.to_zoned(TimeZone::UTC);
                let at = begun.date().to_datetime(time);
                let at = if at < begun.datetime() {
                    at.checked_add(SignedDuration::from_hours(24)).ok()?
                } else {
                    at
                };
                at.to_zoned(TimeZone::UTC).ok()?.timestamp()
            }
        };
        u64::try_from(at.duration_since(started()?).as_nanos()).ok()
    }
}

const HELP: &str =
    "a time is needed: +5m, 90 (seconds), 1:30, 1:02:03 after the start, or 14:05:00Z, 2026-01-02T14:05:00Z";

/// Seconds, `m:s`, `h:m:s` or `1h2m3s`.
fn offset_ns(text: &str) -> Option<u64> {
    let colons = text.split(':').map(|part| part.parse::<f64>().ok()).collect::<Option<Vec<_>>>();
    let seconds = match colons.as_deref() {
        Some(parts @ ([_] | [_, _] | [_, _, _])) => {
            parts.iter().fold(0.0, |seconds, part| seconds * 60.0 + part)
        }
        Some(_) => return None,
        None => text.parse::<SignedDuration>().ok()?.as_secs_f64(),
    };
    let ns = std::time::Duration::try_from_secs_f64(seconds).ok()?.as_nanos();
    u64::try_from(ns).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn times_are_understood_as_people_write_them() {
        for (text, seconds) in [
            ("+5m", 300),
            ("90", 90),
            ("1:30", 90),
            ("1:02:03", 3723),
            ("+1h2m3s", 3723),
            ("+7", 7),
            ("2s", 2),
        ] {
            assert_eq!(When::parse(text), Ok(When::After(seconds * S)), "{text}");
        }
        for wrong in ["", "x", "-5", "+-5", "1:2:3:4", "nan", "inf", "1e300", "25:00:00Z", "+"] {
            assert!(When::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn calendar_times_are_turned_into_offsets_by_the_clock() {
        let clock = Clock { boot_ns: 5 * S, at: "2026-01-02T23:59:00Z".parse().expect("a time") };
        let after = |text| When::parse(text).expect("a time").after(10 * S, Some(clock));
        assert_eq!(after("2026-01-02T23:59:10Z"), Some(5 * S));
        assert_eq!(after("23:59:30Z"), Some(25 * S));
        assert_eq!(after("00:00:05Z"), Some(60 * S), "the next day");
        assert_eq!(after("2026-01-02T23:00:00Z"), None, "before the start");
        assert_eq!(When::parse("23:59:30Z").expect("a time").after(0, None), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_entered_panics(text in ".{0,20}", start: u64) {
            let clock = Clock { boot_ns: 0, at: Timestamp::MAX };
            let _ = When::parse(&text).map(|when| when.after(start, Some(clock)));
        }
    }
}
