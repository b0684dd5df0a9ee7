//! `weir-agent`: reads its configuration, runs the agent, stops at a signal.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;
use weir_agent::{
    agent::Agent,
    config::Config,
    recover::{self, RecoverArguments},
};

/// Records SSH sessions: arms the taps of the connector's proxy, drains what the kernel captured, and stores
/// it signed.
///
/// Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a BPF file system. Stopping or killing it ends
/// no session: sessions stall until the next agent runs. Logs go to standard error; WEIR_LOG sets what is
/// logged, for example WEIR_LOG=debug or WEIR_LOG=warn,weir_agent::storing=debug.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file. It must name allowed_uids; everything else has a default.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/weir/agent.toml",
        env = "WEIR_AGENT_CONFIG"
    )]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and exit.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Finish the sessions in the spool of a node that never comes back.
    Recover(RecoverArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What is recovered is told on standard output.
    let level = if arguments.command.is_some() { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    let outcome = match &arguments.command {
        Some(Command::Recover(recover)) => return recover::run(&arguments.config, recover),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, without those that the error before has told already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(cause.trim_end()) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(cause.trim_end());
        }
    }
    text
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        info!("{} is fine", arguments.config.display());
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(config));
    // Jobs that are not done are found in the spool again.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut agent = Agent::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
        error = agent.failed() => return Err(error.into()),
    }
    agent.stop().await;
    Ok(())
}
