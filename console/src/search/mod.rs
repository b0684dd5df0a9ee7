//! Looks for a pattern in many sessions: in commands, output, input and paths.
//!
//! Each session is read by one thread, an event at a time; what is in memory of it is a line of each stream, the lines
//! around it, and matches that wait for their command or their turn. Recordings are not trusted: what is wrong with one is a
//! warning, and the search goes on with the next.

mod lines;
mod pattern;
mod print;
mod session;
mod stored;

use std::{
    collections::BTreeSet,
    io,
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
};

use weir_analysis::masking::{LineState, Masking};

pub use self::pattern::{Pattern, PatternError};
use self::{print::Printer, session::Report};
use crate::{
    cli::{Place, SearchArgs},
    find::{About, Filter, Order, Sessions},
    parallel::{Results, Stopped, in_order},
    run::{Exit, RunError, World},
    store::{SessionDir, Store, StoreError},
};

/// What is looked for, and where.
struct Options {
    pattern: Pattern,
    places: BTreeSet<Place>,
    context: usize,
    matches_max: usize,
    masking: Masking,
}

impl Options {
    fn of(args: &SearchArgs) -> Result<Self, PatternError> {
        let mut places: BTreeSet<Place> = args.places.iter().copied().collect();
        if places.contains(&Place::All) {
            places = [Place::Commands, Place::Output, Place::Input, Place::Files].into();
        }
        Ok(Self {
            pattern: Pattern::new(&args.pattern, args.ignore_case)?,
            places,
            context: args.context,
            matches_max: args.max_count.map_or(usize::MAX, NonZeroUsize::get),
            masking: Masking::default(),
        })
    }

    /// A text with its secrets masked, by what lines before it have begun; bytes that are no UTF-8 are replaced.
    fn masked(&self, bytes: &[u8], before: Option<&LineState>) -> String {
        let mut state = before.cloned().unwrap_or_default();
        self.masking.mask_line(&mut state, &String::from_utf8_lossy(bytes)).0.into_owned()
    }

    fn looks_in(&self, place: Place) -> bool {
        self.places.contains(&place)
    }
}

/// How many sessions are read at once.
pub(crate) fn jobs(wanted: Option<NonZeroUsize>) -> usize {
    match wanted {
        Some(wanted) => wanted.get(),
        None => available_parallelism().map_or(1, NonZeroUsize::get).min(JOBS_DEFAULT_MAX),
    }
}

const JOBS_DEFAULT_MAX: usize = 16;

/// Searches the sessions that the filter wants, and prints what is found.
///
/// # Errors
/// If the store can't be listed, the pattern is none, or nothing can be written.
pub fn search(
    args: &SearchArgs,
    store: &Store,
    (filter, order): (&Filter, Order),
    world: &mut World<'_>,
) -> Result<Exit, RunError> {
    let options = Options::of(args)?;
    let sessions = Sessions::of(store, filter, order)?;
    let listed = Arc::clone(sessions.listed());
    let mut printer = Printer::new(args, world);
    let perform = |session: Result<SessionDir, StoreError>, results: &Results<Report>| {
        // Nobody wants any more: nothing is left to do.
        let _ = search_one(session, filter, &options, results);
    };
    let searched = in_order(sessions, jobs(args.filter.jobs), perform, |report| {
        printer.take(report, listed.load(Ordering::Relaxed))
    });
    let exit = printer.finish();
    match searched {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit),
    }
}

fn search_one(
    session: Result<SessionDir, StoreError>,
    filter: &Filter,
    options: &Options,
    results: &Results<Report>,
) -> Result<(), Stopped> {
    let session = match session {
        Ok(session) => session,
        Err(error) => return results.give(Report::Unreadable(error.to_string())),
    };
    match About::of(&session) {
        Ok(about) if filter.wants(&about) => session::search(session, about, options, results)?,
        Ok(_) => {}
        Err(error) => results.give(Report::Unreadable(error.to_string()))?,
    }
    results.give(Report::Done)
}
