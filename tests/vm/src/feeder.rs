//! Random bytes into a session for as long as a scenario wants, remembered by their digest.

use std::{
    io::Write,
    process::ChildStdin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use rand::RngExt;
use sha2::{Digest, Sha256};

/// Bytes at a time, and how long until the next: half a megabyte a second. What is tested is not how much goes through, and
/// everything has to be read and verified on an emulated processor afterwards.
const CHUNK_BYTES: usize = 16 << 10;
const PACE: Duration = Duration::from_millis(30);

/// Feeds until it is told to stop.
pub(crate) struct Feeder {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<String>,
}

impl Feeder {
    pub(crate) fn start(mut input: ChildStdin) -> Self {
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
            move || {
                let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
                while !stop.load(Ordering::Relaxed) {
                    rand::rng().fill(&mut chunk[..]);
                    if input.write_all(&chunk).is_err() {
                        break;
                    }
                    digest.update(&chunk);
                    sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    pause();
                }
                hex(&digest.finalize())
            }
        });
        Self { sent, stop, thread }
    }

    /// How much ssh has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the input; gives the digest of what was sent.
    pub(crate) fn finish(self) -> Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the feeder panicked")
    }
}

#[expect(clippy::disallowed_methods, reason = "the pace at which bytes are fed")]
fn pause() {
    thread::sleep(PACE);
}

/// The SHA-256 of some bytes, as `sha256sum` prints it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
