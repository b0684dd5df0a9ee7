//! A command on the target that prints a numbered line about every 100 ms, each with the target's own time: what is missing
//! of it can be counted, and how long something took be read off.

use anyhow::{Context, Result, ensure};

/// How often it prints, but for what the target itself takes.
pub(crate) const TICK_MS: u64 = 100;

/// The command.
pub(crate) fn command(tag: &str) -> String {
    format!(
        ": {tag}; exec bash -c 'i=0; while :; do echo \"$i $EPOCHREALTIME\"; i=$((i+1)); sleep 0.1; done'"
    )
}

/// A line: its number, and the target's time in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) number: u64,
    pub(crate) at: f64,
}

/// The whole lines in there. They are numbered from 0 without a gap, or it is an error.
pub(crate) fn ticks(bytes: &[u8]) -> Result<Vec<Tick>> {
    let text = std::str::from_utf8(bytes).context("the ticker prints text")?;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut ticks = Vec::new();
    for line in whole.lines() {
        let (number, at) = line.split_once(' ').with_context(|| format!("no tick: {line:?}"))?;
        let tick = Tick {
            number: number.parse().with_context(|| format!("no tick: {line:?}"))?,
            at: at.parse().with_context(|| format!("no tick: {line:?}"))?,
        };
        ensure!(tick.number == ticks.len() as u64, "line {} follows line {}", tick.number, ticks.len());
        ticks.push(tick);
    }
    Ok(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_read_and_a_gap_is_an_error() {
        let read = ticks(b"0 1.5\n1 1.75\n2 1.9").expect("well-formed");
        assert_eq!(read, [Tick { number: 0, at: 1.5 }, Tick { number: 1, at: 1.75 }]);
        assert_eq!(ticks(b"").expect("nothing"), []);
        assert_eq!(ticks(b"0 1.5\n2 1.75\n").expect_err("a gap").to_string(), "line 2 follows line 1");
        assert!(ticks(b"0 1.5\nx\n").is_err());
    }
}
