//! The network is cut on either side of the connector: a session outlasts a short cut, and ends after the keepalives that the
//! configuration sets; the recording is complete up to there and says why.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    bed::{Bed, PROXY, TARGET, USER, seconds},
    ticker,
};

/// Some keepalives of one or two seconds without an answer, and what emulated processors take.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(40);

/// The connector's side of the target is gone.
pub(super) fn target(bed: &Bed<'_>) -> Result<()> {
    bed.configure(PROXY, &[("target_keepalive_ms", "1000")])?;
    let mut session = bed.session(Some(&ticker::command("target-lost")))?;
    session
        .wait_until("20 lines", |received| ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= 20))?;
    let link = bed.target.link(TARGET)?;
    bed.target.run(&format!("ip link set {link} down; sleep 1.5; ip link set {link} up"))?;
    let lines = ticker::ticks(&session.received())?.len();
    session.wait_until("lines behind the short cut", |received| {
        ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= lines + 20)
    })?;
    bed.target.run(&format!("ip link set {link} down"))?;
    let began = Instant::now();
    let ended = session.end()?;
    let took = began.elapsed();
    ensure!(took < GIVEN_UP_WITHIN, "the session went on for {}", seconds(took));
    ensure!(ended.status == 255, "ssh ended with {}", ended.status);
    ensure!(ended.said.contains("the connection to the server was lost"), "the user reads: {}", ended.said);

    let stored = bed.stored("target-lost")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.outcome() == ("ended", "the connection to the server was lost"), "{:?}", stored.outcome());
    // Everything that came is delivered before the session ends.
    ensure!(
        stored.recording.stream(0, "stdout") == ended.output,
        "what was received is not what is recorded"
    );
    bed.note(format!("the session ended {} after the link", seconds(took)));
    bed.target.run(&format!("ip link set {link} up"))?;
    bed.assert_works("target-back").map(drop)
}

/// The user is gone, and with it the store, which is the same machine.
pub(super) fn user(bed: &Bed<'_>) -> Result<()> {
    bed.configure(PROXY, &[("client_keepalive_ms", "2000")])?;
    let before = bed.connector.end_of_journal()?;
    let mut session = bed.session(Some(&ticker::command("user-lost")))?;
    session
        .wait_until("20 lines", |received| ticker::ticks(received).is_ok_and(|ticks| ticks.len() >= 20))?;
    let link = bed.store.link(USER)?;
    bed.store.run(&format!("ip link set {link} down"))?;
    let began = Instant::now();
    bed.connector.wait_for_log(&before, crate::bed::AGENT, "session closed")?;
    let took = began.elapsed();
    ensure!(took < GIVEN_UP_WITHIN, "the session went on for {}", seconds(took));
    let received = session.received();
    drop(session);

    bed.store.run(&format!("ip link set {link} up"))?;
    let stored = bed.stored("user-lost")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    let (kind, reason) = stored.outcome();
    ensure!(
        kind == "ended" && reason.contains("client"),
        "the recording does not say why it ended: {kind} {reason}"
    );
    let recorded = stored.recording.stream(0, "stdout");
    ensure!(recorded.starts_with(&received), "the user has received what is not recorded");
    ticker::ticks(&recorded)?;
    bed.note(format!("the session ended {} after the link: {reason}", seconds(took)));
    bed.assert_works("user-back").map(drop)
}
