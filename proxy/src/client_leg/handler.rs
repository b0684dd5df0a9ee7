//! What russh tells us of the user's client, turned into frames.
//!
//! Callbacks do not wait, with two exceptions. A request that wants an answer (pty, shell, exec, subsystem) is
//! held until the target has given it, because russh keeps one "wants reply" flag a channel and a second
//! request would overwrite it; meanwhile the target's gate is bypassed, so that its answer always arrives. And
//! an eof that makes the client close the channel is held for a moment, for the exit status.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty as PtyMode, Sig,
    server::{self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Response, VerifiedPublicKey},
};
use ssh_key::Certificate;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use weir_common::frame::{ChannelType, Env, Message, Originator, Pty, TcpAddress, WindowSize, X11Request};

use super::{
    Shared,
    auth::{Authentication, Proven},
    channel::{Asked, ClientChannel, Leg, Reply},
    global::Global,
    login::{Login, NewSession, Stage},
};
use crate::{
    gate::{Bypass, Gate},
    limits,
    metrics::metrics,
    policy::Decision,
    session::{Cause, End},
    tap::{QueueFull, Routes, queue},
    target_leg,
};

pub(super) struct Handler {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    end: End,
    peer: SocketAddr,
    auth: Authentication,
    stage: watch::Sender<Stage>,
    routes: Arc<Routes<ChannelId>>,
    channels: HashMap<ChannelId, ClientChannel>,
    global: Option<Global>,
}

impl Handler {
    pub(super) fn new(shared: Arc<Shared>, gate: Arc<Gate>, end: End, peer: SocketAddr) -> Self {
        Self {
            auth: Authentication::new(shared.clone(), peer),
            shared,
            gate,
            end,
            peer,
            stage: watch::Sender::default(),
            routes: Arc::default(),
            channels: HashMap::new(),
            global: None,
        }
    }

    pub(super) fn login(&self) -> Login {
        Login::watch(&self.stage)
    }

    fn checked(&self, pushed: Result<(), QueueFull>) -> Result<(), russh::Error> {
        if let Err(full) = pushed {
            let reason = format!("the client sends faster than the server reads: {full}");
            self.end.because_of(Cause::HeldTooMuch, reason);
        }
        Ok(())
    }

    fn push(&self, channel: ChannelId, message: Message) -> Result<(), russh::Error> {
        self.checked(self.routes.push(&channel, message))
    }

