//! `kill -9` of either program: its unit brings it back, by the policy that is in it.

use anyhow::{Context, Result, ensure};

use super::store_away::end_ticker;
use crate::{
    bed::{AGENT, Bed, PROXY, seconds},
    shell::quote,
    ticker,
    wait::PATIENCE,
};

/// Kills a unit's main process; gives for how many seconds nothing was ready, by the connector's own clock.
fn kill(bed: &Bed<'_>, unit: &str) -> Result<f64> {
    let before = bed.connector.main_pid(unit)?;
    let back = format!(
        "until [ \"$(systemctl show -p MainPID --value {unit})\" != {before} ] && systemctl is-active --quiet {unit}; \
         do sleep 0.05; done"
    );
    let script = format!(
        "began=$EPOCHREALTIME; kill -9 {before}; timeout {} bash -c {}; echo $began $EPOCHREALTIME",
        PATIENCE.as_secs(),
        quote(&back)
    );
    let times = bed.connector.run(&script)?;
    let (began, back) = times.trim().split_once(' ').context("two times")?;
    Ok(back.parse::<f64>()? - began.parse::<f64>()?)
}

/// The session goes on, and nothing is missing.
pub(super) fn agent(bed: &Bed<'_>) -> Result<()> {
    let mut session = bed.session(Some(&ticker::command("agent-killed")))?;
    let mut away = Vec::new();
    for lines in [20, 60] {
        session.wait_until(&format!("{lines} lines"), |received| {
            ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= lines)
        })?;
        away.push(kill(bed, AGENT)?);
    }
    session
        .wait_until("90 lines", |received| ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= 90))?;
    let pause = session.longest_pause();
    let received = end_ticker(bed, session)?;
    let stored = bed.stored("agent-killed")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.outcome().0 == "completed", "{:?}", stored.outcome());
    ensure!(stored.recording.stream(0, "stdout") == received, "what was received is not what is recorded");
    bed.note(format!(
        "back after {:.1} and {:.1} s, the longest pause between lines {}",
        away[0],
        away[1],
        seconds(pause)
    ));
    Ok(())
}

/// The session is over, its recording says so, and the next one can begin.
pub(super) fn proxy(bed: &Bed<'_>) -> Result<()> {
    let mut session = bed.session(Some(&ticker::command("proxy-killed")))?;
    session
        .wait_until("20 lines", |received| ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= 20))?;
    let away = kill(bed, PROXY)?;
    let ended = session.end()?;
    ensure!(ended.status == 255, "ssh ended with {}", ended.status);
    let stored = bed.stored("proxy-killed")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.outcome().0 == "connector_lost", "{:?}", stored.outcome());
    let recorded = stored.recording.stream(0, "stdout");
    ensure!(recorded.starts_with(&ended.output), "the user has received what is not recorded");
    bed.note(format!("back after {away:.1} s"));
    bed.assert_works("after-kill").map(drop)
}
