//! Waits between events while a session is played on a terminal, and hears when the viewer wants to stop.

use std::{future::poll_fn, io, pin::pin, task::Poll, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// The time has come.
    Now,
    /// The viewer wants no more.
    Stop,
}

/// Lets time pass.
pub trait Pace {
    /// Waits until this long after the last event was due.
    fn wait(&mut self, gap: Duration) -> Paced;
}

/// Lets no time pass.
pub struct AtOnce;

impl Pace for AtOnce {
    fn wait(&mut self, _: Duration) -> Paced {
        Paced::Now
    }
}

/// Real time. Ctrl-C and a request to terminate stop the play instead of the program, so that the terminal can be
/// put back in order.
pub struct RealTime {
    runtime: Runtime,
    stop: [Signal; 3],
    due: Instant,
}

impl RealTime {
    /// Starts now.
    ///
    /// # Errors
    /// If timers or signals are not to be had.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stop = {
            let _entered = runtime.enter();
            [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ]
        };
        Ok(Self { runtime, stop, due: Instant::now() })
    }
}

impl Pace for RealTime {
    fn wait(&mut self, gap: Duration) -> Paced {
        self.due += gap;
        let Self { runtime, stop, due } = self;
        runtime.block_on(async {
            let mut sleep = pin!(tokio::time::sleep_until(*due));
            poll_fn(|context| {
                if stop.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
                    return Poll::Ready(Paced::Stop);
                }
                sleep.as_mut().poll(context).map(|()| Paced::Now)
            })
            .await
        })
    }
}
