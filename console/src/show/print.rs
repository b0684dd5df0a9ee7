//! Writes what [`super::gather`] found, for people or as JSON. Everything from the recording is escaped here.

use std::io::{self, Write};

use jiff::Timestamp;
use weir_common::{
    frame::Direction,
    recording::{DirectionTotals, Manifest, Recorder},
    session::{CapturePolicy, HostKeyTrust, Proof, SessionMeta, TargetPeer},
};

use super::{Channel, Entry, Shown, found};
use crate::{
    escape,
    look::{Look, Mark},
    table::{Align, Table, duration, grouped},
};

/// One JSON object.
///
/// # Errors
/// If it can't be written.
pub fn json(shown: &Shown, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", escape::json(&serde_json::to_string(shown)?))
}

/// The session for people.
///
/// # Errors
/// If it can't be written.
pub fn text(shown: &Shown, look: Look, out: &mut dyn Write) -> io::Result<()> {
    for warning in &shown.warnings {
        writeln!(out, "{} {}", look.verdict(Mark::Bad, "warning:"), escape::text(warning))?;
    }
    if !shown.warnings.is_empty() {
        writeln!(out, "         `weir verify` tells exactly what is wrong.\n")?;
    }
    match &shown.manifest {
        Some(manifest) => context(shown, manifest, look, out)?,
        None => unfinished(shown, look, out)?,
    }
    if !shown.channels.is_empty() {
        writeln!(out)?;
        channels(&shown.channels, look, out)?;
    }
    if shown.events_of_other_channels > 0 {
        writeln!(out, "… and {} events on further channels", grouped(shown.events_of_other_channels))?;
    }
    if let Some(manifest) = shown.manifest.as_ref().filter(|manifest| !manifest.channels.is_empty()) {
        writeln!(out)?;
        counters(manifest, look, out)?;
    }
    found::text(&shown.findings, look, out)?;
    if !shown.timeline.is_empty() {
        writeln!(out)?;
        timeline(&shown.timeline, look, out)?;
    }
    if shown.timeline_left_out > 0 {
        writeln!(out, "… and {} more", grouped(shown.timeline_left_out))?;
    }
    Ok(())
}

fn context(shown: &Shown, manifest: &Manifest, look: Look, out: &mut dyn Write) -> io::Result<()> {
    session(&manifest.session, login(manifest), look, out)?;
    let mut line = |name: &str, value: String| line(name, &value, look, out);
    let (opened, closed) = (manifest.opened_at, manifest.closed_at);
    line("Time", format!("{} to {} UTC, {}", seconds(opened), seconds(closed), duration(opened, closed)))?;
    line("Outcome", manifest.outcome.to_string())?;
    line("Recorder", recorder(&manifest.recorder))?;
    let sum = |numbers: &mut dyn Iterator<Item = u64>| grouped(numbers.fold(0, u64::saturating_add));
    let segments = &manifest.segments;
    let events = sum(&mut segments.iter().map(|entry| entry.events.records));
    let captured = sum(&mut segments.iter().map(|entry| entry.events.bytes));
    let stored = sum(&mut manifest.objects().map(|object| object.bytes));
    line(
        "Segments",
        format!("{}, {events} events of {captured} captured bytes, stored in {stored}", shown.segments),
    )
}

fn line(name: &str, value: &str, look: Look, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}  {}", look.heading(&format!("{name:<9}")), escape::text(value))
}

fn session(session: &SessionMeta, login: String, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let mut line = |name: &str, value: String| line(name, &value, look, out);
    let resource = &session.resource;
    line("Session", session.session_id.to_string())?;
    line("User", format!("{}, who proved it with {}", session.user, proof(&session.proof)))?;
    line("Client", format!("{} from {}", session.client_version, session.client_address))?;
    line("Resource", format!("{} at {}:{}", resource.name, resource.host, resource.port))?;
    line("Login", login)?;
    let approvers = match session.approvers.join(", ") {
        nobody if nobody.is_empty() => "nobody".to_owned(),
        approvers => approvers,
    };
    line(
        "Access",
        format!("request {}, flow {}, approved by {approvers}", session.request_id, session.access_flow),
    )?;
    let policy = match session.capture_policy {
        CapturePolicy::FailClosed => "",
        CapturePolicy::BestEffort => ", permits traffic to go on unrecorded (best_effort)",
    };
    let content = if session.record_file_content { "" } else { ", keeps file content out of the recording" };
    line(
        "Grant",
        format!("{}, expires {} UTC{policy}{content}", session.grant_id, seconds(session.expires_at)),
    )
}

fn recorder(recorder: &Recorder) -> String {
    let Recorder { agent, node, kernel, abi } = recorder;
    format!("weir-agent {agent} on {node}, kernel {kernel}, ABI {abi}")
}

fn proof(proof: &Proof) -> String {
    match proof {
        Proof::PublicKey { fingerprint } => format!("the key {fingerprint}"),
        Proof::Certificate { fingerprint, key_id, serial, ca_fingerprint } => format!(
            "the certificate {key_id:?}, serial {serial}, of the key {fingerprint} by the authority {ca_fingerprint}"
        ),
        Proof::OneTimeSecret => "a one-time secret".to_owned(),
    }
}

