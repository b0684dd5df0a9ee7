//! Forwarded connections: from where to where, how much, how long.

use weir_common::{
    frame::{ChannelType, Direction, Originator, TcpAddress},
    recording::findings::{Forward, ForwardKind, PATH_BYTES_MAX, Span},
    session::ChannelNo,
};

use crate::{At, text::bounded};

/// A channel that carries somebody else's connection.
pub(crate) struct Forwarded {
    kind: ForwardKind,
    from: Option<String>,
    to: String,
    refused: Option<String>,
    t: u64,
    sent: u64,
    received: u64,
}

impl Forwarded {
    /// `None` for a channel that is a session's own.
    pub(crate) fn new(channel: &ChannelType, at: At) -> Option<Self> {
        let (kind, from, to) = match channel {
            ChannelType::Session | ChannelType::Connection => return None,
            ChannelType::DirectTcpip { to, originator } => {
                (ForwardKind::Local, Some(origin(originator)), address(to))
            }
            ChannelType::DirectStreamlocal { path } => (ForwardKind::LocalSocket, None, path.clone()),
            ChannelType::ForwardedTcpip { listening, originator } => {
                (ForwardKind::Remote, Some(origin(originator)), address(listening))
            }
            ChannelType::ForwardedStreamlocal { path } => (ForwardKind::RemoteSocket, None, path.clone()),
            ChannelType::Agent => (ForwardKind::Agent, None, "the client's agent".to_owned()),
            ChannelType::X11 { originator } => {
                (ForwardKind::X11, Some(origin(originator)), "the client's display".to_owned())
            }
        };
        let to = bounded(to, PATH_BYTES_MAX);
        Some(Self {
            kind,
            from: from.map(|from| bounded(from, PATH_BYTES_MAX)),
            to,
            refused: None,
            t: at.t,
            sent: 0,
            received: 0,
        })
    }

    pub(crate) fn refused(&mut self, why: &str) {
        self.refused = Some(bounded(why.to_owned(), PATH_BYTES_MAX));
    }

    pub(crate) fn count(&mut self, direction: Direction, bytes: u64) {
        let count = match direction {
            Direction::ClientToTarget => &mut self.sent,
            Direction::TargetToClient => &mut self.received,
        };
        *count = count.saturating_add(bytes);
    }

    pub(crate) fn finding(self, ch: ChannelNo, end: Option<At>) -> Forward {
        let Self { kind, from, to, refused, t, sent, received } = self;
        let span = Span { t, t_end: end.map(|at| at.t), started_at: None, ended_at: None };
        Forward { n: 0, ch, span, kind, from, to, refused, sent, received }
    }
}

fn address(TcpAddress { host, port }: &TcpAddress) -> String {
    join(host, *port)
}

fn origin(Originator { address, port }: &Originator) -> String {
    join(address, *port)
}

fn join(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
