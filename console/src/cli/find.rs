//! `weir sessions` and `weir search`.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use crate::find::{
    Filter, Order,
    when::{Edge, moment},
};

/// The most threads of a search.
const JOBS_MAX: usize = 64;
/// The most lines around a match.
const CONTEXT_MAX: usize = 50;

/// Which sessions of a store.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which sessions")]
pub struct FilterArgs {
    /// Of this user; patterns with * and ? and a comma between them.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// On this resource, by its name or host; such patterns.
    #[arg(long, value_name = "RESOURCE")]
    pub resource: Option<String>,
    /// Under this access request; such patterns.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Whose id begins like this.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Begun then or later: 2026-01-02, 2026-01-02T15:04 (UTC), 2h or 3d (ago).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Begun before then; of a date, on that day at the latest.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Begin with the oldest session instead of the newest.
    #[arg(long)]
    pub oldest_first: bool,
    /// How many sessions are read at once [default: as many as there are processors].
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
}

impl FilterArgs {
    /// The same as what is wanted, and in which order.
    ///
    /// # Errors
    /// What is wrong with a time.
    pub fn filter(&self, now: Timestamp) -> Result<(Filter, Order), String> {
        let Self { user, resource, request_id, session, since, until, oldest_first, jobs: _ } = self.clone();
        let moment = |text: Option<String>, edge| text.map(|text| moment(&text, edge, now)).transpose();
        let (since, until) = (moment(since, Edge::Since)?, moment(until, Edge::Until)?);
        let order = if oldest_first { Order::OldestFirst } else { Order::NewestFirst };
        Ok((Filter { user, resource, request_id, session, since, until }, order))
    }
}

/// `weir sessions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Times are in UTC. Nothing is verified: that is what `weir verify` is for.

Examples:
  weir sessions s3://acme-recordings/weir --since 2d
  weir sessions /store --user 'alice@*' --resource db-1,db-2
  weir sessions --json --request-id REQ-1042 | jq -r .address | xargs weir verify

Exit codes:
  0  there are such sessions
  1  there are none
  2  a session or the store can't be read, or the command line is wrong")]
pub struct SessionsArgs {
    /// The store: a directory, or s3://bucket/prefix.
    #[arg(value_name = "STORE", env = "WEIR_STORE")]
    pub store: PathBuf,
    /// Which sessions.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print a JSON object per session.
    #[arg(long)]
    pub json: bool,
}

/// `weir search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Searched are, a line at a time: the commands that users ran, what stood on terminals and what programs without one
printed, and the paths of files that went by sftp, scp and rsync. With --in input also what was typed, which may be
passwords. Secrets are masked (`weir` knows many by their looks): no line is found by them.
A line of more than 64 KiB is searched in parts.

Text that is no terminal's has columns with a tab between them: session, time (UTC), user@resource, where, command,
line. Lines around a match have a - in front of where they stood.

Examples:
  weir search 'rm -rf' --store s3://acme-recordings/weir --since 7d
  weir search --in commands -i '\\bdrop table\\b' --store /store --resource 'db-*'
  weir search --json 10\\.0\\.3\\.7 --store /store | jq -r .session | sort -u

Exit codes, as of grep:
  0  found
  1  not found
  2  something could not be read or did not fit together, whether anything was found or not; or the command line is
     wrong")]
pub struct SearchArgs {
    /// What to look for: a regular expression (https://docs.rs/regex/latest/regex/#syntax).
    #[arg(value_name = "REGEX")]
    pub pattern: String,
    /// The store: a directory, or s3://bucket/prefix.
    #[arg(long, value_name = "STORE", env = "WEIR_STORE")]
    pub store: PathBuf,
    /// Which sessions.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Where to look; several with a comma between them.
    #[arg(long = "in", value_name = "WHERE", value_delimiter = ',', default_value = "commands,output,files")]
    pub places: Vec<Place>,
    /// Take capital letters for small ones.
    #[arg(long, short)]
    pub ignore_case: bool,
    /// Print so many lines before and after as well.
    #[arg(long, short = 'C', value_name = "N", default_value = "0", value_parser = context)]
    pub context: usize,
    /// Print at most so many matches of a session.
    #[arg(long, short, value_name = "N")]
    pub max_count: Option<NonZeroUsize>,
    /// Print a JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Whether progress is shown on standard error, which is a terminal.
    #[arg(skip)]
    pub progress: bool,
}

/// Where in a session to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Place {
    /// What users ran.
    Commands,
    /// What terminals showed and programs printed.
    Output,
    /// What was typed or sent, passwords included.
    Input,
    /// Paths of files that were copied or changed.
    Files,
    /// All of these.
    All,
}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let jobs = text.parse().ok().filter(|jobs: &NonZeroUsize| jobs.get() <= JOBS_MAX);
    jobs.ok_or_else(|| format!("a number from 1 to {JOBS_MAX} is needed"))
}

fn context(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| *lines <= CONTEXT_MAX);
    lines.ok_or_else(|| format!("a number from 0 to {CONTEXT_MAX} is needed"))
}
