//! What a session amounts to: the findings that the agent stored, or the same made from the events here.
//!
//! Stored ones are taken only if `SHA256SUMS` lists them with the digest they have. Anything else is made anew, so that a
//! reader always gets commands, files and forwards, and is told where they are from.

use std::{
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
};

use serde::{Serialize, de::DeserializeOwned};
use weir_analysis::{Analysis, Findings, TranscriptLine, masking::Masking};
use weir_common::recording::{
    Clock, Event,
    findings::{COMMANDS, Command, Cut, FILES, FORWARDS, FileAccess, Forward, KINDS, Line, TRANSCRIPT},
};

use crate::{
    recording::{Item, Listed, Recording, content_bytes},
    store::StoreError,
};

/// The most bytes of a finding's line: a command of the greatest length, escaped, and the fields around it.
const LINE_MAX: u64 = 1 << 20;
/// The most findings of each kind that are kept in memory.
pub const KEPT_MAX: usize = 10_000;

/// The most warnings that are kept.
const WARNINGS_MAX: usize = 50;

/// Where findings are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The agent made and signed them when the session was over.
    Stored,
    /// They were made from the events just now.
    #[default]
    Made,
}

/// Findings in memory, up to [`KEPT_MAX`] of each kind.
#[derive(Debug, Default, Serialize)]
pub struct Kept {
    /// Where they are from.
    pub findings_from: Origin,
    /// What the user ran.
    pub commands: Vec<Command>,
    /// What was done to files.
    pub files: Vec<FileAccess>,
    /// What was forwarded.
    pub forwards: Vec<Forward>,
    /// How many findings were too many.
    pub findings_left_out: u64,
}

impl Kept {
    fn keep<T>(list: &mut Vec<T>, left_out: &mut u64, finding: T) {
        if list.len() < KEPT_MAX {
            list.push(finding);
        } else {
            *left_out += 1;
        }
    }
}

impl Findings for Kept {
    fn command(&mut self, command: Command) {
        Self::keep(&mut self.commands, &mut self.findings_left_out, command);
    }

    fn file(&mut self, file: FileAccess) {
        Self::keep(&mut self.files, &mut self.findings_left_out, file);
    }

    fn forward(&mut self, forward: Forward) {
        Self::keep(&mut self.forwards, &mut self.findings_left_out, forward);
    }

    fn line(&mut self, _: TranscriptLine) {}
}

/// A request's text as it stands among the findings: what is secret in it by the built-in rules is masked, and what is no
/// UTF-8 replaced.
#[must_use]
pub fn masked(text: &[u8]) -> String {
    Masking::default().mask(&String::from_utf8_lossy(text)).0.into_owned()
}

/// Makes findings from events.
pub struct Analyst(Analysis);

impl Analyst {
    /// At the start of a recording.
    #[must_use]
    pub fn new(clock: Option<Clock>) -> Self {
        Self(Analysis::new(clock, Masking::default()))
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event, bulk: Option<&[u8]>, out: &mut dyn Findings) {
        let content = event.what.content().map(|content| content_bytes(content, bulk)).unwrap_or_default();
        self.0.event(event, content, out);
    }

    /// There are no more.
    pub fn finish(self, out: &mut dyn Findings) {
        self.0.finish(out);
    }
}

/// Passes on the commands, files and forwards of a recording, and says where they are from.
pub fn each(recording: &Recording, out: &mut dyn Findings, warnings: &mut Vec<String>) -> Origin {
    if stored(recording, out, warnings) {
        return Origin::Stored;
    }
    made(recording, out, warnings);
    Origin::Made
}

/// Makes the findings and the transcript from the events.
pub fn made(recording: &Recording, out: &mut dyn Findings, warnings: &mut Vec<String>) {
    let mut analyst = Analyst::new(recording.clock());
    for item in recording.events() {
        match item {
            Item::Event(event, bulk) => analyst.event(&event, bulk.as_deref(), out),
            Item::Warning(warning) if warnings.len() < WARNINGS_MAX => warnings.push(warning),
            Item::Warning(_) => {}
        }
    }
    analyst.finish(out);
}

