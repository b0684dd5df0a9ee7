//! What an idle session costs the agent in memory.

use anyhow::Result;
use weir_common::frame::Direction;

use crate::{
    Scale,
    feeder::{stdin_frame, stdout_frame},
    node::Node,
    report::{Goal, Row, status_kib},
    rest,
};

/// How long the agent gets to be done with what was asked.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(500);

pub(crate) fn memory(scale: &Scale) -> Result<Vec<Row>> {
    let sessions = scale.sessions;
    let mut samples = Vec::new();
    for _ in 0..scale.rounds {
        let node = Node::start("")?;
        // One that is not counted, for whatever is made with the first.
        let _first = node.session()?;
        let before = status_kib(node.pid(), "RssAnon")?;
        let mut open = Vec::new();
        for _ in 0..sessions {
            let mut session = node.session()?;
            session.feeder.pass(Direction::ClientToTarget, &mut stdin_frame(b"x"))?;
            session.feeder.pass(Direction::TargetToClient, &mut stdout_frame(b"x"))?;
            open.push(session);
        }
        rest(SETTLE);
        samples.push((status_kib(node.pid(), "RssAnon")? - before) / sessions as f64);
    }
    let row = Row::new(format!("memory per idle session, {sessions} of them"), "KiB", samples);
    Ok(vec![row.with_goal(Goal::Most(64.0))])
}
