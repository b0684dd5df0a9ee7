//! What a grant lets a session do: a pure, table-driven function of rights and request.
//!
//! Nothing here does I/O or knows time. What is refused is refused before it becomes a frame, so it reaches neither
//! the tap nor the target. Which side may say what on which channel is the acceptance rule's business
//! ([`weir_common::frame::Inbound`]); here it is only asked whether the grant permits it.

use std::{fmt, str::FromStr};

use weir_common::{
    frame::{ChannelType, Message},
    session::Permission,
};

/// Whether a request may go to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not, and who asked is told so.
    Refuse,
}

impl From<bool> for Decision {
    fn from(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Refuse }
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// What a grant allows that does not say: a shell, commands and subsystems, no forwarding.
    #[must_use]
    pub fn usual() -> Self {
        [Permission::Shell, Permission::Exec, Permission::Subsystem].into_iter().collect()
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }

    /// With this one.
    #[must_use]
    pub fn with(self, permission: Permission) -> Self {
        Self(self.0 | bit(permission))
    }

    /// Without this one.
    #[must_use]
    pub fn without(self, permission: Permission) -> Self {
        Self(self.0 & !bit(permission))
    }

    /// Those that are in `self` and not in `others`.
    pub fn beyond(self, others: Self) -> impl Iterator<Item = Permission> {
        Self(self.0 & !others.0).iter()
    }

    /// Each of them, in the order of [`ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        ALL.into_iter().filter(move |&permission| self.contains(permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        permissions.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Every permission there is.
pub const ALL: [Permission; 7] = [
    Permission::Shell,
    Permission::Exec,
    Permission::Subsystem,
    Permission::LocalForward,
    Permission::RemoteForward,
    Permission::AgentForward,
    Permission::X11Forward,
];

fn bit(permission: Permission) -> u8 {
    match permission {
        Permission::Shell => 1,
        Permission::Exec => 1 << 1,
        Permission::Subsystem => 1 << 2,
        Permission::LocalForward => 1 << 3,
        Permission::RemoteForward => 1 << 4,
        Permission::AgentForward => 1 << 5,
        Permission::X11Forward => 1 << 6,
    }
}

/// How a permission is named to people, after "permits no".
#[must_use]
pub fn named(permission: Permission) -> &'static str {
    match permission {
        Permission::Shell => "shell",
        Permission::Exec => "commands",
        Permission::Subsystem => "subsystems",
        Permission::LocalForward => "local forwarding",
        Permission::RemoteForward => "remote forwarding",
        Permission::AgentForward => "agent forwarding",
        Permission::X11Forward => "X11 forwarding",
    }
}

/// Everything that decides about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// What the grant permits, less what the certificate takes away.
    pub permissions: Permissions,
    /// Whether a terminal may be asked for.
    pub pty: bool,
    /// Where local forwarding may lead; `None` for anywhere.
    pub permit_open: Option<Vec<Endpoint>>,
    /// Where remote forwarding may listen; `None` for anywhere.
    pub permit_listen: Option<Vec<Endpoint>>,
}

impl Rights {
    /// These permissions without further restriction.
    #[must_use]
    pub fn new(permissions: Permissions) -> Self {
        Self { permissions, pty: true, permit_open: None, permit_listen: None }
    }

    /// Nothing at all.
    #[must_use]
    pub fn none() -> Self {
        Self { pty: false, ..Self::new(Permissions::default()) }
    }
}

/// Where forwarding may lead or listen, as in `sshd_config`'s `PermitOpen` and `PermitListen`: `host:port`, `[v6]:port`,
/// with `*` for any host or any port; a bare port for any host; an absolute path for a Unix socket.
///
/// Names are compared as they are written, without looking them up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address; `None` stands for any.
    Tcp {
        /// The host.
        host: Option<String>,
        /// The port.
        port: Option<u16>,
    },
    /// A Unix socket.
    Unix {
        /// Its absolute path.
        path: String,
    },
}

/// Not the form of an [`Endpoint`].
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not where forwarding may lead: expected \"host:port\", \"[v6]:port\", \"*:port\", \"host:*\" or \"/path\""
)]
pub struct EndpointError {
    text: String,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError { text: text.to_owned() };
        if text.starts_with('/') {
            return Ok(Self::Unix { path: text.to_owned() });
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("*", text));
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let number = || port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong);
        let port = if port == "*" { None } else { Some(number()?) };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Self::Tcp { host: (host != "*").then(|| host.to_owned()), port })
    }
}

impl Endpoint {
    fn covers_tcp(&self, host: &str, port: u32) -> bool {
        match self {
            Self::Tcp { host: own_host, port: own_port } => {
                own_host.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(host))
                    && own_port.is_none_or(|own| u32::from(own) == port)
            }
            Self::Unix { .. } => false,
        }
    }

    fn covers_unix(&self, path: &str) -> bool {
        matches!(self, Self::Unix { path: own } if own == path)
    }
}

