//! Words and commands from a grammar: none of them stands anywhere as a whole.
//!
//! All of them can run as root in an empty directory: they write nothing but there.

use crate::{random::Chance, shells::Shell};

/// A pronounceable word.
pub(crate) fn word(chance: &mut Chance) -> String {
    let mut word = String::new();
    for _ in 0..chance.size(1, 4) {
        word.push(chance.letter("bdfgklmnprstvw"));
        word.push(chance.letter("aeiou"));
    }
    word
}

/// A word that need not be ASCII.
pub(crate) fn wide_word(chance: &mut Chance) -> String {
    let alphabet = chance.pick(&[
        "äöüßéèñçåø",
        "абвгдежзик",
        "日本語漢字中文表示",
        "한국어문자열",
        "🦀🚀🎉✨",
        "αβγδεζηθ",
        "ﬀ½€→≠",
    ]);
    (0..chance.size(1, 6)).map(|_| chance.letter(alphabet)).collect()
}

/// A command that ends at once and needs one line.
pub(crate) fn command(chance: &mut Chance, shell: Shell) -> String {
    let mut command = simple(chance, shell);
    match chance.number(0, 9) {
        0 | 1 => command = format!("{command} | {}", filter(chance)),
        2 => command = format!("{command} && {}", simple(chance, shell)),
        3 => command = format!("{command}; {}", simple(chance, shell)),
        4 => command = format!("{command} > {}", file(chance)),
        5 => command = format!("{command} | {} | {}", filter(chance), filter(chance)),
        _ => {}
    }
    command
}

/// A command of at least so many characters.
pub(crate) fn long_command(chance: &mut Chance, shell: Shell, chars: usize) -> String {
    let mut command = format!("echo {}", argument(chance, shell));
    while command.chars().count() < chars {
        command = format!("{command} {}", argument(chance, shell));
    }
    command
}

/// One program with its arguments.
fn simple(chance: &mut Chance, shell: Shell) -> String {
    match chance.number(0, 17) {
        0..=4 => {
            let count = chance.size(1, 4);
            let arguments: Vec<_> = (0..count).map(|_| argument(chance, shell)).collect();
            format!("echo {}", arguments.join(" "))
        }
        5 => format!("printf '%s\\n' {} {}", argument(chance, shell), argument(chance, shell)),
        6 => format!("ls -{}", chance.letter("1alht")),
        7 => format!("mkdir -p {}/{}", word(chance), word(chance)),
        8 => format!("touch {}", file(chance)),
        9 => format!("seq {} | tail -n {}", chance.number(3, 90), chance.number(1, 9)),
        10 => format!("grep -c {} /etc/passwd", word(chance)),
        11 => format!("test -d {}", word(chance)),
        12 => format!("cat ./{}", file(chance)),
        13 => format!("date -u +%Y-{}", word(chance)),
        // No line end behind its output.
        14 => format!("printf {}", word(chance)),
        // What looks like a prompt and a command, and is neither.
        15 => format!("echo '{}@{}:~$ {}'", word(chance), word(chance), word(chance)),
        16 if chance.once_in(2) => "cd".to_owned(),
        16 => {
            let directory = word(chance);
            format!("mkdir -p {directory} && cd {directory}")
        }
        _ => {
            let name = word(chance).to_uppercase();
            format!("{name}=\"{}\" printenv {name}", word(chance))
        }
    }
}

fn filter(chance: &mut Chance) -> String {
    match chance.number(0, 5) {
        0 => "wc -l".to_owned(),
        1 => format!("grep -v '{}'", word(chance)),
        2 => "sort -u".to_owned(),
        3 => format!("tr {} {}", chance.letter("abc"), chance.letter("xyz")),
        4 => format!("sed -e 's/{}/{}/'", word(chance), word(chance)),
        _ => format!("head -n {}", chance.number(1, 5)),
    }
}

fn file(chance: &mut Chance) -> String {
    format!("{}.{}", word(chance), chance.pick(&["txt", "log", "conf", "rs"]))
}

fn argument(chance: &mut Chance, shell: Shell) -> String {
    match chance.number(0, 13) {
        0 => format!("\"{} {}\"", word(chance), word(chance)),
        1 => format!("'{}  {}'", word(chance), word(chance)),
        2 => format!("--{}={}", word(chance), chance.number(0, 9999)),
        3 => format!("-{}", chance.letter("abcdef")),
        4 => format!("\"$HOME/{}\"", word(chance)),
        5 if !matches!(shell, Shell::Fish) => {
            format!("$(({} * {}))", chance.number(1, 99), chance.number(1, 99))
        }
        6 => format!(
            "'{}'",
            chance.pick(&["a > b", "x | y", "# no comment", "$ ", "100%", "a;b", "{}", "\"", "~$ ls"])
        ),
        7 => format!("{}\\ {}", word(chance), word(chance)),
        8 => format!("$(echo {})", word(chance)),
        9 => wide_word(chance),
        _ => word(chance),
    }
}

/// A command of several lines, in a shell's own language.
pub(crate) fn multi_line(chance: &mut Chance, shell: Shell) -> Vec<String> {
    let (name, body) = (word(chance), command(chance, shell));
    let items: Vec<_> = (0..chance.size(1, 3)).map(|_| word(chance)).collect();
    let items = items.join(" ");
    match (shell, chance.number(0, 3)) {
        (Shell::Fish, 0 | 1) => vec![format!("for {name} in {items}"), body, "end".to_owned()],
        (Shell::Fish, 2) => vec!["begin".to_owned(), body, format!("echo {items}"), "end".to_owned()],
        (Shell::Fish, _) => vec!["if true".to_owned(), body, "end".to_owned()],
        (_, 0) => vec![format!("for v_{name} in {items}; do"), body, "done".to_owned()],
        (_, 1) => vec!["if true".to_owned(), "then".to_owned(), body, "fi".to_owned()],
        (_, 2) => vec!["{".to_owned(), body, format!("echo {items}"), "}".to_owned()],
        (_, _) => vec![format!("for v_{name} in {items}"), "do".to_owned(), body, "done".to_owned()],
    }
}

/// A here-document.
pub(crate) fn here_document(chance: &mut Chance) -> Vec<String> {
    let end = word(chance).to_uppercase();
    let quoted = if chance.once_in(2) { format!("'{end}'") } else { end.clone() };
    let mut lines = vec![format!("cat <<{quoted}")];
    for _ in 0..chance.size(1, 4) {
        lines.push(match chance.number(0, 3) {
            0 => String::new(),
            1 => format!("$ {}", word(chance)),
            2 => format!("  {} {}", word(chance), wide_word(chance)),
            _ => format!("{} {}", word(chance), word(chance)),
        });
    }
    lines.push(end);
    lines
}

/// A command that goes on in the next line for another reason than a loop.
pub(crate) fn continued(chance: &mut Chance, shell: Shell) -> Vec<String> {
    let (one, two, three) = (word(chance), word(chance), word(chance));
    match chance.number(0, 3) {
        0 => vec![format!("echo {one} \\"), format!("{two} {three}")],
        1 if shell != Shell::Fish => vec![format!("echo {one} &&"), format!("echo {two}")],
        2 if shell != Shell::Fish => vec![format!("echo {one} |"), format!("tr {} x", &two[..1])],
        2 => vec![format!("echo {one} | \\"), "sort".to_owned()],
        _ => vec![format!("echo '{one}"), format!("{two}'")],
    }
}
