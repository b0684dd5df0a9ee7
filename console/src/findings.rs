//! What a session amounts to: the findings that the agent stored, or the same made from the events here.
//!
//! Stored ones are taken only if `SHA256SUMS` lists them with the digest they have. Anything else is made anew, so that a
//! reader always gets commands, files and forwards, and is told where they are from.

use std::io::{self, BufRead, BufReader, Read};

use serde::{Serialize, de::DeserializeOwned};
use weir_analysis::{Analysis, Findings, TranscriptLine, masking::Masking};
use weir_common::recording::{
    Clock, Event,
    findings::{COMMANDS, Command, Cut, FILES, FORWARDS, FileAccess, Forward, KINDS, Line, TRANSCRIPT},
};

use crate::{
    recording::{Item, Recording, content_bytes},
    store::Object,
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
    let Some(objects) = stored_objects(recording) else { return false };
    for (kind, object) in objects {
        let read = match kind {
            COMMANDS => lines(object, &mut |command| out.command(command)),
            FILES => lines(object, &mut |file| out.file(file)),
            FORWARDS => lines(object, &mut |forward| out.forward(forward)),
            _ => Ok(0),
        };
        match read {
            Ok(0) => {}
            Ok(left_out) => {
                warnings.push(format!("{kind} leaves out {left_out}, which were too many to store"));
            }
            Err(error) => warnings.push(format!("{kind} can't be read: {error}")),
        }
    }
    true
}

/// The stored transcript; `None` as with [`stored`], or if there was nothing on any terminal.
pub fn transcript(recording: &Recording) -> Option<impl BufRead + use<>> {
    let object = stored_objects(recording)?.into_iter().find(|(kind, _)| *kind == TRANSCRIPT);
    object.map(|(_, object)| BufReader::new(object))
}

/// The objects of the findings by their kind; `None` where none were made, or one is not what the list of digests says.
fn stored_objects(recording: &Recording) -> Option<Vec<(&'static str, Object)>> {
    let findings = recording.manifest.as_ref()?.findings.as_ref()?;
    findings.counts.as_ref()?;
    let named = KINDS.into_iter().filter_map(|kind| Some((kind, findings.object(kind)?)));
    named.map(|(kind, entry)| Some((kind, recording.listed_object(&entry.name).ok().flatten()?))).collect()
}

/// Passes on each line, and says how many findings are not in it.
fn lines<T: DeserializeOwned>(object: Object, each: &mut dyn FnMut(T)) -> io::Result<u64> {
    let mut object = BufReader::new(object);
    let mut line = Vec::new();
    loop {
        line.clear();
        object.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(0);
        }
        match serde_json::from_slice(&line)? {
            Line::Finding(finding) => each(finding),
            Line::Cut(Cut { left_out }) => return Ok(left_out),
        }
    }
}
