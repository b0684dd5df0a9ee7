//! `weir-agent`: reads its configuration, runs the agent, stops at a signal.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata, error, info, warn};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};
use weir_agent::{
    agent::{Agent, AgentError, recorder},
    check,
    config::Config,
    control,
    findings::hide_content_in_panics,
    recover::{self, RecoverArguments},
};
use weir_telemetry::LogFormat;

/// Records SSH sessions: arms the taps of the connector's proxy, drains what the kernel captured, and stores
/// it signed.
///
/// Needs CAP_BPF, or root, and a BPF file system in which it may write: `weir-agent check` says whether this node will
/// do. Stopping or killing it ends no session: sessions stall until the next agent runs. Logs go to standard error;
/// WEIR_LOG sets what is logged, for example WEIR_LOG=debug or WEIR_LOG=warn,weir_agent::storing=debug, and
/// WEIR_LOG_FORMAT=json makes each line a JSON object.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file. It must name allowed_users or allowed_uids; everything else has a default.
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
    /// Look whether the agent could work here: kernel, privileges, BPF file system, the spool's disk, key, store.
    ///
    /// Run it as the agent is run: by the same user, in the same unit or container. The BPF program is loaded into maps
    /// of its own; nothing is pinned, and an agent at work is left alone. Stores one small object below v1/check/ in the
    /// bucket. The exit code is 1 if there is a problem, 0 if there are at most warnings.
    Check {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Finish the sessions in the spool of a node that never comes back.
    Recover(RecoverArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What a check finds, or what is recovered, is on standard output.
    let usual = match arguments.command {
        Some(Command::Check { .. }) => "error",
        Some(Command::Recover(_)) => "warn",
        None => "info",
    };
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let format = match LogFormat::of_environment() {
        Ok(format) => format,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let log = weir_telemetry::lines(format).with_filter(filter.and(filter_fn(shows_nothing_sent)));
    tracing_subscriber::registry().with(log).init();
    hide_content_in_panics();
    if let Some(Command::Recover(recover)) = &arguments.command {
        return recover::run(&arguments.config, recover);
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            error!("{}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether a place in the code may log. What the libraries below the store trace holds bodies and signatures.
fn shows_nothing_sent(place: &Metadata<'_>) -> bool {
    let is_below = ["aws_", "hyper", "h2", "rustls"].iter().any(|name| place.target().starts_with(name));
    !is_below || *place.level() < Level::TRACE
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

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        control::allowed(&config.control)?;
        info!("{} is fine", arguments.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    if let Some(Command::Check { json }) = arguments.command {
        return runtime.block_on(look(&config, json));
    }
    let outcome = runtime.block_on(serve(config.clone()));
    // Jobs that are not done are found in the spool again.
    runtime.shutdown_background();
    if let Err(error) = &outcome
        && error.downcast_ref().is_some_and(AgentError::is_of_the_node)
    {
        // The kernel's answer first, and last what it means here: the end of a log is what is read.
        error!("{}", told(error));
        check::log_refusal(&config);
        return Ok(ExitCode::FAILURE);
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn look(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let findings = check::all(config, &recorder(config.node.clone()).node).await;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &findings)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        check::print(&mut out, &findings, io::stdout().is_terminal())
    }
    .context("cannot write to standard output")?;
    Ok(if check::has_problem(&findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Tells systemd, where it asked to be told (`Type=notify`, sd_notify(3)).
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager can't be told");
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut agent = Agent::start(config).await?;
    tell(NotifyState::Ready);
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
        error = agent.failed() => return Err(error.into()),
    }
    tell(NotifyState::Stopping);
    agent.stop().await;
    Ok(())
}
