//! Byte strings as real programs send them, and any others.

use proptest::prelude::*;
use weir_common::{
    frame::WindowSize,
    recording::findings::{Confidence, Source},
    session::ChannelNo,
};

use super::Terminal;
use crate::{At, Found};

/// What goes over a terminal.
#[derive(Clone, Copy)]
enum Step<'a> {
    I(&'a str),
    O(&'a str),
    Size(u32, u32),
}

use Step::{I, O, Size};

/// A second passes before each step.
fn after(steps: &[Step<'_>]) -> Found {
    let mut found = Found::default();
    let mut terminal = Terminal::new(ChannelNo(0), size(80, 24), false);
    let mut at = At::default();
    for step in steps {
        at = At { t: at.t + 1_000_000_000, seq: at.seq + 1 };
        match step {
            I(text) => terminal.input(at, text.as_bytes(), &mut found),
            O(text) => terminal.output(at, text.as_bytes(), &mut found),
            Size(cols, rows) => terminal.resize(at, size(*cols, *rows), &mut found),
        }
    }
    terminal.end(Some(at), None, &mut found);
    found
}

fn size(cols: u32, rows: u32) -> WindowSize {
    WindowSize { cols, rows, width_px: 0, height_px: 0 }
}

#[test]
fn a_command_is_read_as_the_shell_took_it() {
    let found = after(&[
        O("\x1b[?2004hu@h:~$ "),
        I("ls -k\x7f"),
        O("ls -k\x08\x1b[K"),
        I("l\r"),
        O("l\r\n\x1b[?2004l\rtotal 0\r\n\x1b[?2004hu@h:~$ "),
        I("\x04"),
        O("\x1b[?2004l\r\r\nexit\r\n"),
    ]);
    assert_eq!(found.texts(), ["ls -l"]);
    let command = &found.commands[0];
    assert_eq!(
        (command.source, command.confidence, command.pasted),
        (Source::Screen, Confidence::High, false)
    );
    assert_eq!((command.span.t, command.span.t_end), (4_000_000_000, Some(5_000_000_000)));
    assert_eq!((command.evidence.from, command.evidence.to), (8, 53));
    assert_eq!(found.transcript(), ["u@h:~$ ls -l", "total 0", "u@h:~$", "exit"]);
    assert!(found.lines[0].is_command && !found.lines[1].is_command);
}

#[test]
fn history_and_completion_come_out_as_run() {
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("\x12ho"),
        O("\r(reverse-i-search)`': \x08\x08\x08h': echo \x1b[7mho\x1b[27mst\x08\x08"),
        I("\r"),
        O("\r\x1b[14P$ echo host\x1b[K\r\n\x1b[?2004l\rhost\r\n\x1b[?2004h$ "),
        I("ls /e\t"),
        O("ls /etc/"),
        I("\r"),
        O("\r\n\x1b[?2004l\r"),
    ]);
    assert_eq!(found.texts()[1], "ls /etc/");
}

#[test]
fn a_line_that_is_given_up_is_no_command() {
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("rm -rf /\x03"),
        O("rm -rf /^C\r\n\x1b[?2004l\r\x1b[?2004h$ "),
        I("\r"),
        O("\r\n\x1b[?2004l\r\x1b[?2004h$ "),
    ]);
    assert!(found.commands.is_empty() && !found.lines.is_empty());
}

#[test]
fn further_lines_belong_to_the_command() {
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("for i in 1 2; do\r"),
        O("for i in 1 2; do\r\n\x1b[?2004l\r\x1b[?2004h> "),
        I("echo $i; done\r"),
        O("echo $i; done\r\n\x1b[?2004l\r1\r\n2\r\n\x1b[?2004h$ "),
    ]);
    assert_eq!(found.texts(), ["for i in 1 2; do\necho $i; done"]);
}

#[test]
fn lines_typed_ahead_count_when_their_prompt_is_left() {
    let found = after(&[
        O("$ "),
        I("sleep 1\r"),
        O("sleep 1\r\n"),
        I("cd /\r"),
        O("cd /\r\n"),
        I("echo hi\r"),
        O("echo hi\r\n"),
        O("$ $ hi\r\n$ "),
        I("exit\r"),
        O("exit\r\n"),
    ]);
    assert_eq!(found.texts(), ["sleep 1", "cd /", "echo hi", "exit"]);
}

#[test]
fn what_programs_read_is_no_command() {
    let found = after(&[
        O("$ "),
        I("cat\r"),
        O("cat\r\n"),
        I("eaten\r"),
        O("eaten\r\neaten\r\n"),
        I("\x04"),
        O("$ "),
        I("true\r"),
        O("true\r\n$ "),
    ]);
    assert_eq!(found.texts(), ["cat", "true"]);
}

