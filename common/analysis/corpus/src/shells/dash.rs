//! dash: it has no hooks, so its reads of the terminal are seen by strace(1). What was written to the terminal before
//! says whether they are the beginning of a command or go on with one.

use anyhow::{Context as _, Result};

use super::{Setup, Shell, Truth, quoted};

/// Arguments of strace: it traces the shell alone, as its grandparent's other child.
pub(super) const TRACED: [&str; 6] = ["-D", "-s", "65536", "-xx", "-e", "trace=read,write"];

pub(super) fn startup(setup: &Setup<'_>) -> String {
    format!("PS1={}\nPS2={}\n", quoted(&setup.prompt.render(Shell::Dash)), quoted(&setup.prompt.second))
}

pub(super) fn prompts(log: &[u8], second: &str) -> usize {
    // A prompt has been written once its read begins, which strace shows when it is over; so what counts is the
    // last write and the reads before it.
    let mut count = 0;
    let mut written = Vec::new();
    for call in calls(log) {
        match call {
            // A prompt is written in one go.
            Call::Write(bytes) => written = bytes,
            Call::Read(_) | Call::Interrupted => {
                count += usize::from(!written == second.as_bytes());
                written.clear();
            }
            Call::Ended => count += 1,
        }
    }
    count + usize::from(!written.is_empty() && !written.ends_with(b"\n") && !written == second.as_bytes())
}

pub(super) fn truth(log: &[u8], second: &str) -> Result<Vec<Truth>> {
    let mut commands: Vec<Vec<u8>> = Vec::new();
    let mut written = Vec::new();
    for call in calls(log) {
        match call {
            Call::Write(bytes) => written = bytes,
            Call::Read(bytes) => {
                if written == second.as_bytes() {
                    commands.last_mut().context("a second prompt comes after a first")?.extend(bytes);
                } else {
                    commands.push(bytes);
                }
                written.clear();
            }
            // Ctrl-C at a further prompt: what was entered up to here does not run.
            Call::Interrupted => {
                if written == second.as_bytes() {
                    commands.pop();
                }
            }
            Call::Ended => break,
        }
    }
    let texts = commands.iter().map(|bytes| String::from_utf8_lossy(bytes));
    Ok(texts
        .map(|text| Truth::shell(text.trim_end_matches('\n')))
        .filter(|truth| !truth.text.trim().is_empty())
        .collect())
}

enum Call {
    Read(Vec<u8>),
    Write(Vec<u8>),
    Interrupted,
    Ended,
}

/// The calls that matter: reads of command lines, which have a large buffer, and writes to the terminal.
fn calls(log: &[u8]) -> Vec<Call> {
    let text = String::from_utf8_lossy(log);
    let mut calls = Vec::new();
    let mut waiting = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("read(0, ") {
            waiting = rest.contains("ERESTARTSYS");
            if !waiting && rest.contains(", 8192)") {
                calls.extend(hex(rest).map(Call::Read));
            }
        } else if let Some(rest) = line.strip_prefix("write(2, ") {
            calls.extend(hex(rest).map(Call::Write));
        } else if line.starts_with("--- SIGINT") && waiting {
            calls.push(Call::Interrupted);
            waiting = false;
        } else if line.starts_with("+++") {
            calls.push(Call::Ended);
        }
    }
    calls
}

/// The bytes of `"\x61\x0a", …`.
fn hex(call: &str) -> Option<Vec<u8>> {
    let text = call.strip_prefix('"')?.split('"').next()?;
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}