/// Keeps what [`each`] finds.
pub fn kept(recording: &Recording, warnings: &mut Vec<String>) -> Kept {
    let mut kept = Kept::default();
    kept.findings_from = each(recording, &mut kept, warnings);
    kept
}

/// Passes on the stored findings; `false` if there are none that can be trusted as far as the digests go, and then
/// nothing was passed on.
pub fn stored(recording: &Recording, out: &mut dyn Findings, warnings: &mut Vec<String>) -> bool {
    let Ok(Some(objects)) = stored_objects(recording, &[COMMANDS, FILES, FORWARDS]) else { return false };
    for (kind, object) in objects {
        let read = match kind {
            COMMANDS => lines(kind, object, all(|command| out.command(command))),
            FILES => lines(kind, object, all(|file| out.file(file))),
            _ => lines(kind, object, all(|forward| out.forward(forward))),
        };
        warnings.extend(read.err().map(|error| error.to_string()));
    }
    true
}

/// The stored transcript; `None` as with [`stored`], or if there was nothing on any terminal.
pub fn transcript(recording: &Recording) -> Option<impl BufRead + use<>> {
    // It is the agent's only together with the others.
    let objects = stored_objects(recording, &KINDS).ok()??;
    let (_, object) = objects.into_iter().find(|(kind, _)| *kind == TRANSCRIPT)?;
    Some(BufReader::new(object))
}

/// Why stored findings can't be used, or not to their end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    /// There is another object, or none.
    #[error("{name} is not what the list of digests says")]
    NotListed {
        /// The object.
        name: String,
    },
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading failed, or there is something else in the store by now.
    #[error("{kind} can't be read: {source}")]
    Read {
        /// Of which kind.
        kind: &'static str,
        /// What came back.
        source: io::Error,
    },
    /// What was stored is not what findings look like.
    #[error("{kind} has no finding in a line: {source}")]
    Line {
        /// Of which kind.
        kind: &'static str,
        /// What is wrong, without anything of the line.
        source: serde_json::Error,
    },
    /// The agent had more than it stores.
    #[error("{kind} leaves out {left_out}, which were too many to store")]
    LeftOut {
        /// Of which kind.
        kind: &'static str,
        /// How many.
        left_out: u64,
    },
}

/// The objects of the stored findings of these kinds, each by its kind, compared with the list of digests; `None` where the agent
/// made no findings.
pub(crate) fn stored_objects(
    recording: &Recording,
    kinds: &[&'static str],
) -> Result<Option<Vec<(&'static str, Listed)>>, StoredError> {
    let stored = recording.manifest.as_ref().and_then(|manifest| manifest.findings.as_ref());
    let Some(stored) = stored.filter(|stored| stored.counts.is_some()) else { return Ok(None) };
    let mut objects = Vec::new();
    // Where there was nothing to say of a kind there is no object.
    for (kind, object) in kinds.iter().filter_map(|kind| Some((*kind, stored.object(kind)?))) {
        let listed = recording.listed_object(&object.name)?;
        objects.push((kind, listed.ok_or_else(|| StoredError::NotListed { name: object.name.clone() })?));
    }
    Ok(Some(objects))
}

/// Wants more after each.
fn all<T>(mut each: impl FnMut(T)) -> impl FnMut(T) -> ControlFlow<()> {
    move |finding| {
        each(finding);
        ControlFlow::Continue(())
    }
}

/// Passes on the findings of an object until there are no more, or no more are wanted.
pub(crate) fn lines<T: DeserializeOwned>(
    kind: &'static str,
    object: Listed,
    mut each: impl FnMut(T) -> ControlFlow<()>,
) -> Result<(), StoredError> {
    let mut object = BufReader::new(object);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = object.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        if read.map_err(|source| StoredError::Read { kind, source })? == 0 {
            return Ok(());
        }
        let finding = serde_json::from_slice(&line).map_err(|source| StoredError::Line { kind, source })?;
        match finding {
            Line::Finding(finding) => {
                if each(finding).is_break() {
                    return Ok(());
                }
            }
            Line::Cut(Cut { left_out }) => return Err(StoredError::LeftOut { kind, left_out }),
        }
    }
}
