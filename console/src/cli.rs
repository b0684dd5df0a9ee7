//! The command line: what can be asked and how it is explained. What is done about it is in [`crate::run`].

mod find;

use std::path::PathBuf;

use crate::play::live::when::When;
use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_common::{recording::SIGNER_IDENTITY, session::ChannelNo};

pub use self::find::{FilterArgs, Place, SearchArgs, SessionsArgs};
use crate::store::Access;

/// `weir`.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    about = "Verifies, shows and plays recorded SSH sessions",
    after_help = "\
A command about one session takes its directory as it lies in the store: …/v1/dt=YYYY-MM-DD/<session id>, of a
directory or of a bucket (s3://bucket/prefix/v1/…).

Examples:
  weir verify  /store/v1/dt=2026-01-02/*     is anything missing or altered in that day's sessions?
  weir show    /store/v1/dt=2026-01-02/019b… who did what, and when?
  weir play    /store/v1/dt=2026-01-02/019b… what did the screen look like?
  weir sessions /store --since 2d            who was where since the day before yesterday?
  weir search 'rm -rf' --store /store        who did that?
  weir export  --format html --output session.html /store/v1/dt=2026-01-02/019b…

`weir help <command>` has more examples, and the exit codes."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How buckets are reached.
    #[command(flatten)]
    pub access: Access,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check that nothing is missing from recordings and nothing in them was altered.
    Verify(VerifyArgs),
    /// Show who did what and when: access context, channels, counters, timeline.
    Show(ShowArgs),
    /// Play what a session's terminal showed.
    Play(PlayArgs),
    /// List the sessions in a store.
    Sessions(SessionsArgs),
    /// Look for a pattern in the sessions of a store: commands, output, files.
    Search(SearchArgs),
    /// Write a session in another form: asciicast, transcript, page, NDJSON, CSV.
    Export(ExportArgs),
    /// Print what a shell reads to complete `weir`.
    Completions(CompletionsArgs),
    /// Print a man page, or write all of them.
    Man(ManArgs),
}

/// `weir verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Checked are, in this order: that exactly the listed objects are there; their digests; the signature over the list
of digests and who made it; the manifest; the signature of each segment; every segment down to the sequence of the
frames; and that the events add up to what the kernel counted. A session that is under way is verified as far as it is
stored and signed.

The file of allowed signers is the one of OpenSSH (ssh-keygen(1), ALLOWED SIGNERS). A line of it:
  weir-agent namespaces=\"weir\" ssh-ed25519 AAAA…
Without --allowed-signers it is looked for in $WEIR_ALLOWED_SIGNERS, ~/.config/weir/allowed_signers and
/etc/weir/allowed_signers. As with `ssh-keygen -Y verify`, the key must be valid at the time of the check.

Examples:
  weir verify --allowed-signers agents.pub /store/v1/dt=2026-01-02/019b…
  weir verify --quiet /store/v1/dt=2026-01-02/*
  weir verify --json /store/v1/dt=2026-01-02/* | jq -r 'select(.verdict != \"intact\") | .directory'

Exit codes, the first that applies to any of the sessions:
  1  something is wrong with a recording
  2  a recording or the file of allowed signers can't be read, or the command line is wrong
  3  nothing is wrong, but it is not known who may sign
  4  nothing is wrong, but a session's end is not there: it is under way, or its node was lost
  0  every recording is intact and signed by an allowed signer")]
pub struct VerifyArgs {
    /// Directories of sessions.
    #[arg(required = true, value_name = "SESSION DIRECTORY")]
    pub directories: Vec<PathBuf>,
    /// Who may sign, in the form of OpenSSH's allowed_signers.
    #[arg(long, value_name = "FILE", env = "WEIR_ALLOWED_SIGNERS")]
    pub allowed_signers: Option<PathBuf>,
    /// As whom the signer must be listed.
    #[arg(long, value_name = "NAME", default_value = SIGNER_IDENTITY)]
    pub identity: String,
    /// Print one JSON object per directory.
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print the verdict lines only.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `weir show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Commands, files and forwards are those that the agent stored; where there are none, or they are not what the list of
digests says, they are made from the events, and it says so.
Times are in UTC. The digests are checked on the way, the signature is not: that is what `weir verify` is for.

Examples:
  weir show /store/v1/dt=2026-01-02/019b…
  weir show --json /store/v1/dt=2026-01-02/019b… | jq -r '.manifest.session.user'

Exit codes:
  0  shown
  1  shown, but something in the recording does not fit together; see the warnings
  2  the recording can't be read, or the command line is wrong")]
pub struct ShowArgs {
    /// The session's directory.
    #[arg(value_name = "SESSION DIRECTORY")]
    pub directory: PathBuf,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// Don't start a pager ($PAGER, or less) for what is longer than the terminal.
    #[arg(long)]
    pub no_pager: bool,
}

/// `weir play`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal one channel plays in its own time, the first that had a terminal unless --channel says otherwise:
  space  pause, or go on          ← →  5 seconds back or on        /  search what is shown (a regular expression)
  .      one step                 ↓ ↑  a minute back or on         n  search on
  + -    faster, slower           [ ]  the command before or next  g  go to a time
  q      end                      Home and End                     h  help
Anywhere else, or with --instant, all channels are printed at once.

What a session printed may be aimed at your terminal. So the screen is emulated, and only its text and colours are
drawn. With --instant only colours, cursor movement, erasing, scrolling and the like get through; titles, clipboard,
links, images, sounds and everything that makes a terminal answer are left out. With --text, and where the output is
not a terminal, nothing but text and line breaks is left.
A channel with a subsystem (sftp) carries no text and is played only if --channel asks for it.

Times are +5m, 90 (seconds), 1:30 or 1:02:03 after the start, or 14:05:00Z or 2026-01-02T14:05:00Z on the calendar.

The digests are checked first, the signature is not: that is what `weir verify` is for. Sessions that are still
under way can be played as far as they are stored; --follow stays with them.

Examples:
  weir play /store/v1/dt=2026-01-02/019b…
  weir play --speed 4 --idle-limit 0.5 --stdin /store/v1/dt=2026-01-02/019b…
  weir play --search 'rm -rf' /store/v1/dt=2026-01-02/019b…
  weir play --text /store/v1/dt=2026-01-02/019b… | grep -n password

Exit codes:
  0  played
  1  played, but something in the recording does not fit together; see the warnings
  2  the recording can't be read, or the command line is wrong")]
pub struct PlayArgs {
    /// The session's directory.
    #[arg(value_name = "SESSION DIRECTORY")]
    pub directory: PathBuf,
    /// How many times as fast as it was.
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub speed: f64,
    /// The most seconds that a pause lasts, before --speed.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = not_negative)]
    pub idle_limit: f64,
    /// Play this channel only.
    #[arg(long, value_name = "N", value_parser = channel)]
    pub channel: Option<ChannelNo>,
    /// Show what was typed as well, ‹like this›.
    #[arg(long)]
    pub stdin: bool,
    /// Print everything at once.
    #[arg(long)]
    pub instant: bool,
    /// Print everything at once, as plain text.
    #[arg(long, conflicts_with = "instant")]
    pub text: bool,
    /// Begin at this time.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    pub at: Option<When>,
    /// Begin at this command, by its number in `weir show`. Needs a terminal.
    #[arg(long, value_name = "N", conflicts_with_all = ["at", "instant", "text"])]
    pub command: Option<u32>,
    /// Begin where this regular expression is shown first. Needs a terminal; `weir search` finds it in many sessions.
    #[arg(long, value_name = "REGEX", conflicts_with_all = ["instant", "text"])]
    pub search: Option<String>,
    /// Stay with a session that is under way, until it ends. Needs a terminal.
    #[arg(long, conflicts_with_all = ["instant", "text"])]
    pub follow: bool,
}

/// `weir export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Formats:
  cast    asciicast version 2, which every version of asciinema plays
  cast3   asciicast version 3, for asciinema 3: with exit codes
  html    one page that plays the session in a browser, without a network
  txt     the transcript, with the commands as headings
  ndjson  every event on a line, with calendar times and all bytes, for jq
  csv     commands, files or forwards (--what), for spreadsheets

cast, cast3 and html hold one channel; what else there was is told on standard error. The commands are marks in them.

What a session printed may be aimed at whoever looks at it. So asciicasts hold only what `weir play` lets through to a
terminal, unless --raw asks for everything, and pages hold text and colours only. Elsewhere control characters are
spelled out, and in csv a cell that a spreadsheet would take for a formula begins with an apostrophe.

What was typed is left out: it may hold passwords that no screen showed. --stdin puts it in.

Examples:
  weir export --format cast3 --output session.cast /store/v1/dt=2026-01-02/019b…
  weir export --format html --output session.html /store/v1/dt=2026-01-02/019b…
  weir export --format csv --what files /store/v1/dt=2026-01-02/019b…
  weir export --format ndjson /store/v1/dt=2026-01-02/019b… | jq -r 'select(.kind == \"exec\").text'

Exit codes:
  0  exported
  1  exported, but something in the recording does not fit together; see the warnings
  2  the recording can't be read, the file can't be written, or the command line is wrong")]
pub struct ExportArgs {
    /// The session's directory.
    #[arg(value_name = "SESSION DIRECTORY")]
    pub directory: PathBuf,
    /// In which form.
    #[arg(long, short, value_enum)]
    pub format: Format,
    /// Write to this file, which only its owner may read if it is new, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Of this channel; without it cast, cast3 and html take the first with a terminal, ndjson takes all.
    #[arg(long, value_name = "N", value_parser = channel)]
    pub channel: Option<ChannelNo>,
    /// The most seconds that a player should let a pause last. The times stay what they were.
    #[arg(long, value_name = "SECONDS", value_parser = not_negative)]
    pub idle_limit: Option<f64>,
    /// Put in what was typed as well. It may hold passwords that were never shown.
    #[arg(long)]
    pub stdin: bool,
    /// Leave everything in an asciicast that the session sent, even what harms a terminal.
    #[arg(long)]
    pub raw: bool,
    /// What csv holds.
    #[arg(long, value_enum, default_value = "commands")]
    pub what: Table,
    /// The most bytes of a page; a longer session is cut, and the page says so.
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(65536..))]
    pub max_bytes: u64,
}

/// A form to export a session in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Asciicast version 2.
    Cast,
    /// Asciicast version 3.
    Cast3,
    /// A transcript.
    Txt,
    /// A page that plays the session.
    Html,
    /// Every event.
    Ndjson,
    /// Commands, files or forwards.
    Csv,
}

/// What a CSV holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// What the user ran.
    Commands,
    /// What was done to files.
    Files,
    /// What was forwarded.
    Forwards,
}

/// `weir completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir completions bash > /etc/bash_completion.d/weir
  weir completions zsh  > /usr/local/share/zsh/site-functions/_weir
  weir completions fish > /etc/fish/completions/weir.fish

Exit codes:
  0  printed
  2  the command line is wrong, or the output can't be written")]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: clap_complete::Shell,
}

/// `weir man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir man verify | man -l -
  weir man --out /usr/local/share/man/man1

Exit codes:
  0  printed or written
  2  there is no such command, or a page can't be written")]
pub struct ManArgs {
    /// Of which command; of `weir` itself if none is named.
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub command: Option<String>,
    /// Write all pages to this directory, over those that are there.
    #[arg(long, value_name = "DIRECTORY", value_hint = clap::ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// More than any sensible number, and no duration overflows.
const NUMBER_MAX: f64 = 1e6;

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= NUMBER_MAX => Ok(number),
        _ => Err(format!("a number above 0 and up to {NUMBER_MAX} is needed")),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=NUMBER_MAX).contains(&number) => Ok(number),
        _ => Err(format!("a number from 0 to {NUMBER_MAX} is needed")),
    }
}

fn channel(text: &str) -> Result<ChannelNo, String> {
    text.parse().map(ChannelNo).map_err(|_| "a channel's number is needed, see `weir show`".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for args in [
            ["--speed", "0"],
            ["--speed", "-1"],
            ["--speed", "nan"],
            ["--idle-limit", "inf"],
            ["--channel", "x"],
        ] {
            let parsed = Cli::try_parse_from(["weir", "play", "dir"].into_iter().chain(args));
            assert_eq!(parsed.expect_err("refused").exit_code(), 2, "{args:?}");
        }
    }
}
