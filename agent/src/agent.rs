//! The agent as a whole: everything opened, wired and, at the end, stopped in order.
//!
//! Stopping ends no session: the core stops, the spool is flushed, and the next agent takes up from there.

use std::{
    ffi::OsStr,
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::sys::utsname::{UtsName, uname};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{error, info, warn};
use weir_common::{abi::ABI_VERSION, recording::Recorder};

use crate::{
    config::{Config, ObserveConfig, StoreLocation},
    control::{ListenError, Listener},
    core::{Core, CoreError, CoreHandle, CoreOptions},
    http,
    journal::{Journal, JournalError},
    metrics::metrics,
    report::{Delivery, ReportError, Reports},
    signing::{SigningError, SigningKey},
    store::{FileStore, Store, StoreError},
    storing::{Job, Worker},
    tap::{self, ProgramLog, TapError},
};

/// The most jobs that wait for the worker to take them.
const JOBS_MAX: usize = 64;
const LOCK: &str = "lock";
const SPOOL: &str = "spool";
/// Others may look for the allowed signers; spool and key are the agent's alone.
const STATE_DIR_MODE: u32 = 0o755;

/// Why there is no agent, or no more.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The file system said no.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Two agents must not share their state.
    #[error("another agent is running on the state directory {}", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// The kernel side.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The spool.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The core.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signing key.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The control socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The session reports.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The port for machines.
    #[error("cannot listen on {address} (metrics_listen): {source}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A bug.
    #[error("the agent's core panicked")]
    Panicked,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    core: CoreHandle,
    stop_accepting: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), CoreError>>,
    tasks: Vec<JoinHandle<()>>,
    thread: thread::JoinHandle<()>,
    _lock: fs::File,
}

impl Agent {
    /// Starts an agent in the current tokio runtime. When this returns, the control socket accepts.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        // Before the spool is read, so that whoever looks meanwhile is told.
        let observing = observe(config.observe).await?;
        // Replaying the spool and loading the program take their time, and nothing else runs yet.
        let start = tokio::task::spawn_blocking(move || Parts::open(config));
        let Parts { core, handle, jobs, worker, log, listener, delivery, lock } =
            start.await.map_err(|_| AgentError::Panicked)??;
        let (tell, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("weir-core".to_owned()).spawn(move || {
            // Whoever waited for it has been dropped otherwise.
            let _ = tell.send(core.run());
        });
        let thread = thread.map_err(failed("start a thread for", Path::new("the core")))?;
        let report = {
            let core = handle.clone();
            move |done| {
                let core = core.clone();
                async move { core.done(done).await }
            }
        };
        let (stop_accepting, stop) = oneshot::channel();
        let mut tasks =
            vec![tokio::spawn(worker.run(jobs, report)), tokio::spawn(listener.serve(handle.clone(), stop))];
        tasks.extend(log.map(|log| tokio::spawn(forward(log))));
        tasks.extend(observing);
        tasks.extend(delivery.map(|delivery| tokio::spawn(delivery.run())));
        metrics().health.start();
        info!("ready");
        Ok(Self { core: handle, stop_accepting, ended, tasks, thread, _lock: lock })
    }

    /// Waits until the agent cannot go on.
    ///
    /// # Errors
    /// [`AgentError`]: why.
    pub async fn failed(&mut self) -> AgentError {
        match (&mut self.ended).await {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) | Err(_) => AgentError::Panicked,
        }
    }

    /// Stops; sessions go on with the next agent.
    pub async fn stop(self) {
        let Self { core, stop_accepting, ended, tasks, thread, _lock } = self;
        metrics().stopping();
        // If the listener is gone, nobody is accepted either.
        let _ = stop_accepting.send(());
        // The connections go after the core, so that their end ends no session.
        core.stop().await;
        if let Ok(Err(error)) = ended.await {
            error!(%error, "the core ended with an error");
        }
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        if tokio::task::spawn_blocking(|| thread.join()).await.is_err() {
            error!("the core's thread could not be waited for");
        }
        info!("stopped");
    }
}

/// Everything that is opened before anything runs.
struct Parts {
    core: Core,
    handle: CoreHandle,
    jobs: mpsc::Receiver<Job>,
    worker: Worker,
    log: Option<ProgramLog>,
    listener: Listener,
    delivery: Option<Delivery>,
    lock: fs::File,
}

impl Parts {
    fn open(config: Config) -> Result<Self, AgentError> {
        let lock = lock(&config.state_dir)?;
        let key = SigningKey::load_or_make(&config.signing_key)?;
        key.write_allowed_signers(&config.state_dir)?;
        info!(fingerprint = key.fingerprint(), "signing key");
        let store: Arc<dyn Store> = match &config.store {
            StoreLocation::Directory(root) => Arc::new(FileStore::open(root)?),
        };
        let journal = Journal::open(&config.state_dir.join(SPOOL), config.spool)?;
        let reports = config.report.map(|options| Reports::open(&config.state_dir, &options)).transpose()?;
        let (reports, delivery) = reports.unzip();
        if let Some(reports) = &reports {
            let running = journal.ledger().sessions().filter(|session| session.end().is_none());
            reports.running(running).map_err(ReportError::from)?;
        }
        let worker = Worker::new(store, Arc::new(key), config.seal_parallelism).reporting(reports.clone());
        let (mut taps, ring) = tap::open(&config.tap)?;
        let log = taps.take_log()?;
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let options = CoreOptions {
            max_sessions: config.max_sessions,
            seal: config.seal,
            reattach_timeout: config.reattach_timeout,
            recorder: recorder(config.node),
            reports,
        };
        let (core, handle) = Core::new(ring, taps, journal, sender, options)?;
        let listener = Listener::bind(config.control)?;
        Ok(Self { core, handle, jobs, worker, log, listener, delivery, lock })
    }
}

fn lock(state_dir: &Path) -> Result<fs::File, AgentError> {
    let made = fs::DirBuilder::new().recursive(true).mode(STATE_DIR_MODE).create(state_dir);
    made.map_err(failed("make", state_dir))?;
    let path = state_dir.join(LOCK);
    let file = fs::File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::InUse { path: state_dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

fn recorder(node: Option<String>) -> Recorder {
    let name = uname().ok();
    let field = |value: Option<&OsStr>| {
        value.map_or_else(|| "unknown".to_owned(), |value| value.to_string_lossy().into_owned())
    };
    Recorder {
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        abi: ABI_VERSION,
        node: node.unwrap_or_else(|| field(name.as_ref().map(UtsName::nodename))),
        kernel: field(name.as_ref().map(UtsName::release)),
    }
}

/// Serves metrics, health and readiness, if anybody wants them.
async fn observe(config: ObserveConfig) -> Result<Option<JoinHandle<()>>, AgentError> {
    let Some(address) = config.listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| AgentError::Metrics { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    info!(metrics_listen = %address, "serving metrics and health");
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = http::serve(listener, config.store_patience).await {
            error!(%error, "metrics and health are not served any more");
        }
    })))
}

async fn forward(log: ProgramLog) {
    if let Err(error) = log.run().await {
        warn!(%error, "the BPF program's diagnostics cannot be read");
    }
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::Io { op, path: path.to_owned(), source }
}
