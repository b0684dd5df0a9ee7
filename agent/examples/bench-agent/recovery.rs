//! How long it takes to read a spool back, and how much memory.

use std::{collections::BTreeMap, path::Path, process::Command, time::Instant};

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use nix::unistd::Pid;
use weir_agent::{
    clock,
    journal::{Journal, RingRecord},
    ledger::StateEntry,
    spool::SpoolOptions,
};
use weir_common::{
    abi::{ABI_VERSION, FRAME_HEADER_LEN, RECORD_MESSAGE, RecordHeader},
    recording::Recorder,
    session::{ChannelNo, SessionId, SocketCookie},
};

use crate::{
    MIB, Scale,
    feeder::stdout_frame,
    proxy::meta,
    report::{Row, status_kib},
};

/// Sessions whose records lie in turn in the spool.
const SESSIONS: u64 = 100;
/// Set in the process that recovers: the spool.
const RECOVER: &str = "WEIR_BENCH_RECOVER";
const GIB: f64 = (1024 * MIB) as f64;

pub(crate) fn recovered(scale: &Scale) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, body) in [("32 KiB records", 32 * 1024), ("64 B records", 64)] {
        let dir = tempfile::tempdir()?;
        let bytes = if body == 64 { scale.recovered_bytes / 4 } else { scale.recovered_bytes };
        fill(dir.path(), body, bytes)?;
        let (mut seconds, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..scale.rounds {
            let (took, kib, gib) = in_a_process_of_its_own(dir.path())?;
            seconds.push(took / gib);
            memory.push(kib / 1024.0 / gib);
        }
        rows.push(Row::new(format!("recovery of a spool, {name}"), "s/GiB", seconds));
        rows.push(Row::new(format!("its peak memory, {name}"), "MiB/GiB", memory));
    }
    Ok(rows)
}

fn options() -> SpoolOptions {
    SpoolOptions {
        file_bytes: 64 * MIB,
        max_bytes: u64::MAX,
        flush_interval: std::time::Duration::from_secs(60),
    }
}

/// Seconds, peak memory in KiB, and the spool's size in GiB. Memory that this process had before would hide what
/// recovery takes.
fn in_a_process_of_its_own(spool: &Path) -> Result<(f64, f64, f64)> {
    let output = Command::new(std::env::current_exe()?).env(RECOVER, spool).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [took, kib, gib] = numbers[..] else { bail!("three numbers, not {text:?}") };
    Ok((took, kib, gib))
}

/// Recovers a spool, if this is the process that was started for it, and says what it took.
pub(crate) fn recover_if_asked() -> Result<bool> {
    let Some(spool) = std::env::var_os(RECOVER) else { return Ok(false) };
    let before = status_kib(Pid::this(), "VmRSS")?;
    let begin = Instant::now();
    let journal = Journal::open(Path::new(&spool), options())?;
    let took = begin.elapsed().as_secs_f64();
    ensure!(journal.ledger().sessions().len() as u64 == SESSIONS, "all sessions are there");
    let kib = status_kib(Pid::this(), "VmHWM")? - before;
    println!("{took} {kib} {}", journal.spool_bytes() as f64 / GIB);
    Ok(true)
}

/// A spool of records of many sessions in turn.
fn fill(dir: &Path, body: usize, bytes: u64) -> Result<()> {
    let mut journal = Journal::open(dir, options())?;
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for number in 0..SESSIONS {
        let session = open(&mut journal)?;
        let cookie = SocketCookie(number * 2 + 1);
        let (channel, t2c) = (ChannelNo(0), SocketCookie(cookie.0 + 1));
        journal.append(StateEntry::Armed { session, channel, c2t: cookie, t2c })?;
        next.insert(t2c.0, 0);
    }
    let frame = stdout_frame(&vec![b'x'; body]);
    let mut position = 0;
    while journal.spool_bytes() < bytes {
        let mut pass = Vec::new();
        for (&cookie, seq) in &mut next {
            pass.push(record(cookie, *seq, &frame)?);
            *seq += 1;
        }
        let records: Vec<_> = pass
            .iter()
            .map(|bytes| {
                position += 8;
                RingRecord { bytes, end: position }
            })
            .collect();
        journal.append_records(&records, |_| {})?;
    }
    Ok(())
}

fn open(journal: &mut Journal) -> Result<SessionId> {
    let meta = meta();
    let session = meta.session_id;
    let recorder = Recorder { agent: "bench".into(), abi: ABI_VERSION, node: "n".into(), kernel: "k".into() };
    let opened = StateEntry::Opened {
        meta: Box::new(meta),
        clock: clock::now(),
        recorder,
        opened_at: Timestamp::now(),
    };
    journal.append(opened)?;
    Ok(session)
}

fn record(cookie: u64, seq: u64, frame: &[u8]) -> Result<Vec<u8>> {
    let len = u32::try_from(frame.len())?;
    let header =
        RecordHeader { cookie, boot_ns: clock::boot_ns(), len, abi: ABI_VERSION, kind: RECORD_MESSAGE };
    let mut bytes = [&header.to_bytes()[..], frame].concat();
    let at = bytes.len() - frame.len();
    bytes[at + 8..at + FRAME_HEADER_LEN].copy_from_slice(&seq.to_le_bytes());
    Ok(bytes)
}
