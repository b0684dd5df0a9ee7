//! Random bytes into a session for as long as a scenario wants, remembered by their digest.

use std::{
    io::Write,
    process::ChildStdin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use rand::RngExt;
use sha2::{Digest, Sha256};

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
                let (mut digest, mut chunk) = (Sha256::new(), vec![0; 16 << 10]);
                while !stop.load(Ordering::Relaxed) {
                    rand::rng().fill(&mut chunk[..]);
                    if input.write_all(&chunk).is_err() {
                        break;
                    }
                    digest.update(&chunk);
                    sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
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

/// The SHA-256 of some bytes, as `sha256sum` prints it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