#[test]
fn a_password_is_kept_nowhere() {
    for ready in ["\x1b[?2004h", ""] {
        let taken = if ready.is_empty() { "" } else { "\x1b[?2004l\r" };
        let found = after(&[
            O(&format!("{ready}$ ")),
            I("sudo id\r"),
            O(&format!("sudo id\r\n{taken}[sudo] password for u: ")),
            I("hunter2\r"),
            O(&format!("\r\nuid=0(root)\r\n{ready}$ ")),
            I("id\r"),
            O(&format!("id\r\n{taken}uid=1(u)\r\n{ready}$ ")),
        ]);
        assert_eq!(found.texts(), ["sudo id", "id"]);
        assert!(!found.transcript().concat().contains("hunter2"));
    }
}

#[test]
fn a_password_that_stands_on_the_screen_by_chance_is_no_command() {
    let found = after(&[
        O("$ "),
        I("sudo cat README\r"),
        O("sudo cat README\r\n[sudo] password for deploy: "),
        I("deploy\r"),
        O("\r\nBuild it:\r\n$ make install\r\n$ "),
    ]);
    assert_eq!(found.texts(), ["sudo cat README"]);
}

#[test]
fn a_right_prompt_is_no_part_of_a_command() {
    let prompt =
        "\r\x1b[0m\x1b[27m\x1b[24m\x1b[Ju@h ~ % \x1b[K\x1b[58C[3:39:39]\x1b[66D\x1b[?1h\x1b=\x1b[?2004h";
    let found =
        after(&[O(prompt), I("ls"), O("l\x08ls"), I("\r"), O("\x1b[?1l\x1b>\x1b[?2004l\r\r\n"), O(prompt)]);
    assert_eq!(found.texts(), ["ls"]);
}

#[test]
fn what_is_only_suggested_was_not_typed() {
    let found = after(&[
        O("\x1b[?2004h"),
        O("u@h ~> \x1b[K\r\x1b[7C"),
        I("ec"),
        O("ec\r\x1b[9C\x1b[38;5;240mho ahead\r\x1b[9C\x1b[30m\x1b(B\x1b[m"),
        I("\r"),
        O("\x1b[K\r\x1b[9C\r\n\x1b[30m\x1b(B\x1b[m\x1b[?2004l\x1b]0;ec ~\x07\r"),
    ]);
    assert_eq!(found.texts(), ["ec"]);
}

#[test]
fn a_command_wraps_and_survives_a_resize() {
    let long = format!("echo {}", "x".repeat(100));
    let (first, second) = long.split_at(50);
    let found = after(&[
        O("\x1b[?2004hu@h:~$ "),
        I(first),
        O(first),
        Size(40, 10),
        I(second),
        O(second),
        I("\r"),
        O("\r\n\x1b[?2004l\r"),
    ]);
    assert_eq!(found.texts(), [long.as_str()]);
}

#[test]
fn several_lines_pasted_into_bash_are_several_commands() {
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("\x1b[200~echo a\necho b\x1b[201~"),
        O("\x1b[7mecho a\x1b[27m\r\n\r\x1b[7mecho b\x1b[27m"),
        I("\r"),
        O("\x1b[A\x08\x08\x08\x08echo a\r\n\recho b\r\n\x1b[?2004l\ra\r\nb\r\n\x1b[?2004h$ "),
    ]);
    assert_eq!(found.texts(), ["echo a", "echo b"]);
    assert!(found.commands.iter().all(|command| command.pasted));
}

#[test]
fn an_interpreter_is_named() {
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("python3\r"),
        O("python3\r\n\x1b[?2004l\rPython 3.11\r\n\x1b[?2004h>>> "),
        I("def f():\r"),
        O("def f():\r\n\x1b[?2004l\r\x1b[?2004h... "),
        I(" return 3\r"),
        O(" return 3\r\n\x1b[?2004l\r\x1b[?2004h... "),
        I("\r"),
        O("\r\n\x1b[?2004l\r\x1b[?2004h>>> "),
        I("exit()\r"),
        O("exit()\r\n\x1b[?2004l\r\x1b[?2004h$ "),
        I("ls\r"),
        O("ls\r\n\x1b[?2004l\r"),
    ]);
    assert_eq!(found.texts(), ["def f():\n return 3", "exit()", "python3", "ls"]);
    let repls: Vec<_> = found.commands.iter().map(|command| command.repl.as_deref()).collect();
    assert_eq!(repls, [Some("python"), Some("python"), None, None]);
}

