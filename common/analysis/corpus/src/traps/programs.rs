//! Programs that take the terminal: what is typed into them is no command of the shell.

use anyhow::Result;

use crate::{
    session::{CTRL_C, CTRL_D, ENTER, Session},
    shells::Shell,
    words,
};

/// A program reads lines, which look like commands.
pub(super) fn cat_stdin(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let reader = match session.chance.number(0, 3) {
            0 => "cat".to_owned(),
            1 => format!("cat > {}", words::word(&mut session.chance)),
            2 => "sort".to_owned(),
            _ => "grep -v x".to_owned(),
        };
        session.begin(&reader)?;
        for _ in 0..session.chance.size(1, 4) {
            let line = words::command(&mut session.chance, session.shell);
            session.type_in(&line)?;
            session.key(ENTER)?;
        }
        session.terminal.send(CTRL_D)?;
        session.prompted()?;
        session.run_any()?;
    }
    Ok(())
}

/// Something is asked for and not shown.
pub(super) fn password(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let password = format!(
            "{}{}-{}",
            words::word(&mut session.chance),
            words::word(&mut session.chance),
            session.chance.number(1000, 9999)
        );
        let (command, prompt) = match (session.chance.number(0, 3), session.shell) {
            (0, _) => ("sudo -k ls".to_owned(), "password for"),
            (1, _) => ("su".to_owned(), "Password:"),
            (2, Shell::Bash) => ("read -rsp 'Pass''phrase? ' v_secret".to_owned(), "Passphrase?"),
            (2, Shell::Zsh) => ("read -rs 'v_secret?Pass''phrase? '".to_owned(), "Passphrase?"),
            (2, Shell::Fish) => ("read -s -P 'Pass''phrase? ' v_secret".to_owned(), "Passphrase?"),
            (2, Shell::Dash) => {
                ("stty -echo; printf 'Pass''phrase? '; read v_secret; stty echo".to_owned(), "Passphrase?")
            }
            _ => (
                "python3 -c 'import getpass; getpass.getpass(\"Pass\" + \"phrase? \")'".to_owned(),
                "Passphrase?",
            ),
        };
        session.type_in(&command)?;
        session.terminal.send(ENTER)?;
        session.shown(prompt)?;
        session.type_in(&password)?;
        let before = session.terminal.shown().len();
        session.terminal.send(ENTER)?;
        session.secrets.push(password);
        if command.starts_with("sudo") {
            // Nobody's password is never right; sudo asks again.
            session
                .terminal
                .until("sudo asks again", |terminal| contains(&terminal.shown()[before..], "password for"))?;
            session.terminal.settle()?;
            session.terminal.send(CTRL_C)?;
        }
        session.prompted()?;
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn full_screen(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let file = format!("{}.txt", words::word(&mut session.chance));
        let lines: Vec<_> = (0..200).map(|_| words::command(&mut session.chance, session.shell)).collect();
        session.home.write(&file, &lines.join("\n"))?;
        match session.chance.number(0, 2) {
            0 => {
                session.full_screen.push("vim".to_owned());
                session.begin(&format!("vim -u NONE ~/{file}"))?;
                session.key(b"i")?;
                session.type_in(&format!("{}\r{}", lines[0], lines[1]))?;
                session.key(b"\x1b")?;
                session.watch_ms(200)?;
                session.type_in("Gdd")?;
                session.type_in(":wq")?;
                session.enter()?;
            }
            1 => {
                session.full_screen.push("less".to_owned());
                session.begin(&format!("less ~/{file}"))?;
                session.key(b" ")?;
                let word = words::word(&mut session.chance);
                session.type_in(&format!("/{word}"))?;
                session.key(ENTER)?;
                session.key(b"G")?;
                session.terminal.send(b"q")?;
                session.prompted()?;
            }
            _ => {
                session.begin("top -d 1")?;
                session.watch_ms(300)?;
                session.terminal.send(b"q")?;
                session.prompted()?;
            }
        }
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn nested_shell(session: &mut Session) -> Result<()> {
    for _ in 0..2 {
        session.run_any()?;
        session.run(session.shell.name())?;
        for _ in 0..session.chance.size(1, 4) {
            session.run_any()?;
        }
        if session.chance.once_in(2) {
            session.terminal.send(CTRL_D)?;
            session.prompted()?;
        } else {
            session.run("exit")?;
        }
    }
    session.run_any()
}

/// Panes side by side, a status line, and a program between the shell and the terminal.
pub(super) fn tmux(session: &mut Session) -> Result<()> {
    session.run_any()?;
    let done = in_tmux(session);
    if done.is_err() {
        // What is left of it must not stay.
        let mut kill = std::process::Command::new("tmux");
        kill.env("TMUX_TMPDIR", session.home.path()).arg("kill-server").output()?;
    }
    done?;
    session.run_any()
}

fn in_tmux(session: &mut Session) -> Result<()> {
    session.run("tmux -f /dev/null new")?;
    for _ in 0..3 {
        session.run_any_inside()?;
    }
    if session.chance.once_in(2) {
        let split = session.chance.pick(&[b"\x02%".as_slice(), b"\x02\""]);
        session.terminal.send(split)?;
        session.prompted()?;
        session.watch_ms(200)?;
        for _ in 0..2 {
            session.run_any_inside()?;
        }
        session.type_in("exit")?;
        session.terminal.send(ENTER)?;
        session.watch_ms(400)?;
        session.run_any_inside()?;
    }
    session.run("exit")
}

pub(super) fn screen(session: &mut Session) -> Result<()> {
    session.home.write(".screenrc", "startup_message off\n")?;
    session.run_any()?;
    session.run("screen")?;
    for _ in 0..4 {
        session.run_any_inside()?;
    }
    session.run("exit")?;
    session.run_any()
}

pub(super) fn repl_python(session: &mut Session) -> Result<()> {
    session.run_any()?;
    session.begin("python3 -q")?;
    for _ in 0..session.chance.size(4, 8) {
        let chance = &mut session.chance;
        let (name, other) = (format!("v_{}", words::word(chance)), words::word(chance));
        let lines = match chance.number(0, 5) {
            0 => vec![format!("{name} = {} * {}", chance.number(1, 99), chance.number(1, 99))],
            1 => vec![format!("print(\"{other}\", '$ {other}')")],
            2 => vec![
                format!("for {name} in range({}):", chance.number(1, 4)),
                format!("    print({name})"),
                String::new(),
            ],
            3 => vec![format!("def {name}(x):"), format!("    return x + \"{other}\""), String::new()],
            4 => vec![format!("len(\"{}\")", words::wide_word(chance))],
            _ => vec!["print(".to_owned(), format!("    \"{other}\""), ")".to_owned()],
        };
        for line in lines {
            session.type_in(&line)?;
            session.key(ENTER)?;
        }
        if session.chance.once_in(8) {
            session.key(ENTER)?;
        }
    }
    if session.chance.once_in(2) {
        session.terminal.send(CTRL_D)?;
    } else {
        session.type_in("exit()")?;
        session.terminal.send(ENTER)?;
    }
    session.prompted()?;
    session.run_any()
}

/// A database's client. It says nowhere what it ran: what is typed is taken for it.
pub(super) fn repl_sqlite(session: &mut Session) -> Result<()> {
    session.run_any()?;
    session.begin("sqlite3")?;
    let table = format!("t_{}", words::word(&mut session.chance));
    let mut statements = vec![vec![format!("create table {table}(name text, size int);")]];
    for _ in 0..session.chance.size(3, 7) {
        let chance = &mut session.chance;
        let (word, number) = (words::word(chance), chance.number(1, 999));
        statements.push(match chance.number(0, 4) {
            0 => vec![format!("insert into {table} values ('{word}', {number});")],
            1 => vec![format!("select * from {table} where size > {number};")],
            2 => {
                vec!["select count(*)".to_owned(), format!("from {table}"), format!("where name = '{word}';")]
            }
            3 => vec![".tables".to_owned()],
            _ => vec![format!("update {table} set size = {number} where name = '{word}';")],
        });
    }
    statements.push(vec![".quit".to_owned()]);
    for statement in statements {
        session.home.log_statement("sqlite3", &statement.join("\n"))?;
        let Some((last, first)) = statement.split_last() else { continue };
        for line in first {
            session.type_in(line)?;
            session.key(ENTER)?;
        }
        session.type_in(last)?;
        session.terminal.send(ENTER)?;
        if last == ".quit" {
            session.prompted()?;
        } else {
            session.key(b"")?;
        }
    }
    session.run_any()
}

pub(super) fn background_jobs(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        session.run("sleep 0.3 &")?;
        session.run_any()?;
        session.run("jobs")?;
        session.run("wait")?;
        session.enter()?;
    }
    Ok(())
}

/// What a job shows comes into the line that is being typed.
pub(super) fn noisy_background(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let noise = words::word(&mut session.chance);
        session.run(&format!("sh -c 'sleep 0.3; echo {noise}; sleep 0.4; echo {noise}' &"))?;
        let command = words::command(&mut session.chance, session.shell);
        let at = command.char_indices().nth(command.chars().count() / 2).map_or(0, |(at, _)| at);
        session.type_in(&command[..at])?;
        session.watch_ms(350)?;
        session.run(&command[at..])?;
        session.run("wait")?;
        session.run_any()?;
    }
    Ok(())
}

