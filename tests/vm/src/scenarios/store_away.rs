//! The store is away for minutes: first it takes connections and says nothing, then it refuses them. Sessions go on, begin and end,
//! the spool grows. When it is back everything is stored, once.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::RngExt;

use crate::{
    bed::{Bed, S3},
    feeder::digest,
    ticker,
    wait::{PATIENCE, until},
};

/// How long it hangs, and how long it is down then.
const HALF: Duration = Duration::from_secs(75);

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    let mut session = bed.session(Some(&ticker::command("bridged")))?;
    session.wait_for("\n")?;
    bed.only_session()?;
    let spool = bed.agent_metric("weir_agent_spool_bytes")?;
    bed.store.run(&format!("systemctl kill --signal=STOP {S3}"))?;
    let lines = ticker::ticks(&session.received())?.len();

    // One that begins and ends while the store is away, with something in it.
    let mut data = vec![0; 2 << 20];
    rand::rng().fill(&mut data[..]);
    let mut bulk = bed.session(Some(": meanwhile; sha256sum"))?;
    bulk.send(&data)?;
    bulk.end_input();
    let bulk = bulk.end()?;
    ensure!(bulk.output == format!("{}  -\n", digest(&data)).as_bytes(), "{} {}", bulk.status, bulk.said);
    bed.store.let_pass(HALF)?;
    // With SIGCONT behind the SIGTERM, or it would hang on for the unit's timeout.
    bed.store.run(&format!("systemctl kill --signal=KILL {S3}; systemctl stop {S3}"))?;
    bed.store.let_pass(HALF)?;
    let grown = bed.agent_metric("weir_agent_spool_bytes")?;
    ensure!(grown > spool + 2e6, "the spool had {spool} bytes and has {grown}");
    ensure!(session.is_running()?, "the session ended: {}", session.said());
    let meanwhile = ticker::ticks(&session.received())?.len() - lines;
    // Half of what an idle machine would print.
    let expected = 2 * HALF.as_millis() / u128::from(ticker::TICK_MS) / 2;
    ensure!(meanwhile as u128 > expected, "only {meanwhile} lines came while the store was away");

    bed.store.run(&format!("systemctl start {S3}"))?;
    let stored = bed.stored("meanwhile")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.recording.stream(0, "stdin") == data, "what was sent is not what is recorded");
    session.end_input();
    let received = end_ticker(bed, session)?;
    let stored = bed.stored("bridged")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    let recorded = stored.recording.stream(0, "stdout");
    ensure!(recorded.starts_with(&received), "the user has received what is not recorded");
    let sessions = bed.sessions()?;
    ensure!(sessions.len() == 2, "two sessions were begun, and these are in the store: {sessions:?}");
    until("the spool has given its room back", PATIENCE, || {
        Ok((bed.agent_metric("weir_agent_spool_bytes")? <= spool.max(1e6 * 1.2)).then_some(()))
    })?;
    bed.note(format!(
        "{meanwhile} lines in {} s without a store, longest pause {:.2} s, spool {:.1} MB",
        2 * HALF.as_secs(),
        received_pause(&stored)?,
        grown / 1e6
    ));
    Ok(())
}

/// Ends a ticker on the target; gives everything the user has received of it.
pub(super) fn end_ticker(bed: &Bed<'_>, session: crate::session::Session) -> Result<Vec<u8>> {
    bed.target.run("pkill -x -f 'bash -c i=0; while .*'")?;
    Ok(session.end()?.output)
}

/// The longest time between two lines by the target's clock.
fn received_pause(stored: &crate::stored::Stored) -> Result<f64> {
    let ticks = ticker::ticks(&stored.recording.stream(0, "stdout"))?;
    Ok(ticks.windows(2).map(|pair| pair[1].at - pair[0].at).fold(0.0, f64::max))
}
