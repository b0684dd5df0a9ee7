//! From a host name to a TCP connection: several addresses are tried beside each other (RFC 8305).

use std::{collections::VecDeque, io, net::SocketAddr};

use socket2::SockRef;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::error::Failure;
use crate::limits;

/// Resolves a name; an address is taken as it is.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = timeout(limits::RESOLVE_TIMEOUT, lookup_host((host, port)))
        .await
        .map_err(|_| Failure::Resolve(io::ErrorKind::TimedOut.into()))?
        .map_err(Failure::Resolve)?;
    let addresses = in_turn(found.take(limits::TARGET_ADDRESSES));
    if addresses.is_empty() {
        return Err(Failure::Resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

/// IPv6 and IPv4 in turn, IPv6 first, otherwise in the resolver's order (RFC 8305 section 4).
fn in_turn(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut turns = Vec::new();
    loop {
        let turn = [six.next(), four.next()];
        if turn.iter().all(Option::is_none) {
            return turns;
        }
        turns.extend(turn.into_iter().flatten());
    }
}

/// Connects to the first of these that answers. Each gets a head start over the next, unless it fails before.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut rest: VecDeque<_> = addresses.iter().copied().collect();
    let mut attempts = JoinSet::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = rest.pop_front() {
            attempts.spawn(async move { attempt(address).await.map_err(|error| (address, error)) });
        }
        let stagger = sleep(limits::ADDRESS_STAGGER);
        tokio::select! {
            biased;
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failure)) => failed.push(failure),
                Err(panic) => return Err(Failure::Tcp { tried: Vec::new(), source: io::Error::other(panic) }),
            },
            () = stagger, if !rest.is_empty() => {}
        }
        if rest.is_empty() && attempts.is_empty() {
            return Err(most_telling(failed));
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(limits::ADDRESS_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    // sshd sends two small packets before it sets TCP_NODELAY itself; a delayed ACK would cost 40 ms here.
    SockRef::from(&stream).set_tcp_quickack(true)?;
    Ok(stream)
}

/// The failure that says most: that nothing listens at one address beats that there is no way to another.
fn most_telling(mut failed: Vec<(SocketAddr, io::Error)>) -> Failure {
    let rank = |error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => 0,
        io::ErrorKind::TimedOut => 1,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => 2,
        _ => 3,
    };
    failed.sort_by_key(|(_, error)| rank(error));
    let tried = failed.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    match failed.into_iter().next() {
        Some((_, source)) => Failure::Tcp { tried, source },
        None => Failure::Tcp { tried, source: io::Error::new(io::ErrorKind::NotFound, "no address") },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        time::Duration,
    };

    use proptest::prelude::*;
    use socket2::{Domain, Socket, Type};
    use tokio::{net::TcpListener, time::Instant};

    use super::*;

    fn four(last: u8) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, last), 22).into()
    }

    fn six(last: u16) -> SocketAddr {
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 22).into()
    }

    #[test]
    fn families_take_turns_and_ipv6_begins() {
        let resolved = [four(1), four(2), four(3), six(1), six(2)];
        assert_eq!(in_turn(resolved.into_iter()), [six(1), four(1), six(2), four(2), four(3)]);
        assert_eq!(in_turn([four(1)].into_iter()), [four(1)]);
        assert!(in_turn(std::iter::empty()).is_empty());
    }

    proptest! {
        #[test]
        fn no_address_is_lost(resolved in prop::collection::vec((any::<bool>(), any::<u8>()), 0..20)) {
            let resolved: Vec<_> =
                resolved.into_iter().map(|(is_six, last)| if is_six { six(last.into()) } else { four(last) }).collect();
            let mut turns = in_turn(resolved.iter().copied());
            turns.sort_unstable();
            let mut expected = resolved;
            expected.sort_unstable();
            prop_assert_eq!(turns, expected);
        }
    }

    /// An address where SYNs are not answered: its listener's queue is full and nobody accepts.
    struct BlackHole {
        address: SocketAddr,
        _sockets: Vec<Socket>,
    }

    impl BlackHole {
        fn new() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bound");
            listener.listen(0).expect("listening");
            let address = listener.local_addr().expect("bound").as_socket().expect("IP");
            // A queue of length 0 holds one; the second one's SYN is dropped, as are all after it.
            let mut sockets = vec![listener];
            for _ in 0..2 {
                let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                filler.set_nonblocking(true).expect("set");
                let _ = filler.connect(&address.into());
                sockets.push(filler);
            }
            Self { address, _sockets: sockets }
        }
    }

    /// An address where nobody listens, and nobody else will while the socket is there.
    fn refusing() -> (SocketAddr, Socket) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bound");
        let address = socket.local_addr().expect("bound").as_socket().expect("IP");
        (address, socket)
    }

    /// Connects, and again if it takes this long, up to three times: a busy machine is late for once.
    async fn connected(addresses: &[SocketAddr], bound: Duration) -> (TcpStream, Duration) {
        let mut tries = 0;
        loop {
            tries += 1;
            let began = Instant::now();
            let stream = connect(addresses).await.expect("one is good");
            let took = began.elapsed();
            if took < bound || tries == 3 {
                return (stream, took);
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_delays_the_good_one_by_the_stagger_only() {
        let hole = BlackHole::new();
        let good = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let good = (good.local_addr().expect("bound"), good);
        let (refusing, bound) = (refusing(), limits::ADDRESS_STAGGER * 4);
        let (stream, took) = connected(&[hole.address, refusing.0, good.0], bound).await;
        assert_eq!(stream.peer_addr().expect("connected"), good.0);
        assert!(stream.nodelay().expect("readable"));
        assert!(took >= limits::ADDRESS_STAGGER && took < bound, "{took:?}");
    }

    #[tokio::test]
    async fn an_address_that_refuses_delays_nobody() {
        let good = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let refusing = refusing();
        let mut addresses = vec![refusing.0; 10];
        addresses.push(good.local_addr().expect("bound"));
        let (_, took) = connected(&addresses, limits::ADDRESS_STAGGER).await;
        assert!(took < limits::ADDRESS_STAGGER, "{took:?}");
    }

    #[tokio::test]
    async fn the_most_telling_failure_is_reported_and_all_are_listed() {
        let (refusing, _socket) = refusing();
        let failure = connect(&[refusing]).await.expect_err("refused");
        let Failure::Tcp { tried, source } = failure else { panic!("{failure}") };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        assert!(tried.len() == 1 && tried[0].starts_with(&refusing.to_string()), "{tried:?}");
    }

    #[tokio::test]
    async fn what_was_refused_says_more_than_what_has_no_route() {
        let failed = vec![
            (six(1), io::ErrorKind::NetworkUnreachable.into()),
            (four(1), io::ErrorKind::TimedOut.into()),
            (four(2), io::ErrorKind::ConnectionRefused.into()),
        ];
        let Failure::Tcp { tried, source } = most_telling(failed) else { panic!("a TCP failure") };
        assert_eq!((tried.len(), source.kind()), (3, io::ErrorKind::ConnectionRefused));
    }

    #[tokio::test]
    async fn an_address_resolves_to_itself_and_a_name_that_is_none_to_nothing() {
        assert_eq!(resolve("192.0.2.1", 22).await.expect("an address"), [four(1)]);
        assert_eq!(resolve("2001:db8::1", 22).await.expect("an address"), [six(1)]);
        assert!(matches!(resolve("name.invalid", 22).await, Err(Failure::Resolve(_))));
    }
}
