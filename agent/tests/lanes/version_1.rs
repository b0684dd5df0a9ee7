//! What an agent of ABI version 1 left: its ring, its taps, its spool.

use std::{collections::HashMap, os::fd::BorrowedFd, time::Duration};

use aya::{
    EbpfLoader,
    maps::{HashMap as KernelMap, Map, MapData},
    programs::SocketFilter,
};
use jiff::Timestamp;
use weir_agent::{
    clock,
    journal::Journal,
    ledger::StateEntry,
    spool::SpoolOptions,
    tap::{MIN_RING_BYTES, Rings, TapOptions, Taps},
};
use weir_common::{
    abi::{ABI_VERSION, COUNTS_MAP, PROGRAM, RING_MAP, TAP_ARMED, TAPS_MAP, TapCounts},
    control::Request,
    recording::Recorder,
    session::SocketCookie,
};

use super::*;

const OLD: RingPlace = RingPlace { abi: 1, ring: 0 };

/// The program as the agent embeds it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-tap"));

/// Pins what version 1 had, and arms these sockets with a program that writes it.
fn arm_as_version_1(node: &Node, sockets: [BorrowedFd<'_>; 2]) -> [SocketCookie; 2] {
    let dir = node.path("bpf/weir/1");
    fs::create_dir_all(&dir).expect("bpffs has directories");
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for (name, size) in [(TAPS_MAP, 16), (COUNTS_MAP, 16), (RING_MAP, MIN_RING_BYTES)] {
        loader.map_pin_path(name, dir.join(name)).map_max_entries(name, size);
    }
    let mut object = loader.load(OBJECT).expect("the maps are made");
    let program: &mut SocketFilter =
        object.program_mut(PROGRAM).expect("it is there").try_into().expect("it is");
    program.load().expect("the verifier takes it");
    program.pin(dir.join(PROGRAM)).expect("pinning");
    let map = |name| Map::from_map_data(MapData::from_pin(dir.join(name)).expect("pinned")).expect("a map");
    let mut counts: KernelMap<_, u64, [u64; 5]> = map(COUNTS_MAP).try_into().expect("a hash map");
    let mut taps: KernelMap<_, u64, u32> = map(TAPS_MAP).try_into().expect("a hash map");
    sockets.map(|socket| {
        let cookie = Taps::cookie(socket).expect("a socket");
        program.attach(socket).expect("attaching");
        counts.insert(cookie.0, [0; size_of::<TapCounts>() / 8], 0).expect("room");
        taps.insert(cookie.0, TAP_ARMED, 0).expect("room");
        cookie
    })
}

/// A spool in which version 1 says that it opened this session and armed this tap.
fn spool_of_version_1(node: &Node, meta: &SessionMeta, [client, target]: [SocketCookie; 2]) {
    let bpf_dir = node.path("bpf");
    let rings = Rings::open(&TapOptions { bpf_dir, ring_bytes: MIN_RING_BYTES, max_taps: 16 }).expect("free");
    let (_, ring) = rings.open_ring(OLD).expect("just pinned");
    let options =
        SpoolOptions { file_bytes: 1 << 20, max_bytes: 1 << 30, flush_interval: Duration::from_millis(1) };
    let mut journal = Journal::open(&spool(node, OLD), options).expect("a fresh spool");
    journal.adopt_ring(ring.id().clone(), ring.consumer_position()).expect("room");
    let recorder = Recorder { agent: "0".into(), abi: 1, node: "n".into(), kernel: "k".into() };
    let (session, channel) = (meta.session_id, ChannelNo(0));
    for change in [
        StateEntry::Opened {
            meta: Box::new(meta.clone()),
            clock: clock::now(),
            recorder,
            opened_at: Timestamp::now(),
        },
        StateEntry::Armed { session, channel, c2t: target, t2c: client },
    ] {
        journal.append(change).expect("in order");
    }
}

#[test]
fn a_session_of_version_1_comes_to_its_end_there_while_new_ones_begin_in_this_version() {
    let node = Node::new("");
    let meta = meta();
    let mut tap = Tap::pair();
    let cookies = arm_as_version_1(&node, tap.ends_as_fd());
    spool_of_version_1(&node, &meta, cookies);
    tap.pass(C2T, &Message::Open(ChannelType::Session));
    let agent = node.start();
    let control = Control::connect(&node.socket());
    let open = Request::Open { abi: 1, resume: true, meta: Box::new(meta.clone()) };
    assert_eq!(control.ask(&open, &[]), Some(Reply::Opened));
    tap.pass(T2C, &Message::OpenConfirm);
    let (new, new_control, new_tap) = begin(&node);
    let places: HashMap<_, _> =
        [OLD, RingPlace::current(0)].map(|place| (place.abi, knows(&node, place, new.session_id))).into();
    assert_eq!(places, HashMap::from([(1, false), (ABI_VERSION, true)]));
    let pair = Tap::pair();
    let refused = control.ask(&Request::Arm { channel: ChannelNo(1) }, &pair.descriptors());
    assert!(
        matches!(&refused, Some(Reply::Refused { reason }) if reason.contains("older version")),
        "{refused:?}"
    );
    let agent = {
        agent.kill();
        node.start()
    };
    drop(control);
    let control = resume(&node, &meta);
    for _ in 0..20 {
        tap.pass(T2C, &stdout(&"more than its ring has room for".repeat(200)));
    }
    finish(&node, &meta, &control, &tap);
    drop(control);
    agent.wait_for_log("the ring is removed");
    assert!(!spool(&node, OLD).exists() && !node.path("bpf/weir/1").exists());
    let new_control = {
        drop(new_control);
        resume(&node, &new)
    };
    finish(&node, &new, &new_control, &new_tap);
}
