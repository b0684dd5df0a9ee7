//! Ports that are named in a configuration before anybody listens on them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 that the system gives to nobody else while this is there.
///
/// It is bound and not listened on, so connections to it are refused until somebody listens there who sets
/// `SO_REUSEADDR`, as `ssh` and `sshd` do: Linux lets sockets with that option share an address of which only one
/// listens (socket(7)).
#[derive(Debug)]
pub struct Port {
    number: u16,
    _bound: Socket,
}

impl Port {
    /// Takes one that is free.
    ///
    /// # Errors
    /// If the interface is missing, or every port is taken.
    pub fn reserve() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket_ipv4();
        let number = address.ok_or_else(|| io::Error::other("an IPv4 socket without an address"))?.port();
        Ok(Self { number, _bound: socket })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
