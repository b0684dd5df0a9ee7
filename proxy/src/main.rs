//! `weir-proxy`: reads the configuration, opens the port, serves.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, public::RsaPublicKey};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};
use weir_proxy::{
    auth::secret,
    client_leg::Shared,
    config::Config,
    connections::Connections,
    http::{self, Observed},
    metrics::metrics,
    server,
};
use weir_telemetry::LogFormat;

/// Brokers approved SSH sessions to their targets, every byte recorded by the kernel before it is delivered.
///
/// Users connect with the id of their grant as the login name:
///
///     ssh -p 10022 GRANT@CONNECTOR
///
/// SIGTERM stops accepting, lets sessions go on for the grace period, then ends them; a second one cuts them at once.
/// SIGHUP reads the configuration file again.
/// The log goes to standard error; WEIR_LOG sets its filter, e.g. WEIR_LOG=debug, and WEIR_LOG_FORMAT=json makes each
/// line a JSON object.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/proxy.toml")]
    config: PathBuf,
    /// Check the configuration and the grants, then exit
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make the hash of a one-time secret for a grant, of what is on standard input
    HashSecret {
        /// Make the secret as well: 128 random bits
        #[arg(long)]
        generate: bool,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let format = match LogFormat::of_environment() {
        Ok(format) => format,
        Err(error) => {
            eprintln!("weir-proxy: {error}");
            return ExitCode::FAILURE;
        }
    };
    let log = LogFilter::install(format);
    let done = match args.command {
        Some(Command::HashSecret { generate }) => secret::hash_secret(generate).map_err(Into::into),
        None => start(&args, &log),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs to the end. What blocks then, a name server or a file system that hangs, is not waited for.
fn start(args: &Args, log: &LogFilter) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let done = runtime.block_on(run(args, log));
    runtime.shutdown_background();
    done
}

async fn run(args: &Args, log: &LogFilter) -> Result<()> {
    let config = Config::load(&args.config)
        .with_context(|| format!("the configuration {} can't be used", args.config.display()))?;
    log.set(config.log.as_deref());
    let shared =
        Shared::new(config.clone(), host_key(&config.host_key)?).context("state_dir can't be used")?;
    let (good, bad) = shared
        .grants
        .survey()
        .await
        .with_context(|| format!("cannot read the grants directory {}", config.grants_dir.display()))?;
    for error in &bad {
        tracing::error!(%error, "this grant lets nobody in");
    }
    if args.check {
        let mut targets: Vec<_> = config.targets.values().collect();
        targets.sort_by_key(|target| &target.resource.name);
        for target in targets {
            println!("{target}");
        }
        println!("{} resources, {good} grants, {} of them malformed", config.targets.len(), bad.len());
        return if bad.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("there are malformed grants")) };
    }

    let listener = listen(config.listen).await?;
    let address = listener.local_addr()?;
    let (connections, stop) = (Connections::default(), CancellationToken::new());
    let (shared, in_force) = watch::channel(Arc::new(shared));
    if let Some(address) = config.metrics_listen {
        let listener = listen(address).await?;
        tracing::info!(metrics_listen = %listener.local_addr()?, "serving metrics and health");
        tokio::spawn(http::serve(
            listener,
            Observed::new(in_force.clone(), connections.clone(), stop.clone()),
        ));
    }
    let mut signals = Signals::new()?;
    let accepting = tokio::spawn(server::accept(listener, in_force, connections.clone(), stop.clone()));
    tracing::info!(listen = %address, grants = good, resources = config.targets.len(), "ready");
    service_manager::ready();

    while let Told::Reload = signals.next().await {
        service_manager::reloading();
        reload(&args.config, &shared, log);
        service_manager::ready();
    }
    service_manager::stopping();
    metrics().stopping();
    let grace = shared.borrow().config.shutdown_grace;
    tracing::info!(
        grace_seconds = grace.as_secs_f32(),
        "stopping: no new connections; waiting for sessions to end"
    );
    stop.cancel();
    accepting.await.context("the server failed")?;
    let told_again = async { while let Told::Reload = signals.next().await {} };
    tokio::select! {
        () = server::drain(&connections, grace) => tracing::info!("stopped"),
        () = told_again => tracing::warn!("stopping at once: running sessions are cut"),
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Puts the configuration file in force, for the connections that are accepted from now on. A file that can't be
/// used changes nothing.
fn reload(path: &Path, shared: &watch::Sender<Arc<Shared>>, log: &LogFilter) {
    let running = shared.borrow().clone();
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            metrics().reloaded(false);
            tracing::error!(path = %path.display(), %error, "NOT reloaded: the file can't be used, and what was in force stays in force");
            return;
        }
    };
    for option in config.keep_fixed(&running.config) {
        tracing::warn!(
            option,
            "this can't be changed while the connector runs; it stays as it was until a restart"
        );
    }
    let (resources, filter) = (config.targets.len(), config.log.clone());
    match running.reconfigured(config) {
        Ok(reconfigured) => shared.send_replace(Arc::new(reconfigured)),
        Err(error) => {
            metrics().reloaded(false);
            tracing::error!(%error, "NOT reloaded: state_dir can't be used, and what was in force stays in force");
            return;
        }
    };
    log.set(filter.as_deref());
    metrics().reloaded(true);
    tracing::info!(
        resources,
        "reloaded: in force for new connections; those that run keep what they began with"
    );
}