fn covered(by: Option<&[Endpoint]>, covers: impl Fn(&Endpoint) -> bool) -> bool {
    by.is_none_or(|endpoints| endpoints.iter().any(covers))
}

/// Environment variables that may be set, as OpenSSH's `AcceptEnv LANG LC_*` on Debian: enough for a correct
/// terminal, nothing that changes which code runs.
#[must_use]
pub fn env(name: &str) -> Decision {
    let locale = name.strip_prefix("LC_").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    Decision::from(name == "LANG" || locale)
}

/// The permission that a request needs, if it needs one.
#[must_use]
pub fn needs(message: &Message) -> Option<Permission> {
    match message {
        Message::Shell => Some(Permission::Shell),
        Message::Exec(_) => Some(Permission::Exec),
        Message::Subsystem(_) => Some(Permission::Subsystem),
        Message::AgentForward => Some(Permission::AgentForward),
        Message::X11(_) => Some(Permission::X11Forward),
        Message::TcpipForward(_) | Message::StreamlocalForward(_) => Some(Permission::RemoteForward),
        Message::Open(channel) => match channel {
            ChannelType::Session | ChannelType::Connection => None,
            ChannelType::DirectTcpip { .. } | ChannelType::DirectStreamlocal { .. } => {
                Some(Permission::LocalForward)
            }
            ChannelType::ForwardedTcpip { .. } | ChannelType::ForwardedStreamlocal { .. } => {
                Some(Permission::RemoteForward)
            }
            ChannelType::Agent => Some(Permission::AgentForward),
            ChannelType::X11 { .. } => Some(Permission::X11Forward),
        },
        Message::OpenConfirm
        | Message::OpenFailure(_)
        | Message::Stdin(_)
        | Message::Stdout(_)
        | Message::Stderr(_)
        | Message::Eof
        | Message::Close
        | Message::Pty(_)
        | Message::Env(_)
        | Message::WindowChange(_)
        | Message::Signal(_)
        // What ends a forward is never refused.
        | Message::CancelTcpipForward(_)
        | Message::CancelStreamlocalForward(_)
        | Message::Success
        | Message::Failure
        | Message::PortBound(_)
        | Message::ExitStatus(_)
        | Message::ExitSignal(_) => None,
    }
}

