//! The program's diagnostics reach `tracing`.

use std::{io, sync::mpsc, time::Duration};

use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Bpffs, armed_pair, put};

/// Hands every line of the log to the test.
struct Lines(mpsc::SyncSender<String>);

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.0.clone())
    }
}

struct Line(mpsc::SyncSender<String>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(line).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first line that the program's diagnostics make of the log and that contains this.
fn line_with(log: weir_agent::tap::ProgramLog, text: &str) -> String {
    let (sender, lines) = mpsc::sync_channel(64);
    let subscriber = tracing_subscriber::fmt().with_writer(Lines(sender)).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let forwarding = tokio::spawn(log.run());
        let line = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                match lines.try_recv() {
                    Ok(line) if line.contains(text) => break line,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        let line = line.await.expect("a line of the log");
        forwarding.abort();
        line
    })
}

#[test]
fn a_message_tossed_for_its_size_is_told_in_the_agents_log() {
    let bpffs = Bpffs::mount();
    let (mut taps, _ring) = bpffs.open();
    let log = taps.take_log().expect("opening the log").expect("it was not taken yet");
    assert!(taps.take_log().expect("asking again").is_none());
    let (from, _to, cookie) = armed_pair(&mut taps);
    put(&from, b"");
    let expected = format!("tossed a message of 0 bytes to socket {}", cookie.0);
    let line = line_with(log, &expected);
    assert!(line.contains("WARN weir_tap"), "{line}");
}

#[test]
fn a_socket_that_an_agent_before_armed_is_heard_by_the_next_one() {
    let bpffs = Bpffs::mount();
    let (mut taps, ring) = bpffs.open();
    let (from, _to, cookie) = armed_pair(&mut taps);
    drop((taps, ring));
    put(&from, b"");
    let (mut taps, _ring) = bpffs.open();
    put(&from, b"");
    let log = taps.take_log().expect("opening the log").expect("it was not taken yet");
    line_with(log, &format!("to socket {}", cookie.0));
}
