//! How fast terminals are followed: `cargo run --release -p weir-analysis --example bench-terminal`.
//!
//! Each kind of output goes through the emulator alone, through a terminal (prompts, commands and transcript as well), and through
//! the analysis of a session (which masks, too). What is told is the processor's time, and the best of five.

use std::{hint::black_box, time::Duration};

use nix::time::{ClockId, clock_gettime};

use weir_analysis::{
    Analysis, At, Findings, TranscriptLine,
    masking::{LineState, Masking},
    terminal::Terminal,
};
use weir_common::{
    frame::{Direction, Pty, WindowSize},
    recording::{
        Content, Event, What,
        findings::{Command, FileAccess, Forward},
    },
    session::ChannelNo,
};

/// How much of each kind.
const BYTES: usize = 16 << 20;
/// What a frame of output has: a busy terminal's.
const FRAME_BYTES: usize = 4096;
const SIZE: WindowSize = WindowSize { cols: 120, rows: 40, width_px: 0, height_px: 0 };

/// Lets everything go.
#[derive(Default)]
struct Nothing(usize);

impl Findings for Nothing {
    fn command(&mut self, _: Command) {}

    fn file(&mut self, _: FileAccess) {}

    fn forward(&mut self, _: Forward) {}

    fn line(&mut self, line: TranscriptLine) {
        self.0 += line.text.len();
    }
}

fn main() {
    println!("MB/s: {:28} {:>9} {:>9} {:>9} {:>9}", "", "emulator", "terminal", "masking", "analysis");
    for (name, line) in [
        ("a listing", "-rw-r--r-- 1 root root   {n} Nov 23 03:33 some-file-with-a-name-{n}.txt\r\n"),
        (
            "a log",
            "2026-11-23T03:33:08.{n}Z INFO request{method=GET path=/api/v1/items id={n}} took 12 ms\r\n",
        ),
        ("short lines", "{n}\r\n"),
        ("colours", "\x1b[01;34mdirectory{n}\x1b[0m  \x1b[01;32mprogram{n}\x1b[0m  file{n}\r\n"),
        ("other alphabets", "Grüße aus Zürich, 日本語 и по-русски: {n}\r\n"),
        ("a screen that is drawn anew", "\x1b[{r};1H\x1b[K{n} root 20 0 {n} {n} S 0.3 0.1 0:01.23 program"),
    ] {
        let output = output(line);
        let rates =
            [emulator, terminal, masking, analysis].map(|follow| rate(output.len(), || follow(&output)));
        let [emulator, terminal, masking, analysis] = rates;
        println!("      {name:28} {emulator:9.1} {terminal:9.1} {masking:9.1} {analysis:9.1}");
    }
}

/// Lines of this form, numbered.
fn output(line: &str) -> Vec<u8> {
    let mut output = Vec::with_capacity(BYTES + line.len() * 2);
    for n in 100_000_u32.. {
        let line = line.replace("{n}", &n.to_string()).replace("{r}", &(n % 40 + 1).to_string());
        output.extend_from_slice(line.as_bytes());
        if output.len() >= BYTES {
            break;
        }
    }
    output
}

fn rate(bytes: usize, follow: impl Fn()) -> f64 {
    let time = |_| {
        let begun = now();
        follow();
        now() - begun
    };
    let best = (0..5).map(time).min().unwrap_or(Duration::MAX);
    bytes as f64 / 1e6 / best.as_secs_f64()
}

/// Of this thread's processor, whatever else the machine does.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("Linux has it")
}

fn emulator(output: &[u8]) {
    let mut emulator = avt::Terminal::new(SIZE.cols as usize, SIZE.rows as usize).expect("not nothing");
    for frame in output.chunks(FRAME_BYTES) {
        emulator.feed(String::from_utf8_lossy(frame).as_ref());
    }
    black_box(emulator.cursor());
}

fn terminal(output: &[u8]) {
    let mut nothing = Nothing::default();
    let mut terminal = Terminal::new(ChannelNo(0), SIZE, false);
    for (n, frame) in (0..).zip(output.chunks(FRAME_BYTES)) {
        terminal.output(At { t: n * 1_000_000, seq: n }, frame, &mut nothing);
    }
    terminal.end(None, None, &mut nothing);
    black_box(nothing.0);
}

fn masking(output: &[u8]) {
    let (masking, mut state) = (Masking::default(), LineState::default());
    let text = String::from_utf8_lossy(output);
    for line in text.lines() {
        black_box(masking.mask_line(&mut state, line));
    }
}

fn analysis(output: &[u8]) {
    let mut nothing = Nothing::default();
    let mut analysis = Analysis::new(None, Masking::default());
    let pty = Pty { term: "xterm".to_owned(), size: SIZE, modes: Vec::new() };
    let event = |seq: u64, dir, what| Event { t: seq * 1_000_000, dir, ch: ChannelNo(0), seq, len: 0, what };
    analysis.event(&event(0, Direction::ClientToTarget, What::Pty(pty)), &[], &mut nothing);
    analysis.event(&event(1, Direction::ClientToTarget, What::Shell), &[], &mut nothing);
    for (n, frame) in (2..).zip(output.chunks(FRAME_BYTES)) {
        let what = What::Stdout(Content::Bulk { at: 0, bytes: u32::try_from(frame.len()).expect("short") });
        analysis.event(&event(n, Direction::TargetToClient, what), frame, &mut nothing);
    }
    analysis.finish(&mut nothing);
    black_box(nothing.0);
}
