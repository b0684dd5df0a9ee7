//! Entering commands, one line or several, and the ways in which that is not plain.

use anyhow::Result;

use crate::{
    session::{CTRL_C, ENTER, Session},
    words,
};

pub(super) fn plain(session: &mut Session) -> Result<()> {
    for _ in 0..session.chance.size(6, 12) {
        session.run_any()?;
    }
    Ok(())
}

/// Commands that take several rows, also as a whole number of rows.
pub(super) fn wrapping(session: &mut Session) -> Result<()> {
    for _ in 0..5 {
        let rows = session.chance.size(1, 4);
        let chars = usize::from(session.cols) * rows - session.chance.size(0, 12);
        let command = words::long_command(&mut session.chance, session.shell, chars.min(3000));
        session.run(&command)?;
    }
    Ok(())
}

/// Commands whose output takes more than the screen, and commands that take more than it themselves.
pub(super) fn scroll_off(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let lines = u32::from(session.rows) * session.chance.number(1, 4);
        session.run(&format!("seq {lines}"))?;
        session.run_any()?;
    }
    let screen = usize::from(session.cols) * usize::from(session.rows);
    let command = words::long_command(&mut session.chance, session.shell, (screen + 50).min(3500));
    session.run(&command)?;
    session.run_any()
}

pub(super) fn multi_line(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let lines = words::multi_line(&mut session.chance, session.shell);
        session.run_lines(&lines)?;
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn here_document(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let lines = words::here_document(&mut session.chance);
        session.run_lines(&lines)?;
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn continuation(session: &mut Session) -> Result<()> {
    for _ in 0..5 {
        let lines = words::continued(&mut session.chance, session.shell);
        session.run_lines(&lines)?;
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn empty_enter(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        for _ in 0..session.chance.size(1, 3) {
            if session.chance.once_in(3) {
                session.type_in("   ")?;
            }
            session.enter()?;
        }
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn comments(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let comment = format!("# {} {}", words::word(&mut session.chance), words::word(&mut session.chance));
        if session.chance.once_in(2) {
            session.run(&comment)?;
        }
        let command = words::command(&mut session.chance, session.shell);
        session.run(&format!("{command} {comment}"))?;
    }
    Ok(())
}

pub(super) fn utf8_wide(session: &mut Session) -> Result<()> {
    for _ in 0..6 {
        let count = session.chance.size(1, 12);
        let arguments: Vec<_> = (0..count).map(|_| words::wide_word(&mut session.chance)).collect();
        session.run(&format!("echo {}", arguments.join(" ")))?;
    }
    Ok(())
}

/// Ctrl-C at an empty prompt, in the middle of a line, in a further line, and while something runs.
pub(super) fn ctrl_c(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let given_up = words::command(&mut session.chance, session.shell);
        match session.chance.number(0, 3) {
            0 => {}
            1 => session.type_in(&given_up)?,
            2 => {
                let lines = words::multi_line(&mut session.chance, session.shell);
                session.type_in(&lines[0])?;
                session.key(ENTER)?;
                session.type_in(&lines[1][..1])?;
            }
            _ => {
                session.begin("sleep 60")?;
            }
        }
        session.terminal.send(CTRL_C)?;
        session.interrupted()?;
        session.run_any()?;
    }
    Ok(())
}

/// Several commands at once, each with its line end, where the terminal does not say that they are pasted.
pub(super) fn paste_plain(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let count = session.chance.size(2, 5);
        let mut pasted = String::new();
        for _ in 0..count {
            pasted.push_str(&words::command(&mut session.chance, session.shell));
            pasted.push('\r');
        }
        let before = session.prompts();
        session.terminal.send(pasted.as_bytes())?;
        session.prompted_times(before, count)?;
        session.run_any()?;
    }
    Ok(())
}

/// What is typed while a command runs.
pub(super) fn type_ahead(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let next = words::command(&mut session.chance, session.shell);
        let before = session.prompts();
        session.begin("sleep 0.7")?;
        if session.chance.once_in(2) {
            // Entered while the command still runs.
            session.type_in(&next)?;
            session.terminal.send(ENTER)?;
            session.prompted_times(before, 2)?;
        } else {
            let at = next.char_indices().nth(next.chars().count() / 2).map_or(0, |(at, _)| at);
            session.type_in(&next[..at])?;
            session.prompted_times(before, 1)?;
            session.run(&next[at..])?;
        }
    }
    Ok(())
}
