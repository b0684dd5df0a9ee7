//! The log that shells with hooks write: records that end in RS, with fields between US.
//!
//! `S pid text` when a command begins, `P pid code directory` when the shell prompts, `R name text` for a statement of
//! an interpreter. bash's text has the number of its history entry in front, and comes again for each command on a line.

use std::collections::HashMap;

use crate::shells::Truth;

const RECORD: u8 = 0x1e;
const FIELD: char = '\x1f';

pub(super) fn prompts(log: &[u8]) -> usize {
    log.split(|byte| *byte == RECORD).filter(|record| record.starts_with(b"P")).count()
}

pub(super) fn truth(log: &[u8]) -> Vec<Truth> {
    let mut found: Vec<Truth> = Vec::new();
    // Of each shell: its last command, and bash's number of that; where it is.
    let mut last: HashMap<String, (usize, Option<u32>)> = HashMap::new();
    let mut directories: HashMap<String, String> = HashMap::new();
    for record in log.split(|byte| *byte == RECORD) {
        let record = String::from_utf8_lossy(record);
        let fields: Vec<&str> = record.split(FIELD).collect();
        match fields[..] {
            ["S", pid, text] => {
                last.insert(pid.to_owned(), (found.len(), None));
                found.push(Truth { cwd: directories.get(pid).cloned(), ..Truth::shell(text) });
            }
            ["B", pid, history] => {
                let Some((number, text)) = numbered(history) else { continue };
                match last.get(pid) {
                    Some((at, Some(before))) if *before == number => found[*at].text = text.to_owned(),
                    _ => {
                        last.insert(pid.to_owned(), (found.len(), Some(number)));
                        found.push(Truth { cwd: directories.get(pid).cloned(), ..Truth::shell(text) });
                    }
                }
            }
            ["P", pid, code, directory] => {
                let command = last.get(pid).map(|(at, _)| &mut found[*at]);
                if let Some(command) = command.filter(|command| command.exit_code.is_none()) {
                    command.exit_code = code.parse().ok();
                }
                directories.insert(pid.to_owned(), directory.to_owned());
            }
            ["R", name, text] => {
                found.push(Truth { repl: Some(name.to_owned()), ..Truth::shell(text) });
            }
            _ => {}
        }
    }
    found
}

/// bash's `history 1`: a number, two blanks or a blank and a star, and the entry.
fn numbered(history: &str) -> Option<(u32, &str)> {
    let history = history.strip_suffix('\n').unwrap_or(history).trim_start();
    let digits = history.find(|c: char| !c.is_ascii_digit())?;
    Some((history[..digits].parse().ok()?, history[digits..].get(2..)?))
}
