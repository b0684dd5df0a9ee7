//! The findings that the agent stored, where these are all that is searched.

use std::io::{BufRead, BufReader, Read};

use serde::de::DeserializeOwned;
use weir_analysis::Findings;
use weir_common::recording::findings::{COMMANDS, Command, Cut, FILES, FileAccess, KINDS, Line};

use super::session::Search;
use crate::{cli::Place, recording::Recording};

/// The most bytes of a finding: its texts with every character escaped, and what else it says.
const FINDING_MAX: u64 = 1 << 20;

/// Searches the stored findings; `false` if they are not enough, or not what the list of digests says, and the events
/// have to be.
pub(super) fn search(recording: &Recording, search: &mut Search<'_>) -> bool {
    let (commands, files) = (search.options.looks_in(Place::Commands), search.options.looks_in(Place::Files));
    let is_enough = !search.options.looks_in(Place::Output) && !search.options.looks_in(Place::Input);
    let stored = recording.manifest.as_ref().and_then(|manifest| manifest.findings.as_ref());
    let is_there = match stored {
        Some(stored) => stored.counts.is_some(),
        // Where there was nothing to say there is no object: others show that somebody looked.
        None => KINDS.iter().any(|name| recording.lists(name)),
    };
    if !is_enough || !is_there {
        return false;
    }
    let mut objects = Vec::new();
    for (kind, _) in [(COMMANDS, commands), (FILES, files)].into_iter().filter(|(_, wanted)| *wanted) {
        let name = match stored {
            Some(stored) => stored.object(kind).map(|object| object.name.as_str()),
            None => Some(kind).filter(|name| recording.lists(name)),
        };
        let Some(name) = name else { continue };
        match recording.listed_object(name) {
            Ok(Some(object)) => objects.push((kind, object)),
            Ok(None) => {
                search.warn(format!("{name} is not what the list of digests says; the events are searched"));
                return false;
            }
            Err(error) => {
                search.warn(error.to_string());
                return false;
            }
        }
    }
    for (name, object) in objects {
        let read = match name {
            COMMANDS => each(object, search, |search, command: Command| search.command(command)),
            _ => each(object, search, |search, file: FileAccess| search.file(file)),
        };
        if let Err(problem) = read {
            search.warn(format!("{name}: {problem}"));
        }
    }
    true
}

fn each<T: DeserializeOwned>(
    object: impl Read,
    search: &mut Search<'_>,
    mut take: impl FnMut(&mut Search<'_>, T),
) -> Result<(), String> {
    let mut reader = BufReader::new(object);
    let mut line = Vec::new();
    while !search.is_over() {
        line.clear();
        let read = reader.by_ref().take(FINDING_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| format!("can't be read: {error}"))? == 0 {
            return Ok(());
        }
        let finding =
            serde_json::from_slice(&line).map_err(|error| format!("has no finding in a line: {error}"))?;
        match finding {
            Line::Finding(finding) => take(search, finding),
            Line::Cut(Cut { left_out }) => {
                return Err(format!("{left_out} findings are left out; search the output as well"));
            }
        }
    }
    Ok(())
}
