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

#[cfg(test)]
mod tests {
    use weir_common::{
        frame::OpenFailure,
        recording::{Content, Event, What},
    };

    use super::*;
    use crate::{Analysis, Found, masking::Masking};

    const C2T: Direction = Direction::ClientToTarget;
    const T2C: Direction = Direction::TargetToClient;

    /// What these events amount to, which come at 1, 2, 3, … on one channel.
    fn forwards(events: Vec<(Direction, What)>) -> Vec<Forward> {
        let (mut found, mut analysis) = (Found::default(), Analysis::new(None, Masking::default()));
        for (t, (dir, what)) in (1..).zip(events) {
            let content = what.content().and_then(|content| content.bytes(&[])).unwrap_or_default().to_vec();
            let event = Event { t, dir, ch: ChannelNo(4), seq: t, len: 0, what };
            analysis.event(&event, &content, &mut found);
        }
        analysis.finish(&mut found);
        found.forwards
    }

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    fn tcp(host: &str, port: u32) -> TcpAddress {
        TcpAddress { host: host.to_owned(), port }
    }

    fn local(host: &str) -> ChannelType {
        let originator = Originator { address: "127.0.0.1".to_owned(), port: 50_000 };
        ChannelType::DirectTcpip { to: tcp(host, 5432), originator }
    }

    #[test]
    fn a_connection_is_told_with_its_ends_its_bytes_and_its_time() {
        let found = forwards(vec![
            (C2T, What::Open { channel: local("db") }),
            (T2C, What::OpenConfirm),
            (C2T, What::Stdin(text("question"))),
            (T2C, What::Stdout(text("an answer"))),
            (T2C, What::Stdout(Content::Bulk { at: 0, bytes: 1000 })),
            (C2T, What::Close),
            (T2C, What::Close),
        ]);
        let [forward] = &found[..] else { panic!("one connection, not {}", found.len()) };
        let expected = Forward {
            n: 1,
            ch: ChannelNo(4),
            span: Span { t: 1, t_end: Some(7), started_at: None, ended_at: None },
            kind: ForwardKind::Local,
            from: Some("127.0.0.1:50000".to_owned()),
            to: "db:5432".to_owned(),
            refused: None,
            sent: 8,
            received: 1009,
        };
        assert_eq!(forward, &expected);
    }

    #[test]
    fn a_connection_that_was_refused_says_why_and_one_that_never_ended_has_no_end() {
        let description = "connect failed: Connection refused".to_owned();
        let found = forwards(vec![
            (C2T, What::Open { channel: local("::1") }),
            (T2C, What::OpenFailure(OpenFailure { code: 2, description: description.clone() })),
        ]);
        assert_eq!((found[0].refused.as_ref(), &found[0].to[..]), (Some(&description), "[::1]:5432"));
        assert_eq!((found[0].span.t_end, found[0].sent), (Some(2), 0));

        let found = forwards(vec![
            (C2T, What::Open { channel: local("db") }),
            (C2T, What::Stdin(text("x"))),
            (C2T, What::Close),
        ]);
        assert_eq!((found[0].span.t_end, found[0].sent, &found[0].refused), (None, 1, &None));
    }

    #[test]
    fn every_kind_of_channel_says_where_it_goes() {
        let originator = Originator { address: "fe80::1".to_owned(), port: 7 };
        let path = "/run/x.sock".to_owned();
        let from = Some("[fe80::1]:7");
        for (channel, expected) in [
            (ChannelType::Session, None),
            (ChannelType::Connection, None),
            (
                ChannelType::DirectStreamlocal { path: path.clone() },
                Some((ForwardKind::LocalSocket, None, "/run/x.sock")),
            ),
            (
                ChannelType::ForwardedTcpip { listening: tcp("0.0.0.0", 80), originator: originator.clone() },
                Some((ForwardKind::Remote, from, "0.0.0.0:80")),
            ),
            (
                ChannelType::ForwardedStreamlocal { path },
                Some((ForwardKind::RemoteSocket, None, "/run/x.sock")),
            ),
            (ChannelType::Agent, Some((ForwardKind::Agent, None, "the client's agent"))),
            (ChannelType::X11 { originator }, Some((ForwardKind::X11, from, "the client's display"))),
        ] {
            let dir = channel.direction();
            let found = forwards(vec![(dir, What::Open { channel }), (C2T, What::Close), (T2C, What::Close)]);
            let told = found.first().map(|forward| (forward.kind, forward.from.as_deref(), &forward.to[..]));
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_name_of_any_length_is_cut() {
        let found = forwards(vec![(C2T, What::Open { channel: local(&"ä".repeat(50_000)) })]);
        assert!(found[0].to.ends_with('…') && found[0].to.len() <= PATH_BYTES_MAX + '…'.len_utf8());
    }
}
