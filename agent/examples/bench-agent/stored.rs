//! What is stored per byte that went through, and what the agent used for it.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_common::frame::{ChannelType, Direction, Message};

use crate::{
    Scale,
    feeder::{stdin_frame, stdout_frame},
    node::{Node, Session},
    proxy::frame,
    report::{Goal, Row, cpu_time},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
/// The same content in every run.
const SEED: u64 = 0x7765_6972;

/// Makes a piece of traffic.
type Kind = fn(&mut StdRng, &mut Traffic) -> Result<()>;

pub(crate) fn sizes(scale: &Scale) -> Result<Vec<Row>> {
    let kinds: [(&str, Kind, Option<f64>); 5] = [
        ("terminal text, typed and printed", terminal, None),
        ("shell output, log lines with random ids", shell_output, Some(0.2)),
        ("shell output, a listing of /usr", listing, Some(0.2)),
        ("random bulk", random_bulk, Some(1.05)),
        ("compressible bulk", compressible_bulk, None),
    ];
    let mut rows = Vec::new();
    for (name, kind, goal) in kinds {
        // Typing is many small frames: less of it says as much.
        let bytes = if goal.is_none() && name.starts_with("terminal") {
            scale.stored_bytes / 16
        } else {
            scale.stored_bytes
        };
        let (mut sizes, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            let node = Node::start("segment_max_age_ms = 600000\n")?;
            let before = cpu_time(node.pid())?;
            let mut traffic = Traffic { session: node.session()?, bytes: 0 };
            traffic.begin()?;
            let mut rng = StdRng::seed_from_u64(SEED);
            while traffic.bytes < bytes {
                kind(&mut rng, &mut traffic)?;
            }
            traffic.session.close()?;
            let dir = node.stored(&traffic.session.meta);
            sizes.push(stored_bytes(&dir)? as f64 / traffic.bytes as f64);
            let used = cpu_time(node.pid())?.saturating_sub(before);
            cpu.push(used.as_secs_f64() * 1e3 / (traffic.bytes as f64 / 1e6));
        }
        let row = Row::new(format!("stored per byte: {name}"), "bytes", sizes);
        rows.push(match goal {
            Some(most) => row.with_goal(Goal::Most(most)),
            None => row,
        });
        rows.push(Row::new(format!("the agent's CPU, ring to store: {name}"), "ms/MB", cpu));
    }
    Ok(rows)
}

/// Everything of the session but what is the same for each: digests and signature are in it, the manifest too.
fn stored_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for item in fs::read_dir(dir)? {
        sum += item?.metadata()?.len();
    }
    Ok(sum)
}

struct Traffic {
    session: Session,
    bytes: usize,
}

impl Traffic {
    fn begin(&mut self) -> Result<()> {
        self.session.feeder.pass(C2T, &mut frame(Message::Open(ChannelType::Session), 0))?;
        self.session.feeder.pass(T2C, &mut frame(Message::OpenConfirm, 0))?;
        Ok(())
    }

    fn print(&mut self, body: &[u8]) -> Result<()> {
        self.bytes += body.len();
        self.session.feeder.pass(T2C, &mut stdout_frame(body)).map(drop)
    }

    fn stroke(&mut self, body: &[u8]) -> Result<()> {
        self.bytes += body.len();
        self.session.feeder.pass(C2T, &mut stdin_frame(body)).map(drop)
    }
}

const WORDS: [&str; 16] = [
    "kernel", "session", "error", "connect", "timeout", "service", "started", "worker", "request", "payload",
    "user", "config", "reload", "accepted", "closed", "node",
];

fn word(rng: &mut StdRng) -> &'static str {
    WORDS[rng.random_range(0..WORDS.len())]
}

fn log_line(rng: &mut StdRng) -> String {
    let (second, pid) = (rng.random_range(0..86_400), rng.random_range(300..40_000));
    let (a, b, c) = (word(rng), word(rng), word(rng));
    format!(
        "Nov 22 {:02}:{:02}:{:02} web-1 {a}[{pid}]: {b} {c} id={:08x} took {} ms\r\n",
        second / 3600,
        second / 60 % 60,
        second % 60,
        rng.random::<u32>(),
        rng.random_range(0..5_000)
    )
}

/// A command typed key by key, each echoed, and a screen of output.
fn terminal(rng: &mut StdRng, traffic: &mut Traffic) -> Result<()> {
    traffic.print(b"\x1b]0;deploy@web-1: ~\x07\x1b[01;32mdeploy@web-1\x1b[00m:\x1b[01;34m~\x1b[00m$ ")?;
    let command = format!("grep -n {} /var/log/{}.log", word(rng), word(rng));
    for key in command.bytes() {
        traffic.stroke(&[key])?;
        traffic.print(&[key])?;
    }
    traffic.stroke(b"\r")?;
    traffic.print(b"\r\n")?;
    for _ in 0..rng.random_range(5..40) {
        let line = log_line(rng);
        traffic.print(line.as_bytes())?;
    }
    Ok(())
}

/// What a program prints as fast as it can: log lines in pieces as large as a pipe gives.
fn shell_output(rng: &mut StdRng, traffic: &mut Traffic) -> Result<()> {
    let mut piece = String::new();
    while piece.len() < 4 * 1024 {
        piece.push_str(&log_line(rng));
    }
    traffic.print(piece.as_bytes())
}

/// What `ls -lR` prints of this machine, again and again from the beginning.
fn listing(_: &mut StdRng, traffic: &mut Traffic) -> Result<()> {
    let listed = Command::new("ls").args(["-lR", "/usr/lib", "/usr/share", "/usr/include"]).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).replace('\n', "\r\n");
    ensure!(!text.is_empty(), "ls lists nothing");
    text.as_bytes().chunks(4 * 1024).try_for_each(|piece| traffic.print(piece))
}

fn random_bulk(rng: &mut StdRng, traffic: &mut Traffic) -> Result<()> {
    let mut piece = vec![0; 32 * 1024];
    rng.fill(&mut piece[..]);
    traffic.print(&piece)
}

/// Binary that repeats itself, as a file system's image does.
fn compressible_bulk(rng: &mut StdRng, traffic: &mut Traffic) -> Result<()> {
    let mut piece = vec![0_u8; 32 * 1024];
    for entry in piece.chunks_mut(64) {
        let number: u32 = rng.random_range(0..10_000);
        entry[..4].copy_from_slice(&number.to_le_bytes());
        entry[4..8].copy_from_slice(&[0xff, 0xfe, 0x80, 0x81]);
        entry[8..16].copy_from_slice(&u64::from(number % 7).to_le_bytes());
    }
    traffic.print(&piece)
}
