//! Moments as people write them: `2026-01-02`, `2026-01-02T15:04`, `2h`, `3d`. In UTC, as everything that `weir` prints.

use jiff::{
    Span, Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

/// Which moment a date without a time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Its beginning.
    Since,
    /// Its end.
    Until,
}

/// The moment that a text means.
///
/// # Errors
/// What can be written instead.
pub fn moment(text: &str, edge: Edge, now: Timestamp) -> Result<Timestamp, String> {
    let help = || {
        format!(
            "{text:?} is no time; write 2026-01-02, 2026-01-02T15:04 (UTC), 2026-01-02T15:04+01:00, 2h or 3d"
        )
    };
    if text.len() > TEXT_MAX {
        return Err("a time is needed, and this is too long for one".to_owned());
    }
    if let Ok(date) = text.parse::<Date>()
        && date.to_string() == text
    {
        let date = match edge {
            Edge::Since => date,
            Edge::Until => date.tomorrow().map_err(|_| help())?,
        };
        return date.to_zoned(TimeZone::UTC).map(|at| at.timestamp()).map_err(|_| help());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<DateTime>() {
        return at.to_zoned(TimeZone::UTC).map(|at| at.timestamp()).map_err(|_| help());
    }
    let ago = text.strip_suffix("ago").unwrap_or(text).trim_end();
    let span: Span = ago.parse().map_err(|_| help())?;
    let at = now.to_zoned(TimeZone::UTC).checked_sub(span.abs()).map_err(|_| help())?;
    Ok(at.timestamp())
}

const TEXT_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_times_and_how_long_ago_are_moments() {
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().expect("a time");
        for (text, edge, expected) in [
            ("2026-01-02", Edge::Since, "2026-01-02T00:00:00Z"),
            ("2026-01-02", Edge::Until, "2026-01-03T00:00:00Z"),
            ("2026-01-02T15:04", Edge::Until, "2026-01-02T15:04:00Z"),
            ("2026-01-02 15:04:05", Edge::Since, "2026-01-02T15:04:05Z"),
            ("2026-01-02T15:04:05Z", Edge::Since, "2026-01-02T15:04:05Z"),
            ("2026-01-02T15:04+01:00", Edge::Since, "2026-01-02T14:04:00Z"),
            ("2h", Edge::Since, "2026-03-02T10:00:00Z"),
            ("3d", Edge::Since, "2026-02-27T12:00:00Z"),
            ("90m ago", Edge::Until, "2026-03-02T10:30:00Z"),
            ("1mo", Edge::Since, "2026-02-02T12:00:00Z"),
        ] {
            let found = moment(text, edge, now).map(|at| at.to_string());
            assert_eq!(found.as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "99999999999y", "2", "\u{1b}[31m", &"1".repeat(200)] {
            assert!(moment(text, Edge::Since, now).is_err(), "{text:?}");
        }
    }
}
