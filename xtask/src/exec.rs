//! Running other programs. Every error contains the full command line, ready to be run by hand.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs to the end with our standard output and error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs to the end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .output()
        .with_context(|| format!("could not start `{}`", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{}", line(command), output.status, stderr.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", line(command)))
}

/// The command as one would type it, with the environment it sets and removes.
pub(crate) fn line(command: &Command) -> String {
    let mut words = Vec::new();
    if let Some(dir) = command.get_current_dir() {
        words.push(format!("cd {} &&", quote(&dir.to_string_lossy())));
    }
    let removed = command.get_envs().filter(|(_, value)| value.is_none());
    let removed: Vec<_> = removed.map(|(name, _)| format!("-u {}", name.to_string_lossy())).collect();
    if !removed.is_empty() {
        words.push(format!("env {}", removed.join(" ")));
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.to_string_lossy(), quote(&value.to_string_lossy())));
        }
    }
    words.push(quote(&command.get_program().to_string_lossy()));
    words.extend(command.get_args().map(|arg| quote(&arg.to_string_lossy())));
    words.join(" ")
}

/// Quotes for bash, in the form that can also hold control characters.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped: String = word
        .chars()
        .map(|c| match c {
            '\'' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    if word.chars().any(|c| c.is_control() || c == '\'' || c == '\\') {
        format!("$'{escaped}'")
    } else {
        format!("'{word}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_contains_the_command_line_with_its_environment() {
        let mut command = Command::new("false");
        command.arg("two words").env("FLAGS", "-a\u{1f}-b").env_remove("GONE");
        let error = run(&mut command).expect_err("false fails");
        let expected = r"`env -u GONE FLAGS=$'-a\x1f-b' false 'two words'` failed: exit status: 1";
        assert_eq!(error.to_string(), expected);
        let error = output(Command::new("no-such-program").arg("it's")).expect_err("there is none");
        assert_eq!(error.to_string(), r"could not start `no-such-program $'it\'s'`");
    }

    #[test]
    fn the_output_is_returned_and_a_failures_standard_error_is_kept() {
        assert_eq!(output(Command::new("echo").arg("hello")).expect("echo works"), "hello\n");
        let error =
            output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).expect_err("it exits with 3");
        assert!(error.to_string().ends_with("failed: exit status: 3\nwhy"), "{error}");
    }
}
