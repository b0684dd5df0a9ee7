//! Damage to the spool while the agent is dead: the sessions resume, the one that lost something tells what is missing, and
//! everybody else has everything.

mod support;

use std::{fs, path::PathBuf};

use jiff::{Timestamp, tz::TimeZone};
use support::{
    Agent, Node,
    proxy::{Control, Tap, meta, stdin, stdout},
    stored::{directory, read, verify},
    wait_until,
};
use weir_agent::spool::entry::{Entries, HEADER_LEN, Kind};
use weir_common::{
    abi::RecordHeader,
    control::{Reply, Request},
    frame::{Direction, Header},
    session::{ChannelNo, Outcome, SessionMeta},
};
use weir_console::{
    store::SessionDir,
    verify::{Options, report::Verdict, signers::AllowedSigners, verify as examine},
};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;
/// Nothing is stored while sessions run, so that all of it is in one spool file.
const UNSEALED: &str = "segment_max_age_ms = 3600000\n";
const SESSIONS: usize = 5;
const ROUNDS: usize = 12;

/// Sessions whose agent was killed.
struct Lab {
    node: Node,
    sessions: Vec<(SessionMeta, Tap)>,
}

/// A record in the spool.
#[derive(Clone, Copy)]
struct Spooled {
    offset: usize,
    len: usize,
    cookie: u64,
    seq: u64,
}

fn talk(tap: &mut Tap, rounds: usize) {
    for round in 0..rounds {
        tap.pass(T2C, &stdout(&format!("round {round} ").repeat(1 + round * 7 % 40)));
        tap.pass(C2T, &stdin(&format!("{round}")));
    }
}

impl Lab {
    /// Everything that was said is in the spool, and the ring has given it up.
    fn new() -> Self {
        let node = Node::new(UNSEALED);
        let agent = node.start();
        let begun = (0..SESSIONS).map(|_| {
            let (meta, control) = (meta(), Control::connect(&node.socket()));
            assert_eq!(control.open(&meta, false), Some(Reply::Opened));
            let tap = control.arm(0);
            (meta, control, tap)
        });
        let mut begun: Vec<_> = begun.collect();
        for _ in 0..ROUNDS {
            begun.iter_mut().for_each(|(.., tap)| talk(tap, 1));
        }
        let lab = |sessions| Self { node, sessions };
        let (controls, sessions): (Vec<_>, Vec<_>) =
            begun.into_iter().map(|(meta, control, tap)| (control, (meta, tap))).unzip();
        let lab = lab(sessions);
        wait_until("everything is in the spool", || lab.records().len() == SESSIONS * ROUNDS * 2);
        // It answers when it is done with the records that it has written.
        let pair = Tap::pair();
        let again = controls[0].ask(&Request::Arm { channel: ChannelNo(0) }, &pair.descriptors());
        assert!(matches!(again, Some(Reply::Refused { .. })), "{again:?}");
        agent.kill();
        lab
    }

    fn file(&self) -> PathBuf {
        self.node.spool_files().pop().expect("one")
    }

    fn records(&self) -> Vec<Spooled> {
        let bytes = fs::read(self.file()).expect("readable");
        let records = Entries::new(&bytes).filter(|(_, entry)| entry.kind == Kind::Record);
        let spooled = records.map(|(offset, entry)| {
            let (header, message) = RecordHeader::split(entry.payload).expect("a record");
            let (Header { seq, .. }, _) = Header::split(message).expect("a frame");
            let offset = usize::try_from(offset).expect("small");
            Spooled { offset, len: HEADER_LEN + entry.payload.len(), cookie: header.cookie, seq }
        });
        spooled.collect()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file()).expect("readable");
        change(&mut bytes);
        fs::write(self.file(), bytes).expect("writable");
    }

    /// The next agent, on which all of them say some more and end.
    fn go_on(&mut self, rounds: usize) -> Agent {
        let agent = self.node.start();
        let resume = |(meta, _): &(SessionMeta, Tap)| {
            let control = Control::connect(&self.node.socket());
            assert_eq!(control.open(meta, true), Some(Reply::Opened));
            control
        };
        let controls: Vec<_> = self.sessions.iter().map(resume).collect();
        for ((_, tap), control) in self.sessions.iter_mut().zip(controls) {
            talk(tap, rounds);
            assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
        }
        agent
    }

    fn verdict(&self, meta: &SessionMeta) -> Verdict {
        let text = fs::read_to_string(self.node.path("state/allowed_signers")).expect("written");
        let signers = AllowedSigners::parse("FILE", &text, &TimeZone::UTC);
        let options = Options { signers: Some(&signers), identity: "weir-agent", now: Timestamp::now() };
        let dir = SessionDir::open(&directory(&self.node, meta.session_id)).expect("a directory");
        examine(&dir, &options).expect("readable").verdict
    }

    /// That these records are missing, and it is told; and nothing else is.
    fn check(&self, lost: &[Spooled]) {
        let mut found = 0;
        for (meta, tap) in &self.sessions {
            let recording = read(&self.node, meta.session_id);
            let totals = recording.manifest.channels[0];
            let mut is_hit = false;
            for (direction, totals) in [(C2T, totals.c2t), (T2C, totals.t2c)] {
                let mut expected = tap.sent(direction).to_vec();
                for record in lost.iter().rev().filter(|record| record.cookie == totals.cookie.0) {
                    expected.remove(usize::try_from(record.seq).expect("small"));
                    (is_hit, found) = (true, found + 1);
                }
                assert!(recording.frames[&(ChannelNo(0), direction)] == expected, "{direction}");
                assert_eq!(
                    totals.accepted.records,
                    tap.sent(direction).len() as u64,
                    "what is missing is told"
                );
            }
            if is_hit {
                assert_eq!(self.verdict(meta), Verdict::NotIntact);
            } else {
                verify(&self.node, meta.session_id);
                assert_eq!(self.verdict(meta), Verdict::Intact);
            }
        }
        assert_eq!(found, lost.len());
    }
}