enum Told {
    Reload,
    Stop,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

/// The log's filter: `WEIR_LOG` if it is set, else the configuration's `log`, else `info`.
struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    fn install(format: LogFormat) -> Self {
        let (filter, handle) = reload::Layer::new(Self::filter(None));
        tracing_subscriber::registry().with(filter).with(weir_telemetry::lines(format)).init();
        Self(handle)
    }

    fn set(&self, configured: Option<&str>) {
        // It fails only when the subscriber is gone, and that is never dropped.
        let _ = self.0.reload(Self::filter(configured));
    }

    fn filter(configured: Option<&str>) -> EnvFilter {
        EnvFilter::try_from_env("WEIR_LOG")
            .unwrap_or_else(|_| EnvFilter::new(configured.unwrap_or("info")))
            // russh logs packets at debug and trace.
            .add_directive("russh=error".parse().expect("a valid directive"))
    }
}

/// Tells systemd, where it asked to be told: sd_notify(3), in the way of `Type=notify-reload`, which `Type=notify`
/// understands too.
mod service_manager {
    use sd_notify::{NotifyState, notify};

    pub(super) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager was not told of the reload"),
        }
    }

    pub(super) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = notify(state) {
            tracing::warn!(%error, "the service manager can't be told");
        }
    }
}

/// The connector's host key; made if the file is not there.
fn host_key(path: &Path) -> Result<PrivateKey> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let key = PrivateKey::from_openssh(text)
                .with_context(|| format!("the host key {} is not an OpenSSH private key", path.display()))?;
            let bits = key.public_key().key_data().rsa().map(RsaPublicKey::key_size);
            ensure!(
                bits.is_none_or(|bits| bits >= RSA_BITS),
                "the host key {} is RSA with fewer than {RSA_BITS} bits; make a new one, better an Ed25519 key",
                path.display()
            );
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("cannot write a new host key to {}", path.display()))?;
            file.write_all(key.to_openssh(LineEnding::LF)?.as_bytes())?;
            file.sync_all()?;
            tracing::info!(path = %path.display(), fingerprint = %key.fingerprint(HashAlg::Sha256), "made a host key");
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read the host key {}", path.display())),
    }
}

/// The strength of 128 bits (NIST SP 800-57 part 1, table 2), and what `ssh-audit` asks for.
const RSA_BITS: u32 = 3072;
