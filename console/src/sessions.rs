//! Lists the sessions of a store.

use std::io;

use jiff::Timestamp;
use serde::Serialize;
use weir_common::session::{Outcome, SessionId};

use crate::{
    cli::SessionsArgs,
    escape,
    find::{About, Filter, Order, Sessions},
    parallel::{Results, in_order},
    run::{Exit, RunError, World},
    search::jobs,
    store::{SessionDir, Store, StoreError},
    table::{Align, Table, duration, grouped},
};

/// The rows of a table: so many are in memory before they are printed.
const ROWS_MAX: usize = 5_000;

/// A session in the list.
#[derive(Debug, Serialize)]
struct Listed {
    session: SessionId,
    address: String,
    user: String,
    resource: String,
    login: String,
    request_id: String,
    opened_at: Timestamp,
    closed_at: Option<Timestamp>,
    /// `running` stands for all that has no end in the store.
    state: String,
    /// How many commands the agent found.
    #[serde(skip_serializing_if = "Option::is_none")]
    commands: Option<u64>,
}

/// Lists the sessions that the filter wants.
///
/// # Errors
/// If the store can't be listed, or nothing can be written.
pub fn list(
    args: &SessionsArgs,
    store: &Store,
    (filter, order): (&Filter, Order),
    world: &mut World<'_>,
) -> Result<Exit, RunError> {
    let sessions = Sessions::of(store, filter, order)?;
    let perform = |session: Result<SessionDir, StoreError>, results: &Results<_>| {
        let listed =
            session.map_err(|error| error.to_string()).and_then(|session| describe(&session, filter));
        if let Some(listed) = listed.transpose() {
            // Nobody wants any more: nothing is left to do.
            let _ = results.give(listed);
        }
    };
    let (mut rows, mut found, mut failed) = (Vec::new(), false, false);
    let listed = in_order(sessions, jobs(args.filter.jobs), perform, |listed: Result<Listed, String>| {
        match listed {
            Err(problem) => {
                failed = true;
                // Where even standard error is closed, the exit code has to say it.
                let _ = writeln!(world.err, "weir: {}", escape::text(&problem));
                Ok(())
            }
            Ok(listed) if args.json => {
                found = true;
                writeln!(world.out, "{}", escape::json(&serde_json::to_string(&listed)?))
            }
            Ok(listed) => {
                found = true;
                rows.push(listed);
                if rows.len() == ROWS_MAX { print(&mut rows, world) } else { Ok(()) }
            }
        }
    });
    match listed.and_then(|()| print(&mut rows, world)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ if failed => Ok(Exit::Failed),
        _ if found => Ok(Exit::Fine),
        _ => Ok(Exit::Wrong),
    }
}

fn describe(session: &SessionDir, filter: &Filter) -> Result<Option<Listed>, String> {
    let about = About::of(session).map_err(|error| error.to_string())?;
    if !filter.wants(&about) {
        return Ok(None);
    }
    let About { meta, opened_at, closed, clock: _, commands } = about;
    let state = match &closed {
        None => "running",
        Some((_, Outcome::Completed)) => "completed",
        Some((_, Outcome::Ended { .. })) => "ended by the connector",
        Some((_, Outcome::ConnectorLost)) => "connector lost",
    };
    Ok(Some(Listed {
        session: meta.session_id,
        address: session.path().display().to_string(),
        user: meta.user,
        resource: meta.resource.name,
        login: meta.target_login,
        request_id: meta.request_id,
        opened_at,
        closed_at: closed.as_ref().map(|(at, _)| *at),
        state: state.to_owned(),
        commands,
    }))
}

fn print(rows: &mut Vec<Listed>, world: &mut World<'_>) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        ("SESSION", Align::Left),
        ("BEGUN (UTC)", Align::Left),
        ("DURATION", Align::Right),
        ("COMMANDS", Align::Right),
        ("USER", Align::Left),
        ("RESOURCE", Align::Left),
        ("REQUEST", Align::Left),
        ("STATE", Align::Left),
    ]);
    for row in rows.drain(..) {
        table.row([
            row.session.to_string(),
            row.opened_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            row.closed_at.map_or_else(|| "-".to_owned(), |closed_at| duration(row.opened_at, closed_at)),
            row.commands.map_or_else(|| "-".to_owned(), grouped),
            row.user,
            row.resource,
            row.request_id,
            row.state,
        ]);
    }
    let look = world.look;
    table.write(world.out, |heading| look.heading(heading))
}
