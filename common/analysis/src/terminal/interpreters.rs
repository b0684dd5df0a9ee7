//! Which commands start something that asks for commands itself, and which prompts tell whose they are.

/// Names by which interpreters are labelled, and the commands that start them.
const REPLS: &[(&str, &[&str])] = &[
    ("python", &["python", "python2", "python3", "pypy", "pypy3"]),
    ("ipython", &["ipython", "ipython3"]),
    ("psql", &["psql"]),
    ("mysql", &["mysql", "mariadb"]),
    ("sqlite", &["sqlite3", "sqlite"]),
    ("node", &["node", "nodejs"]),
    ("irb", &["irb", "pry", "rails"]),
    ("php", &["php"]),
    ("perl", &["perl", "re.pl"]),
    ("lua", &["lua", "luajit"]),
    ("r", &["R"]),
    ("gdb", &["gdb", "lldb"]),
    ("redis", &["redis-cli", "valkey-cli"]),
    ("mongo", &["mongo", "mongosh"]),
    ("sftp", &["sftp", "lftp", "ftp"]),
    ("ghci", &["ghci"]),
    ("scala", &["scala"]),
    ("jshell", &["jshell"]),
    ("julia", &["julia"]),
    ("iex", &["iex"]),
    ("erl", &["erl"]),
    ("sqlplus", &["sqlplus", "sqlcmd", "cqlsh"]),
    ("bc", &["bc", "dc"]),
    ("nslookup", &["nslookup"]),
    ("telnet", &["telnet"]),
    ("parted", &["parted", "fdisk", "gdisk"]),
];

/// Commands that start a shell, here or elsewhere.
const SHELLS: &[&str] = &[
    "sh",
    "bash",
    "dash",
    "zsh",
    "fish",
    "ksh",
    "mksh",
    "ash",
    "busybox",
    "csh",
    "tcsh",
    "su",
    "sudo",
    "doas",
    "ssh",
    "mosh",
    "docker",
    "podman",
    "kubectl",
    "nerdctl",
    "crictl",
    "lxc",
    "machinectl",
    "nsenter",
    "unshare",
    "chroot",
    "newgrp",
    "sg",
    "login",
    "script",
    "env",
    "exec",
    "nix-shell",
    "nix",
    "poetry",
    "pipenv",
    "conda",
    "toolbox",
    "distrobox",
    "vagrant",
    "runuser",
    "setpriv",
    "tmux",
    "screen",
    "pwsh",
    "nu",
    "xonsh",
    "rbash",
    "oc",
    "aws",
    "gcloud",
    "az",
    "toybox",
];

/// Commands in front of the one that matters.
const PREFIXES: &[&str] =
    &["sudo", "doas", "env", "exec", "command", "nohup", "time", "nice", "rlwrap", "winpty"];

/// What a command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Starts {
    /// Nothing that asks for commands, as far as is known.
    Nothing,
    /// A shell.
    Shell,
    /// An interpreter of this name.
    Repl(&'static str),
}

/// What this command line may start.
pub(super) fn started_by(command: &str) -> Starts {
    let mut words = command.split([';', '|', '&', '\n']).next_back().unwrap_or("").split_whitespace();
    let mut prefixed = false;
    while let Some(word) = words.next() {
        let name = word.rsplit('/').next().unwrap_or(word);
        if word.contains('=') || (prefixed && word.starts_with('-')) {
            // Options that take a word of their own.
            if matches!(word, "-u" | "-g" | "-C" | "-h" | "-p") {
                words.next();
            }
            continue;
        }
        let versionless = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        if let Some((label, _)) = REPLS.iter().find(|(_, names)| {
            names.iter().any(|known| *known == name || (*known == versionless && *known == "python"))
        }) {
            return Starts::Repl(label);
        }
        if PREFIXES.contains(&name) {
            prefixed = true;
            continue;
        }
        return if SHELLS.contains(&name) { Starts::Shell } else { Starts::Nothing };
    }
    if prefixed { Starts::Shell } else { Starts::Nothing }
}

