//! The gate in front of in-memory pipes and real sockets.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, duplex},
    net::TcpStream,
    time::timeout,
};

use super::*;

impl Connection for tokio::io::DuplexStream {
    fn quick_ack(&self) {}

    fn is_hung_up(&self) -> bool {
        false
    }

    fn unread_bytes(&self) -> usize {
        0
    }
}

async fn is_readable(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut byte = [0];
    tokio::select! {
        biased;
        read = stream.read(&mut byte) => read.expect("the pipe is whole") == 1,
        () = tokio::task::yield_now() => false,
    }
}

async fn gated() -> (tokio::io::DuplexStream, GatedStream<tokio::io::DuplexStream>, Arc<Gate>) {
    let (mut peer, ours) = duplex(1024);
    peer.write_all(&[7; 512]).await.expect("the pipe has room");
    let gate = Gate::new();
    (peer, GatedStream::new(ours, gate.clone()), gate)
}

async fn connection() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    (peer, listener.accept().await.expect("connected").0)
}

#[tokio::test]
async fn a_little_that_arrives_behind_a_shut_gate_is_read_by_who_seeks_it_and_much_is_not() {
    let (mut peer, ours) = connection().await;
    let gate = Gate::new();
    gate.hold(limits::HELD_BYTES).expect("under the maximum");
    let mut stream = GatedStream::new(ours, gate.clone());
    assert!(!is_readable(&mut stream).await);
    let seeking = tokio::spawn(async move { gate.seek().await });
    peer.write_all(b"I take data again").await.expect("sent");
    let mut message = [0; 17];
    let read = timeout(Duration::from_secs(30), stream.read_exact(&mut message)).await;
    read.expect("soon").expect("it is whole");
    assert_eq!(&message, b"I take data again");
    seeking.abort();

    peer.write_all(&[0; 3 * limits::NEWS_BYTES]).await.expect("sent");
    let arrived = async {
        while crate::ioctl::unread_bytes(&stream.inner).expect("a socket") < 3 * limits::NEWS_BYTES {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), arrived).await.expect("on loopback");
    assert!(!is_readable(&mut stream).await);
}

#[tokio::test]
async fn a_full_gate_stops_reading_until_enough_is_taken() {
    let (_peer, mut stream, gate) = gated().await;
    assert!(is_readable(&mut stream).await);
    gate.hold(limits::HELD_BYTES).expect("under the maximum");
    assert!(!is_readable(&mut stream).await);
    gate.release(1);
    assert!(is_readable(&mut stream).await);
}

#[tokio::test]
async fn a_probe_opens_a_full_gate_for_a_bounded_number_of_bytes() {
    let (_peer, mut stream, gate) = gated().await;
    gate.hold(limits::HELD_BYTES).expect("under the maximum");
    assert!(gate.probe());
    assert!(is_readable(&mut stream).await);
    assert!(!gate.probe(), "it is open already");
    gate.hold(limits::PROBE_BYTES).expect("under the maximum");
    assert!(!is_readable(&mut stream).await);
}

#[tokio::test]
async fn a_bypass_keeps_a_full_gate_open_until_it_is_dropped() {
    let (_peer, mut stream, gate) = gated().await;
    gate.hold(limits::HELD_BYTES).expect("under the maximum");
    let bypass = gate.bypass();
    assert!(is_readable(&mut stream).await);
    drop(bypass);
    assert!(!is_readable(&mut stream).await);
}

#[tokio::test]
async fn a_severed_connection_fails_to_read_and_to_write() {
    let (_peer, mut stream, gate) = gated().await;
    gate.sever();
    assert!(stream.read_u8().await.is_err());
    assert!(stream.write_u8(1).await.is_err());
}

#[tokio::test]
async fn a_peer_that_has_hung_up_is_read_to_its_end_although_the_gate_is_shut() {
    let (mut peer, ours) = connection().await;
    let gate = Gate::new();
    gate.hold(limits::HELD_BYTES).expect("under the maximum");
    let end = End::default();
    tend(&gate, &end);
    let mut stream = GatedStream::new(ours, gate);
    let last_words = vec![7; 3 * limits::NEWS_BYTES];
    peer.write_all(&last_words).await.expect("sent");
    assert!(!is_readable(&mut stream).await);
    drop(peer);
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.expect("to the end");
    assert_eq!(read, last_words);
    end.done();
}

#[test]
fn holding_more_than_any_session_may_is_an_overflow() {
    let gate = Gate::new();
    assert_eq!(gate.hold(limits::HELD_BYTES_MAX), Ok(()));
    assert_eq!(gate.hold(1), Err(Overflow));
}
