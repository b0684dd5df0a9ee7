//! What idle sessions take of proxy and agent, and what an echo takes beside them.
//!
//! The echo over every route is measured while the same sessions are open through Weir, so that target and machine
//! are in the same state for all of them.

use anyhow::{Context, Result};

use crate::{
    Scale,
    crowd::Crowd,
    echo,
    lab::{Lab, Route},
    report::{Goal, Row},
    samples::Samples,
    usage,
};

pub(crate) fn crowded(lab: &mut Lab, scale: &Scale) -> Result<Vec<Row>> {
    let (proxy, agent) = (lab.bed().proxy().pid(), lab.bed().agent().pid());
    let at_first = (usage::anonymous_kib(proxy)?, usage::anonymous_kib(agent)?);
    let key = lab.bed().path("user/key");
    let mut crowd = Crowd::new(lab.bed().proxy_port(), &key)?;
    let mut rows = Vec::new();
    let last = *scale.idle.last().context("some numbers of idle sessions")?;
    for sessions in scale.idle {
        eprintln!("idle: {sessions} sessions");
        lab.count(Route::Weir, sessions - crowd.len());
        crowd.grow(sessions)?;
        let each = |kib: f64| {
            let mut samples = Samples::default();
            samples.push(Route::Weir, kib / sessions as f64);
            samples
        };
        let of_proxy = each(usage::anonymous_kib(proxy)? - at_first.0);
        let of_agent = each(usage::anonymous_kib(agent)? - at_first.1);
        let name = |what: &str| format!("{sessions} idle sessions: {what}");
        let echo = echo::measure(lab, scale, &format!("echo beside {sessions} sessions"))?;
        let p99 = Row::new(name("echo p99"), "µs", echo.p99);
        rows.extend([
            Row::new(name("proxy memory each"), "KiB", of_proxy).with_goal(Goal::AtMost(150.0)),
            Row::new(name("agent memory each"), "KiB", of_agent),
            Row::new(name("echo p50"), "µs", echo.p50),
            if sessions == last { p99.with_goal(Goal::AtMostTimes(1.1, Route::Direct)) } else { p99 },
        ]);
    }
    eprintln!("idle: closing, and waiting until everything is stored");
    crowd.leave()?;
    lab.settle()?;
    Ok(rows)
}