/// Decides about a message of either side: a channel, a request on a channel, a request of the connection.
#[must_use]
pub fn decide(message: &Message, rights: &Rights) -> Decision {
    if needs(message).is_some_and(|permission| !rights.permissions.contains(permission)) {
        return Decision::Refuse;
    }
    let (open, listen) = (rights.permit_open.as_deref(), rights.permit_listen.as_deref());
    Decision::from(match message {
        Message::Pty(_) => rights.pty,
        Message::Env(fields) => return env(&fields.name),
        Message::Open(ChannelType::DirectTcpip { to, originator: _ }) => {
            covered(open, |endpoint| endpoint.covers_tcp(&to.host, to.port))
        }
        Message::Open(ChannelType::DirectStreamlocal { path }) => {
            covered(open, |endpoint| endpoint.covers_unix(path))
        }
        Message::TcpipForward(at) => covered(listen, |endpoint| endpoint.covers_tcp(&at.host, at.port)),
        Message::StreamlocalForward(path) => covered(listen, |endpoint| endpoint.covers_unix(path)),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::frame::{Env, Originator, Pty, TcpAddress, X11Request};

    use super::*;

    fn originator() -> Originator {
        Originator { address: "127.0.0.1".to_owned(), port: 40_000 }
    }

    fn address(host: &str, port: u32) -> TcpAddress {
        TcpAddress { host: host.to_owned(), port }
    }

    fn direct(host: &str, port: u32) -> Message {
        Message::Open(ChannelType::DirectTcpip { to: address(host, port), originator: originator() })
    }

    fn x11() -> Message {
        let (auth_protocol, auth_cookie) = ("MIT-MAGIC-COOKIE-1".to_owned(), "00".to_owned());
        Message::X11(X11Request { single_connection: false, auth_protocol, auth_cookie, screen: 0 })
    }

    fn pty() -> Message {
        Message::Pty(Pty { term: "xterm".into(), size: Default::default(), modes: Vec::new() })
    }

    #[test]
    fn each_request_needs_its_permission_and_no_other() {
        let table = [
            (Message::Shell, Permission::Shell),
            (Message::Exec(b"id".to_vec()), Permission::Exec),
            (Message::Subsystem("sftp".into()), Permission::Subsystem),
            (direct("db", 5432), Permission::LocalForward),
            (
                Message::Open(ChannelType::DirectStreamlocal { path: "/run/db".into() }),
                Permission::LocalForward,
            ),
            (Message::TcpipForward(address("", 8080)), Permission::RemoteForward),
            (Message::StreamlocalForward("/tmp/s".into()), Permission::RemoteForward),
            (
                Message::Open(ChannelType::ForwardedTcpip {
                    listening: address("", 8080),
                    originator: originator(),
                }),
                Permission::RemoteForward,
            ),
            (
                Message::Open(ChannelType::ForwardedStreamlocal { path: "/tmp/s".into() }),
                Permission::RemoteForward,
            ),
            (Message::AgentForward, Permission::AgentForward),
            (Message::Open(ChannelType::Agent), Permission::AgentForward),
            (x11(), Permission::X11Forward),
            (Message::Open(ChannelType::X11 { originator: originator() }), Permission::X11Forward),
        ];
        for (message, needed) in table {
            let only = Rights::new([needed].into_iter().collect());
            assert_eq!(decide(&message, &only), Decision::Allow, "{message:?} with {needed:?}");
            let others = Rights::new(ALL.into_iter().filter(|&other| other != needed).collect());
            assert_eq!(decide(&message, &others), Decision::Refuse, "{message:?} without {needed:?}");
        }
    }

    #[test]
    fn what_asks_for_nothing_new_needs_no_permission() {
        let rights = Rights::none();
        for message in [
            Message::Open(ChannelType::Session),
            Message::Open(ChannelType::Connection),
            Message::Stdin(bytes::Bytes::from_static(b"x")),
            Message::WindowChange(Default::default()),
            Message::Signal("TERM".into()),
            Message::CancelTcpipForward(address("", 8080)),
            Message::Eof,
            Message::Close,
        ] {
            assert_eq!(decide(&message, &rights), Decision::Allow, "{message:?}");
        }
        assert_eq!(decide(&pty(), &rights), Decision::Refuse);
        assert_eq!(decide(&pty(), &Rights::new(Permissions::usual())), Decision::Allow);
    }

    #[test]
    fn only_locale_variables_may_be_set() {
        let table = [
            ("LANG", Decision::Allow),
            ("LC_ALL", Decision::Allow),
            ("LC_TIME", Decision::Allow),
            ("LC_", Decision::Refuse),
            ("LC_A=B", Decision::Refuse),
            ("LANGUAGE", Decision::Refuse),
            ("LD_PRELOAD", Decision::Refuse),
            ("PATH", Decision::Refuse),
            ("", Decision::Refuse),
        ];
        for (name, decision) in table {
            let message = Message::Env(Env { name: name.into(), value: "x".into() });
            assert_eq!(decide(&message, &Rights::new(ALL.into_iter().collect())), decision, "{name}");
        }
    }

    #[test]
    fn forwarding_leads_only_where_it_is_permitted() {
        let endpoints = |list: &[&str]| -> Option<Vec<Endpoint>> {
            Some(list.iter().map(|text| text.parse().expect("an endpoint")).collect())
        };
        let rights = |list: &[&str]| Rights {
            permit_open: endpoints(list),
            permit_listen: endpoints(list),
            ..Rights::new(ALL.into_iter().collect())
        };
        let table = [
            (&["db:5432"][..], "db", 5432, true),
            (&["db:5432"], "DB", 5432, true),
            (&["db:5432"], "db", 5433, false),
            (&["db:5432"], "db.example.com", 5432, false),
            (&["*:443"], "anything", 443, true),
            (&["*:443"], "anything", 80, false),
            (&["db:*"], "db", 1, true),
            (&["8080"], "localhost", 8080, true),
            (&["[::1]:80"], "::1", 80, true),
            (&["db:5432", "*:443"], "web", 443, true),
            (&[], "db", 5432, false),
            (&["db:80"], "db", 65_536 + 80, false),
        ];
        for (list, host, port, allowed) in table {
            let rights = rights(list);
            let expected = Decision::from(allowed);
            assert_eq!(decide(&direct(host, port), &rights), expected, "{list:?} {host}:{port}");
            let listen = Message::TcpipForward(address(host, port));
            assert_eq!(decide(&listen, &rights), expected, "{list:?} {host}:{port}");
        }
        let socket = |path: &str| Message::Open(ChannelType::DirectStreamlocal { path: path.to_owned() });
        assert_eq!(decide(&socket("/run/a"), &rights(&["/run/a"])), Decision::Allow);
        assert_eq!(decide(&socket("/run/b"), &rights(&["/run/a", "*:*"])), Decision::Refuse);
        let listen = Message::StreamlocalForward("/run/b".to_owned());
        assert_eq!(decide(&listen, &rights(&["/run/a"])), Decision::Refuse);
    }

    #[test]
    fn what_is_no_endpoint_is_said() {
        for text in ["", "db", "db:", ":80", "db:70000", "::1:80", "[::1:80", "a b:80", "db:0"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn taking_permissions_away_never_allows_more(all: u8, fewer: u8, port: u32) {
            let (all, fewer) = (Permissions(all & 0x7f), Permissions(all & fewer & 0x7f));
            for message in [Message::Shell, Message::AgentForward, x11(), direct("db", port)] {
                let (before, after) = (decide(&message, &Rights::new(all)), decide(&message, &Rights::new(fewer)));
                prop_assert!(after == Decision::Refuse || before == Decision::Allow);
            }
        }

        #[test]
        fn arbitrary_text_never_panics_as_an_endpoint(text in ".*") {
            let _ = text.parse::<Endpoint>();
        }
    }
}
