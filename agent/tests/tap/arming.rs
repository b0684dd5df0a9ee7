//! What a socket passes before, while and after it is armed.

use std::{
    fs::File,
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixDatagram, UnixStream},
    },
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use weir_agent::tap::{TapError, TapOptions, TapState, Taps};
use weir_common::recording::Count;

use crate::support::{Bpffs, armed_pair, counts, drain, message, open, pair, put, set_option, take};

#[test]
fn a_socket_with_the_filter_but_no_entry_passes_nothing() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    taps.remove(cookie).expect("removing");
    for number in 0..20 {
        put(&from, &message(number, 100));
    }
    assert_eq!(take(&to), None);
    assert_eq!(drain(&mut ring), []);
    assert_eq!(taps.counts(cookie).expect("reading"), None);
    taps.remove(cookie).expect("removing what is gone is fine");
}

#[test]
fn each_end_is_armed_by_itself_and_has_the_cookie_that_its_records_carry() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (a, b) = pair();
    let (cookie_a, cookie_b) = (
        taps.arm(a.as_fd(), TapState::Armed).expect("arming"),
        taps.arm(b.as_fd(), TapState::Armed).expect("arming"),
    );
    assert_eq!(Taps::cookie(a.as_fd()).expect("reading"), cookie_a);
    assert_ne!(cookie_a, cookie_b);
    put(&a, b"to b");
    put(&b, b"to a");
    assert_eq!(drain(&mut ring), [(cookie_b, b"to b".to_vec()), (cookie_a, b"to a".to_vec())]);
    let mut cookies = taps.cookies().expect("listing");
    cookies.sort();
    let mut expected = [cookie_a, cookie_b];
    expected.sort();
    assert_eq!(cookies, expected);
}

#[test]
fn the_owner_can_neither_detach_nor_replace_nor_unlock_the_filter() {
    let bpffs = Bpffs::mount();
    let (mut taps, _ring) = bpffs.open();
    let (_from, to, _) = armed_pair(&mut taps);
    let mut pass_all = libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut pass_all };
    let refused = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("it must fail").raw_os_error(), Some(libc::EPERM));
    };
    refused(set_option(to.as_fd(), libc::SO_DETACH_FILTER, &0_i32));
    refused(set_option(to.as_fd(), libc::SO_ATTACH_FILTER, &program));
    refused(set_option(to.as_fd(), libc::SO_LOCK_FILTER, &0_i32));
    // The same call does work on a socket that is not armed.
    let (other, _) = pair();
    set_option(other.as_fd(), libc::SO_ATTACH_FILTER, &program).expect("attaching to an own socket");
}

#[test]
fn freezing_stops_the_next_message_and_counts_what_it_tossed() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    put(&from, b"before");
    taps.freeze(cookie).expect("freezing");
    put(&from, b"after");
    put(&from, b"and again");
    assert_eq!(take(&to).as_deref(), Some(&b"before"[..]));
    assert_eq!(take(&to), None);
    assert_eq!(drain(&mut ring), [(cookie, b"before".to_vec())]);
    let counts = counts(&taps, cookie);
    assert_eq!((counts.captured, counts.tossed_frozen), (Count { records: 1, bytes: 6 }, 2));
    taps.freeze(cookie).expect("freezing twice is fine");
    taps.remove(cookie).expect("removing");
    assert!(matches!(taps.freeze(cookie), Err(TapError::UnknownTap { .. })));
}

#[test]
fn anything_but_a_seqpacket_socket_of_the_unix_family_is_refused_and_left_alone() {
    let bpffs = Bpffs::mount();
    let (mut taps, _ring) = bpffs.open();
    let (stream, _peer) = UnixStream::pair().expect("a pair");
    let (datagram, _peer) = UnixDatagram::pair().expect("a pair");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let file = File::open("/dev/null").expect("a file");
    for fd in [stream.as_fd(), datagram.as_fd(), udp.as_fd(), tcp.as_fd(), file.as_fd()] {
        assert!(
            matches!(taps.arm(fd, TapState::Armed), Err(TapError::NotATapSocket { .. })),
            "descriptor {}",
            fd.as_raw_fd()
        );
        assert!(matches!(Taps::cookie(fd), Err(TapError::NotATapSocket { .. })));
    }
    assert_eq!(taps.cookies().expect("listing"), []);
    stream.set_nonblocking(true).expect("an own socket");
}

#[test]
fn a_socket_is_armed_once_and_the_second_try_changes_nothing() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    put(&from, b"one");
    assert!(matches!(taps.arm(to.as_fd(), TapState::Armed), Err(TapError::Locked)));
    put(&from, b"two");
    assert_eq!(drain(&mut ring), [(cookie, b"one".to_vec()), (cookie, b"two".to_vec())]);
    assert_eq!(counts(&taps, cookie).captured, Count { records: 2, bytes: 6 });
}

#[test]
fn a_socket_with_something_queued_is_refused_and_passes_nothing_more() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to) = pair();
    put(&from, b"unrecorded");
    assert!(matches!(taps.arm(to.as_fd(), TapState::Armed), Err(TapError::NotEmpty { bytes: 10 })));
    put(&from, b"more");
    assert_eq!(take(&to).as_deref(), Some(&b"unrecorded"[..]));
    assert_eq!(take(&to), None);
    assert_eq!((taps.cookies().expect("listing"), drain(&mut ring)), (vec![], vec![]));
}

#[test]
fn one_tap_too_many_is_a_clear_error_and_its_socket_passes_nothing() {
    let bpffs = Bpffs::mount();
    let (mut taps, _ring) = open(&TapOptions { max_taps: 2, ..bpffs.options() }).expect("opening");
    let kept = [armed_pair(&mut taps), armed_pair(&mut taps)];
    let (from, to) = pair();
    let error = taps.arm(to.as_fd(), TapState::Armed).expect_err("there is room for two");
    assert_eq!(error.to_string(), "all 2 taps are in use");
    put(&from, b"secret");
    assert_eq!(take(&to), None);
    assert_eq!(taps.counts(Taps::cookie(to.as_fd()).expect("reading")).expect("reading"), None);
    for (from, to, _) in &kept {
        put(from, b"as before");
        assert_eq!(take(to).as_deref(), Some(&b"as before"[..]));
    }
    taps.remove(kept[0].2).expect("removing");
    armed_pair(&mut taps);
}

#[test]
fn a_socket_whose_peer_is_gone_can_be_armed() {
    let bpffs = Bpffs::mount();
    let (mut taps, _ring) = bpffs.open();
    let (from, to) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::empty()).expect("a pair");
    drop(from);
    taps.arm(to.as_fd(), TapState::Armed).expect("arming");
}
