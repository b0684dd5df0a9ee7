//! Several rings, and what an agent of an older version left pinned.

use std::{fs, os::fd::AsFd};

use aya::{
    EbpfLoader,
    maps::{HashMap, MapData},
    programs::SocketFilter,
};
use weir_agent::tap::{RingPlace, Rings, TapError, TapState, Taps};
use weir_common::{
    abi::{COUNTS_MAP, PROGRAM, RING_MAP, TAP_ARMED, TAPS_MAP, TapCounts},
    recording::Count,
    session::SocketCookie,
};

use crate::support::{Bpffs, armed_pair, counts, drain, message, open, pair, put, set_option, take};

const OLD: RingPlace = RingPlace { abi: 1, ring: 0 };

/// The program as the agent embeds it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-tap"));

/// Pins what version 1 had, and arms a socket with a program that writes it.
fn armed_by_version_1(bpffs: &Bpffs) -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd, SocketCookie) {
    let dir = bpffs.rings().dir_of(OLD);
    fs::create_dir_all(&dir).expect("bpffs has directories");
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for (name, size) in [(TAPS_MAP, 16), (COUNTS_MAP, 16), (RING_MAP, 64 * 1024)] {
        loader.map_pin_path(name, dir.join(name)).map_max_entries(name, size);
    }
    let mut object = loader.load(OBJECT).expect("the maps are made");
    let program: &mut SocketFilter =
        object.program_mut(PROGRAM).expect("it is there").try_into().expect("it is");
    program.load().expect("the verifier takes it");
    program.pin(dir.join(PROGRAM)).expect("pinning");
    let (from, to) = pair();
    let cookie = Taps::cookie(to.as_fd()).expect("reading");
    program.attach(to.as_fd()).expect("attaching");
    set_option(to.as_fd(), libc::SO_LOCK_FILTER, &1_i32).expect("an own socket");
    let map = |name| aya::maps::Map::from_map_data(MapData::from_pin(dir.join(name)).expect("pinned"));
    let mut counts: HashMap<_, u64, [u64; 5]> =
        map(COUNTS_MAP).expect("a map").try_into().expect("a hash map");
    counts.insert(cookie.0, [0; size_of::<TapCounts>() / 8], 0).expect("room");
    let mut taps: HashMap<_, u64, u32> = map(TAPS_MAP).expect("a map").try_into().expect("a hash map");
    taps.insert(cookie.0, TAP_ARMED, 0).expect("room");
    (from, to, cookie)
}

#[test]
fn each_ring_has_its_own_taps_and_a_full_one_stalls_no_other() {
    let bpffs = Bpffs::mount();
    let rings = bpffs.rings();
    let places = [RingPlace::current(0), RingPlace::current(7)];
    let [mut first, mut second] = places.map(|place| rings.open_ring(place).expect("opening"));
    assert_eq!(rings.pinned().expect("listing"), places);
    assert_ne!(first.1.id(), second.1.id());
    let (from, to, cookie) = armed_pair(&mut first.0);
    let (other_from, other_to, other) = armed_pair(&mut second.0);
    assert!(first.0.has(cookie).expect("asking") && !second.0.has(cookie).expect("asking"));
    assert_eq!(second.0.cookies().expect("listing"), [other]);
    for number in 0..200 {
        put(&from, &message(number, 1000));
        take(&to);
    }
    assert!(counts(&first.0, cookie).tossed_full > 0);
    put(&other_from, b"beside it");
    assert_eq!(take(&other_to).as_deref(), Some(&b"beside it"[..]));
    assert_eq!(drain(&mut second.1), [(other, b"beside it".to_vec())]);
    second.0.freeze(other).expect("freezing");
    drain(&mut first.1);
    put(&from, b"room again");
    assert!(take(&to).is_some());
}

#[test]
fn a_ring_that_is_removed_is_pinned_no_more_and_the_others_stay() {
    let bpffs = Bpffs::mount();
    let rings = bpffs.rings();
    let (mut taps, ring) = rings.open_ring(RingPlace::current(0)).expect("opening");
    let other = rings.open_ring(RingPlace::current(1)).expect("opening");
    rings.remove(RingPlace::current(0)).expect("removing");
    assert_eq!(rings.pinned().expect("listing"), [RingPlace::current(1)]);
    let (from, to, _) = armed_pair(&mut taps);
    put(&from, b"usable until it is dropped");
    assert!(take(&to).is_some());
    let id = ring.id().clone();
    drop((taps, ring, other));
    let (_taps, ring) = rings.open_ring(RingPlace::current(0)).expect("making it anew");
    assert_ne!(ring.id(), &id);
    for place in [0, 1, 2] {
        rings.remove(RingPlace::current(place)).expect("removing, be it there or not");
    }
    assert_eq!(rings.pinned().expect("listing"), []);
    assert!(!rings.dir_of(RingPlace::current(0)).exists());
}

