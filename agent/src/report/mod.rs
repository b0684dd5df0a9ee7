//! Session reports: telling the console about sessions, metadata only. `docs/report.md` is the receiver's side.
//!
//! Owns *at least once*: the report of a stored session is a file in `<state_dir>/reports` before the spool forgets
//! the session, and the file goes when the receiver has answered with 2xx. So neither a crash nor an outage loses
//! one. Where the queue is full, sessions stay unfinished in the spool until it has room.
//!
//! The report of a session's beginning is news rather than evidence: it is written beside the way on which a session
//! is opened, left out where there is no room, and sent again after a restart while the session runs.

mod adopting;
mod client;
mod delivery;
mod queue;
mod schedule;
mod totals;

use std::{path::Path, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::mpsc;
use tracing::debug;
use weir_common::{
    recording::Manifest,
    report::{Location, REPORT_VERSION, SessionReport, Status, Totals},
    session::SessionId,
};

use self::queue::{Key, Kind};
pub use self::{
    adopting::{Adopted, waiting_in},
    client::ClientError,
    delivery::Delivery,
    queue::{Queue, QueueError},
    totals::totals,
};
use crate::{metrics::metrics, session::Session};

/// The most reports of beginnings that wait to be written.
const OPENINGS_MAX: usize = 4096;
/// The queue's directory, in the state directory.
pub(crate) const DIRECTORY: &str = "reports";

/// Where reports go.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// `https://…`, or `http://…` on the loopback interface.
    pub url: reqwest::Url,
    /// The file that the token is read from, at every attempt.
    pub token_file: std::path::PathBuf,
    /// The authorities that may vouch for the receiver; none for those of the system.
    pub ca_file: Option<std::path::PathBuf>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// The most reports that wait.
    pub reports_max: usize,
    /// The store, as the configuration names it.
    pub store: String,
}

/// Why reports cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// What the configuration names.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What became of the reports of stored sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// How many the receiver has.
    pub delivered: usize,
    /// Those that wait in the queue.
    pub waiting: Vec<SessionId>,
    /// Those that the receiver will never take.
    pub set_aside: Vec<SessionId>,
}

/// Takes reports. Clones are the same.
#[derive(Clone, Debug)]
pub struct Reports {
    queue: Arc<Queue>,
    store: Arc<str>,
    openings: mpsc::Sender<SessionReport>,
}

impl Reports {
    /// Opens the queue in the state directory, with what waits in it.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn open(state_dir: &Path, options: &ReportOptions) -> Result<(Self, Delivery), ReportError> {
        let queue = Arc::new(Queue::open(&state_dir.join(DIRECTORY), options.reports_max)?);
        let (openings, opened) = mpsc::channel(OPENINGS_MAX);
        let delivery = Delivery::new(Arc::clone(&queue), options, opened)?;
        Ok((Self { queue, store: options.store.as_str().into(), openings }, delivery))
    }

    /// A session has begun. Never waits; the report is left out if too many wait already.
    pub fn opened(&self, session: &Session) {
        let id = session.id();
        if self.openings.try_send(self.opening(session)).is_err() {
            debug!(session = %id, "the report of the session's beginning is left out: too many wait");
            metrics().reports.skipped.inc();
        }
    }

    /// Reports the sessions that run once more: the agent before may have been killed before it did. Blocks.
    ///
    /// # Errors
    /// [`QueueError::Io`]; that the queue or its disk is full is none.
    pub fn running<'a>(&self, sessions: impl Iterator<Item = &'a Session>) -> Result<(), QueueError> {
        for session in sessions {
            delivery::put_opening(&self.queue, &self.opening(session))?;
        }
        Ok(())
    }

    /// Everything about a session is in the store, in this directory. When this succeeds, the report survives
    /// whatever happens to the agent.
    ///
    /// # Errors
    /// [`QueueError`], and the session is not finished.
    pub async fn stored(&self, manifest: &Manifest, dir: &str, totals: Totals) -> Result<(), QueueError> {
        let report = SessionReport {
            weir: REPORT_VERSION,
            session: manifest.session.clone(),
            target: manifest.target.clone(),
            recorder: manifest.recorder.clone(),
            opened_at: manifest.opened_at,
            location: self.location(dir.to_owned()),
            status: Status::Stored(Box::new(totals)),
        };
        let queue = Arc::clone(&self.queue);
        let put = tokio::task::spawn_blocking(move || queue.put(&report));
        put.await.map_err(|_| QueueError::Interrupted)?
    }

    /// Waits until the receiver has what these stored sessions' reports say, at most for so long, and says what became of
    /// them. What waits still is on the disk for whoever opens the queue next.
    pub async fn settled(&self, sessions: &[SessionId], patience: Duration) -> Settled {
        let key = |&session| Key { session, kind: Kind::Stored };
        let keys: Vec<_> = sessions.iter().map(key).collect();
        let _in_time = tokio::time::timeout(patience, self.queue.until_gone(&keys)).await;
        let (waiting, gone): (Vec<_>, Vec<_>) = keys.into_iter().partition(|&key| self.queue.has(key));
        let aside = gone.iter().filter(|&&key| self.queue.rejected_path(key).exists());
        let set_aside: Vec<_> = aside.map(|key| key.session).collect();
        Settled {
            delivered: gone.len() - set_aside.len(),
            waiting: waiting.into_iter().map(|key| key.session).collect(),
            set_aside,
        }
    }

    fn opening(&self, session: &Session) -> SessionReport {
        SessionReport {
            weir: REPORT_VERSION,
            session: session.meta().clone(),
            target: session.target().cloned(),
            recorder: session.recorder().clone(),
            opened_at: session.opened_at(),
            location: self.location(session.path()),
            status: Status::Open,
        }
    }

    fn location(&self, path: String) -> Location {
        Location { store: self.store.to_string(), path }
    }
}
