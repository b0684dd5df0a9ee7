//! The spool's disk fills up: new sessions are refused first, then those that run stand still. Nothing passes unrecorded, and
//! nothing is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    bed::{AGENT, Bed, PROXY},
    feeder::{Feeder, digest},
    wait::{PATIENCE, until},
};

/// The rest of a disk that is below `disk_refuse_bytes`, and far above `disk_reserve_bytes`.
const NEARLY_FULL_BYTES: u64 = 128 << 20;
/// The rest that is below `disk_reserve_bytes`.
const FULL_BYTES: u64 = 1 << 20;
/// A small ring stands still soon.
const RING_BYTES: &str = "1048576";

/// Takes up room on the spool's disk until this much is left.
fn fill(bed: &Bed<'_>, left: u64) -> Result<()> {
    // Else it would be the machine's only disk.
    bed.connector.run("mountpoint -q /var/lib/weir")?;
    let free = bed.connector.run("df --output=avail -B1 /var/lib/weir | tail -1")?;
    let free: u64 = free.trim().parse().context("a number of bytes")?;
    let take = free.checked_sub(left).context("the disk is fuller already")?;
    bed.connector.run(&format!("fallocate -l {take} /var/lib/weir/others-$(date +%s%N)"))?;
    Ok(())
}

fn give_back(bed: &Bed<'_>) -> Result<()> {
    bed.connector.run("rm /var/lib/weir/others-*").map(drop)
}

/// A ring of an agent that starts anew keeps its size, so the old one has to go. No session is running.
fn with_small_ring(bed: &Bed<'_>) -> Result<()> {
    bed.connector.run(&format!("systemctl stop {PROXY} {AGENT}; find /run/weir/bpf -mindepth 1 -delete"))?;
    bed.configure(AGENT, &[("ring_bytes", RING_BYTES)])?;
    bed.configure(PROXY, &[])
}

fn stands_still(feeder: &Feeder) -> Result<u64> {
    // Emulated processors have hiccups of a second.
    let mut last = (0, 0);
    until("the transfer stands still", PATIENCE, || {
        let now = feeder.sent();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        Ok((last.1 >= 40).then_some(now))
    })
}

/// There is room again soon: the session goes on.
pub(super) fn goes_on(bed: &Bed<'_>) -> Result<()> {
    with_small_ring(bed)?;
    bed.configure(PROXY, &[("stall_timeout_ms", "600000")])?;
    let mut session = bed.session(Some(": full-and-back; echo started; sha256sum"))?;
    session.wait_for("started\n")?;
    let feeder = Feeder::start(session.take_input()?);
    until("the transfer goes on", PATIENCE, || Ok((feeder.sent() > 1 << 20).then_some(())))?;

    fill(bed, NEARLY_FULL_BYTES)?;
    let refused = until("new sessions are refused", PATIENCE, || {
        let ended = bed.exec(": too-late; echo in")?;
        Ok((ended.status != 0).then_some(ended))
    })?;
    ensure!(refused.said.contains("nearly out of space"), "who is refused reads: {}", refused.said);
    ensure!(refused.output.is_empty(), "who is refused got in: {:?}", refused.output);
    let running = feeder.sent();
    until("the running session goes on", PATIENCE, || {
        Ok((feeder.sent() > running + (256 << 10)).then_some(()))
    })?;

    let before = bed.connector.end_of_journal()?;
    fill(bed, FULL_BYTES)?;
    let stalled = stands_still(&feeder)?;
    bed.connector.wait_for_log(&before, AGENT, "sessions stall until the spool has room")?;
    give_back(bed)?;
    until("the transfer goes on", PATIENCE, || Ok((feeder.sent() > stalled + (1 << 20)).then_some(())))?;
    let sent = feeder.finish()?;
    let ended = session.end()?;
    ensure!(ended.output == format!("started\n{sent}  -\n").as_bytes(), "{} {}", ended.status, ended.said);
    let stored = bed.stored("full-and-back")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(digest(&stored.recording.stream(0, "stdin")) == sent, "what was sent is not what is recorded");
    let tossed = &stored.recording.manifest["channels"][0]["c2t"]["kernel"]["tossed_full"];
    ensure!(tossed.as_u64().is_some_and(|tossed| tossed > 0), "nothing was tossed: the disk was never full");
    bed.note(format!("{tossed} messages tossed and sent again"));
    bed.assert_works("after-full-disk").map(drop)
}

/// It takes too long: the session ends, and the user reads why.
pub(super) fn stalls(bed: &Bed<'_>) -> Result<()> {
    with_small_ring(bed)?;
    bed.configure(PROXY, &[("stall_timeout_ms", "10000")])?;
    let mut session = bed.session(Some(": full-for-long; echo started; cat > delivered"))?;
    session.wait_for("started\n")?;
    let feeder = Feeder::start(session.take_input()?);
    until("the transfer goes on", PATIENCE, || Ok((feeder.sent() > 1 << 20).then_some(())))?;
    fill(bed, FULL_BYTES)?;
    let ended = session.end_within(PATIENCE + Duration::from_secs(10))?;
    ensure!(ended.status == 255, "ssh ended with {}", ended.status);
    ensure!(ended.said.contains("the recording has stalled for 10 s"), "the user reads: {}", ended.said);
    feeder.finish()?;

    give_back(bed)?;
    let stored = bed.stored("full-for-long")?;
    bed.assert_intact(&stored)?;
    let (kind, reason) = stored.outcome();
    ensure!(kind == "ended" && reason.contains("stalled"), "{kind} {reason}");
    let recorded = stored.recording.stream(0, "stdin");
    let delivered = bed.target.run(&format!("wc -c < ~{}/delivered", crate::bed::LOGIN))?;
    let delivered: usize = delivered.trim().parse()?;
    let expected = bed.target.run(&format!("sha256sum < ~{}/delivered", crate::bed::LOGIN))?;
    ensure!(
        delivered <= recorded.len()
            && expected.trim_end() == format!("{}  -", digest(&recorded[..delivered])),
        "the target has bytes that are not recorded"
    );
    bed.note(format!("{delivered} bytes reached the target, {} are recorded", recorded.len()));
    bed.assert_works("after-long-stall").map(drop)
}
