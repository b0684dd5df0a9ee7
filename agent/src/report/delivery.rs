//! The task that delivers reports.
//!
//! A few attempts at a time, each with a timeout. What fails is said once and then now and again, so that an outage
//! is in the log and does not fill it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tracing::{debug, error, info, warn};
use weir_common::report::SessionReport;

use super::{
    ClientError, ReportOptions,
    client::{Answer, Sender},
    queue::{Key, Queue, QueueError},
    schedule::Schedule,
};
use crate::metrics::{Attempt, metrics};

/// The most attempts at a time.
const PARALLEL: usize = 4;
/// How often in a row a report fails before its session is named in the log, at that number and each time it doubles.
const FAILURES_TOLD: u32 = 8;
/// When a task that failed by itself is looked after.
const IDLE: Duration = Duration::from_secs(60);

/// Delivers reports.
#[derive(Debug)]
pub struct Delivery {
    queue: Arc<Queue>,
    sender: Sender,
    openings: mpsc::Receiver<SessionReport>,
}

enum Outcome {
    /// There is nothing to deliver any more.
    Gone,
    Answered(Answer),
}

/// Puts the report of a session's beginning into the queue, if there is room. Blocks.
pub(super) fn put_opening(queue: &Queue, report: &SessionReport) -> Result<(), QueueError> {
    match queue.put(report) {
        Err(error) if error.is_no_room() => {
            metrics().reports.skipped.inc();
            Ok(())
        }
        put => put,
    }
}

impl Delivery {
    pub(super) fn new(
        queue: Arc<Queue>,
        options: &ReportOptions,
        openings: mpsc::Receiver<SessionReport>,
    ) -> Result<Self, ClientError> {
        Ok(Self { queue, sender: Sender::new(options)?, openings })
    }

    /// Delivers until it is dropped. What is not delivered then is on the disk.
    pub async fn run(self) {
        let Self { queue, sender, openings } = self;
        tokio::join!(write_openings(Arc::clone(&queue), openings), Deliverer::new(queue, sender).run());
    }
}

async fn write_openings(queue: Arc<Queue>, mut openings: mpsc::Receiver<SessionReport>) {
    while let Some(report) = openings.recv().await {
        let (queue, session) = (Arc::clone(&queue), report.session.session_id);
        let put = tokio::task::spawn_blocking(move || put_opening(&queue, &report)).await;
        if let Ok(Err(error)) = put {
            warn!(%session, %error, "the report of the session's beginning is left out");
            metrics().reports.skipped.inc();
        }
    }
}

struct Deliverer {
    queue: Arc<Queue>,
    sender: Sender,
    schedule: Schedule,
    attempts: JoinSet<(Key, Result<Outcome, String>)>,
    /// What is wrong, as the log has it.
    trouble: Option<String>,
}

impl Deliverer {
    fn new(queue: Arc<Queue>, sender: Sender) -> Self {
        let schedule = Schedule::new(Instant::now());
        Self { queue, sender, schedule, attempts: JoinSet::new(), trouble: None }
    }

    async fn run(mut self) {
        loop {
            let now = Instant::now();
            for key in self.queue.fresh() {
                self.schedule.add(key, now);
            }
            while self.attempts.len() < PARALLEL
                && let Some(key) = self.schedule.next(now)
            {
                self.attempts.spawn(attempt(Arc::clone(&self.queue), self.sender.clone(), key));
            }
            let free = self.attempts.len() < PARALLEL;
            let wake = self.schedule.wake_at().filter(|_| free).unwrap_or(now + IDLE);
            let queue = Arc::clone(&self.queue);
            tokio::select! {
                () = queue.news.notified() => {}
                Some(ended) = self.attempts.join_next() => self.ended(ended).await,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    async fn ended(&mut self, ended: Result<(Key, Result<Outcome, String>), JoinError>) {
        let (key, outcome) = match ended {
            Ok(ended) => ended,
            // Its report waits for the next agent.
            Err(error) => return error!(%error, "an attempt to deliver a session report failed by itself"),
        };
        let session = key.session;
        let settled = match outcome {
            Ok(Outcome::Gone) => {
                self.schedule.gone(key);
                return;
            }
            Ok(Outcome::Answered(Answer::Taken)) => {
                self.on_disk(move |queue| queue.remove(key).map(|()| true)).await
            }
            Ok(Outcome::Answered(Answer::Never(status))) => {
                let aside = self.queue.rejected_path(key);
                error!(%session, %status, set_aside = %aside.display(), "the receiver will never take this session report; look at it, and at the receiver's log");
                self.on_disk(move |queue| queue.reject(key)).await
            }
            Ok(Outcome::Answered(Answer::Unauthorized(status))) => {
                let file = self.sender.token_file().display();
                let why = format!(
                    "the receiver does not accept the token ({status}): put one that it accepts into {file}; it is read at every attempt"
                );
                return self.later(key, why, None);
            }
            Ok(Outcome::Answered(Answer::Later { why, retry_after })) => {
                return self.later(key, why, retry_after);
            }
            Err(why) => return self.later(key, why, None),
        };
        match settled {
            Ok(true) => {
                self.schedule.delivered(key, Instant::now());
                debug!(report = %key, "session report settled");
                if self.trouble.take().is_some() {
                    info!("session reports are delivered again");
                }
            }
            Ok(false) => self.later(key, "there is no room to set another report aside".to_owned(), None),
            Err(why) => self.later(key, why, None),
        }
    }

    async fn on_disk(
        &self,
        change: impl FnOnce(&Queue) -> Result<bool, QueueError> + Send + 'static,
    ) -> Result<bool, String> {
        let queue = Arc::clone(&self.queue);
        let changed = tokio::task::spawn_blocking(move || change(&queue)).await;
        changed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn later(&mut self, key: Key, why: String, retry_after: Option<Duration>) {
        let failures = self.schedule.failed(key, Instant::now(), retry_after);
        if self.trouble.as_ref() != Some(&why) {
            warn!(session = %key.session, why, "a session report was not delivered; it is tried again");
            self.trouble = Some(why);
        } else if failures >= FAILURES_TOLD && failures.is_power_of_two() {
            warn!(session = %key.session, why, failures, "a session report is still not delivered");
        }
    }
}

async fn attempt(queue: Arc<Queue>, sender: Sender, key: Key) -> (Key, Result<Outcome, String>) {
    (key, try_attempt(queue, sender, key).await)
}

async fn try_attempt(queue: Arc<Queue>, sender: Sender, key: Key) -> Result<Outcome, String> {
    let of_task = sender.clone();
    let read = move || {
        let body = queue.read(key).map_err(|error| error.to_string())?;
        body.map(|body| Ok::<_, String>((of_task.authorization()?, body))).transpose()
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let Some((authorization, body)) =
        read.inspect_err(|_| metrics().reports.attempted(Attempt::Failed, begun.elapsed()))?
    else {
        return Ok(Outcome::Gone);
    };
    let answer = sender.send(authorization, body).await;
    let result = match answer {
        Answer::Taken => Attempt::Delivered,
        Answer::Never(_) => Attempt::Rejected,
        Answer::Unauthorized(_) => Attempt::Unauthorized,
        Answer::Later { .. } => Attempt::Failed,
    };
    metrics().reports.attempted(result, begun.elapsed());
    Ok(Outcome::Answered(answer))
}