#[test]
fn a_full_screen_program_is_a_span_of_its_command() {
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("vim x\r"),
        O("vim x\r\n\x1b[?2004l\r\x1b[?1049h\x1b[?2004h\x1b[H\x1b[2Jhello"),
        I(":q!\r"),
        O("\x1b[?2004l\x1b[?1049l\x1b[?2004h$ "),
        I("ls\r"),
        O("ls\r\n\x1b[?2004l\r"),
    ]);
    assert_eq!(found.texts(), ["vim x", "ls"]);
    assert_eq!(found.commands[0].full_screen.len(), 1);
    assert_eq!(found.transcript(), ["$ vim x", "[full screen: vim x, 2 s]", "$ ls"]);
}

#[test]
fn marks_tell_what_ran_and_how_it_ended() {
    let found = after(&[
        O("\x1b]7;file://h/tmp\x07\x1b]133;D;0\x07\x1b]133;A\x07$ \x1b]133;B\x07"),
        I("false\r"),
        O("false\r\n\x1b]133;C\x07\x1b]133;D;1\x07\x1b]133;A\x07$ \x1b]133;B\x07"),
        I("a; b\r"),
        O("a; b\r\n\x1b]633;E;a\\x3b b;nonce\x07\x1b]633;C\x07out\r\n\x1b]633;D;0\x07"),
    ]);
    assert_eq!(found.texts(), ["false", "a; b"]);
    let sources: Vec<_> = found.commands.iter().map(|command| (command.source, command.exit_code)).collect();
    assert_eq!(sources, [(Source::Osc133, Some(1)), (Source::Osc633, Some(0))]);
    assert_eq!(found.commands[0].cwd.as_deref(), Some("/tmp"));
}

#[test]
fn unmarked_shells_inside_marked_ones_are_read_off_the_screen() {
    let found = after(&[
        O("\x1b]133;A\x07$ \x1b]133;B\x07"),
        I("ssh host\r"),
        O("ssh host\r\n\x1b]133;C\x07u@host:~# "),
        I("id\r"),
        O("id\r\nuid=0\r\nu@host:~# "),
        I("exit\r"),
        O("exit\r\n\x1b]133;D;0\x07\x1b]133;A\x07$ \x1b]133;B\x07"),
    ]);
    assert_eq!(found.texts(), ["id", "exit", "ssh host"]);
    assert_eq!(found.commands[2].exit_code, Some(0));
}

#[test]
fn panes_of_tmux_have_commands_of_their_own() {
    let status = "\x1b[24;1H\x1b[30m\x1b[42m[m] 0:bash*                                                 \"vm\" 04:19 23-Nov-26\x1b(B\x1b[m";
    let border: String = (1..24).map(|row| format!("\x1b[{row};41H│")).collect();
    let found = after(&[
        O("\x1b[?2004h$ "),
        I("tmux\r"),
        O(&format!("tmux\r\n\x1b[?2004l\r\x1b[?1049h\x1b[H\x1b[2J{status}\x1b[1;1H")),
        O("\x1b[?2004hu@h:~# "),
        I("echo left\r"),
        O("echo left\r\nleft\r\nu@h:~# "),
        I("\x02%"),
        O(&format!("{border}\x1b[1;42H\x1b[?2004hu@h:~# ")),
        I("echo right\r"),
        O("echo right\x1b[2;42H\x1b[?2004l"),
        O("right\x1b[3;42Hu@h:~# \x1b[?2004h"),
        O("\x1b[?2004l\x1b[?1049l\x1b[?2004h$ "),
    ]);
    assert_eq!(found.texts(), ["echo left", "echo right", "tmux"]);
    let panes: Vec<_> = found.commands.iter().map(|command| command.pane.as_deref()).collect();
    assert_eq!(panes, [Some("0.0"), Some("0.1"), None]);
}

#[test]
fn what_is_cleared_stays_in_the_transcript() {
    for clear in ["\x1b[H\x1b[2J\x1b[3J", "\x1b[H\x1b[J", "\x1bc"] {
        let found = after(&[O("one\r\ntwo\r\n"), O(clear), O("three\r\n")]);
        assert_eq!(found.transcript(), ["one", "two", "three"], "{clear:?}");
    }
}

#[test]
fn wide_and_invalid_characters_stay_in_place() {
    let mut found = Found::default();
    let mut terminal = Terminal::new(ChannelNo(0), size(80, 24), false);
    let bytes = "\x1b[?2004h$ echo 日本\r\n\x1b[?2004l\r".as_bytes();
    terminal.output(At { t: 1, seq: 1 }, &bytes[..10], &mut found);
    terminal.input(At { t: 2, seq: 2 }, "echo 日本\r".as_bytes(), &mut found);
    for byte in &bytes[10..] {
        terminal.output(At { t: 3, seq: 3 }, &[*byte], &mut found);
    }
    terminal.output(At { t: 4, seq: 4 }, b"a\xffb\xe6\x97", &mut found);
    terminal.end(None, None, &mut found);
    assert_eq!(found.texts(), ["echo 日本"]);
    assert_eq!(found.transcript(), ["$ echo 日本", "a\u{fffd}b"]);
}

