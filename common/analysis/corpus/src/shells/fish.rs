//! fish: the event `fish_preexec` has the command line as an argument.

use std::path::Path;

use super::{Setup, Shell, marks};

pub(super) fn startup(setup: &Setup<'_>, log: &Path) -> String {
    let log = quoted(&log.display().to_string());
    let prompt = quoted(&setup.prompt.render(Shell::Fish)).replace("@PWD@", "'(prompt_pwd)'");
    let right = setup.prompt.right.as_ref().map_or(String::new(), |right| {
        format!("function fish_right_prompt; printf %s {}; end\n", quoted(right))
    });
    let keys = if setup.vi { "fish_vi_key_bindings\n" } else { "" };
    format!(
        r#"set -g fish_greeting
set -g fish_escape_delay_ms 30
function __weir_begins --on-event fish_preexec
    printf 'S\x1f%s\x1f%s\x1e' $fish_pid "$argv[1]" >>{log}
end
function __weir_prompts --on-event fish_prompt
    printf 'P\x1f%s\x1f%s\x1f%s\x1e' $fish_pid $__weir_code "$PWD" >>{log}
end
function __weir_code --on-event fish_postexec
    set -g __weir_code $status
end
set -g __weir_code 0
function fish_prompt; printf %s {prompt}; end
{right}{keys}{marks}
"#,
        marks = marks::fish(setup.marks),
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