fn login(manifest: &Manifest) -> String {
    let login = &manifest.session.target_login;
    match &manifest.target {
        Some(target) => login_at(login, target),
        None => format!("{login}, but the server was not reached"),
    }
}

fn login_at(login: &str, target: &TargetPeer) -> String {
    let trust = match target.host_key_trust {
        HostKeyTrust::Pinned => "pinned",
        HostKeyTrust::KnownHosts => "known",
        HostKeyTrust::CertAuthority => "certified",
        HostKeyTrust::Learned => "learned at first sight, vouched for by nobody",
    };
    format!("{login} at {}, host key {} ({trust})", target.address, target.host_key)
}

fn unfinished(shown: &Shown, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let state = match &shown.opened {
        Some(opened) => {
            let login = &opened.session.target_login;
            let login =
                (opened.target.as_ref()).map_or_else(|| login.clone(), |target| login_at(login, target));
            session(&opened.session, login, look, out)?;
            line("Time", &format!("since {} UTC", seconds(opened.opened_at)), look, out)?;
            line("Recorder", &recorder(&opened.recorder), look, out)?;
            "not finished: there is no manifest yet"
        }
        None => {
            line("Session", &shown.directory, look, out)?;
            "not finished: there is no manifest, and no first segment to say who it was"
        }
    };
    writeln!(out, "{}  {}", look.heading("State    "), look.verdict(Mark::Open, state))?;
    writeln!(out, "{}  {} so far", look.heading("Segments "), shown.segments)
}

fn channels(channels: &[Channel], look: Look, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("CHANNEL", Align::Right),
        ("PROGRAM", Align::Left),
        ("TERMINAL", Align::Left),
        ("EXIT", Align::Left),
        ("STDIN", Align::Right),
        ("STDOUT", Align::Right),
        ("STDERR", Align::Right),
    ]);
    let dash = || "-".to_owned();
    for channel in channels {
        table.row([
            channel.channel.to_string(),
            if channel.programs.is_empty() { dash() } else { short(&channel.programs.join("; ")) },
            channel.terminal.as_deref().map_or_else(dash, short),
            channel.exit.clone().unwrap_or_else(dash),
            grouped(channel.stdin_bytes),
            grouped(channel.stdout_bytes),
            grouped(channel.stderr_bytes),
        ]);
    }
    table.write(out, |line| look.heading(line))?;
    for channel in channels.iter().filter(|channel| !channel.env.is_empty()) {
        writeln!(out, "{:>7}  env {}", channel.channel, escape::text(&channel.env.join(" ")))?;
    }
    Ok(())
}

fn counters(manifest: &Manifest, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("CHANNEL", Align::Right),
        ("FROM", Align::Left),
        ("CAPTURED", Align::Right),
        ("ACCEPTED", Align::Right),
        ("DUPLICATE", Align::Right),
        ("OUT OF SEQUENCE", Align::Right),
        ("MALFORMED", Align::Right),
        ("UNRECORDED", Align::Right),
        ("TOSSED", Align::Right),
    ]);
    for channel in &manifest.channels {
        for (direction, totals) in
            [(Direction::ClientToTarget, channel.c2t), (Direction::TargetToClient, channel.t2c)]
        {
            let DirectionTotals {
                cookie: _,
                accepted,
                duplicate,
                out_of_sequence,
                malformed,
                passed,
                kernel,
            } = totals;
            let tossed = |kernel: &weir_common::recording::KernelCount| {
                kernel.tossed_full.saturating_add(kernel.tossed_frozen).saturating_add(kernel.tossed_size)
            };
            table.row([
                channel.channel.to_string(),
                super::timeline::sender(direction).to_owned(),
                kernel.map_or("not known".to_owned(), |kernel| grouped(kernel.captured.records)),
                grouped(accepted.records),
                grouped(duplicate.records),
                grouped(out_of_sequence.records),
                grouped(malformed.records),
                grouped(passed.records),
                kernel.as_ref().map_or("not known".to_owned(), |kernel| grouped(tossed(kernel))),
            ]);
        }
    }
    writeln!(out, "Records, as the kernel counted them and as they were recorded:")?;
    table.write(out, |line| look.heading(line))
}

fn timeline(entries: &[Entry], look: Look, out: &mut dyn Write) -> io::Result<()> {
    let heading = if entries.iter().any(|entry| entry.at.is_some()) { "TIME (UTC)" } else { "SECONDS" };
    let mut table = Table::new([
        (heading, Align::Left),
        ("CHANNEL", Align::Right),
        ("FROM", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for entry in entries {
        let time = match entry.at {
            Some(at) => at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
            None => format!("+{}.{:03}", entry.after_ns / 1_000_000_000, entry.after_ns / 1_000_000 % 1000),
        };
        table.row([time, entry.channel.to_string(), entry.from.to_owned(), entry.what.clone()]);
    }
    table.write(out, |line| look.heading(line))
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// What fits into a column; the timeline has it all.
fn short(text: &str) -> String {
    const WIDTH: usize = 40;
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
