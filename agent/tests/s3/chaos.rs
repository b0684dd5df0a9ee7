//! What goes wrong during the soak, as a seed has it: to the agent, its disk and its store.

use std::{
    fs,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::fcntl::{FallocateFlags, fallocate};
use rand::{RngExt, rngs::StdRng};
use weir_common::session::SessionId;

use crate::{
    server::{Fault, Server},
    soak::pause,
    support::{Agent, Node, wait_until},
};

/// What goes wrong, one thing after the other.
pub(crate) struct Chaos<'a> {
    pub(crate) random: StdRng,
    pub(crate) node: &'a Node,
    pub(crate) server: &'a mut Server,
    /// The session that was opened last.
    pub(crate) newest: &'a Mutex<Option<SessionId>>,
}

/// What a store that answers may do.
const FAULTS: [Fault; 10] = [
    Fault::Status(503, "SlowDown"),
    Fault::Status(403, "AccessDenied"),
    Fault::BrokenError,
    Fault::CutRequest,
    Fault::CutAnswer,
    Fault::LostAnswer,
    Fault::NoChecksum,
    Fault::Forgetting,
    Fault::Slow(Duration::from_millis(200)),
    Fault::Hanging,
];

impl Chaos<'_> {
    /// Goes on for so long; the agent that there is in the end.
    pub(crate) fn rage(mut self, mut agent: Agent, time: Duration) -> Agent {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.pause(400);
            match self.random.random_range(0..11) {
                0 | 1 => {
                    agent.kill();
                    self.pause(300);
                    agent = self.node.start();
                }
                2 => {
                    agent.stop();
                    agent = self.node.start();
                }
                3 => {
                    self.server.refuse_connections();
                    self.pause(1500);
                    self.server.listen();
                }
                4 => {
                    let _ballast = self.fill_disk();
                    self.pause(1500);
                }
                5 => agent = self.replace_on_full_disk(agent),
                6 => {
                    // A store that fails while the agent is replaced.
                    self.server.fail(Some(Fault::Status(503, "SlowDown")), None);
                    agent.kill();
                    agent = self.node.start();
                    self.pause(500);
                    self.server.fail(None, None);
                }
                7 => self.poison(),
                _ => {
                    let fault = self.fault();
                    self.server.fail(Some(fault), None);
                    self.pause(1500);
                    self.server.fail(None, None);
                }
            }
        }
        self.server.fail(None, None);
        self.server.poison(None);
        agent
    }

    fn fault(&mut self) -> Fault {
        FAULTS[self.random.random_range(0..FAULTS.len())]
    }

    /// One session's directory fails until another's does, whatever else happens; now and then nobody's.
    fn poison(&mut self) {
        let session = *self.newest.lock().expect("no panic in between");
        let fault = self.fault();
        let poison = session.filter(|_| self.random.random_ratio(3, 4));
        self.server.poison(poison.map(|session| (fault, session.to_string())));
    }

    /// The agent is killed while the disk is full, and the next one begins on it. If that one gives up, whoever
    /// supervises agents starts another.
    fn replace_on_full_disk(&mut self, agent: Agent) -> Agent {
        let ballast = self.fill_disk();
        self.pause(800);
        agent.kill();
        let mut next = self.node.spawn();
        self.pause(800);
        drop(ballast);
        wait_until("the agent is ready, or has given up", || next.logged("ready") || next.has_ended());
        if next.has_ended() { self.node.start() } else { next }
    }

    /// Takes what the disk has left.
    fn fill_disk(&self) -> Ballast {
        let path = self.node.path("state/ballast");
        let ballast = fs::File::create(&path).expect("a file");
        let mut len = 0;
        for piece in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
            while fallocate(&ballast, FallocateFlags::empty(), len, piece).is_ok() {
                len += piece;
            }
        }
        Ballast(path)
    }

    fn pause(&mut self, most_ms: u64) {
        pause(self.random.random_range(0..most_ms));
    }
}

/// What fills a disk, until it is dropped.
struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("it was made");
    }
}
