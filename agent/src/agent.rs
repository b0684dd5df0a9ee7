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
    time::Instant,
};

use nix::sys::utsname::{UtsName, uname};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tracing::{error, info, warn};
use weir_common::{abi::ABI_VERSION, recording::Recorder};

use crate::{
    breaker::Outage,
    check::{
        self,
        idle::{self, Looked},
    },
    config::{Config, ObserveConfig, StoreLocation},
    control::{self, ListenError, Listener},
    core::CoreError,
    http,
    lanes::{
        Lane, LaneError, Lanes,
        open::{Common, OpenLane},
    },
    metrics::metrics,
    report::{Delivery, ReportError, Reports},
    signing::{SigningError, SigningKey},
    store::{FileStore, S3Store, Store, StoreError},
    storing::Worker,
    tap::ProgramLog,
};

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
    /// A lane.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// A core.
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
    #[error("a core of the agent panicked")]
    Panicked,
}

impl AgentError {
    /// Whether it did not get its tap, for a reason that the node may have.
    #[must_use]
    pub fn is_of_the_node(&self) -> bool {
        matches!(self, Self::Lane(LaneError::Tap(error)) if error.is_of_the_node())
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    lanes: Lanes,
    stop_accepting: oneshot::Sender<()>,
    ended: JoinSet<Result<(), AgentError>>,
    tasks: Vec<JoinHandle<()>>,
    threads: Vec<thread::JoinHandle<()>>,
    _lock: fs::File,
}

impl Agent {
    /// Starts an agent in the current tokio runtime. When this returns, the control socket accepts.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        // Before the spool is read, so that whoever looks meanwhile is told.
        let observe_config = config.observe;
        let observing = observe(observe_config).await?;
        // Replaying the spool and loading the program take their time, and nothing else runs yet.
        let start = tokio::task::spawn_blocking(move || Parts::open(config));
        let Parts { lanes: open, common, worker, listener, delivery, lock, looked } =
            start.await.map_err(|_| AgentError::Panicked)??;
        let common = Arc::new(common);
        let (mut lanes, mut tasks) = (Vec::new(), Vec::new());
        let (mut ended, mut threads) = (JoinSet::new(), Vec::new());
        for OpenLane { core, handle, takes_new, jobs, log, running } in open {
            let (tell, told) = oneshot::channel();
            let of_thread = Arc::clone(&common);
            let thread = thread::Builder::new().name(format!("weir-core-{}", running.place));
            let thread = thread.spawn(move || {
                // Whoever waited for it has been dropped otherwise.
                let _ = tell.send(running.run(core, &of_thread.rings));
            });
            threads.push(thread.map_err(failed("start a thread for", Path::new("the core")))?);
            ended.spawn(async move { Ok(told.await.map_err(|_| AgentError::Panicked)??) });
            let report = {
                let core = handle.clone();
                move |done| {
                    let core = core.clone();
                    async move { core.done(done).await }
                }
            };
            tasks.push(tokio::spawn(worker.clone().run(jobs, report)));
            tasks.extend(log.map(|log| tokio::spawn(forward(log))));
            lanes.push(Lane { core: handle, takes_new });
        }
        let lanes = Lanes::new(lanes, Arc::clone(&common.roster));
        let (stop_accepting, stop) = oneshot::channel();
        tasks.push(tokio::spawn(listener.serve(lanes.clone(), stop)));
        tasks.push(tokio::spawn(follow(worker.outage())));
        tasks.push(tokio::spawn(look(looked, observe_config)));
        tasks.extend(observing);
        tasks.extend(delivery.map(|delivery| tokio::spawn(delivery.run())));
        metrics().health.start();
        info!("ready");
        Ok(Self { lanes, stop_accepting, ended, tasks, threads, _lock: lock })
    }

    /// Waits until the agent cannot go on.
    ///
    /// # Errors
    /// [`AgentError`]: why.
    pub async fn failed(&mut self) -> AgentError {
        loop {
            match self.ended.join_next().await {
                // A lane that was needed no more.
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(_)) | None => return AgentError::Panicked,
            }
        }
    }

    /// Stops; sessions go on with the next agent.
    pub async fn stop(self) {
        let Self { lanes, stop_accepting, mut ended, tasks, threads, _lock } = self;
        metrics().stopping();
        // If the listener is gone, nobody is accepted either.
        let _ = stop_accepting.send(());
        // The connections go after the cores, so that their end ends no session.
        lanes.stop().await;
        while let Some(lane) = ended.join_next().await {
            if let Ok(Err(error)) = lane {
                error!(%error, "a core ended with an error");
            }
        }
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        for thread in threads {
            if !matches!(tokio::task::spawn_blocking(|| thread.join()).await, Ok(Ok(()))) {
                error!("a core's thread could not be waited for");
            }
        }
        info!("stopped");
    }
}

/// Everything that is opened before anything runs.
struct Parts {
    lanes: Vec<OpenLane>,
    common: Common,
    worker: Worker,
    listener: Listener,
    delivery: Option<Delivery>,
    lock: fs::File,
    /// The store, to be looked at.
    looked: Looked,
}

impl Parts {
    fn open(config: Config) -> Result<Self, AgentError> {
        let allowed = control::allowed(&config.control)?;
        let lock = lock(&config.state_dir)?;
        let key = SigningKey::load_or_make(&config.signing_key)?;
        key.write_allowed_signers(&config.state_dir)?;
        info!(fingerprint = key.fingerprint(), "signing key");
        let recorder = recorder(config.node.clone());
        let (store, looked): (Arc<dyn Store>, _) = match &config.store {
            StoreLocation::Directory(root) => {
                (Arc::new(FileStore::open(root)?), Looked::Directory(root.clone()))
            }
            StoreLocation::S3(options) => {
                let store = Arc::new(S3Store::new((**options).clone()));
                (Arc::clone(&store) as _, Looked::Bucket(store, recorder.node.clone()))
            }
        };
        let reports = config.report.clone();
        let reports = reports.map(|options| Reports::open(&config.state_dir, &options)).transpose()?;
        let (reports, delivery) = reports.unzip();
        let worker = Worker::new(store, Arc::new(key), config.parallel).reporting(reports.clone());
        let worker = worker.finding(config.findings.clone());
        let (socket, spools) = (config.control.clone(), config.state_dir.join(SPOOL));
        let common = Common::new(config, &spools, recorder, reports, worker.outage())?;
        let lanes = common.open_lanes(&spools)?;
        let listener = Listener::bind(socket, allowed)?;
        Ok(Self { lanes, common, worker, listener, delivery, lock, looked })
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

/// Who records on this node.
#[must_use]
pub fn recorder(node: Option<String>) -> Recorder {
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

/// Tells the metrics whether the store answers those who have something to store.
async fn follow(mut outage: watch::Receiver<Option<Outage>>) {
    loop {
        let is_away = outage.borrow_and_update().is_some();
        metrics().health.store_outage(is_away, Instant::now());
        if outage.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at the store: a bucket when the agent starts, and either kind for readiness, if anybody is told.
async fn look(looked: Looked, config: ObserveConfig) {
    let found = match &looked {
        Looked::Directory(_) => Vec::new(),
        Looked::Bucket(store, node) => check::log_bucket(store, node).await,
    };
    if config.listen.is_some() {
        idle::watch(looked, config.store_idle, found).await;
    }
}

async fn forward(log: ProgramLog) {
    if let Err(error) = log.run().await {
        warn!(%error, "the BPF program's diagnostics cannot be read");
    }
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::Io { op, path: path.to_owned(), source }
}
