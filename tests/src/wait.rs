//! Waiting for conditions.

use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Polls until there is an answer.
///
/// # Panics
/// After 30 seconds, naming what was waited for.
pub fn eventually<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, poll)
}

/// As [`eventually`], with a patience of its own.
///
/// # Panics
/// When the patience is over, naming what was waited for.
pub fn eventually_within<T>(patience: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        #[expect(clippy::disallowed_methods, reason = "the poll interval of a wait on a condition")]
        std::thread::sleep(POLL);
    }
}
