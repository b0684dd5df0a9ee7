//! Findings: what a session's events amount to, for people. They are an index into the evidence, never the evidence.
//!
//! `weir-analysis` makes them from events. The agent stores them beside a session's segments when it is over; the
//! console makes them itself where they are not there yet. Everything here is text out of a session, with secrets
//! masked; it may hold any character and has to be escaped before it reaches a terminal or a page.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{digest::Sha256, session::ChannelNo};

/// Object name of the commands: a [`Command`] a line.
pub const COMMANDS: &str = "commands.ndjson";
/// Object name of what was done to files: a [`FileAccess`] a line.
pub const FILES: &str = "files.ndjson";
/// Object name of the port forwards: a [`Forward`] a line.
pub const FORWARDS: &str = "forwards.ndjson";
/// Object name of the transcript: what stood on the terminals, as text in UTF-8.
pub const TRANSCRIPT: &str = "transcript.txt";
/// Every kind of findings object, by its first name.
pub const KINDS: [&str; 4] = [COMMANDS, FILES, FORWARDS, TRANSCRIPT];
/// The most objects of a kind that a session may have, all but one of them superseded.
pub const OBJECTS_MAX: u32 = 9;

/// The most characters of a command; longer ones end in `…`.
pub const COMMAND_CHARS_MAX: usize = 16 << 10;
/// The most bytes of a path; longer ones end in `…`.
pub const PATH_BYTES_MAX: usize = 4 << 10;

/// The name of a findings object where earlier ones of its kind are in the store already, and stay there: `commands.ndjson`,
/// `commands-2.ndjson`, … `number` is from 1.
#[must_use]
pub fn object_name(kind: &str, number: u32) -> String {
    match kind.rsplit_once('.') {
        Some((stem, extension)) if number > 1 => format!("{stem}-{number}.{extension}"),
        _ => kind.to_owned(),
    }
}

/// Which of [`KINDS`] an object of this name is, if any.
#[must_use]
pub fn kind_of(name: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| (1..=OBJECTS_MAX).any(|number| object_name(kind, number) == name))
}

/// How many findings there are, those that found no room in the objects included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingCounts {
    /// Commands.
    pub commands: u64,
    /// What was done to files.
    pub files: u64,
    /// Forwarded connections.
    pub forwards: u64,
}

/// The last line of an object of findings that were too many for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// How many findings are left out.
    pub left_out: u64,
}

/// A line of an object of findings.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line<T> {
    /// The findings end here.
    Cut(Cut),
    /// One of them.
    Finding(T),
}

/// When something began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Kernel time since boot in nanoseconds, as in events.
    pub t: u64,
    /// The same of its end; none while it is under way, or where its end was not to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_end: Option<u64>,
    /// Calendar time of `t`, where a clock is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Calendar time of `t_end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// Where in the recording the evidence for something lies: in what the target sent on one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Sequence number of the first frame.
    pub first_seq: u64,
    /// Sequence number of the last frame.
    pub last_seq: u64,
    /// Offset of the first byte in the channel's standard output.
    pub from: u64,
    /// Offset behind the last byte.
    pub to: u64,
}

/// A command that the user ran.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its number in the session, from 1, in the order in which they ended.
    pub n: u32,
    /// The channel.
    pub ch: ChannelNo,
    /// From when to when it ran.
    #[serde(flatten)]
    pub span: Span,
    /// The command line as it was run, several lines with `\n` between them. Secrets are masked.
    pub text: String,
    /// What it was learned from.
    pub source: Source,
    /// How sure it is.
    pub confidence: Confidence,
    /// Exit code; above 128 where a signal ended it and the shell said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether any of it was pasted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pasted: bool,
    /// How many secrets in it are masked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub masked: u32,
    /// The working directory, where marks of the shell told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The interpreter that ran it, if that was not the shell: `python`, `psql`, `mysql`, … or `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repl: Option<String>,
    /// The pane of tmux or screen it ran in, as far as the screen tells them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pane: Option<String>,
    /// When it had the whole screen, as an editor or a pager does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_screen: Vec<Span>,
    /// Where its echo and its output lie.
    pub evidence: Evidence,
}

/// What a command was learned from, the most exact first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The request to run it (RFC 4254, 6.5).
    Exec,
    /// The marks of VS Code's shell integration (OSC 633), which carry the command line.
    Osc633,
    /// Warp's hooks (DCS), which carry the command line.
    WarpDcs,
    /// The marks of FinalTerm, iTerm2 and others (OSC 133) around what stood on the screen.
    Osc133,
    /// What stood on the screen when it was entered.
    Screen,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Said by the client or the shell.
    Exact,
    /// Read off a screen on which prompt and entry were plain.
    High,
    /// Read off a screen that leaves room for doubt: parts had scrolled away, or were drawn over.
    Low,
}

/// Something that was done to a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAccess {
    /// Its number in the session, from 1, in the order in which they ended.
    pub n: u32,
    /// The channel.
    pub ch: ChannelNo,
    /// From when to when it was open, or when it was asked for and answered.
    #[serde(flatten)]
    pub span: Span,
    /// By which protocol.
    pub protocol: FileProtocol,
    /// What was done.
    pub operation: FileOperation,
    /// The path as the client or the server gave it; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// The new path of a rename, what a link points to, where a copy goes. Of scp, where the protocol does not tell
    /// whether `path` is a folder: the name that was sent, which is `path` itself or stands in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_path: Option<String>,
    /// Whether it was done.
    pub result: FileResult,
    /// Permission bits that were asked for, as in `chmod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// What went from the target to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Transferred>,
    /// What went from the client to the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Transferred>,
}

