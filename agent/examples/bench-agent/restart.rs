//! The pause that a restart of the agent costs sessions.
//!
//! The worst there is: the ring is full when the next agent starts, so that nothing passes before it drains. For a
//! kill the agent is stopped before, and the ring filled, so that the whole time counts; an agent that is told to
//! stop empties the ring first, and it is filled again while none runs. Measured from the signal until a frame has
//! passed in every session, and until every session is resumed, one after the other, as when proxies come back. Sessions are
//! reported to a receiver that is not there: the next agent finds a thousand reports in its queue.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_common::{control::Reply, frame::Direction};

use crate::{
    Scale,
    feeder::{Feeder, stdout_frame},
    node::{Node, Session},
    proxy::Control,
    report::{Goal, Row},
    rest,
};

const T2C: Direction = Direction::TargetToClient;
/// As operators have it: sessions are reported, here to nobody, so that every report that is queued stays so.
const ABSENT_RECEIVER: &str = "[report]\nurl = 'http://127.0.0.1:9/'\ntoken_file = 'TOKEN'\n";
/// More frames than any ring has room for.
const FILL_MAX: usize = 4096;

struct Pause {
    flows: Duration,
    resumed: Duration,
}

pub(crate) fn pauses(scale: &Scale) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for rings in [1, 2] {
        for (name, signal) in [("SIGTERM", Signal::SIGTERM), ("kill -9", Signal::SIGKILL)] {
            let pauses: Vec<_> =
                (0..scale.rounds).map(|_| pause(scale, rings, signal)).collect::<Result<_>>()?;
            let of = format!("{name}, {} sessions, {rings} ring(s)", scale.sessions);
            let ms = |of: fn(&Pause) -> Duration| {
                pauses.iter().map(|pause| of(pause).as_secs_f64() * 1e3).collect()
            };
            let row = Row::new(format!("restart pause until traffic flows: {of}"), "ms", ms(|p| p.flows));
            rows.push(row.with_goal(Goal::Most(500.0)));
            rows.push(Row::new(format!("until all are resumed: {of}"), "ms", ms(|p| p.resumed)));
        }
    }
    Ok(rows)
}

fn pause(scale: &Scale, rings: u16, signal: Signal) -> Result<Pause> {
    let groups: Vec<_> = (0..rings).map(|cpu| format!("'{cpu}'")).collect();
    let mut extra =
        if rings == 1 { String::new() } else { format!("cpu_groups = [{}]\n", groups.join(", ")) };
    extra.push_str(ABSENT_RECEIVER);
    let mut node = Node::start(&extra)?;
    let mut sessions = (0..scale.sessions).map(|_| node.session()).collect::<Result<Vec<_>>>()?;
    let mut line = stdout_frame(&[b'x'; 80]);
    for session in &mut sessions {
        session.feeder.pass(T2C, &mut line)?;
    }
    if signal == Signal::SIGKILL {
        node.signal(Signal::SIGSTOP)?;
        ensure!(fill(&mut sessions, rings)?, "a ring was not full when the agent was killed");
    }
    let begin = Instant::now();
    node.signal(signal)?;
    node.wait()?;
    node.start_next()?;
    if signal != Signal::SIGKILL {
        fill(&mut sessions, rings)?;
    }
    flow(&mut sessions, &mut line)?;
    let flows = begin.elapsed();
    node.wait_until_ready();
    for session in &mut sessions {
        let control = Control::connect(&node.socket());
        let resumed = control.open(&session.meta, true);
        ensure!(resumed == Some(Reply::Opened), "not resumed: {resumed:?}");
        session.control = control;
    }
    let resumed = begin.elapsed();
    sessions.iter().try_for_each(Session::close)?;
    Ok(Pause { flows, resumed })
}

/// Fills every ring, as neighbouring sessions are in different ones, and says whether each was full then: it is not
/// where an agent has begun to drain it meanwhile.
fn fill(sessions: &mut [Session], rings: u16) -> Result<bool> {
    let mut full = true;
    // What large records leave has room for small ones.
    for body in [32 * 1024, 1] {
        let mut frame = stdout_frame(&vec![b'x'; body]);
        for session in sessions.iter_mut().take(rings.into()) {
            full = false;
            for _ in 0..FILL_MAX {
                if !session.feeder.try_pass(T2C, &mut frame)? {
                    full = true;
                    break;
                }
            }
            if !full {
                return Ok(false);
            }
        }
    }
    Ok(full)
}

/// Waits until a frame has passed in every session.
fn flow(sessions: &mut [Session], frame: &mut [u8]) -> Result<()> {
    let mut waiting: Vec<&mut Feeder> = sessions.iter_mut().map(|session| &mut session.feeder).collect();
    let begin = Instant::now();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for feeder in waiting {
            if !feeder.try_pass(T2C, frame)? {
                still.push(feeder);
            }
        }
        waiting = still;
        if !waiting.is_empty() {
            ensure!(begin.elapsed() < crate::PATIENCE, "{} sessions never went on", waiting.len());
            // As soon as a proxy looks again.
            rest(Duration::from_millis(2));
        }
    }
    Ok(())
}