#[test]
fn a_spool_cut_in_the_middle_of_a_record_that_the_ring_gave_up_costs_one_session_that_record() {
    // With two more frames of each direction it is the kernel's counters that tell, with twenty the numbers.
    for rounds in [2, 20] {
        let mut lab = Lab::new();
        let last = *lab.records().last().expect("many");
        lab.change(|bytes| bytes.truncate(last.offset + last.len / 2));
        let agent = lab.go_on(rounds);
        agent.wait_for_log("the spool lost records that were drained");
        lab.check(&[last]);
        agent.stop();
    }
}

#[test]
fn a_byte_that_flipped_in_the_tail_costs_one_session_that_record() {
    for (back, rounds) in [(2, 2), (SESSIONS * 2 + 1, 20)] {
        let mut lab = Lab::new();
        let records = lab.records();
        let hit = records[records.len() - back];
        lab.change(|bytes| bytes[hit.offset + hit.len - 1] ^= 0x10);
        let agent = lab.go_on(rounds);
        agent.wait_for_log("a stretch of a spool file is unreadable");
        lab.check(&[hit]);
        // The next one reads the same, and what it was told is not told again.
        agent.kill();
        lab.node.start().stop();
    }
}

#[test]
fn a_bad_sector_costs_the_sessions_whose_records_lie_there_these_records() {
    let mut lab = Lab::new();
    let records = lab.records();
    // Half of a disk's smallest, which holds several records here.
    let (from, to) = (records[40].offset + 50, records[40].offset + 306);
    let is_hit = |record: &&Spooled| record.offset < to && record.offset + record.len > from;
    let hit: Vec<_> = records.iter().filter(is_hit).copied().collect();
    assert!((3..8).contains(&hit.len()), "{} records", hit.len());
    lab.change(|bytes| bytes[from..to].fill(0));
    let agent = lab.go_on(10);
    lab.check(&hit);
    agent.stop();
}

#[test]
fn garbage_behind_the_last_entry_costs_nothing() {
    let mut lab = Lab::new();
    // Zeros, as a file system leaves them; something else's bytes; the beginning of the spool once more.
    lab.change(|bytes| {
        let copy = bytes.clone();
        bytes.extend_from_slice(&[0; 4096]);
        bytes.extend((0..3000_u32).map(|number| (number * 7919 % 251) as u8));
        bytes.extend_from_slice(&copy);
    });
    let agent = lab.go_on(3);
    agent.wait_for_log("cutting the torn tail of the spool");
    lab.check(&[]);
    agent.stop();
}

#[test]
fn a_record_that_an_agent_was_killed_while_it_wrote_comes_from_the_ring_again() {
    let mut lab = Lab::new();
    // Nobody drains, and the ring has room.
    lab.sessions.iter_mut().for_each(|(_, tap)| talk(tap, 4));
    let records = lab.records();
    lab.change(|bytes| {
        let Spooled { offset, len, .. } = records[30];
        let torn = bytes[offset..offset + len - 3].to_vec();
        bytes.extend_from_slice(&torn);
    });
    let agent = lab.go_on(3);
    agent.wait_for_log("cutting the torn tail of the spool");
    lab.check(&[]);
    agent.stop();
}
