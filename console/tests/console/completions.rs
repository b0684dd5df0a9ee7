//! Completions in the shells they are for, and pages in the formatter.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use weir_console::manual::{completions, pages};

const BASH: &str = r#"
source /dev/stdin
eval "$(complete -p weir | sed 's/.*-F \([^ ]*\).*/complete_weir() { \1 "$@"; }/')"
COMP_WORDS=(weir ver) COMP_CWORD=1
complete_weir weir ver weir
echo "${COMPREPLY[@]}"
COMP_WORDS=(weir verify --al) COMP_CWORD=2
complete_weir weir --al verify
echo "${COMPREPLY[@]}"
"#;

/// Standard output of a program that reads this and has nothing to complain about.
fn output(command: &mut Command, input: &[u8]) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`cargo xtask test` installs the shells");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn bash_completes_commands_and_options() {
    let script = completions(clap_complete::Shell::Bash);
    let completed = output(Command::new("bash").args(["--norc", "-c", BASH]), &script);
    assert_eq!(completed, "verify\n--allowed-signers\n");
}

#[test]
fn fish_completes_commands() {
    let script = completions(clap_complete::Shell::Fish);
    let completed =
        output(Command::new("fish").args(["--no-config", "-c", "source -; complete -C 'weir ver'"]), &script);
    assert!(completed.starts_with("verify\t"), "{completed}");
}

#[test]
fn zsh_can_read_its_completions() {
    output(Command::new("zsh").args(["-f", "-n", "/dev/stdin"]), &completions(clap_complete::Shell::Zsh));
}

#[test]
fn pages_are_formatted_without_a_warning() {
    for page in pages() {
        let text = output(Command::new("groff").args(["-k", "-man", "-Tutf8", "-ww", "-z"]), &page.roff);
        assert_eq!(text, "", "{}", page.name);
        let text = output(Command::new("groff").args(["-k", "-man", "-Tutf8"]), &page.roff);
        assert!(text.contains("SYNOPSIS") && text.contains("EXAMPLES"), "{}", page.name);
    }
}