#[test]
fn every_ring_and_the_rings_themselves_keep_another_agent_out() {
    let bpffs = Bpffs::mount();
    let rings = bpffs.rings();
    assert!(matches!(bpffs.open_error(&bpffs.options()), TapError::InUse { .. }));
    let (taps, ring) = rings.open_ring(RingPlace::current(3)).expect("opening");
    drop((rings, taps));
    assert!(matches!(bpffs.open_error(&bpffs.options()), TapError::InUse { .. }), "one half is enough");
    drop(ring);
    bpffs.rings();
}

#[test]
fn an_older_versions_ring_is_found_drained_counted_frozen_and_removed() {
    let bpffs = Bpffs::mount();
    let (from, to, cookie) = armed_by_version_1(&bpffs);
    put(&from, b"before the upgrade");
    let rings = bpffs.rings();
    assert_eq!(rings.pinned().expect("listing"), [OLD]);
    let (mut taps, mut ring) = rings.open_ring(OLD).expect("opening");
    put(&from, b"behind it");
    for text in [&b"before the upgrade"[..], b"behind it"] {
        assert_eq!(take(&to).as_deref(), Some(text));
    }
    let drained = drain(&mut ring);
    assert_eq!(drained, [(cookie, b"before the upgrade".to_vec()), (cookie, b"behind it".to_vec())]);
    assert_eq!(taps.cookies().expect("listing"), [cookie]);
    assert_eq!(counts(&taps, cookie).captured, Count { records: 2, bytes: 27 });
    assert_eq!(taps.gap(cookie).expect("reading"), None);
    assert!(matches!(taps.set_state(cookie, TapState::Paused), Err(TapError::OlderAbi)));
    taps.freeze(cookie).expect("freezing");
    put(&from, b"too late");
    assert_eq!(take(&to), None);
    taps.remove(cookie).expect("removing");
    drop((taps, ring));
    rings.remove(OLD).expect("removing");
    assert_eq!(rings.pinned().expect("listing"), []);
    assert!(!rings.dir_of(OLD).exists());
}

#[test]
fn nothing_is_armed_in_an_older_versions_ring() {
    let bpffs = Bpffs::mount();
    let _old = armed_by_version_1(&bpffs);
    let rings = bpffs.rings();
    let (mut taps, _ring) = rings.open_ring(OLD).expect("opening");
    let (from, to) = pair();
    let error = taps.arm(to.as_fd(), TapState::Armed).expect_err("it is of an older version");
    assert_eq!(
        error.to_string(),
        "the session was begun under an older version of the agent; open a new one"
    );
    assert!(taps.take_log().expect("there is no program").is_none());
    put(&from, b"left alone");
    assert!(take(&to).is_some(), "nothing was done to the socket");
    let (mut taps, _ring) = rings.open_ring(RingPlace::current(0)).expect("opening");
    armed_pair(&mut taps);
}

#[test]
fn an_older_agent_at_work_keeps_this_one_out() {
    let bpffs = Bpffs::mount();
    let _old = armed_by_version_1(&bpffs);
    let dir = fs::File::open(bpffs.path().join("weir/1")).expect("it is there");
    dir.try_lock().expect("nobody has it");
    assert!(matches!(Rings::open(&bpffs.options()), Err(TapError::InUse { .. })));
    drop(dir);
    bpffs.rings();
}

#[test]
fn what_is_not_there_or_not_ours_is_refused() {
    let bpffs = Bpffs::mount();
    let rings = bpffs.rings();
    assert!(matches!(rings.open_ring(OLD), Err(TapError::Map { .. })), "it is not made");
    assert!(!rings.dir_of(OLD).exists());
    for abi in [0, 3] {
        let place = RingPlace { abi, ring: 0 };
        fs::create_dir_all(rings.dir_of(place)).expect("bpffs has directories");
        assert!(matches!(rings.open_ring(place), Err(TapError::UnknownAbi { .. })));
    }
    assert_eq!(rings.pinned().expect("listing"), []);
    drop(rings);
    let _old = armed_by_version_1(&bpffs);
    let dir = bpffs.path().join("weir/1");
    fs::remove_file(dir.join(COUNTS_MAP)).expect("pinned");
    HashMap::<MapData, u64, u64>::create(4, 0).expect("a map").pin(dir.join(COUNTS_MAP)).expect("pinning");
    let error = bpffs.rings().open_ring(OLD).err().expect("another layout");
    assert!(matches!(error, TapError::PinnedLayout { field: "value size", .. }), "{error}");
    open(&bpffs.options()).expect("the current version's place is free");
}
