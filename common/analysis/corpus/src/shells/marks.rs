//! Shell integration: marks around prompts and commands, as terminals' own scripts have their shells write them.
//!
//! OSC 133 as WezTerm and kitty set it up, with the directory in OSC 7; OSC 633 as VS Code documents it; Warp's hooks as
//! JSON in hexadecimal.

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
    /// All but none.
    pub const ALL: [Self; 3] = [Self::Osc133, Self::Osc633, Self::Warp];

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

/// In bash a flag that is set while `PS0` is expanded says that something ran.
const BASH: &str = r#"
__weir_ran= __weir_none=-
__weir_entry() { local entry; entry=$(builtin history 1); [[ $entry =~ ^\ *[0-9]+..(.*)$ ]] && REPLY=${BASH_REMATCH[1]}; }
PS0='${__weir_none:$((__weir_ran=1)):0}$(__weir_begins; __weir_mark_command)'
PROMPT_COMMAND='__weir_prompts; __weir_mark_prompt'
"#;

const BASH_133: &str = r#"
__weir_mark_command() { printf '\e]133;C\a'; }
__weir_mark_prompt() {
    local code=$?
    [[ $__weir_ran ]] && printf '\e]133;D;%s\a' "$code"
    __weir_ran=
    printf '\e]7;file://%s%s\e\\' "$HOSTNAME" "$PWD"
}
PS1='\[\e]133;A\a\]'$PS1'\[\e]133;B\a\]'
"#;

