//! The proxy's side of the control socket and of the taps, blocking.

use std::{
    io::IoSlice,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
            setsockopt, shutdown, socket, socketpair, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};
use weir_common::{
    abi::ABI_VERSION,
    control::{self, MAX_MESSAGE, Reply, Request},
    frame::{Direction, Header, Message},
    session::{
        CapturePolicy, ChannelNo, Integration, Outcome, Permission, Proof, Resource, SessionId, SessionMeta,
    },
};

use super::PATIENCE;

pub(crate) fn meta() -> SessionMeta {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    SessionMeta {
        session_id: SessionId::generate(),
        user: "ada@example.com".into(),
        grant_id: format!("g-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        request_id: "REQ-1".into(),
        approvers: vec!["grace@example.com".into()],
        access_flow: "on-call".into(),
        resource: Resource {
            name: "web-1".into(),
            integration: Integration::Ssh,
            host: "192.0.2.7".into(),
            port: 22,
        },
        target_login: "deploy".into(),
        permissions: vec![Permission::Shell],
        proof: Proof::PublicKey { fingerprint: "SHA256:user".into() },
        client_address: ([192, 0, 2, 1], 40_000).into(),
        client_version: "SSH-2.0-OpenSSH_9.2".into(),
        expires_at: "2030-01-01T00:00:00Z".parse().expect("a time"),
        capture_policy: CapturePolicy::FailClosed,
        record_file_content: true,
    }
}

/// A control connection.
pub(crate) struct Control(OwnedFd);

impl Control {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::try_connect(path).expect("the agent listens")
    }

    /// A connection, if an agent listens.
    pub(crate) fn try_connect(path: &Path) -> Option<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
        connect(fd.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).ok()?;
        patient(&fd);
        Some(Self(fd))
    }

    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[RawFd]) -> Result<(), Errno> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() { &rights[..0] } else { &rights };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)
            .map(drop)
    }

    /// The next reply; `None` where the agent has ended the connection.
    pub(crate) fn receive(&self) -> Option<Reply> {
        let mut bytes = vec![0; MAX_MESSAGE];
        match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) | Err(Errno::ECONNRESET | Errno::EPIPE) => None,
            Ok(len) => Some(control::decode(&bytes[..len]).expect("a reply")),
            Err(errno) => panic!("no reply: {errno}"),
        }
    }

    pub(crate) fn ask(&self, request: &Request, descriptors: &[RawFd]) -> Option<Reply> {
        match self.send(&control::encode(request).expect("short"), descriptors) {
            // Refused before it could ask: the reply says why.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => self.receive(),
            Err(errno) => panic!("cannot ask: {errno}"),
        }
    }

    pub(crate) fn open(&self, meta: &SessionMeta, resume: bool) -> Option<Reply> {
        self.ask(&Request::Open { abi: ABI_VERSION, resume, meta: Box::new(meta.clone()) }, &[])
    }

    pub(crate) fn arm(&self, channel: u32) -> Tap {
        let tap = Tap::pair();
        let armed = self.ask(&Request::Arm { channel: ChannelNo(channel) }, &tap.descriptors());
        assert_eq!(armed, Some(Reply::Armed { channel: ChannelNo(channel) }));
        tap
    }

    pub(crate) fn disarm(&self, channel: u32) -> Option<Reply> {
        self.ask(&Request::Disarm { channel: ChannelNo(channel) }, &[])
    }

    pub(crate) fn close(&self, outcome: Outcome) -> Option<Reply> {
        self.ask(&Request::Close { outcome }, &[])
    }

    /// Ends the connection as a proxy that dies.
    pub(crate) fn drop_connection(self) {
        let _ = shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// A tap's two ends and the sender's state of both directions.
pub(crate) struct Tap {
    client: OwnedFd,
    target: OwnedFd,
    sent: [Vec<Vec<u8>>; 2],
}

impl Tap {
    pub(crate) fn pair() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (client, target) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a socket pair");
        patient(&client);
        patient(&target);
        Self { client, target, sent: [Vec::new(), Vec::new()] }
    }

    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.client.as_raw_fd(), self.target.as_raw_fd()]
    }

    /// The client end and the target end.
    pub(crate) fn ends_as_fd(&self) -> [BorrowedFd<'_>; 2] {
        [self.client.as_fd(), self.target.as_fd()]
    }

    fn ends(&self, direction: Direction) -> (&OwnedFd, &OwnedFd) {
        match direction {
            Direction::ClientToTarget => (&self.client, &self.target),
            Direction::TargetToClient => (&self.target, &self.client),
        }
    }

    /// Sends these bytes whatever they are.
    pub(crate) fn send_raw(&self, direction: Direction, bytes: &[u8]) {
        let (from, _) = self.ends(direction);
        nix::unistd::write(from, bytes).expect("below the window");
    }

    /// What the receiving end gets; `None` if the kernel tossed it.
    pub(crate) fn receive_raw(&self, direction: Direction) -> Option<Vec<u8>> {
        let (_, to) = self.ends(direction);
        let mut bytes = vec![0; 40_000];
        match recv(to.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => Some(bytes[..len].to_vec()),
            Err(Errno::EAGAIN) => None,
            Err(errno) => panic!("cannot receive: {errno}"),
        }
    }

    /// Sends the next frame and says whether it came through; if not, it is to be sent again.
    pub(crate) fn try_pass(&mut self, direction: Direction, message: Message) -> bool {
        let bytes = frame(message, self.sent(direction).len() as u64);
        self.send_raw(direction, &bytes);
        match self.receive_raw(direction) {
            Some(received) => {
                assert!(received == bytes, "another frame came out than went in");
                self.sent[direction as usize].push(bytes);
                true
            }
            None => false,
        }
    }

    /// Sends the next frame until it comes through.
    pub(crate) fn pass(&mut self, direction: Direction, message: &Message) {
        super::wait_until("a frame comes through", || self.try_pass(direction, message.clone()));
    }

    /// Every frame that came through.
    pub(crate) fn sent(&self, direction: Direction) -> &[Vec<u8>] {
        &self.sent[direction as usize]
    }
}

pub(crate) fn frame(message: Message, seq: u64) -> Vec<u8> {
    let kind = message.kind();
    let body = message.into_body().expect("short");
    let len = u32::try_from(body.len()).expect("short");
    [&Header { kind, len, seq }.to_bytes()[..], &body].concat()
}

pub(crate) fn stdin(text: &str) -> Message {
    Message::Stdin(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn stdout(text: &str) -> Message {
    Message::Stdout(Bytes::copy_from_slice(text.as_bytes()))
}

fn patient(fd: &OwnedFd) {
    let timeout = TimeVal::seconds(i64::try_from(PATIENCE.as_secs()).expect("short"));
    setsockopt(fd, sockopt::ReceiveTimeout, &timeout).expect("a socket option");
}
