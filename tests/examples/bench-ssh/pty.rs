//! What a program prints on a pty: lines of text, as fast as they come.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::{
    Scale, bulk,
    lab::{Lab, Offer, Route},
    report::{Goal, Row},
};

pub(crate) fn output(lab: &mut Lab, scale: &Scale) -> Result<Vec<Row>> {
    let offer = Offer::Default;
    let text = text(scale.pty_bytes);
    let path = lab.file("text", text.as_bytes())?;
    // The terminal turns every line feed into a carriage return and a line feed.
    let expected = text.replace('\n', "\r\n").into_bytes();
    let mut measured = bulk::Measured::default();
    for round in 0..=scale.rounds {
        eprintln!("pty output: round {round} of {} (0 warms up)", scale.rounds);
        for route in Route::in_round(round) {
            let before = lab.usage()?;
            let mut ssh = lab.ssh(route, offer);
            ssh.arg("-tt").arg("cat").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = ssh.spawn()?;
            // A terminal's input stays open.
            let stdin = child.stdin.take();
            let seconds = bulk::receive(&mut child, &expected).with_context(|| format!("{route:?}"))?;
            drop(stdin);
            ensure!(child.wait()?.success(), "{route:?}: ssh failed");
            lab.settle()?;
            if round > 0 {
                measured.push(route, seconds, expected.len(), lab.usage()? - before);
            }
        }
    }
    Ok(measured.rows("pty output", offer, Goal::AtLeastTimes(1.0, Route::Direct)))
}

/// Lines as a log has them.
fn text(bytes: usize) -> String {
    const LINES: [&str; 4] = [
        "INFO  request served path=/api/v1/items status=200",
        "DEBUG cache miss, asking the upstream for a fresh copy",
        "WARN  slow query: SELECT id, name, updated_at FROM items WHERE owner = $1",
        "INFO  job done",
    ];
    let mut text = String::with_capacity(bytes + 128);
    let mut number = 0_usize;
    while text.len() < bytes {
        let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        text.push_str(&format!("{number:09} {} id={hash:016x}\n", LINES[hash % LINES.len()]));
        number += 1;
    }
    text
}
