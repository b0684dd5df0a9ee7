//! The connector is restarted in mid-session, as an administrator does: whatever the user had received is in the bucket
//! afterwards, and the recording ends with the reason.

use anyhow::{Result, ensure};

use crate::{
    bed::{Bed, PROXY},
    ticker,
};

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    // What runs has this long to end by itself; here nothing does.
    bed.configure(PROXY, &[("shutdown_grace_ms", "3000")])?;
    let mut session = bed.session(Some(&ticker::command("rebooted")))?;
    session
        .wait_until("20 lines", |received| ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= 20))?;
    bed.connector.reboot()?;
    let ended = session.end()?;
    ensure!(ended.status == 255, "ssh ended with {}", ended.status);
    ensure!(ended.said.contains("the connector is shutting down"), "the user reads: {}", ended.said);

    let stored = bed.stored("rebooted")?;
    let complete = bed.assert_intact(&stored)?;
    let (kind, reason) = stored.outcome();
    ensure!(kind == "ended" && reason.starts_with("the connector is shutting down"), "{kind} {reason}");
    let recorded = stored.recording.stream(0, "stdout");
    ensure!(recorded.starts_with(&ended.output), "the user has received what is not recorded");
    ticker::ticks(&recorded)?;
    let undelivered = recorded.len() - ended.output.len();
    bed.note(format!(
        "{} bytes received, {undelivered} more recorded, kernel's counts complete: {complete}",
        ended.output.len()
    ));
    bed.assert_works("after-reboot").map(drop)
}
