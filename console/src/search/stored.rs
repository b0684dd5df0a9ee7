//! The findings that the agent stored, where these are all that is searched.

use std::ops::ControlFlow::{self, Break, Continue};

use weir_analysis::Findings;
use weir_common::recording::findings::{COMMANDS, FILES};

use super::session::Search;
use crate::{
    cli::Place,
    findings::{StoredError, lines, stored_objects},
    recording::Recording,
};

/// Searches the stored findings; `false` if they are not enough, or not what the list of digests says, and the events
/// have to be.
pub(super) fn search(recording: &Recording, search: &mut Search<'_>) -> bool {
    if search.options.looks_in(Place::Output) || search.options.looks_in(Place::Input) {
        return false;
    }
    let wanted = [(COMMANDS, Place::Commands), (FILES, Place::Files)];
    let wanted = wanted.into_iter().filter(|(_, place)| search.options.looks_in(*place));
    let kinds: Vec<_> = wanted.map(|(kind, _)| kind).collect();
    let objects = match stored_objects(recording, &kinds) {
        Ok(Some(objects)) => objects,
        Ok(None) => return false,
        Err(error) => {
            search.warn(format!("{error}; the events are searched"));
            return false;
        }
    };
    for (kind, object) in objects {
        let read = match kind {
            COMMANDS => lines(kind, object, |command| {
                search.command(command);
                goes_on(search)
            }),
            _ => lines(kind, object, |file| {
                search.file(file);
                goes_on(search)
            }),
        };
        match read {
            Ok(()) => {}
            Err(error @ StoredError::LeftOut { .. }) => {
                search.warn(format!("{error}; search the output as well"));
            }
            Err(error) => search.warn(error.to_string()),
        }
    }
    true
}

fn goes_on(search: &Search<'_>) -> ControlFlow<()> {
    if search.is_over() { Break(()) } else { Continue(()) }
}
