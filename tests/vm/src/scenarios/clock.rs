//! The connector's clock jumps in mid-session: the kernel's time, by which events are stamped, does not. Expiry goes by the
//! calendar.

use anyhow::{Context, Result, ensure};

use super::store_away::end_ticker;
use crate::{
    bed::{AGENT, Bed, GRANT},
    session::Session,
    ticker,
};

/// An hour forwards, two back, and right again. A clock that is wrong by more than a quarter of an hour is one that S3 does not
/// take anything from; what is not stored meanwhile is stored then.
pub(super) fn jumps(bed: &Bed<'_>) -> Result<()> {
    let before = bed.connector.end_of_journal()?;
    let mut session = bed.session(Some(&ticker::command("jumped")))?;
    let lines = |session: &mut Session, lines: usize| {
        session.wait_until(&format!("{lines} lines"), |received| {
            ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= lines)
        })
    };
    lines(&mut session, 10)?;
    bed.connector.run("date -s '+1 hour'")?;
    lines(&mut session, 50)?;
    bed.connector.run("date -s '-2 hours'")?;
    lines(&mut session, 100)?;
    let received = end_ticker(bed, session)?;
    bed.connector.wait_for_log(&before, AGENT, "session closed")?;
    bed.set_clocks()?;

    let stored = bed.stored("jumped")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.recording.stream(0, "stdout") == received, "what was received is not what is recorded");
    let ticks = ticker::ticks(&received)?;
    let by_the_target = ticks.last().context("lines")?.at - ticks.first().context("lines")?.at;
    let by_the_kernel = stored.seconds_by_the_kernel()?;
    ensure!(
        (by_the_kernel - by_the_target).abs() < 30.0,
        "{by_the_kernel:.1} s by the connector's kernel, {by_the_target:.1} s by the target's clock"
    );
    let duration = duration_seconds(bed, &stored.recording.manifest)?;
    ensure!(
        (duration - by_the_kernel).abs() < 30.0,
        "the manifest says that the session took {duration} s, and the kernel {by_the_kernel:.1} s"
    );
    bed.note(format!(
        "{by_the_kernel:.1} s by the kernel, {by_the_target:.1} s by the target, {duration} s in the manifest"
    ));
    bed.assert_works("after-jumps").map(drop)
}

/// How long the manifest says the session took.
fn duration_seconds(bed: &Bed<'_>, manifest: &serde_json::Value) -> Result<f64> {
    let at = |key: &str| -> Result<f64> {
        let text = manifest[key].as_str().with_context(|| format!("{key} in the manifest"))?;
        Ok(bed.store.run(&format!("date -d {text} +%s"))?.trim().parse()?)
    };
    Ok(at("closed_at")? - at("opened_at")?)
}

/// A grant's end is a time of the calendar: a clock that jumps past it ends the session, and nobody gets in by it; one that
/// jumps back lets people in again.
pub(super) fn expiry(bed: &Bed<'_>) -> Result<()> {
    let grants = "/etc/weir/grants";
    let in_half_an_hour = bed.connector.run("date -u -d '+30 minutes' +%Y-%m-%dT%H:%M:%SZ")?;
    bed.connector.run(&format!(
        "sed 's/^expires_at.*/expires_at = \"{}\"/' {grants}/{GRANT}.toml > {grants}/short.new; \
         chown --reference={grants}/{GRANT}.toml {grants}/short.new; chmod --reference={grants}/{GRANT}.toml {grants}/short.new; \
         mv {grants}/short.new {grants}/short.toml",
        in_half_an_hour.trim()
    ))?;
    let mut lasting = bed.session(Some(&ticker::command("lasting")))?;
    let mut short = bed.session_by("short", "", Some(&ticker::command("short-lived")))?;
    short.wait_for("\n")?;
    lasting.wait_for("\n")?;

    bed.connector.run("date -s '+1 hour'")?;
    let ended = short.end()?;
    ensure!(
        ended.status == 255 && ended.said.contains("the grant has expired"),
        "{} {}",
        ended.status,
        ended.said
    );
    let mut refused = bed.session_by("short", "-o BatchMode=yes", Some("echo in"))?;
    refused.end_input();
    let refused = refused.end()?;
    ensure!(refused.status == 255 && refused.output.is_empty(), "an expired grant let somebody in");
    ensure!(lasting.is_running()?, "the other grant's session ended: {}", lasting.said());

    bed.connector.run("date -s '-2 hours'")?;
    let mut again = bed.session_by("short", "", Some("echo in"))?;
    again.end_input();
    let again = again.end()?;
    ensure!(again.output == b"in\n", "before its end the grant lets nobody in: {}", again.said);
    let received = end_ticker(bed, lasting)?;

    bed.set_clocks()?;
    let stored = bed.stored("short-lived")?;
    bed.assert_intact(&stored)?;
    let (kind, reason) = stored.outcome();
    ensure!(kind == "ended" && reason.starts_with("the grant has expired"), "{kind} {reason}");
    ensure!(
        stored.recording.stream(0, "stdout").starts_with(&ended.output),
        "the user has received what is not recorded"
    );
    let stored = bed.stored("lasting")?;
    bed.assert_intact(&stored)?;
    ensure!(stored.recording.stream(0, "stdout") == received, "what was received is not what is recorded");
    Ok(())
}
