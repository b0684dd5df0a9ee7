//! zsh: `preexec` gets the command as it went into the history.

use std::path::Path;

use super::{Setup, Shell, marks, quoted};

pub(super) fn startup(setup: &Setup<'_>, log: &Path) -> String {
    let log = quoted(&log.display().to_string());
    let keys = if setup.vi { "bindkey -v\n" } else { "bindkey -e\n" };
    let right =
        setup.prompt.right.as_ref().map_or(String::new(), |right| format!("RPROMPT={}\n", quoted(right)));
    format!(
        r#"HISTSIZE=100000
setopt interactive_comments
autoload -Uz compinit && compinit -u -d {log}.compdump
zmodload zsh/datetime
typeset -ga precmd_functions preexec_functions
__weir_begins() {{ print -rn -- $'S\x1f'"$$"$'\x1f'"$1"$'\x1e' >>{log} }}
__weir_prompts() {{ local code=$?; print -rn -- $'P\x1f'"$$"$'\x1f'"$code"$'\x1f'"$PWD"$'\x1e' >>{log}; return $code }}
preexec_functions=(__weir_begins)
precmd_functions=(__weir_prompts)
PROMPT={prompt}
PROMPT2={second}
{right}{keys}{marks}
"#,
        prompt = quoted(&setup.prompt.render(Shell::Zsh)),
        second = quoted(&setup.prompt.second.replace('%', "%%")),
        marks = marks::zsh(setup.marks),
    )
}

/// `ZSH_EXECUTION_STRING` is what stands behind `-c`.
pub(super) fn exec_startup(log: &Path) -> String {
    let log = quoted(&log.display().to_string());
    format!(
        r#"if [[ -n $ZSH_EXECUTION_STRING ]]; then
print -rn -- $'S\x1f'"$$"$'\x1f'"$ZSH_EXECUTION_STRING"$'\x1e' >>{log}
fi
"#
    )
}
