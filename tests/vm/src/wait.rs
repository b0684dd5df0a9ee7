//! Waiting for conditions. Every wait ends: at the latest with an error that names what was waited for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long something may take that should take seconds. Emulated processors are some twenty times slower than real ones, and
/// this ends waits that hang; it measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(100);

/// Polls until there is an answer.
pub(crate) fn until<T>(
    what: &str,
    patience: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = poll()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain: {what}", patience.as_secs());
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the poll interval of a wait on a condition")]
fn pause() {
    std::thread::sleep(POLL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_answer_or_names_what_was_waited_for() {
        let mut polls = 0;
        let answer = until("three polls", PATIENCE, || {
            polls += 1;
            Ok((polls == 3).then_some(polls))
        });
        assert_eq!(answer.expect("it comes"), 3);
        let error = until("the moon", Duration::ZERO, || Ok(None::<()>)).expect_err("it does not come");
        assert_eq!(error.to_string(), "waited 0 s in vain: the moon");
    }

    #[test]
    fn an_error_ends_a_wait() {
        let error = until("nothing", PATIENCE, || -> Result<Option<()>> { bail!("broken") });
        assert_eq!(error.expect_err("it fails").to_string(), "broken");
    }
}