/// A protocol that carries files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileProtocol {
    /// The subsystem (draft-ietf-secsh-filexfer-02), which `scp` speaks, too.
    Sftp,
    /// `scp -O`: the protocol of rcp.
    Scp,
    /// `rsync --server`.
    Rsync,
}

/// What is done to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOperation {
    /// Opened, and read or written as `read` and `written` say.
    Open,
    /// A directory was listed.
    List,
    /// Removed.
    Remove,
    /// Renamed.
    Rename,
    /// A directory was made.
    Mkdir,
    /// A directory was removed.
    Rmdir,
    /// Attributes were set: permissions, owner, times, size.
    SetAttributes,
    /// A symbolic link was made.
    Symlink,
    /// A hard link was made.
    Link,
    /// Copied on the target: nothing of it went through the session.
    Copy,
    /// Files went by a protocol that tells the command line and the amount only.
    Transfer,
}

/// Whether something was done to a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileResult {
    /// It was.
    Ok,
    /// It was refused, in the server's words.
    Failed(String),
    /// The session ended first, or the protocol does not tell.
    Unknown,
    /// What the channel carries from here on is not followed, for this reason in Weir's words, and stands in the
    /// recording only. It is said once, of a [`FileOperation::Transfer`] without path.
    Unfollowed(String),
}

/// Content that went one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// How many bytes.
    pub bytes: u64,
    /// The digest of these bytes in the order in which they went.
    pub sha256: Sha256,
    /// Whether they went from offset 0 on without gaps or repetition, so that the digest is that of the content.
    pub in_order: bool,
    /// Whether they are in the recording (`record_file_content`).
    pub recorded: bool,
}

/// A connection that was forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Its number in the session, from 1, in the order in which they ended.
    pub n: u32,
    /// The channel.
    pub ch: ChannelNo,
    /// From when to when it was open.
    #[serde(flatten)]
    pub span: Span,
    /// What was forwarded.
    pub kind: ForwardKind,
    /// Where from: an address and port as the other side told it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where to: host and port, or the path of a socket.
    pub to: String,
    /// Why there was no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Bytes from the client to the target.
    pub sent: u64,
    /// Bytes from the target to the client.
    pub received: u64,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardKind {
    /// TCP from the client's side to the target's (`ssh -L`, `-D`, `-W`, `-J`).
    Local,
    /// A Unix socket from the client's side to the target's.
    LocalSocket,
    /// TCP from the target's side to the client's (`ssh -R`).
    Remote,
    /// A Unix socket from the target's side to the client's.
    RemoteSocket,
    /// The client's authentication agent.
    Agent,
    /// X11.
    X11,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, ch, source, .. } = self;
        write!(f, "Command({n} on channel {ch} by {source:?}, {} bytes)", self.text.len())
    }
}

impl fmt::Debug for FileAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, ch, protocol, operation, .. } = self;
        write!(f, "FileAccess({n} on channel {ch}: {operation:?} by {protocol:?})")
    }
}

impl fmt::Debug for FileResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "Ok",
            Self::Failed(_) => "Failed(…)",
            Self::Unknown => "Unknown",
            Self::Unfollowed(_) => "Unfollowed(…)",
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_supersede_others_have_numbers() {
        for kind in KINDS {
            for number in 1..=OBJECTS_MAX {
                assert_eq!(kind_of(&object_name(kind, number)), Some(kind));
            }
        }
        assert_eq!(object_name(TRANSCRIPT, 2), "transcript-2.txt");
        for name in ["manifest.json", "commands-1.ndjson", "commands-10.ndjson", "commands", ""] {
            assert_eq!(kind_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_line_that_ends_cut_findings_is_no_finding() {
        let forward = r#"{"n":1,"ch":0,"t":5,"kind":"agent","to":"x","sent":0,"received":0}"#;
        let lines = [r#"{"left_out":3}"#, forward].map(serde_json::from_str::<Line<Forward>>);
        assert!(matches!(lines, [Ok(Line::Cut(Cut { left_out: 3 })), Ok(Line::Finding(_))]));
    }

    #[test]
    fn a_command_says_only_what_is_known_of_it() {
        let command = Command {
            n: 1,
            ch: ChannelNo(0),
            span: Span { t: 5, t_end: None, started_at: None, ended_at: None },
            text: "ls".to_owned(),
            source: Source::Screen,
            confidence: Confidence::High,
            exit_code: None,
            pasted: false,
            masked: 0,
            cwd: None,
            repl: None,
            pane: None,
            full_screen: Vec::new(),
            evidence: Evidence::default(),
        };
        let line = serde_json::to_string(&command).expect("it serializes");
        assert_eq!(
            line,
            r#"{"n":1,"ch":0,"t":5,"text":"ls","source":"screen","confidence":"high","evidence":{"first_seq":0,"last_seq":0,"from":0,"to":0}}"#
        );
        assert_eq!(serde_json::from_str::<Command>(&line).expect("it reads back"), command);
        assert!(!format!("{command:?}").contains("ls"), "content has no Debug");
    }
}
