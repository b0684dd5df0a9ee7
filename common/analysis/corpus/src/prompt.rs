//! Prompts: generated, and rendered in each shell's own language.

use crate::{random::Chance, shells::Shell, words};

/// What stands in front of a command.
pub(crate) struct Prompt {
    parts: Vec<Part>,
    /// What stands at the right edge, in shells that know such a thing.
    pub right: Option<String>,
    /// What stands in front of further lines.
    pub second: String,
}

enum Part {
    Text(String),
    Directory,
    Colour(u8),
    Plain,
    Line,
}

/// What a prompt should have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    /// Several lines.
    pub lines: bool,
    /// A part at the right edge.
    pub right: bool,
    /// Short, whatever chance says.
    pub short: bool,
}

impl Prompt {
    /// Any prompt.
    pub(crate) fn generate(chance: &mut Chance, wish: Wish) -> Self {
        let mut parts = Vec::new();
        let coloured = chance.once_in(2);
        if !wish.short {
            for _ in 0..chance.size(0, 3) {
                word(&mut parts, chance, coloured);
            }
        }
        if wish.lines || !wish.short && chance.once_in(6) {
            for _ in 0..chance.size(1, 2) {
                word(&mut parts, chance, coloured);
                parts.push(Part::Line);
            }
            if chance.once_in(2) {
                word(&mut parts, chance, coloured);
            }
        }
        if coloured {
            parts.push(Part::Colour(b'0' + u8::try_from(chance.number(1, 7)).unwrap_or(1)));
        }
        parts.push(Part::Text(
            chance.pick(&["$", "#", ">", "%", "❯", "λ", "➜", "»", "$", "#", ">>>", "]$"]).to_owned(),
        ));
        if coloured {
            parts.push(Part::Plain);
        }
        parts.push(Part::Text(if chance.once_in(12) { "  " } else { " " }.to_owned()));
        let right = wish
            .right
            .then(|| format!("{} {}", words::word(chance), chance.pick(&["12:34", "✔", "[1]", "0s"])));
        // Somebody who has the same prompt in both places can't tell them apart either.
        let mut second = chance.pick(&["> ", "> ", "… ", "... ", "cont> ", "+ "]).to_owned();
        if parts.iter().any(|part| matches!(part, Part::Text(text) if *text == second.trim_end())) {
            second = "... ".to_owned();
        }
        Self { parts, right, second }
    }

    /// The prompt in a shell's language, quoted for its startup file.
    #[must_use]
    pub(crate) fn render(&self, shell: Shell) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match (part, shell) {
                (Part::Text(text), Shell::Zsh) => out.push_str(&text.replace('%', "%%")),
                (Part::Text(text), _) => out.push_str(text),
                (Part::Directory, Shell::Bash) => out.push_str("\\w"),
                (Part::Directory, Shell::Zsh) => out.push_str("%~"),
                (Part::Directory, Shell::Fish) => out.push_str("@PWD@"),
                (Part::Directory, Shell::Dash) => out.push_str("${PWD##*/}"),
                (Part::Colour(colour), _) => {
                    out.push_str(&invisible(shell, &format!("1;3{}", char::from(*colour))));
                }
                (Part::Plain, _) => out.push_str(&invisible(shell, "0")),
                (Part::Line, Shell::Bash) => out.push_str("\\n"),
                (Part::Line, _) => out.push('\n'),
            }
        }
        out
    }
}

/// A colour, so that the shell doesn't count it.
fn invisible(shell: Shell, colour: &str) -> String {
    match shell {
        Shell::Bash => format!("\\[\x1b[{colour}m\\]"),
        Shell::Zsh => format!("%{{\x1b[{colour}m%}}"),
        Shell::Fish | Shell::Dash => format!("\x1b[{colour}m"),
    }
}

fn word(parts: &mut Vec<Part>, chance: &mut Chance, coloured: bool) {
    if coloured {
        parts.push(Part::Colour(b'0' + u8::try_from(chance.number(1, 7)).unwrap_or(1)));
    }
    match chance.number(0, 5) {
        0 | 1 => parts.push(Part::Directory),
        2 => parts.push(Part::Text(format!("{}@{}:", words::word(chance), words::word(chance)))),
        3 => parts.push(Part::Text(format!("({})", words::word(chance)))),
        4 => parts.push(Part::Text(format!(
            "git:({}) {}",
            words::word(chance),
            chance.pick(&["✗", "*", "+1 ~2", "↑3"])
        ))),
        _ => parts.push(Part::Text(format!("[{} 12:34:56]", words::word(chance)))),
    }
    if coloured {
        parts.push(Part::Plain);
    }
    if !chance.once_in(3) {
        parts.push(Part::Text(" ".to_owned()));
    }
}