pub(super) fn clear(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        session.run_any()?;
        if session.shell == Shell::Dash || session.chance.once_in(2) {
            session.run("clear")?;
        } else {
            let command = words::command(&mut session.chance, session.shell);
            let at = command.char_indices().nth(command.chars().count() / 2).map_or(0, |(at, _)| at);
            session.type_in(&command[..at])?;
            session.key(b"\x0c")?;
            session.run(&command[at..])?;
        }
        session.run_any()?;
    }
    Ok(())
}

/// Output that is no UTF-8.
pub(super) fn invalid_bytes(session: &mut Session) -> Result<()> {
    for _ in 0..4 {
        let mut text = String::new();
        for _ in 0..session.chance.size(1, 20) {
            text.push_str(&format!("\\{:o}", session.chance.number(0xa0, 0xff)));
            if session.chance.once_in(3) {
                text.push_str(&words::word(&mut session.chance));
            }
        }
        let end = session.chance.pick(&["\\n", "", "\\r\\n"]);
        session.run(&format!("printf '{text}{end}'"))?;
        session.run_any()?;
    }
    Ok(())
}

/// Line ends of Windows, pasted and shown.
pub(super) fn crlf(session: &mut Session) -> Result<()> {
    for _ in 0..3 {
        let (one, two) = (words::word(&mut session.chance), words::word(&mut session.chance));
        session.run(&format!("printf '{one}\\r\\n{two}\\r\\n'"))?;
        let count = session.chance.size(1, 3);
        let lines: Vec<_> =
            (0..count).map(|_| words::command(&mut session.chance, session.shell) + "\r\n").collect();
        let before = session.prompts();
        session.terminal.send(lines.concat().as_bytes())?;
        // Each of the two is an Enter.
        session.prompted_times(before, 2 * count)?;
    }
    Ok(())
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
