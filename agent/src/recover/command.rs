//! The command: its arguments, what it prints and the status it ends with.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use weir_common::session::SessionId;

use super::{
    RecoverError, Tools, owner, place,
    report::{LostReports, Recovery},
    spool::{self, Progress},
};
use crate::{
    config::Config,
    report::{self, Adopted, QueueError, Reports},
};

/// Nothing is left, and nothing was lost.
const COMPLETE: u8 = 0;
/// Something is left, in the spool or of the reports.
const INCOMPLETE: u8 = 1;
/// Nothing was done.
const REFUSED: u8 = 2;
/// Nothing is left, but the spool had lost some of it.
const LOSSES: u8 = 3;

/// `weir-agent recover`.
#[derive(Debug, Args)]
#[command(after_help = "\
The spool is of a node that never comes back: on a disk that is attached elsewhere, or copied. Sessions that had not
ended are ended as connector_lost; everything is stored and signed as the configuration says, by this node's key.
Reports of sessions that wait beside the spools, in <state_dir>/reports of the lost node, are delivered, too, where the
configuration has [report]. Nothing is deleted before the store has all of it; interrupted, run it again. Do not recover a copy while the agent of
the original may still run: the copy's end of a session would stand in its way.

Exit codes:
  0  everything is stored, and the directory is empty (or left as it was, with --work)
  1  something is left in the spool, or session reports wait to be delivered; what and why is printed
  2  nothing was done: the spool is in use or cannot be read, the configuration is wrong, or this is root and the agent is not
  3  everything is stored, but the spool was damaged: records of some sessions are lost")]
pub struct RecoverArguments {
    /// A spool, or a directory of such: `<state_dir>/spool` of the lost node.
    #[arg(value_name = "SPOOL DIRECTORY")]
    pub directory: PathBuf,
    /// Only say what is there.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// For how many seconds the store may fail before what is left is given up; also how long the reports of what was
    /// stored may take in the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u64,
    /// Leave the spool as it is, and write here what has to be written: for a spool that is read-only (a snapshot), or on a
    /// full disk. Takes room for one spool file; interrupted, pass it again.
    #[arg(long, value_name = "DIRECTORY")]
    pub work: Option<PathBuf>,
    /// Also end sessions of this very node, and give up what its kernel may still hold of them.
    #[arg(long)]
    pub give_up_ring: bool,
}

/// Carries the command out.
#[must_use]
pub fn run(config: &Path, arguments: &RecoverArguments) -> ExitCode {
    let recovery = match recover(config, arguments) {
        Ok(recovery) => recovery,
        Err(error) => {
            // Where even standard error is closed, the exit code has to say it.
            let _ = writeln!(io::stderr(), "weir-agent: {error:#}");
            return REFUSED.into();
        }
    };
    let text = match arguments.json {
        true => serde_json::to_string(&recovery).map(|text| text + "\n").unwrap_or_default(),
        false => recovery.text(),
    };
    let _ = io::stdout().write_all(text.as_bytes());
    let complete = recovery.dry_run || recovery.is_complete();
    match (complete, recovery.has_losses()) {
        (false, _) => INCOMPLETE.into(),
        (true, true) => LOSSES.into(),
        (true, false) => COMPLETE.into(),
    }
}

