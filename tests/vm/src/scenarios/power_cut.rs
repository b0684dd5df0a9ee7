//! The connector loses its power in mid-session: what is missing is at most what was not flushed yet
//! (`flush_interval_ms`), the recording says that the connector was lost, and what was in the bucket before is what is there
//! now.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    bed::{AGENT, Bed},
    stored::Store,
    ticker::{self, Tick},
};

/// The agent's default.
const FLUSH_INTERVAL_SECONDS: f64 = 0.2;
/// What is beyond the interval. The agent flushes when the interval is over and it is run: a flush takes its time, too, and on
/// emulated processors that share two busy cores either can wait for a second. What is measured is in the notes.
const SLACK_SECONDS: f64 = 3.0;
/// Long, so that what is in question lies in the spool alone: an agent that flushes only with its segments loses more than the slack.
const SEGMENT_MAX_AGE_MS: &str = "30000";
/// Lines that have come since the last segment when the power goes: some ten seconds.
const UNSEALED_LINES: usize = 80;
/// How long nothing may come until everything has that was on its way when the power went.
const QUIET: Duration = Duration::from_secs(3);

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    bed.configure(AGENT, &[("segment_max_age_ms", SEGMENT_MAX_AGE_MS)])?;
    let mut session = bed.session(Some(&ticker::command("cut-off")))?;
    let name = bed.only_session()?;
    let sealed = ticker::ticks(&session.received())?.len();
    session.wait_until("lines that are in no segment", |received| {
        ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= sealed + UNSEALED_LINES)
    })?;
    let segments = bed.assert_unfinished(&name)?;
    ensure!(segments == 1, "{segments} segments are verified: what was said since the first is sealed, too");
    let before = digests(bed, &name)?;

    bed.connector.cut_power()?;
    // Nothing tells the user; the machine does not answer any more. What it had sent may still be on its way.
    session.wait_for_quiet(QUIET)?;
    let received = session.received();
    drop(session);
    bed.assert_unfinished(&name).context("while the connector is off")?;
    bed.connector.switch_on()?;

    let stored = bed.stored("cut-off")?;
    ensure!(stored.name == name, "the session moved to {}", stored.name);
    let complete = bed.assert_intact(&stored)?;
    ensure!(!complete, "the kernel's counts went with the node, and the report calls the recording complete");
    ensure!(stored.outcome().0 == "connector_lost", "{:?}", stored.outcome());
    let channel = &stored.recording.manifest["channels"][0];
    ensure!(channel["t2c"]["kernel"].is_null(), "the kernel's counts: {channel}");
    let recorded = stored.recording.stream(0, "stdout");
    bed.note(tail(&received, &recorded)?);

    let after = digests(bed, &name)?;
    let kept = before.lines().all(|line| after.lines().any(|other| other == line));
    ensure!(kept, "what was in the bucket before the cut is not what is there now:\n{before}\n{after}");
    bed.assert_works("after-power-cut")?;
    let restarts = bed.connector.unit(AGENT, "NRestarts")?;
    ensure!(restarts == "0", "the agent was started {restarts} times more than once");
    Ok(())
}

/// What is missing at the end, by the target's clock; an error if it is more than may be.
fn tail(received: &[u8], recorded: &[u8]) -> Result<String> {
    let (received, recorded) = (ticker::ticks(received)?, ticker::ticks(recorded)?);
    let common = received.len().min(recorded.len());
    ensure!(received[..common] == recorded[..common], "what is recorded is not what was received");
    let (Some(last_received), Some(last_recorded)) = (received.last(), recorded.last()) else {
        anyhow::bail!("{} lines received, {} recorded", received.len(), recorded.len())
    };
    let Tick { at, .. } = last_recorded;
    let missing = received.len().saturating_sub(recorded.len());
    let seconds = (last_received.at - at).max(0.0);
    ensure!(
        seconds <= FLUSH_INTERVAL_SECONDS + SLACK_SECONDS,
        "{missing} lines of {seconds:.2} s are missing; flush_interval_ms permits {FLUSH_INTERVAL_SECONDS} s"
    );
    Ok(format!(
        "{missing} of {} lines missing, {seconds:.2} s by the target's clock ({FLUSH_INTERVAL_SECONDS} s are stated)",
        received.len()
    ))
}

fn digests(bed: &Bed<'_>, session: &str) -> Result<String> {
    let objects = Store::objects(&bed.store, session)?;
    bed.store.run(&format!("cd {}/{session}; sha256sum {}", crate::bed::OBJECTS, objects.join(" ")))
}
