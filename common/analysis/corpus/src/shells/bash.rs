//! bash: `PS0` is expanded when a command was read and before it runs, and its history then holds the command.

use std::path::Path;

use super::{Setup, marks, quoted};

/// Bracketed paste is on, as it is by default on a capable terminal, and no bell delays anything.
pub(super) const INPUTRC: &str = "set bell-style none\n";

pub(super) fn startup(setup: &Setup<'_>, log: &Path) -> String {
    let log = quoted(&log.display().to_string());
    let vi = if setup.vi { "set -o vi\n" } else { "" };
    format!(
        r#"HISTCONTROL= HISTIGNORE= HISTTIMEFORMAT= HISTSIZE=100000 HISTFILE=
shopt -s cmdhist lithist checkwinsize
__weir_begins() {{ {{ printf 'B\x1f%s\x1f' "$$"; builtin history 1; printf '\x1e'; }} >>{log}; }}
__weir_prompts() {{ local code=$?; printf 'P\x1f%s\x1f%s\x1f%s\x1e' "$$" "$code" "$PWD" >>{log}; return $code; }}
PS0='$(__weir_begins)'
PROMPT_COMMAND=__weir_prompts
PS1={prompt}
PS2={second}
{vi}{marks}
"#,
        prompt = quoted(&setup.prompt.render(crate::shells::Shell::Bash)),
        second = quoted(&setup.prompt.second),
        marks = marks::bash(setup.marks),
    )
}

/// `BASH_EXECUTION_STRING` is what stands behind `-c`.
pub(super) fn exec_startup(log: &Path) -> String {
    let log = quoted(&log.display().to_string());
    format!("unset BASH_ENV\nprintf 'S\\x1f%s\\x1f%s\\x1e' \"$$\" \"$BASH_EXECUTION_STRING\" >>{log}\n")
}