fn recover(config: &Path, arguments: &RecoverArguments) -> anyhow::Result<Recovery> {
    let mut recovery = Recovery { dry_run: arguments.dry_run, ..Recovery::default() };
    let lost_reports = place::reports(&arguments.directory);
    let dirs = match place::spools(&arguments.directory) {
        // They were emptied before, and reports are left.
        Err(RecoverError::NoSpool { .. })
            if lost_reports.as_deref().map_or(Ok(0), report::waiting_in)? > 0 =>
        {
            Vec::new()
        }
        dirs => dirs?,
    };
    if arguments.dry_run {
        for dir in &dirs {
            recovery.spools.push(spool::look(dir)?);
        }
        if let Some(directory) = lost_reports {
            recovery.lost_reports = left_there(directory, None)?;
        }
        return Ok(recovery);
    }
    let config = Config::load(config)?;
    owner::refuse_root(&config.state_dir)?;
    let mut tools = Tools::new(&config, Duration::from_secs(arguments.patience))?;
    tools.give_up_ring = arguments.give_up_ring;
    tools.work.clone_from(&arguments.work);
    let options = config.report.as_ref();
    let reports = options.map(|options| Reports::open(&config.state_dir, options)).transpose()?;
    let (reports, delivery) = reports.unzip();
    tools.worker = tools.worker.reporting(reports.clone());
    let terminal = io::stderr().is_terminal();
    let progress = |progress| {
        if terminal {
            print_progress(progress);
        }
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let _delivery = delivery.map(|delivery| runtime.spawn(delivery.run()));
    let alone = dirs.len() == 1;
    for dir in dirs {
        let recovered = runtime.block_on(spool::recover(&dir, &mut tools, &progress));
        if terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        match recovered {
            Ok(report) => recovery.spools.push(report),
            Err(error) if alone => return Err(error.into()),
            // What was done with the others has to be told all the same.
            Err(error) => recovery.spools.push(spool_not_begun(&dir, &error)),
        }
    }
    if let Some(reports) = &reports {
        let mut stored: BTreeSet<_> = recovery.stored().collect();
        if let Some(directory) = lost_reports {
            recovery.lost_reports = take_over(reports, directory, arguments.work.is_some(), &mut stored)?;
        }
        let stored = stored.into_iter().collect::<Vec<_>>();
        recovery.reports = Some(runtime.block_on(reports.settled(&stored, tools.patience)));
    } else if let Some(directory) = lost_reports {
        let why = "the configuration has no [report] that says where to".to_owned();
        recovery.lost_reports = left_there(directory, Some(why))?;
    }
    runtime.shutdown_background();
    remove_empty(&arguments.directory, &recovery);
    Ok(recovery)
}

/// Takes the lost node's reports over, and says which are left, if any. Those of stored sessions are added.
fn take_over(
    reports: &Reports,
    directory: PathBuf,
    keep: bool,
    stored: &mut BTreeSet<SessionId>,
) -> anyhow::Result<Option<LostReports>> {
    let _locks = match place::lock_around(&directory) {
        // They are delivered by the agent that runs there.
        Err(error @ RecoverError::InUse { .. }) => {
            return Ok(left_there(directory, Some(error.to_string()))?);
        }
        locks => locks?,
    };
    let Adopted { stored: adopted, left, why } = reports.adopt(&directory, keep)?;
    stored.extend(adopted);
    Ok((left > 0).then_some(LostReports { directory, left, why }))
}

/// The lost node's reports, if there are any.
fn left_there(directory: PathBuf, why: Option<String>) -> Result<Option<LostReports>, QueueError> {
    let left = report::waiting_in(&directory)?;
    Ok((left > 0).then_some(LostReports { directory, left, why }))
}

fn spool_not_begun(dir: &Path, error: &RecoverError) -> super::SpoolReport {
    super::SpoolReport {
        directory: dir.to_owned(),
        files: 0,
        bytes: 0,
        damage: Vec::new(),
        orphans: Default::default(),
        sessions: Vec::new(),
        emptied: false,
        kept: false,
        left: Some(error.to_string()),
    }
}

/// The directories of the spools in a directory of such go, too.
fn remove_empty(root: &Path, recovery: &Recovery) {
    let Ok(root) = root.canonicalize() else { return };
    for spool in recovery.spools.iter().filter(|spool| spool.emptied && spool.directory != root) {
        // What is not empty after all stays.
        let _ = fs::remove_dir(&spool.directory);
    }
}

fn print_progress(progress: Progress) {
    const MIB: u64 = 1024 * 1024;
    let Progress { sessions, sessions_done, bytes, bytes_done } = progress;
    let _ = write!(
        io::stderr(),
        "\r\x1b[K{sessions_done} of {sessions} sessions, {} of {} MiB stored",
        bytes_done / MIB,
        bytes / MIB
    );
}
