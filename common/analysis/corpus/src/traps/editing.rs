//! Line editors: what is typed is not what is run.

use anyhow::Result;

use crate::{
    session::{CTRL_C, ENTER, Session},
    shells::Shell,
    words,
};

const ESCAPE: &[u8] = b"\x1b";
const UP: &[u8] = b"\x1b[A";
const DOWN: &[u8] = b"\x1b[B";
const RIGHT: &[u8] = b"\x1b[C";
const LEFT: &[u8] = b"\x1b[D";
const TAB: &[u8] = b"\t";
const BACKSPACE: &[u8] = b"\x7f";

/// A command of words alone: however it is edited, it is one line and harmless.
fn editable(session: &mut Session, words: usize) -> String {
    let chance = &mut session.chance;
    let words: Vec<_> = (0..words).map(|_| words::word(chance)).collect();
    format!("echo {}", words.join(" "))
}

/// The keys of emacs; of a terminal's own line editing in a shell that has none.
pub(super) fn line_editing(session: &mut Session) -> Result<()> {
    let keys: &[&[u8]] = if session.shell == Shell::Dash {
        &[BACKSPACE, b"\x17", b"\x15", BACKSPACE, BACKSPACE]
    } else {
        &[
            b"\x01", b"\x05", b"\x17", b"\x0b", b"\x15", b"\x19", b"\x02", b"\x06", b"\x1bb", b"\x1bf",
            b"\x1bd", LEFT, RIGHT, BACKSPACE,
        ]
    };
    for _ in 0..5 {
        let count = session.chance.size(2, 12);
        let command = editable(session, count);
        session.type_in(&command)?;
        for _ in 0..session.chance.size(1, 5) {
            let key = session.chance.pick(keys);
            for _ in 0..session.chance.size(1, 4) {
                session.key(key)?;
            }
            if session.chance.once_in(2) {
                let word = words::word(&mut session.chance);
                session.type_in(&word)?;
            }
        }
        session.enter()?;
    }
    Ok(())
}

/// The keys of vi.
pub(super) fn vi_mode(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let count = session.chance.size(2, 10);
        let command = editable(session, count);
        session.type_in(&command)?;
        session.key(ESCAPE)?;
        // A lone escape is one only after a while.
        session.watch_ms(600)?;
        for _ in 0..session.chance.size(1, 4) {
            let key = session.chance.pick(&["0", "$", "b", "w", "x", "h", "l", "dw", "db", "3h"]);
            session.key(key.as_bytes())?;
        }
        if session.chance.once_in(2) {
            let word = words::word(&mut session.chance);
            let insert = session.chance.pick(&["i", "a", "A", "I"]);
            session.key(insert.as_bytes())?;
            session.type_in(&word)?;
        }
        session.enter()?;
    }
    Ok(())
}

pub(super) fn history_up(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        session.run_any()?;
    }
    for _ in 0..5 {
        let count = session.chance.size(1, 4);
        for _ in 0..count {
            session.key(UP)?;
        }
        if count > 1 && session.chance.once_in(3) {
            session.key(DOWN)?;
        }
        if session.chance.once_in(2) {
            let word = words::word(&mut session.chance);
            session.type_in(&format!(" && echo {word}"))?;
        }
        session.enter()?;
    }
    Ok(())
}

pub(super) fn reverse_search(session: &mut Session) -> Result<()> {
    let mut needles = Vec::new();
    for _ in 0..4 {
        let needle = words::word(&mut session.chance) + &words::word(&mut session.chance);
        let command = words::command(&mut session.chance, session.shell);
        session.run(&format!("{command} && echo {needle}"))?;
        needles.push(needle);
    }
    for _ in 0..4 {
        let at = session.chance.size(0, needles.len() - 1);
        session.key(b"\x12")?;
        session.type_in(&needles[at])?;
        match session.chance.number(0, 3) {
            // Given up.
            0 => {
                session.terminal.send(CTRL_C)?;
                session.interrupted()?;
                continue;
            }
            // Taken and gone on with.
            1 => {
                session.key(b"\x05")?;
                let word = words::word(&mut session.chance);
                session.type_in(&format!(" {word}"))?;
            }
            _ => {}
        }
        session.enter()?;
    }
    Ok(())
}

