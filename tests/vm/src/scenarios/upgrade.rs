//! The agent's package is upgraded while sessions run: they see a pause at most, and lose nothing.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::store_away::end_ticker;
use crate::{
    bed::{AGENT, Bed, PROXY, seconds},
    feeder::Feeder,
    ticker,
};

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    let package = bed.options.upgrade.as_ref().context("no package of a higher version was made")?;
    bed.connector.run_with("cat > /tmp/upgrade.deb", &std::fs::read(package)?)?;
    let installed = bed.connector.run("dpkg-query -W -f '${Version}' weir-agent")?;
    let offered = bed.connector.run("dpkg-deb -f /tmp/upgrade.deb Version")?;
    bed.connector.run(&format!("dpkg --compare-versions '{}' gt '{installed}'", offered.trim()))?;

    let mut session = bed.session(Some(&ticker::command("upgraded")))?;
    let mut upload = bed.session(Some(": uploading; sha256sum"))?;
    let feeder = Feeder::start(upload.take_input()?);
    session
        .wait_until("20 lines", |received| ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= 20))?;
    let before = bed.connector.main_pid(AGENT)?;
    let proxy = bed.connector.main_pid(PROXY)?;
    let began = Instant::now();
    bed.connector.run("DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/upgrade.deb")?;
    bed.connector.wait_for_main_pid_other_than(AGENT, before)?;
    let took = began.elapsed();
    let (lines, fed) = (ticker::ticks(&session.received())?.len(), feeder.sent());
    ensure!(bed.connector.main_pid(PROXY)? == proxy, "the upgrade of the agent restarted the proxy");
    session.wait_until("lines behind the upgrade", |received| {
        ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= lines + 30)
    })?;
    crate::wait::until("the upload goes on", crate::wait::PATIENCE, || {
        Ok((feeder.sent() > fed + (1 << 20)).then_some(()))
    })?;

    let pause = session.longest_pause();
    let received = end_ticker(bed, session)?;
    let sent = feeder.finish()?;
    let ended = upload.end()?;
    ensure!(ended.output == format!("{sent}  -\n").as_bytes(), "{} {}", ended.status, ended.said);
    for tag in ["upgraded", "uploading"] {
        let stored = bed.stored(tag)?;
        ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
        ensure!(stored.outcome().0 == "completed", "{tag}: {:?}", stored.outcome());
    }
    let stored = bed.stored("upgraded")?;
    ensure!(stored.recording.stream(0, "stdout") == received, "what was received is not what is recorded");
    ticker::ticks(&received)?;
    let stored = bed.stored("uploading")?;
    ensure!(
        crate::feeder::digest(&stored.recording.stream(0, "stdin")) == sent,
        "what was sent is not what is recorded"
    );
    ensure!(bed.connector.run("dpkg-query -W -f '${Version}' weir-agent")? == offered.trim(), "not upgraded");
    bed.note(format!("dpkg took {}, the longest pause between lines {}", seconds(took), seconds(pause)));
    bed.assert_works("after-upgrade").map(drop)
}
