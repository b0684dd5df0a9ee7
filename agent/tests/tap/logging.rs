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

#[test]
fn a_message_tossed_for_its_size_is_told_in_the_agents_log() {
    let bpffs = Bpffs::mount();
    let (mut taps, _ring) = bpffs.open();
    let log = taps.take_log().expect("opening the log").expect("it was not taken yet");
    assert!(taps.take_log().expect("asking again").is_none());
    let (from, _to, cookie) = armed_pair(&mut taps);
    put(&from, b"");

    let (sender, lines) = mpsc::sync_channel(16);
    let subscriber = tracing_subscriber::fmt().with_writer(Lines(sender)).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let forwarding = tokio::spawn(log.run());
        let line = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Ok(line) = lines.try_recv() {
                    break line;
                }
                tokio::task::yield_now().await;
            }
        });
        let line = line.await.expect("a line of the log");
        let expected = format!("tossed a message of 0 bytes to socket {}", cookie.0);
        assert!(line.contains("WARN weir_tap") && line.contains(&expected), "{line}");
        forwarding.abort();
    });
}
