//! Sessions across machines: shell, command, files, two at once. What the recordings have is what was sent and received.

use anyhow::{Result, ensure};
use rand::RngExt;

use crate::{
    bed::{Bed, CONNECTOR_TO_TARGETS, LOGIN},
    feeder::digest,
    session::contains,
};

const FILE_BYTES: usize = 4 << 20;
/// How many the scenario begins.
const SESSIONS: usize = 5;

pub(super) fn run(bed: &Bed<'_>) -> Result<()> {
    let before = logins(bed)?;
    shell(bed)?;
    command(bed)?;
    files(bed)?;
    two_at_once(bed)?;
    the_target_knows_the_connector_only(&before, &logins(bed)?)
}

fn shell(bed: &Bed<'_>) -> Result<()> {
    let mut session = bed.session_by(crate::bed::GRANT, "-tt", None)?;
    let mut typed = Vec::new();
    let mut type_in = |session: &mut crate::session::Session, line: &str| {
        typed.extend_from_slice(line.as_bytes());
        session.send(line.as_bytes())
    };
    // Quoted, so that the echo of what was typed is not what is waited for.
    type_in(&mut session, "PS1='REA''DY> '\n")?;
    session.wait_for("READY> ")?;
    type_in(&mut session, "echo he''llo from $(id -un)\n")?;
    session.wait_for(&format!("hello from {LOGIN}"))?;
    type_in(&mut session, "exit 7\n")?;
    let ended = session.end()?;
    ensure!(ended.status == 7, "the shell's exit status: {} {}", ended.status, ended.said);

    let stored = bed.stored_where("the shell", |recording| !recording.kind("shell").is_empty())?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    let recording = &stored.recording;
    ensure!(recording.stream(0, "stdin") == typed, "what was typed is not what is recorded");
    ensure!(recording.stream(0, "stdout") == ended.output, "what was shown is not what is recorded");
    ensure!(recording.kind("pty").len() == 1, "the terminal is not recorded");
    ensure!(stored.outcome().0 == "completed", "{:?}", stored.outcome());
    let commands = stored.findings("commands.ndjson")?;
    let texts: Vec<_> = commands.iter().filter_map(|command| command["text"].as_str()).collect();
    ensure!(texts.contains(&"echo he''llo from $(id -un)"), "commands found: {texts:?}");
    let manifest = &recording.manifest;
    ensure!(manifest["session"]["target_login"] == LOGIN, "{}", manifest["session"]);
    ensure!(
        manifest["recorder"]["kernel"] == bed.connector.run("uname -r")?.trim(),
        "{}",
        manifest["recorder"]
    );
    Ok(())
}

fn command(bed: &Bed<'_>) -> Result<()> {
    let ended = bed.exec(": with-status; echo out; echo err >&2; exit 42")?;
    ensure!(ended.status == 42, "exit status {}: {}", ended.status, ended.said);
    ensure!(ended.output == b"out\n" && ended.said.contains("err\n"), "{:?} {}", ended.output, ended.said);
    let stored = bed.stored("with-status")?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    ensure!(stored.recording.stream(0, "stdout") == b"out\n", "standard output is not as it was");
    ensure!(stored.recording.stream(0, "stderr") == b"err\n", "standard error is not as it was");
    ensure!(stored.recording.kind("exit_status")[0].json["status"] == 42, "the exit status is not recorded");
    Ok(())
}

fn files(bed: &Bed<'_>) -> Result<()> {
    bed.store
        .run(&format!("head -c {FILE_BYTES} /dev/urandom > /tmp/up; chmod 644 /tmp/up; rm -f /tmp/down"))?;
    bed.sftp("put /tmp/up sent\nget sent /tmp/down\n")?;
    let sums = bed.store.run("sha256sum /tmp/up /tmp/down | cut -d' ' -f1")?;
    let sums: Vec<_> = sums.lines().collect();
    ensure!(sums[0] == sums[1], "what came back is not what was sent");
    let there = bed.target.run(&format!("sha256sum ~{LOGIN}/sent | cut -d' ' -f1"))?;
    ensure!(there.trim() == sums[0], "what arrived is not what was sent");

    let stored = bed.stored_where("sftp", |recording| !recording.kind("subsystem").is_empty())?;
    ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
    let found = stored.findings("files.ndjson")?;
    for direction in ["written", "read"] {
        let transferred = found.iter().map(|file| &file[direction]).find(|part| !part.is_null());
        let Some(transferred) = transferred else { anyhow::bail!("no file was {direction}: {found:?}") };
        ensure!(
            transferred["bytes"] == FILE_BYTES && transferred["sha256"] == sums[0],
            "what was {direction}: {transferred}, and the file is {}",
            sums[0]
        );
    }
    // The content itself, in the order in which it went.
    let sent = stored.recording.stream(0, "stdin");
    let sample = bed.store.output("head -c 2000000 /tmp/up | tail -c 4096")?.stdout;
    ensure!(
        sample.len() == 4096 && contains(&sent, &sample[..1024]),
        "the file's content is not in the recording"
    );
    Ok(())
}

fn two_at_once(bed: &Bed<'_>) -> Result<()> {
    let mut sessions = Vec::new();
    for tag in ["one-of-two", "two-of-two"] {
        let mut data = vec![0; 1 << 20];
        rand::rng().fill(&mut data[..]);
        let mut session = bed.session(Some(&format!(": {tag}; echo started; sha256sum")))?;
        session.wait_for("started\n")?;
        sessions.push((tag, session, data));
    }
    // Both have begun before either goes on.
    for (_, session, data) in &mut sessions {
        session.send(data)?;
        session.end_input();
    }
    for (tag, session, data) in sessions {
        let ended = session.end()?;
        let expected = format!("started\n{}  -\n", digest(&data));
        ensure!(ended.output == expected.as_bytes(), "{tag}: {}", ended.said);
        let stored = bed.stored(tag)?;
        ensure!(bed.assert_intact(&stored)?, "the kernel's counts are not complete");
        ensure!(stored.recording.stream(0, "stdin") == data, "{tag}: what was sent is not what is recorded");
        ensure!(
            stored.recording.stream(0, "stdout") == ended.output,
            "{tag}: the output is not what is recorded"
        );
    }
    Ok(())
}

/// What the target's own log has of logins from its network.
fn logins(bed: &Bed<'_>) -> Result<Vec<String>> {
    let log = bed.target.journal("ssh")?;
    let is_one = |line: &&str| line.contains("Accepted ") && line.contains(" from 10.57.");
    Ok(log.lines().filter(is_one).map(str::to_owned).collect())
}

/// It has the connector, once for each session, and nobody else.
fn the_target_knows_the_connector_only(before: &[String], after: &[String]) -> Result<()> {
    let new = &after[before.len()..];
    let by_the_connector = format!("for {LOGIN} from {CONNECTOR_TO_TARGETS} port");
    ensure!(
        new.len() == SESSIONS && new.iter().all(|line| line.contains(&by_the_connector)),
        "{SESSIONS} sessions were begun, and the target's log says: {new:#?}"
    );
    Ok(())
}
