//! Carries out a command: opens what it names, and gives it a place to write to and the outside world's values.
//!
//! Nothing here reads the environment, the clock or knows a terminal; that is `main`'s.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    str,
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    cli::{Cli, Command, ManArgs, ShowArgs, VerifyArgs},
    escape,
    export::{self, ExportError},
    look::Look,
    manual::{self, ManualError},
    play::{self, PlayError},
    recording::Recording,
    search::{self, PatternError},
    sessions, show,
    store::{StoreError, Stores, read_file},
    verify::{
        Options, print,
        report::Verdict,
        signers::{ALLOWED_SIGNERS_MAX, AllowedSigners},
        verify,
    },
};

/// What the command found, as the exit code that says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// Something is wrong with a recording; or what was looked for is not there.
    Wrong = 1,
    /// Something can't be read.
    Failed = 2,
    /// It is not known who may sign.
    SignerUnknown = 3,
    /// Nothing is wrong with a recording, and its end is not there.
    Unfinished = 4,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The recording, or the file of allowed signers, can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of allowed signers is something else.
    #[error("{} is not text; pass a file in the form of ssh-keygen(1), ALLOWED SIGNERS", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Nobody reads the output, or the disk is full.
    #[error("can't write the output: {0}")]
    Write(#[from] io::Error),
    /// Not a time.
    #[error("{0}")]
    Time(String),
    /// Nothing that can be looked for.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Playing failed.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// Exporting failed.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A man page can't be had.
    #[error(transparent)]
    Manual(#[from] ManualError),
}

/// The outside world.
pub struct World<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Whether standard output is a terminal.
    pub terminal: bool,
    /// How to write on standard output.
    pub look: Look,
    /// Where a file of allowed signers may be if none is named; the first that exists is used.
    pub signers_paths: Vec<PathBuf>,
    /// The present.
    pub now: Timestamp,
    /// Where the machine is.
    pub zone: TimeZone,
}

/// Carries out a command.
///
/// # Errors
/// If it can't be.
pub fn run(cli: &Cli, world: &mut World<'_>) -> Result<Exit, RunError> {
    let stores = Stores::new(cli.access.clone());
    match &cli.command {
        Command::Verify(args) => run_verify(args, &stores, world),
        Command::Show(args) => run_show(args, &stores, world),
        Command::Play(args) => {
            let mut recording = Recording::open(stores.session(&args.directory)?)?;
            Ok(play::play(&mut recording, args, world)?)
        }
        Command::Sessions(args) => {
            let (filter, order) = args.filter.filter(world.now).map_err(RunError::Time)?;
            sessions::list(args, &stores.store(&args.store)?, (&filter, order), world)
        }
        Command::Search(args) => {
            let (filter, order) = args.filter.filter(world.now).map_err(RunError::Time)?;
            search::search(args, &stores.store(&args.store)?, (&filter, order), world)
        }
        Command::Export(args) => {
            let recording = Recording::open(stores.session(&args.directory)?)?;
            Ok(export::export(&recording, args, world)?)
        }
        Command::Completions(args) => {
            world.out.write_all(&manual::completions(args.shell))?;
            Ok(Exit::Fine)
        }
        Command::Man(args) => run_man(args, world),
    }
}

fn run_verify(args: &VerifyArgs, stores: &Stores, world: &mut World<'_>) -> Result<Exit, RunError> {
    let path =
        args.allowed_signers.clone().or_else(|| world.signers_paths.iter().find(|p| p.exists()).cloned());
    let signers = path.as_ref().map(|path| read_signers(path, &world.zone)).transpose()?;
    let options = Options { signers: signers.as_ref(), identity: &args.identity, now: world.now };
    let by_hand = print::ByHand { signers: path.as_deref(), identity: &args.identity };
    let mut exits = Vec::new();
    let mut written = Ok(());
    for directory in &args.directories {
        let report = match stores.session(directory).and_then(|session| verify(&session, &options)) {
            Ok(report) => report,
            Err(error) => {
                // Where even standard error is closed, the exit code has to say it.
                let _ = writeln!(world.err, "weir: {}", escape::text(&error.to_string()));
                exits.push(Exit::Failed);
                continue;
            }
        };
        exits.push(match report.verdict {
            Verdict::Intact => Exit::Fine,
            Verdict::SignerUnknown => Exit::SignerUnknown,
            Verdict::Unfinished => Exit::Unfinished,
            Verdict::NotIntact => Exit::Wrong,
        });
        // A reader that closes the pipe early does not change what there is to say.
        written = written.and_then(|()| match args {
            VerifyArgs { json: true, .. } => print::json(&report, world.out),
            VerifyArgs { quiet: true, .. } => print::verdict(&report, world.look, world.out),
            _ => print::text(&report, &by_hand, world.look, world.out),
        });
    }
    let exit = [Exit::Wrong, Exit::Failed, Exit::SignerUnknown, Exit::Unfinished]
        .into_iter()
        .find(|exit| exits.contains(exit));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit.unwrap_or(Exit::Fine)),
    }
}

fn run_man(args: &ManArgs, world: &mut World<'_>) -> Result<Exit, RunError> {
    match &args.out {
        Some(dir) => {
            for path in manual::write_pages(dir)? {
                writeln!(world.out, "{}", escape::text(&path.to_string_lossy()))?;
            }
        }
        None => world.out.write_all(&manual::page_of(args.command.as_deref())?.roff)?,
    }
    Ok(Exit::Fine)
}

fn read_signers(path: &Path, zone: &TimeZone) -> Result<AllowedSigners, RunError> {
    let bytes = read_file(path, ALLOWED_SIGNERS_MAX)?;
    let text = str::from_utf8(&bytes).map_err(|_| RunError::NotText { path: path.to_owned() })?;
    Ok(AllowedSigners::parse(&path.display().to_string(), text, zone))
}

fn run_show(args: &ShowArgs, stores: &Stores, world: &mut World<'_>) -> Result<Exit, RunError> {
    let recording = Recording::open(stores.session(&args.directory)?)?;
    let shown = show::gather(&recording);
    let written = if args.json {
        show::print::json(&shown, world.out)
    } else {
        show::print::text(&shown, world.look, world.out)
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(if shown.warnings.is_empty() { Exit::Fine } else { Exit::Wrong }),
    }
}
