//! What fuzzers feed with bytes, and seeds for them: see `docs/fuzzing.md`, and [`weir_common::fuzz`].

use std::{fs, time::Duration};

use jiff::Timestamp;
use weir_common::{
    abi::{ABI_VERSION, RECORD_MESSAGE, RecordHeader},
    frame::{Direction, Header, Kind},
    fuzz,
    recording::Clock,
    session::{ChannelNo, SocketCookie},
};

use crate::{
    journal::{Journal, RingRecord},
    ledger::StateEntry,
    spool::{
        self, FileNo, SpoolOptions,
        entry::{Entries, Entry},
    },
};

/// The most files that a fuzzer's bytes become.
const FILES_MAX: u32 = 4;
/// What parts a fuzzer's bytes into files.
const SEPARATOR: &[u8] = b"\0next file\0";
const SOCKETS: [SocketCookie; 2] = [SocketCookie(2), SocketCookie(3)];

/// A spool file's entries, up to the first that is damaged.
pub fn spool_entries(bytes: &[u8]) {
    let mut entries = Entries::new(bytes);
    let mut end = 0;
    for (offset, entry) in entries.by_ref() {
        assert_eq!(offset, end, "one behind the other");
        end = offset + entry.len();
        let at = usize::try_from(offset).expect("in memory");
        let (again, stamp) = Entry::decode(&bytes[at..], offset).expect("it was read");
        let written = entry.header(stamp, offset).expect("it was read, so it can be written");
        assert!(again == entry && written == bytes[at..at + written.len()]);
        assert_eq!(Entry::extent(&bytes[at..]) as u64, entry.len());
    }
    assert_eq!(entries.offset(), end);
    assert_eq!(entries.damage().is_none(), end == bytes.len() as u64);
}

/// A whole spool directory: looked at, taken up, and taken up again.
pub fn spool_directory(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut rest = bytes;
    for number in 1..=FILES_MAX {
        let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let (file, behind) = match end {
            Some(end) if number < FILES_MAX => (&rest[..end], Some(&rest[end + SEPARATOR.len()..])),
            _ => (rest, None),
        };
        fs::write(spool::path(dir.path(), FileNo(number)), file).expect("writable");
        match behind {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    let state = |journal: &Journal| {
        let sessions = journal.ledger().sessions();
        sessions
            .map(|session| (session.id(), session.accepted_records(), session.gone_records()))
            .collect::<Vec<_>>()
    };
    let looked = Journal::inspect(dir.path());
    let opened = Journal::open(dir.path(), options());
    assert_eq!(looked.is_ok(), opened.is_ok());
    let Ok(journal) = opened else { return };
    let before = state(&journal);
    drop(journal);
    let again = Journal::open(dir.path(), options()).expect("what was taken up can be taken up again");
    assert_eq!(state(&again), before);
}

fn options() -> SpoolOptions {
    SpoolOptions { file_bytes: 2000, max_bytes: 1 << 30, flush_interval: Duration::from_millis(50) }
}

/// A valid input of each body here, by the body's name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let files = files();
    vec![("spool_entries", files[0].clone()), ("spool_directory", files.join(SEPARATOR))]
}

/// The files of a small spool: a session of a few frames.
fn files() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut journal = Journal::open(dir.path(), options()).expect("an empty one");
    let session = fuzz::session_id();
    let [c2t, t2c] = SOCKETS;
    let changes = [
        StateEntry::Opened {
            meta: Box::new(fuzz::meta()),
            clock: Clock { boot_ns: 0, at: Timestamp::UNIX_EPOCH },
            recorder: fuzz::recorder(),
            opened_at: Timestamp::UNIX_EPOCH,
        },
        StateEntry::Armed { session, channel: ChannelNo(0), c2t, t2c },
    ];
    for change in changes {
        journal.append(change).expect("in order");
    }
    for seq in 0..16 {
        let body = [b'x'; 100];
        let frame = [&Header { kind: Kind::Stdout, len: 100, seq }.to_bytes()[..], &body].concat();
        let len = u32::try_from(frame.len()).expect("short");
        let header =
            RecordHeader { cookie: SOCKETS[1].0, boot_ns: seq, len, abi: ABI_VERSION, kind: RECORD_MESSAGE };
        let bytes = [&header.to_bytes()[..], &frame].concat();
        let end = journal.position() + 1;
        journal.append_records(&[RingRecord { bytes: &bytes, end }], |_| {}).expect("room");
    }
    journal.append(StateEntry::SealStarted { session, index: 1, records: 3 }).expect("in order");
    journal.append(StateEntry::Frozen { session }).expect("in order");
    drop(journal);
    assert!(Kind::Stdout.goes(Direction::TargetToClient));
    let files = spool::list(dir.path()).expect("readable");
    files.into_iter().map(|no| fs::read(spool::path(dir.path(), no)).expect("readable")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_spool_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            spool_entries(&bytes);
            spool_directory(&bytes);
        }

        #[test]
        fn changed_entries_are_read_as_they_were_written_up_to_the_change(
            at: prop::sample::Index, with: Vec<u8>, cut in 0_usize..8,
        ) {
            let good = &files()[0];
            let at = at.index(good.len());
            let bytes = [&good[..at], &with[..], &good[(at + cut).min(good.len())..]].concat();
            spool_entries(&bytes);
            let written: Vec<_> = Entries::new(good).collect();
            let same = good.iter().zip(&bytes).take_while(|(a, b)| a == b).count() as u64;
            let before = written.iter().filter(|(offset, entry)| offset + entry.len() <= same).count();
            let found: Vec<_> = Entries::new(&bytes).collect();
            prop_assert_eq!(&found[..before], &written[..before]);
            // What was put in between may itself be whole entries, but not of this seed's bytes.
            prop_assert!(found.len() <= before + 1 + written.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_changed_spool_directory_is_taken_up_with_what_is_whole_or_refused(
            at: prop::sample::Index, with: Vec<u8>, cut in 0_usize..40,
        ) {
            let good = files().join(SEPARATOR);
            let at = at.index(good.len());
            spool_directory(&[&good[..at], &with[..], &good[(at + cut).min(good.len())..]].concat());
        }
    }

    #[test]
    fn the_seeds_are_a_spool_of_several_files() {
        assert!(files().len() > 1);
        for (name, seed) in seeds() {
            match name {
                "spool_entries" => spool_entries(&seed),
                _ => spool_directory(&seed),
            }
        }
    }
}
