//! `weir`: the program around [`weir_console`]. It knows the environment, the clock and the terminal.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use jiff::{Timestamp, tz::TimeZone};
use weir_console::{
    cli::{Cli, Command},
    escape,
    look::Look,
    pager::Pager,
    run::{Exit, World, run},
};

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if let Command::Search(args) = &mut cli.command {
        args.progress = io::stderr().is_terminal();
    }
    match carry_out(&cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // A path in it may hold anything. The message says what caused it.
            let _ = writeln!(io::stderr(), "weir: {}", escape::text(&error.to_string()));
            ExitCode::from(Exit::Failed as u8)
        }
    }
}

fn carry_out(cli: &Cli) -> anyhow::Result<Exit> {
    let terminal = io::stdout().is_terminal();
    let mut pager = Pager::start(cli, terminal, |name| env::var(name).ok());
    let mut out: BufWriter<Box<dyn Write + '_>> = BufWriter::new(match &mut pager {
        Some(pager) => Box::new(pager),
        None => Box::new(io::stdout().lock()),
    });
    let mut world = World {
        out: &mut out,
        err: &mut io::stderr(),
        terminal,
        look: Look::of(terminal, |name| env::var(name).ok()),
        signers_paths: signers_paths(),
        now: Timestamp::now(),
        zone: TimeZone::system(),
    };
    let exit = run(cli, &mut world)?;
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit),
    }
}

fn signers_paths() -> Vec<PathBuf> {
    let home = env::home_dir().map(|home| home.join(".config/weir/allowed_signers"));
    home.into_iter().chain([PathBuf::from("/etc/weir/allowed_signers")]).collect()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