const BASH_633: &str = r#"
__weir_escaped() {
    local text=${1//\\/\\\\}
    text=${text//;/\\x3b}
    REPLY=${text//$'\n'/\\x0a}
}
__weir_mark_command() {
    __weir_entry
    __weir_escaped "$REPLY"
    printf '\e]633;E;%s;d6e1\a\e]633;C\a' "$REPLY"
}
__weir_mark_prompt() {
    local code=$?
    if [[ $__weir_ran ]]; then printf '\e]633;D;%s\a' "$code"; else printf '\e]633;D\a'; fi
    __weir_ran=
    __weir_escaped "$PWD"
    printf '\e]633;P;Cwd=%s\a' "$REPLY"
}
PS1='\[\e]633;A\a\]'$PS1'\[\e]633;B\a\]'
PS2='\[\e]633;F\a\]'$PS2'\[\e]633;G\a\]'
"#;

/// Of bash and zsh alike.
const WARP: &str = r#"
__weir_json() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    REPLY=${text//$'\n'/\\n}
}
__weir_hook() { printf '\eP$d%s\x9c' "$(printf '%s' "$1" | command od -An -v -tx1 | command tr -d ' \n')"; }
__weir_mark_finished() { __weir_hook "{\"hook\":\"CommandFinished\",\"value\":{\"exit_code\":$1,\"next_block_id\":\"precmd-1-2\"}}"; }
__weir_mark_directory() { __weir_json "$PWD"; __weir_hook "{\"hook\":\"Precmd\",\"value\":{\"pwd\":\"$REPLY\",\"session_id\":1}}"; }
__weir_mark_preexec() { __weir_json "$1"; __weir_hook "{\"hook\":\"Preexec\",\"value\":{\"command\":\"$REPLY\"}}"; }
"#;

const BASH_WARP: &str = r#"
__weir_mark_command() { __weir_entry; __weir_mark_preexec "$REPLY"; }
__weir_mark_prompt() {
    local code=$?
    [[ $__weir_ran ]] && __weir_mark_finished "$code"
    __weir_ran=
    __weir_mark_directory
}
"#;

pub(super) fn bash(marks: Marks) -> String {
    match marks {
        Marks::None => String::new(),
        Marks::Osc133 => format!("{BASH}{BASH_133}"),
        Marks::Osc633 => format!("{BASH}{BASH_633}"),
        Marks::Warp => format!("{BASH}{WARP}{BASH_WARP}"),
    }
}

const ZSH: &str = r#"
__weir_ran=
preexec_functions+=(__weir_mark_command)
precmd_functions+=(__weir_mark_prompt)
"#;

const ZSH_133: &str = r#"
__weir_mark_command() { __weir_ran=1; printf '\e]133;C\a' }
__weir_mark_prompt() {
    local code=$?
    [[ -n $__weir_ran ]] && printf '\e]133;D;%s\a' $code
    __weir_ran=
    printf '\e]7;file://%s%s\e\\' $HOST $PWD
}
PS1=$'%{\e]133;A\a%}'$PS1$'%{\e]133;B\a%}'
"#;

const ZSH_633: &str = r#"
__weir_escaped() {
    local text=${1//\\/\\\\}
    text=${text//;/\\x3b}
    REPLY=${text//$'\n'/\\x0a}
}
__weir_mark_command() {
    __weir_ran=1
    __weir_escaped "$1"
    printf '\e]633;E;%s;d6e1\a\e]633;C\a' "$REPLY"
}
__weir_mark_prompt() {
    local code=$?
    if [[ -n $__weir_ran ]]; then printf '\e]633;D;%s\a' $code; else printf '\e]633;D\a'; fi
    __weir_ran=
    __weir_escaped "$PWD"
    printf '\e]633;P;Cwd=%s\a' "$REPLY"
}
PS1=$'%{\e]633;A\a%}'$PS1$'%{\e]633;B\a%}'
PS2=$'%{\e]633;F\a%}'$PS2$'%{\e]633;G\a%}'
"#;

const ZSH_WARP: &str = r#"
__weir_mark_command() { __weir_ran=1; __weir_mark_preexec "$1" }
__weir_mark_prompt() {
    local code=$?
    [[ -n $__weir_ran ]] && __weir_mark_finished $code
    __weir_ran=
    __weir_mark_directory
}
"#;

pub(super) fn zsh(marks: Marks) -> String {
    match marks {
        Marks::None => String::new(),
        Marks::Osc133 => format!("{ZSH}{ZSH_133}"),
        Marks::Osc633 => format!("{ZSH}{ZSH_633}"),
        Marks::Warp => format!("{ZSH}{WARP}{ZSH_WARP}"),
    }
}

const FISH_133: &str = r#"
functions --copy fish_prompt __weir_inner_prompt
function fish_prompt; printf '\e]133;A\a'; __weir_inner_prompt; printf '\e]133;B\a'; end
function __weir_mark_command --on-event fish_preexec; printf '\e]133;C\a'; end
function __weir_mark_finished --on-event fish_postexec; printf '\e]133;D;%s\a' $status; end
"#;

const FISH_633: &str = r#"
functions --copy fish_prompt __weir_inner_prompt
function __weir_escaped
    string replace --all '\\' '\\\\' -- "$argv[1]" | string replace --all ';' '\\x3b' | string join '\\x0a'
end
function fish_prompt; printf '\e]633;A\a'; __weir_inner_prompt; printf '\e]633;B\a'; end
function __weir_mark_command --on-event fish_preexec
    printf '\e]633;E;%s;d6e1\a\e]633;C\a' (__weir_escaped "$argv[1]")
end
function __weir_mark_finished --on-event fish_postexec
    printf '\e]633;D;%s\a' $status
    printf '\e]633;P;Cwd=%s\a' (__weir_escaped "$PWD")
end
"#;

const FISH_WARP: &str = r#"
function __weir_hook
    printf '\eP$d%s\x9c' (printf %s "$argv[1]" | command od -An -v -tx1 | command tr -d ' \n')
end
function __weir_json
    string replace --all '\\' '\\\\' -- "$argv[1]" | string replace --all '"' '\\"' | string join '\\n'
end
function __weir_mark_command --on-event fish_preexec
    __weir_hook (printf '{"hook":"Preexec","value":{"command":"%s"}}' (__weir_json "$argv[1]"))
end
function __weir_mark_finished --on-event fish_postexec
    __weir_hook (printf '{"hook":"CommandFinished","value":{"exit_code":%s}}' $status)
    __weir_hook (printf '{"hook":"Precmd","value":{"pwd":"%s"}}' (__weir_json "$PWD"))
end
"#;

pub(super) fn fish(marks: Marks) -> &'static str {
    match marks {
        Marks::None => "",
        Marks::Osc133 => FISH_133,
        Marks::Osc633 => FISH_633,
        Marks::Warp => FISH_WARP,
    }
}
