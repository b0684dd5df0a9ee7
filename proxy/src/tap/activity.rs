//! When data last went through a session, either way.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Noted by both legs at every frame of data, and so no more than a store.
#[derive(Debug)]
pub struct Activity {
    began: Instant,
    last_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Activity {
    pub(super) fn note(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// Resolves when nothing was noted for this long.
    pub async fn ceased(&self, limit: Duration) {
        loop {
            let due = self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_has_not_ceased_before_a_whole_limit_after_the_last_note() {
        let activity =
            Activity { began: Instant::now() - Duration::from_secs(60), last_ms: AtomicU64::new(0) };
        let limit = Duration::from_millis(50);
        activity.ceased(limit).await;
        activity.note();
        let noted = Instant::now();
        activity.ceased(limit).await;
        // Notes are kept in whole milliseconds.
        assert!(noted.elapsed() >= limit - Duration::from_millis(1));
    }
}
