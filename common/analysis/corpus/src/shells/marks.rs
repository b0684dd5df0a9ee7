//! Shell integration: marks around prompts and commands, as terminals' own scripts have their shells write them.

use serde::Serialize;

/// Which marks a shell writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Marks {
    /// None.
    #[default]
    None,
    /// OSC 133, of FinalTerm: around prompt, command and output.
    Osc133,
    /// OSC 633, of VS Code: the same, and the command line.
    Osc633,
    /// Warp's hooks, in DCS.
    Warp,
}

impl Marks {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::None, Self::Osc133, Self::Osc633, Self::Warp];

    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Osc133 => "osc133",
            Self::Osc633 => "osc633",
            Self::Warp => "warp",
        }
    }
}

pub(super) fn bash(marks: Marks) -> &'static str {
    match marks {
        Marks::None => "",
        _ => "",
    }
}

pub(super) fn zsh(marks: Marks) -> &'static str {
    match marks {
        Marks::None => "",
        _ => "",
    }
}

pub(super) fn fish(marks: Marks) -> &'static str {
    match marks {
        Marks::None => "",
        _ => "",
    }
}
