//! Marks that shells and terminals agreed on: where a prompt and a command begin and end, what is run, and where.
//!
//! Sources: OSC 133 (FinalTerm; iTerm2's and kitty's shell integration), OSC 633 (VS Code's terminal shell
//! integration), OSC 7, OSC 1337 (iTerm2), OSC 9;9 (ConEmu), and the hooks of Warp, which are JSON in hexadecimal
//! digits within a DCS or, where those don't pass, OSC 9278.

use serde::Deserialize;
use weir_common::recording::findings::COMMAND_CHARS_MAX;

/// The most characters of a working directory.
const CWD_CHARS_MAX: usize = 4096;

/// What a mark says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A prompt begins.
    Prompt {
        /// It asks for more of the same command.
        continues: bool,
    },
    /// The entry begins.
    Entry,
    /// What was entered runs now. Some say what it is.
    Run(Option<String>),
    /// This is what is going to run.
    CommandLine(String),
    /// The command ended.
    Done(Option<i32>),
    /// Where commands run.
    Cwd(String),
    /// Warp: this runs now.
    WarpRun(String),
    /// Warp: the command ended.
    WarpDone(Option<i32>),
    /// Warp: a prompt is due.
    WarpPrompt {
        /// How the last command ended, where that is told.
        exit_code: Option<i32>,
        /// Where commands run.
        cwd: Option<String>,
    },
}

/// A mark out of an operating system command.
pub(super) fn of_osc(osc: &[u8]) -> Option<Mark> {
    let text = String::from_utf8_lossy(osc);
    let (number, rest) = text.split_once(';')?;
    match number {
        "133" => of_133(rest),
        "633" => of_633(rest),
        "7" => of_url(rest).map(Mark::Cwd),
        "1337" => rest.strip_prefix("CurrentDir=").and_then(cwd),
        "9" => rest.strip_prefix("9;").and_then(|path| cwd(path.trim_matches('"'))),
        "9278" => of_hook(rest.strip_prefix("d;")?),
        _ => None,
    }
}

/// A mark out of a device control string.
pub(super) fn of_dcs(dcs: &[u8]) -> Option<Mark> {
    of_hook(std::str::from_utf8(dcs.strip_prefix(b"$d")?).ok()?)
}

fn of_133(rest: &str) -> Option<Mark> {
    let mut parts = rest.split(';');
    match parts.next()? {
        "A" | "P" | "N" => {
            let continues = parts.any(|part| matches!(part, "k=s" | "k=c"));
            // `P` says that what follows is a prompt of some kind; only those that go on are of interest.
            (continues || !rest.starts_with('P')).then_some(Mark::Prompt { continues })
        }
        "B" | "I" => Some(Mark::Entry),
        "C" => Some(Mark::Run(parts.find_map(command_of))),
        "D" => Some(Mark::Done(parts.next().and_then(|code| code.parse().ok()))),
        _ => None,
    }
}

/// The command as kitty's integration and fish write it.
fn command_of(part: &str) -> Option<String> {
    let text = if let Some(url) = part.strip_prefix("cmdline_url=") {
        percent(url)
    } else {
        // Words in the shell's quotes are taken only where there are none.
        part.strip_prefix("cmdline=")
            .filter(|text| !text.contains(['\'', '"', '\\', '$']))
            .map(str::to_owned)?
    };
    Some(bounded(&text, COMMAND_CHARS_MAX)).filter(|text| !text.trim().is_empty())
}

fn of_633(rest: &str) -> Option<Mark> {
    let mut parts = rest.split(';');
    match parts.next()? {
        "A" => Some(Mark::Prompt { continues: false }),
        "F" => Some(Mark::Prompt { continues: true }),
        "B" | "G" => Some(Mark::Entry),
        "C" => Some(Mark::Run(None)),
        "D" => Some(Mark::Done(parts.next().and_then(|code| code.parse().ok()))),
        // Semicolons of the command are escaped; a nonce may follow.
        "E" => Some(Mark::CommandLine(bounded(&escapes(parts.next()?), COMMAND_CHARS_MAX))),
        "P" => parts.next()?.strip_prefix("Cwd=").and_then(|path| cwd(&escapes(path))),
        _ => None,
    }
}

