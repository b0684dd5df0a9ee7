//! The agent as root with every capability, by a drop-in, and back to its own user: both record, and each goes on with what the
//! other left.

use anyhow::{Result, ensure};

use super::store_away::end_ticker;
use crate::{
    bed::{AGENT, Bed},
    ticker,
};

const DROP_IN: &str = "/etc/systemd/system/weir-agent.service.d/zz-root.conf";

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    let mut session = bed.session(Some(&ticker::command("changing-hands")))?;
    session.wait_for("\n")?;
    bed.connector.run(&format!("mkdir -p {}", DROP_IN.trim_end_matches("/zz-root.conf")))?;
    bed.connector.write(
        DROP_IN,
        "[Service]\nUser=root\nGroup=root\nCapabilityBoundingSet=~\nAmbientCapabilities=\n",
    )?;
    restart(bed)?;
    ensure!(user(bed)? == "root", "the agent runs as {}", user(bed)?);
    bed.assert_works("as-root")?;
    wait_for_lines(&mut session, 30)?;

    bed.connector.run(&format!("rm {DROP_IN}"))?;
    restart(bed)?;
    ensure!(user(bed)? == AGENT, "the agent runs as {}", user(bed)?);
    bed.assert_works("as-itself")?;
    wait_for_lines(&mut session, 60)?;
    let received = end_ticker(bed, session)?;
    let stored = bed.stored("changing-hands")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.recording.stream(0, "stdout") == received, "what was received is not what is recorded");
    let strangers =
        bed.connector.run("find /var/lib/weir -not -user weir-agent -not -name lost+found -ls | head")?;
    ensure!(strangers.is_empty(), "not weir-agent's afterwards:\n{strangers}");
    Ok(())
}

fn wait_for_lines(session: &mut crate::session::Session, lines: usize) -> Result<()> {
    session.wait_until(&format!("{lines} lines"), |received| {
        ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= lines)
    })
}

fn restart(bed: &Bed<'_>) -> Result<()> {
    bed.connector.run(&format!("systemctl daemon-reload; systemctl restart {AGENT}")).map(drop)
}

fn user(bed: &Bed<'_>) -> Result<String> {
    let pid = bed.connector.main_pid(AGENT)?;
    Ok(bed.connector.run(&format!("stat -c %U /proc/{pid}"))?.trim().to_owned())
}
