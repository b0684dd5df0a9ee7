//! A user's session: `ssh` on the store machine, through the connector, to the target.

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::wait::{PATIENCE, until};

/// What came of a stream so far.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// When something came, and how much there was then.
    arrivals: Vec<(Instant, usize)>,
}

/// A session that was begun.
pub(crate) struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Mutex<Received>>,
    errors: Arc<Mutex<Received>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a session ended.
pub(crate) struct Ended {
    /// ssh's exit status: the command's, or 255.
    pub(crate) status: i32,
    /// What the user received.
    pub(crate) output: Vec<u8>,
    /// What ssh and the command said besides.
    pub(crate) said: String,
}

impl Session {
    pub(crate) fn of(mut child: Child) -> Self {
        let (output, errors) = (Arc::default(), Arc::default());
        let readers = vec![
            read_into(child.stdout.take().expect("piped"), &output),
            read_into(child.stderr.take().expect("piped"), &errors),
        ];
        Self { input: child.stdin.take(), child, output, errors, readers }
    }

    /// What the user has received.
    pub(crate) fn received(&self) -> Vec<u8> {
        lock(&self.output).bytes.clone()
    }

    /// What ssh has said.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&lock(&self.errors).bytes).into_owned()
    }

    /// The longest time between two arrivals of output.
    pub(crate) fn longest_pause(&self) -> Duration {
        let output = lock(&self.output);
        let pauses = output.arrivals.windows(2).map(|pair| pair[1].0 - pair[0].0);
        pauses.max().unwrap_or_default()
    }

    /// Waits until the user has received this.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<()> {
        self.wait_until(&format!("{text:?} from the target"), |received| contains(received, text.as_bytes()))
    }

    /// Waits until what the user has received is enough.
    pub(crate) fn wait_until(&mut self, what: &str, mut enough: impl FnMut(&[u8]) -> bool) -> Result<()> {
        until(what, PATIENCE, || {
            if enough(&lock(&self.output).bytes) {
                return Ok(Some(()));
            }
            let status = self.child.try_wait()?;
            ensure!(
                status.is_none(),
                "the session ended ({status:?}) before there was {what}: {}",
                self.said()
            );
            Ok(None)
        })
    }

    /// Waits until nothing has come for so long: what was on its way has arrived.
    pub(crate) fn wait_for_quiet(&self, quiet: Duration) -> Result<()> {
        until("nothing comes from the target any more", PATIENCE, || {
            let is_quiet = lock(&self.output).arrivals.last().is_none_or(|(at, _)| at.elapsed() >= quiet);
            Ok(is_quiet.then_some(()))
        })
    }

    /// Types, or sends.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("the input was ended")?;
        input.write_all(bytes)?;
        Ok(input.flush()?)
    }

    /// The input, to be fed from elsewhere.
    pub(crate) fn take_input(&mut self) -> Result<ChildStdin> {
        self.input.take().context("the input was taken already")
    }

    /// Ends the input.
    pub(crate) fn end_input(&mut self) {
        drop(self.input.take());
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until it is over.
    pub(crate) fn end(self) -> Result<Ended> {
        self.end_within(PATIENCE)
    }

    /// [`Self::end`], with a patience of its own.
    pub(crate) fn end_within(mut self, patience: Duration) -> Result<Ended> {
        let status = until("the session's end", patience, || Ok(self.child.try_wait()?))?;
        for reader in self.readers.drain(..) {
            reader.join().ok().context("a reader panicked")?;
        }
        Ok(Ended { status: status.code().unwrap_or(-1), output: self.received(), said: self.said() })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_into(mut from: impl Read + Send + 'static, received: &Arc<Mutex<Received>>) -> JoinHandle<()> {
    let received = Arc::clone(received);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let mut received = lock(&received);
            received.bytes.extend_from_slice(&buffer[..len]);
            let so_far = received.bytes.len();
            received.arrivals.push((Instant::now(), so_far));
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether one lies in the other.
pub(crate) fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