/// The interpreter whose prompt this is, where it is like no shell's. A prompt that asks for more counts as well.
pub(super) fn prompting(prompt: &str) -> Option<&'static str> {
    let text = prompt.trim();
    let starts = |prefix: &str| text.starts_with(prefix);
    match text {
        ">>>" => Some("python"),
        "mysql>" => Some("mysql"),
        "sqlite>" | "...>" => Some("sqlite"),
        "(gdb)" | "(lldb)" => Some("gdb"),
        "sftp>" | "ftp>" => Some("sftp"),
        "php >" | "php>" => Some("php"),
        "jshell>" => Some("jshell"),
        "julia>" => Some("julia"),
        "scala>" => Some("scala"),
        "ghci>" | "Prelude>" => Some("ghci"),
        _ if starts("MariaDB [") => Some("mysql"),
        _ if starts("irb(") => Some("irb"),
        _ if starts("In [") && text.ends_with("]:") => Some("ipython"),
        _ if starts("iex(") => Some("iex"),
        _ if is_psql(text) => Some("psql"),
        _ => None,
    }
}

/// `db=#`, `db=>`, `db-#`, `db(#`, `db'#`, …
fn is_psql(text: &str) -> bool {
    let Some(rest) = text.strip_suffix(['#', '>']) else { return false };
    let rest = rest.strip_suffix(['*', '!', '?']).unwrap_or(rest);
    let Some(name) = rest.strip_suffix(['=', '(', '\'', '"', '$', '^']).or_else(|| rest.strip_suffix('-'))
    else {
        return false;
    };
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a prompt asks for more of the command that was begun: PS2, or what interpreters have for it.
pub(super) fn continues(prompt: &str, repl: Option<&str>) -> bool {
    let text = prompt.trim();
    match repl {
        Some("python") => text == "...",
        Some("ipython") => text.starts_with("...") && text.ends_with(':'),
        Some("psql") => {
            let inner = text.trim_end_matches(['#', '>']).trim_end_matches(['*', '!', '?']);
            is_psql(text) && !inner.ends_with('=')
        }
        Some("mysql") => matches!(text, "->" | "'>" | "\">" | "`>" | "/*>"),
        Some("sqlite") => text.ends_with("...>") || text.ends_with("x1>"),
        Some("node") => matches!(text, "..." | "|"),
        Some("irb") => text.ends_with('*') || text.ends_with(['"', '\'', ']']),
        Some("lua") => text == ">>",
        Some("r") => text == "+",
        Some("php") => text.ends_with(['{', '(', '\'', '"']) || text == "php *",
        Some(_) => matches!(text, "..." | "->" | "...>" | ">>"),
        // `> ` in most shells; zsh says what it waits for: `quote> `, `for then> `.
        None => text
            .strip_suffix('>')
            .is_some_and(|words| words.split_whitespace().all(|word| ZSH_STATES.contains(&word))),
    }
}

/// What zsh's `%_` may be (zshmisc(1), "Shell state").
const ZSH_STATES: &[&str] = &[
    "for",
    "while",
    "repeat",
    "select",
    "until",
    "if",
    "then",
    "else",
    "elif",
    "math",
    "cmdsubst",
    "cond",
    "array",
    "subsh",
    "cursh",
    "quote",
    "dquote",
    "bquote",
    "function",
    "case",
    "heredoc",
    "heredocd",
    "braceparam",
    "pipe",
    "errpipe",
    "cmdand",
    "cmdor",
    "mathsubst",
    "anonfunc",
    "foreach",
    "always",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_starts() {
        assert_eq!(started_by("cd /srv && python3 -i"), Starts::Repl("python"));
        assert_eq!(started_by("PGPASSWORD=x psql -U app db"), Starts::Repl("psql"));
        assert_eq!(started_by("sudo -u postgres psql"), Starts::Repl("psql"));
        assert_eq!(started_by("sudo -i"), Starts::Shell);
        assert_eq!(started_by("/bin/sh"), Starts::Shell);
        assert_eq!(started_by("ls -l"), Starts::Nothing);
        assert_eq!(started_by("/usr/bin/python3.11"), Starts::Repl("python"));
    }

    #[test]
    fn prompts_tell_whose_they_are() {
        assert_eq!(prompting(">>> "), Some("python"));
        assert_eq!(prompting("app=# "), Some("psql"));
        assert_eq!(prompting("MariaDB [app]> "), Some("mysql"));
        assert_eq!(prompting("root@host:~# "), None);
        assert_eq!(prompting("bash-5.2# "), None);
        assert!(continues("app-# ", Some("psql")) && !continues("app=# ", Some("psql")));
        assert!(continues("> ", None) && continues("for then> ", None) && !continues("host> ", None));
    }
}