/// Names that the shell completes: one at once, several with a list.
pub(super) fn completion(session: &mut Session) -> Result<()> {
    let stem = words::word(&mut session.chance) + &words::word(&mut session.chance);
    let names: Vec<_> =
        (0..3).map(|n| format!("{stem}{n}{}.txt", words::word(&mut session.chance))).collect();
    for name in &names {
        session.home.write(name, "text\n")?;
    }
    let alone = format!("x{}", words::word(&mut session.chance) + &words::word(&mut session.chance));
    session.home.write(&format!("{alone} {}.log", words::word(&mut session.chance)), "text\n")?;
    for _ in 0..4 {
        match session.chance.number(0, 2) {
            0 => {
                session.type_in(&format!("wc -l {}", &alone[..4]))?;
                session.key(TAB)?;
            }
            1 => {
                session.type_in(&format!("wc -c {}", &stem[..3]))?;
                session.key(TAB)?;
                session.watch_ms(100)?;
                session.key(TAB)?;
                session.watch_ms(100)?;
                let at = session.chance.size(0, 2);
                // zsh and fish go through a menu then, which a character leaves.
                session.type_in(&at.to_string())?;
                session.key(TAB)?;
            }
            _ => {
                let word = words::word(&mut session.chance);
                session.type_in(&format!("echo {word} {}", &alone[..3]))?;
                session.key(TAB)?;
            }
        }
        session.watch_ms(100)?;
        session.terminal.settle()?;
        session.enter()?;
    }
    Ok(())
}

/// The window changes its size while a line is typed.
pub(super) fn resize_mid_line(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let chars = usize::from(session.cols) * session.chance.size(1, 3) / 2 + 5;
        let command = words::long_command(&mut session.chance, session.shell, chars);
        let at = command.char_indices().nth(command.chars().count() / 2).map_or(0, |(at, _)| at);
        session.type_in(&command[..at])?;
        let size = |chance: &mut crate::random::Chance, from, to| {
            u16::try_from(chance.number(from, to)).unwrap_or(80)
        };
        (session.cols, session.rows) =
            (size(&mut session.chance, 40, 180), size(&mut session.chance, 10, 60));
        session.terminal.resize(session.cols, session.rows)?;
        session.terminal.take(300)?;
        session.terminal.settle()?;
        session.run(&command[at..])?;
        session.run_any()?;
    }
    Ok(())
}

/// What `!` brings back out of the history.
pub(super) fn history_expansion(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let word = words::word(&mut session.chance);
        let second = words::word(&mut session.chance);
        session.run(&format!("echo {word} {second}"))?;
        let recalled = match session.chance.number(0, 3) {
            0 => "!!".to_owned(),
            1 => "!echo".to_owned(),
            2 => format!("echo !$ {word}x"),
            _ => format!("^{word}^{word}y"),
        };
        session.run(&recalled)?;
    }
    Ok(())
}

/// fish's suggestions, taken and left alone.
pub(super) fn autosuggestions(session: &mut Session) -> Result<()> {
    let first: Vec<_> = (0..3).map(|_| words::command(&mut session.chance, session.shell)).collect();
    for command in &first {
        session.run(command)?;
    }
    for _ in 0..6 {
        let at = session.chance.size(0, first.len() - 1);
        let chars = first[at].chars().count();
        let begin: String = first[at].chars().take(session.chance.size(1, chars)).collect();
        // Its beginning may be half of a quotation.
        if begin.contains(['\'', '"', '\\', '(', '|', '&', '>']) || session.chance.once_in(2) {
            let begin: String = begin.chars().take(4).collect();
            session.type_in(&begin)?;
            session.watch_ms(150)?;
            let take = session.chance.pick(&[RIGHT, b"\x05"]);
            session.key(take)?;
        } else {
            session.type_in(&begin)?;
            session.watch_ms(150)?;
        }
        session.enter()?;
    }
    Ok(())
}

/// Pasted between the marks that say so.
pub(super) fn paste_bracketed(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let mut lines = vec![words::command(&mut session.chance, session.shell)];
        for _ in 0..session.chance.size(0, 3) {
            lines.push(words::command(&mut session.chance, session.shell));
        }
        // Terminals send line ends as the Enter key does.
        let mut pasted = lines.join("\r");
        if session.chance.once_in(3) {
            pasted.push('\r');
        }
        session.terminal.send(format!("\x1b[200~{pasted}\x1b[201~").as_bytes())?;
        session.terminal.take(500)?;
        session.terminal.settle()?;
        session.terminal.send(ENTER)?;
        session.prompted()?;
        session.run_any()?;
    }
    Ok(())
}