#[test]
fn a_window_that_changes_its_size_without_end_costs_a_bounded_amount_of_work() {
    let mut found = Found::default();
    let mut terminal = Terminal::new(ChannelNo(0), size(80, 24), false);
    let mut drawn = 0;
    for n in 0..20_000 {
        terminal.resize(At::default(), size(400 + n % 100, 200 + n % 100), &mut found);
        drawn += u32::from(terminal.wanted.is_none());
    }
    assert!((10..100).contains(&drawn), "{drawn}");
    assert_eq!(terminal.cells(), 499 * 299, "room for the size that it will have");
    terminal.output(At::default(), b"as before", &mut found);
    assert!(terminal.wanted.is_some());
    terminal.output(At::default(), &b"\r\n".repeat(40_000), &mut found);
    assert_eq!((terminal.wanted, terminal.emulator.width(), terminal.emulator.rows()), (None, 499, 299));
}

#[test]
fn a_window_that_is_drawn_larger_by_hand_is_followed_at_once() {
    let mut terminal = Terminal::new(ChannelNo(0), size(80, 24), false);
    for n in 0..100 {
        terminal.resize(At::default(), size(80 + n, 24 + n / 4), &mut Found::default());
        assert!(terminal.wanted.is_none(), "{n}");
    }
}

/// Pieces of which hostile sessions are made.
const PIECES: &[&str] = &[
    "$ ",
    "ls",
    "\r",
    "\n",
    "\r\n",
    "\x1b[?2004h",
    "\x1b[?2004l",
    "\x1b[?1049h",
    "\x1b[?1049l",
    "\x1b]133;A\x07",
    "\x1b]133;B\x07",
    "\x1b]133;C\x07",
    "\x1b]133;D;1\x07",
    "\x1b]633;E;x\x07",
    "\x03",
    "\x04",
    "\x1b[A",
    "\x1b[2J",
    "\x1b[H",
    "\x1b[J",
    "\x1b[K",
    "日",
    "\u{301}",
    "\x1b[9999b",
    "\x1b[5L",
    "\x1b[5M",
    "\x1b[99S",
    "\x1b[2;4r",
    "\x1bc",
    "tmux",
    "python3",
    ">>> ",
    "> ",
    "│",
    "\x1b[7m",
    "\x1b[999;999H",
    "\x1b[200~",
    "\x1b[201~",
    "!!",
    "\x1bP$d",
    "\x1b\\",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_makes_it_panic(
        steps in prop::collection::vec((0..4u8, prop::collection::vec(prop::sample::select(PIECES), 1..8), 0..12u32), 1..60),
        noise in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut found = Found::default();
        let mut terminal = Terminal::new(ChannelNo(0), size(0, u32::MAX), false);
        for (t, (kind, pieces, number)) in (0u64..).zip(steps) {
            let at = At { t: t * 60_000_000, seq: t };
            let text = pieces.concat();
            match kind {
                0 => terminal.input(at, text.as_bytes(), &mut found),
                1 | 2 => terminal.output(at, text.as_bytes(), &mut found),
                _ => terminal.resize(at, size(number * 7 % 90, number * 5 % 40), &mut found),
            }
            terminal.output(at, &noise, &mut found);
        }
        terminal.end(None, None, &mut found);
    }

    #[test]
    fn splits_of_the_output_make_no_difference(cuts in prop::collection::vec(0..400usize, 0..6)) {
        let output = "ls\r\n\x1b[?2004l\rfile 日本\r\n\x1b]7;file://h/tmp\x07\x1b[?2004hu@h:~$ echo a\r\n\x1b[?2004l\ra\r\n\x1b[?2004hu@h:~$ ".as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % output.len()).collect();
        cuts.sort_unstable();
        cuts.push(output.len());
        let mut found = Found::default();
        let mut terminal = Terminal::new(ChannelNo(0), size(80, 24), false);
        terminal.output(At { t: 1, seq: 1 }, b"\x1b[?2004hu@h:~$ ", &mut found);
        terminal.input(At { t: 2, seq: 2 }, b"ls\recho a\r", &mut found);
        let mut from = 0;
        for cut in cuts {
            terminal.output(At { t: 3, seq: 3 }, &output[from..cut], &mut found);
            from = cut;
        }
        terminal.end(None, None, &mut found);
        prop_assert_eq!(found.texts(), ["ls", "echo a"]);
    }
}
