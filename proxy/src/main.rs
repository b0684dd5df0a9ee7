//! `weir-proxy`: reads the configuration, opens the port, serves.

#![forbid(unsafe_code)]

use std::{
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Parser;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use weir_proxy::{client_leg::Shared, config::Config, server};

/// Brokers approved SSH sessions to their targets, every byte recorded by the kernel before it is delivered.
///
/// Users connect with the id of their grant as the login name:
///
///     ssh -p 10022 GRANT@CONNECTOR
///
/// SIGTERM stops accepting and returns when the last session has ended; a second one ends at once.
/// The log goes to standard error; WEIR_LOG sets its filter, e.g. WEIR_LOG=debug.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/proxy.toml")]
    config: PathBuf,
    /// Check the configuration and the grants, then exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        // russh logs packets at debug and trace.
        .with_env_filter(
            EnvFilter::try_from_env("WEIR_LOG")
                .unwrap_or_else(|_| EnvFilter::new("info"))
                .add_directive("russh=error".parse().expect("a valid directive")),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)
        .with_context(|| format!("the configuration {} can't be used", args.config.display()))?;
    let shared = Shared::new(config.clone(), host_key(&config.host_key)?);
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

    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(listen = %listener.local_addr()?, grants = good, resources = config.targets.len(), "ready");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server::serve(listener, Arc::new(shared), stop.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    signalled().await;
    tracing::info!("stopping: no new connections; waiting for sessions to end");
    stop.cancel();
    tokio::select! {
        served = serving => served.context("the server failed")?,
        () = signalled() => tracing::warn!("stopping at once: running sessions are cut"),
    }
    Ok(())
}

/// The connector's host key; made if the file is not there.
fn host_key(path: &Path) -> Result<PrivateKey> {
    match std::fs::read_to_string(path) {
        Ok(text) => PrivateKey::from_openssh(text)
            .with_context(|| format!("the host key {} is not an OpenSSH private key", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
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