    /// Asks the target something and answers the client as the target did.
    async fn ask(
        &self,
        channel: ChannelId,
        message: Message,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        if self.asked(channel, message).await? {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    /// Asks the target something. True if it said yes.
    async fn asked(&self, channel: ChannelId, message: Message) -> Result<bool, russh::Error> {
        let Some(state) = self.channels.get(&channel) else { return Ok(false) };
        if !self.admits(&message) {
            return Ok(false);
        }
        let Some(grant) = self.auth.grant() else { return Ok(false) };
        let (original, message) = grant.restrictions().forced(message);
        if let Some(original) = original {
            // Nobody waits for the answer: the client did not ask for this.
            state.replies.expect(Reply::Wait(oneshot::channel().0));
            self.push(channel, original)?;
        }
        let (answer, answered) = oneshot::channel();
        let _bypass = self.bypass();
        state.replies.expect(Reply::Wait(answer));
        self.push(channel, message)?;
        Ok(tokio::select! {
            answered = timeout(limits::REQUEST_TIMEOUT, answered) => matches!(answered, Ok(Ok(true))),
            () = state.closed.cancelled() => false,
            () = self.end.over() => false,
        })
    }

    /// Asks the target something that concerns the whole connection.
    async fn ask_global(&mut self, message: Message) -> Option<Message> {
        if !self.admits(&message) {
            return None;
        }
        let _bypass = self.bypass();
        let login = self.login();
        let global = self.global.get_or_insert_with(|| Global::open(&self.gate, login));
        global.ask(message, &self.end).await
    }

    fn bypass(&self) -> Option<Bypass> {
        self.stage.borrow().established().map(|established| established.target.bypass())
    }

    /// Whether a request is allowed, and can become a frame: only one with absurdly long fields can't.
    fn admits(&self, message: &Message) -> bool {
        let decision = self.auth.grant().map(|grant| grant.decide(message));
        let admitted = decision == Some(Decision::Allow)
            && limits::admit(message)
            && message.clone().into_body().is_ok();
        if !admitted {
            tracing::info!(peer = %self.peer, kind = ?message.kind(), "request refused");
        }
        admitted
    }

    /// Begins to open a channel that the client asks for.
    async fn open(
        &mut self,
        channel: Channel<Msg>,
        channel_type: ChannelType,
        reply: ChannelOpenHandle,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.channels.retain(|id, _| self.routes.contains(id));
        let (is_session, name) = (channel_type == ChannelType::Session, channel_type.name());
        let message = Message::Open(channel_type);
        if !self.admits(&message) {
            metrics().channel_refused("grant");
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        if self.channels.len() >= limits::CHANNELS {
            metrics().channel_refused("limit");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        metrics().channel_opened(name);
        let id = channel.id();
        let (to_target, reader) = queue(&self.gate);
        let state = ClientChannel::new(self.routes.insert(id, to_target));
        self.channels.insert(id, state.clone());
        self.push(id, message)?;

        let (login, leg) = (self.login(), self.leg(session));
        tokio::spawn(async move {
            let Some(established) = login.settled().await else {
                leg.routes.remove(&id);
                // The connection is about to end with the reason; a refused channel would only blur it.
                sleep(limits::WIND_DOWN).await;
                return;
            };
            leg.open(&established, Asked { channel, reply, reader, state, is_session }).await;
        });
        Ok(())
    }

    fn leg(&self, session: &server::Session) -> Leg {
        Leg { routes: self.routes.clone(), gate: self.gate.clone(), handle: session.handle() }
    }
}

fn is_success(answer: Option<&Message>) -> bool {
    matches!(answer, Some(Message::Success))
}

impl Drop for Handler {
    /// russh drops the handler with the connection. What the client had sent is still delivered.
    fn drop(&mut self) {
        self.routes.close_all();
    }
}

impl server::Handler for Handler {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        self.auth.begin();
        Ok(self.shared.config.banner.as_deref().map(str::to_owned))
    }

    async fn auth_publickey_offered(
        &mut self,
        name: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.auth.offered(name, offer))
    }

    async fn auth_publickey(&mut self, name: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.auth.public_key(name, key).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        name: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        Ok(self.auth.certificate(name, certificate).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        name: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.auth.keyboard_interactive(name, response).await)
    }

    async fn auth_succeeded(&mut self, session: &mut server::Session) -> Result<(), russh::Error> {
        let Some(Proven { grant, proof }) = self.auth.succeed() else {
            return Err(russh::Error::Inconsistent);
        };
        let client_version = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        self.stage.send_replace(Stage::LoggedIn);
        let new = NewSession { grant, proof, client_version, peer: self.peer };
        let leg = self.leg(session);
        tokio::spawn(new.begin(self.shared.clone(), self.end.clone(), self.stage.clone(), leg));
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.open(channel, ChannelType::Session, reply, session).await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let channel_type = ChannelType::DirectTcpip {
            to: TcpAddress { host: host.to_owned(), port },
            originator: Originator { address: originator_address.to_owned(), port: originator_port },
        };
        self.open(channel, channel_type, reply, session).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.open(channel, ChannelType::DirectStreamlocal { path: path.to_owned() }, reply, session).await
    }

    /// The client has opened a channel that the target had asked for.
    async fn channel_open_confirmation(
        &mut self,
        channel: ChannelId,
        _max_packet_bytes: u32,
        _window_bytes: u32,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.checked(self.routes.confirm(channel, &self.gate))
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut server::Session,
    ) -> Result<bool, russh::Error> {
        let request = Message::TcpipForward(TcpAddress { host: address.to_owned(), port: *port });
        Ok(match self.ask_global(request).await {
            Some(Message::PortBound(bound)) => {
                *port = bound;
                true
            }
            answer => is_success(answer.as_ref()),
        })
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut server::Session,
    ) -> Result<bool, russh::Error> {
        let request = Message::CancelTcpipForward(TcpAddress { host: address.to_owned(), port });
        Ok(is_success(self.ask_global(request).await.as_ref()))
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut server::Session,
    ) -> Result<bool, russh::Error> {
        let request = Message::StreamlocalForward(path.to_owned());
        Ok(is_success(self.ask_global(request).await.as_ref()))
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut server::Session,
    ) -> Result<bool, russh::Error> {
        let request = Message::CancelStreamlocalForward(path.to_owned());
        Ok(is_success(self.ask_global(request).await.as_ref()))
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _: &mut server::Session,
    ) -> Result<bool, russh::Error> {
        self.asked(channel, Message::AgentForward).await
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        single_connection: bool,
        auth_protocol: &str,
        auth_cookie: &str,
        screen: u32,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let request = X11Request {
            single_connection,
            auth_protocol: auth_protocol.to_owned(),
            auth_cookie: auth_cookie.to_owned(),
            screen,
        };
        self.ask(channel, Message::X11(request), session).await
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut server::Session) -> Result<(), russh::Error> {
        self.push(channel, Message::Eof)?;
        if let Some(state) = self.channels.get(&channel) {
            state.client_eof.store(true, Ordering::Release);
            if state.target_eof.load(Ordering::Acquire) {
                // The client's close is the next thing to be read: see `Side::eof_grace`.
                let _ = timeout(limits::EOF_GRACE, state.finished.cancelled()).await;
            }
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.channels.remove(&channel);
        self.checked(self.routes.close(&channel))
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.checked(self.routes.push_data(&channel, data, Message::Stdin))
    }

    /// While much is held, the client gets small windows: see `gate`.
    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        if self.gate.held() >= limits::HELD_BYTES_SOFT {
            return limits::PROBE_WINDOW_BYTES;
        }
        let channels = u32::try_from(self.channels.len()).unwrap_or(u32::MAX).max(1);
        (limits::WINDOWS_BYTES / channels).clamp(limits::PROBE_WINDOW_BYTES, limits::WINDOW_BYTES)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        width_px: u32,
        height_px: u32,
        modes: &[(PtyMode, u32)],
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let pty = Pty {
            term: term.to_owned(),
            size: WindowSize { cols, rows, width_px, height_px },
            modes: modes.iter().map(|&(mode, value)| (mode as u8, value)).collect(),
        };
        self.ask(channel, Message::Pty(pty), session).await
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.ask(channel, Message::Shell, session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.ask(channel, Message::Exec(command.to_vec()), session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.ask(channel, Message::Subsystem(name.to_owned()), session).await
    }

    /// OpenSSH sends these without wanting a reply, several in a row; waiting for each would cost a round trip.
    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let message = Message::Env(Env { name: name.to_owned(), value: value.to_owned() });
        let Some(state) = self.channels.get(&channel) else { return session.channel_failure(channel) };
        if !self.admits(&message) || !state.environment.has_room_for(name.len() + value.len()) {
            return session.channel_failure(channel);
        }
        state.replies.expect(Reply::Relay);
        self.push(channel, message)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        cols: u32,
        rows: u32,
        width_px: u32,
        height_px: u32,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        self.push(channel, Message::WindowChange(WindowSize { cols, rows, width_px, height_px }))
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let message = Message::Signal(target_leg::signal_name(&signal).to_owned());
        if self.admits(&message) { self.push(channel, message) } else { Ok(()) }
    }
}
