//! One agent after another on the same pins.

use std::{fs, os::fd::AsFd};

use aya::maps::{HashMap, MapData};
use weir_agent::tap::{MIN_RING_BYTES, RingPlace, TapError, TapOptions, TapState};
use weir_common::{
    abi::{PROGRAM, TAPS_MAP},
    recording::Count,
};

use crate::support::{Bpffs, armed_pair, counts, drain, message, open, put, take};

#[test]
fn the_next_agent_finds_ring_records_taps_and_counts_as_they_were() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    put(&from, b"drained");
    drain(&mut ring);
    put(&from, b"left behind");
    let id = ring.id().clone();
    let position = ring.consumer_position();
    drop((taps, ring));
    put(&from, b"while nobody was there");

    let (mut taps, mut ring) = bpffs.open();
    assert_eq!((ring.id(), ring.consumer_position()), (&id, position));
    put(&from, b"after");
    for expected in [&b"drained"[..], b"left behind", b"while nobody was there", b"after"] {
        assert_eq!(take(&to).as_deref(), Some(expected));
    }
    let captured: Vec<_> = drain(&mut ring).into_iter().map(|(_, message)| message).collect();
    assert_eq!(captured, [&b"left behind"[..], b"while nobody was there", b"after"]);
    assert_eq!(taps.cookies().expect("listing"), [cookie]);
    assert_eq!(counts(&taps, cookie).captured, Count { records: 4, bytes: 45 });

    let (from, to, _) = armed_pair(&mut taps);
    put(&from, b"a tap of the new agent's");
    assert!(take(&to).is_some());
}

#[test]
fn without_an_agent_messages_pass_until_the_ring_is_full_and_then_no_more() {
    let bpffs = Bpffs::mount();
    let (mut taps, ring) = bpffs.open();
    let (from, to, _) = armed_pair(&mut taps);
    drop((taps, ring));
    let delivered: Vec<_> = (0..200)
        .filter_map(|number| {
            put(&from, &message(number, 1000));
            take(&to)
        })
        .collect();
    assert!((1..200).contains(&delivered.len()));
    let (_taps, mut ring) = bpffs.open();
    let captured: Vec<_> = drain(&mut ring).into_iter().map(|(_, message)| message).collect();
    assert!(captured == delivered, "the recording is what was delivered");
    put(&from, b"room again");
    assert_eq!(take(&to).as_deref(), Some(&b"room again"[..]));
}

#[test]
fn a_new_agent_replaces_the_programs_pin_and_old_taps_keep_working() {
    let bpffs = Bpffs::mount();
    let dir = bpffs.rings().dir_of(RingPlace::current(0));
    let program_id = || {
        let program = aya::programs::ProgramInfo::from_pin(dir.join(PROGRAM)).expect("the program is pinned");
        program.id()
    };
    let (mut taps, ring) = bpffs.open();
    let first = program_id();
    let (from, to, cookie) = armed_pair(&mut taps);
    drop((taps, ring));
    // As if an agent had died between pinning and renaming.
    fs::hard_link(dir.join(PROGRAM), dir.join(format!("{PROGRAM}_new"))).expect("bpffs has links");
    let (mut taps, _ring) = bpffs.open();
    assert_ne!(program_id(), first);
    assert!(!dir.join(format!("{PROGRAM}_new")).exists());
    taps.freeze(cookie).expect("freezing a tap of the old agent's");
    put(&from, b"too late");
    assert_eq!(take(&to), None);
}

#[test]
fn two_agents_at_once_are_refused() {
    let bpffs = Bpffs::mount();
    let (taps, ring) = bpffs.open();
    assert!(matches!(bpffs.open_error(&bpffs.options()), TapError::InUse { .. }));
    drop(taps);
    assert!(matches!(bpffs.open_error(&bpffs.options()), TapError::InUse { .. }), "one half is enough");
    drop(ring);
    bpffs.open();
}

#[test]
fn a_pinned_ring_keeps_its_size_and_a_fresh_one_is_another_ring() {
    let bpffs = Bpffs::mount();
    let (taps, ring) = bpffs.open();
    let id = ring.id().clone();
    drop((taps, ring));
    let larger = TapOptions { ring_bytes: 4 * MIN_RING_BYTES, ..bpffs.options() };
    let (_taps, ring) = open(&larger).expect("opening");
    assert_eq!((ring.capacity(), ring.id()), (u64::from(MIN_RING_BYTES), &id));

    let other = Bpffs::mount();
    let (_taps, ring) = other.open();
    assert_ne!(ring.id(), &id);
    assert_eq!(ring.id().boot_id, id.boot_id);
}

#[test]
fn a_foreign_map_in_our_place_is_an_error_that_names_it() {
    let bpffs = Bpffs::mount();
    let dir = bpffs.rings().dir_of(RingPlace::current(0));
    fs::create_dir_all(&dir).expect("bpffs has directories");
    let foreign = HashMap::<MapData, u64, u64>::create(4, 0).expect("a map");
    foreign.pin(dir.join(TAPS_MAP)).expect("pinning");
    let error = bpffs.open_error(&bpffs.options());
    assert!(matches!(error, TapError::PinnedLayout { field: "value size", .. }), "{error}");
    assert!(error.to_string().contains("value size is 8 and not 4"), "{error}");
}

#[test]
fn a_directory_that_is_no_bpffs_is_an_error_with_the_remedy() {
    let bpffs = Bpffs::mount();
    let plain = tempfile::tempdir().expect("a directory");
    let error = bpffs.open_error(&TapOptions { bpf_dir: plain.path().to_owned(), ..bpffs.options() });
    assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    assert!(fs::read_dir(plain.path()).expect("reading").next().is_none(), "nothing was created in it");
}

#[test]
fn a_ring_size_that_the_kernel_would_refuse_or_that_fits_no_large_message_is_an_error() {
    let bpffs = Bpffs::mount();
    for ring_bytes in [0, 4096, MIN_RING_BYTES - 1, MIN_RING_BYTES + 4096, 3 * MIN_RING_BYTES] {
        let error = bpffs.open_error(&TapOptions { ring_bytes, ..bpffs.options() });
        assert!(matches!(error, TapError::RingSize { .. }), "{ring_bytes}: {error}");
    }
}

#[test]
fn ring_and_taps_can_live_on_different_threads() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to) = crate::support::pair();
    let drained = std::thread::spawn(move || {
        loop {
            match drain(&mut ring) {
                drained if drained.is_empty() => std::thread::yield_now(),
                drained => return drained,
            }
        }
    });
    std::thread::spawn(move || {
        taps.arm(to.as_fd(), TapState::Armed).expect("arming");
        put(&from, b"across");
    })
    .join()
    .expect("arming from another thread");
    assert_eq!(drained.join().expect("draining").len(), 1);
}