fn cwd(path: &str) -> Option<Mark> {
    (!path.is_empty()).then(|| Mark::Cwd(bounded(path, CWD_CHARS_MAX)))
}

/// The path of a `file:` URL.
fn of_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("file://").or_else(|| url.strip_prefix("kitty-shell-cwd://"))?;
    let path = &rest[rest.find('/')?..];
    let path = if url.starts_with("file") { percent(path) } else { path.to_owned() };
    Some(bounded(&path, CWD_CHARS_MAX))
}

/// Undoes percent-encoding (RFC 3986, 2.1).
fn percent(text: &str) -> String {
    decoded(text, b'%', 1)
}

/// Undoes VS Code's escapes: `\\` and `\x` with two hexadecimal digits.
fn escapes(text: &str) -> String {
    decoded(text, b'\\', 2)
}

/// Puts bytes for escapes: a byte, and hexadecimal digits after `skip` bytes of it.
fn decoded(text: &str, escape: u8, skip: usize) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + skip..at + skip + 2);
        let escaped = (byte == escape && (skip == 1 || bytes.get(at + 1) == Some(&b'x')))
            .then(|| digits.and_then(hex))
            .flatten();
        if let Some(escaped) = escaped {
            out.push(escaped);
            at += skip + 2;
        } else {
            if byte == b'\\' && escape == b'\\' && bytes.get(at + 1) == Some(&b'\\') {
                at += 1;
            }
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

fn bounded(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[derive(Deserialize)]
struct Hook {
    hook: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize, Default)]
struct Value {
    command: Option<String>,
    exit_code: Option<i32>,
    pwd: Option<String>,
}

fn of_hook(digits: &str) -> Option<Mark> {
    let bytes: Option<Vec<u8>> = digits.trim().as_bytes().chunks(2).map(hex).collect();
    let Hook { hook, value } = serde_json::from_slice(&bytes?).ok()?;
    match hook.as_str() {
        "Preexec" => Some(Mark::WarpRun(bounded(&value.command?, COMMAND_CHARS_MAX))),
        "CommandFinished" => Some(Mark::WarpDone(value.exit_code)),
        "Precmd" => {
            Some(Mark::WarpPrompt { exit_code: value.exit_code, cwd: value.pwd.filter(|p| !p.is_empty()) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_what_runs_and_where() {
        assert_eq!(of_osc(b"133;A;k=s"), Some(Mark::Prompt { continues: true }));
        assert_eq!(of_osc(b"133;D;130;aid=7"), Some(Mark::Done(Some(130))));
        assert_eq!(
            of_osc(b"133;C;cmdline_url=echo%20%C3%A9%3B"),
            Some(Mark::Run(Some("echo é;".to_owned())))
        );
        assert_eq!(
            of_osc(b"633;E;echo a\\x3b echo \\\\x3b\\x0ab;nonce"),
            Some(Mark::CommandLine("echo a; echo \\x3b\nb".to_owned()))
        );
        assert_eq!(of_osc(b"633;P;Cwd=/a\\x20b"), Some(Mark::Cwd("/a b".to_owned())));
        assert_eq!(of_osc(b"7;file://host/tmp/%C3%A9"), Some(Mark::Cwd("/tmp/é".to_owned())));
        assert_eq!(of_osc(b"1337;CurrentDir=/x"), Some(Mark::Cwd("/x".to_owned())));
    }

    #[test]
    fn hooks_of_warp_are_read() {
        let json = br#"{"hook":"Preexec","value":{"command":"ls -l"}}"#;
        let digits: String = json.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(of_dcs(format!("$d{digits}").as_bytes()), Some(Mark::WarpRun("ls -l".to_owned())));
        assert_eq!(of_dcs(b"$d7b7"), None);
        assert_eq!(of_dcs("$dé".as_bytes()), None);
    }
}
