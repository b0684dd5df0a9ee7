//! What russh tells us of the target, turned into frames. No callback ever waits.

use std::sync::Arc;

use bytes::Bytes;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Sig,
    client::{self, ChannelOpenHandle, Msg},
    keys::PublicKeyOrCertificate,
};
use tokio_util::sync::CancellationToken;
use weir_common::frame::{ChannelType, ExitSignal, Message, Originator, TcpAddress};

use super::{channel, forwarding::Forwardings, host_key::HostKeyCheck};
use crate::{
    gate::Gate,
    limits,
    metrics::metrics,
    session::{Cause, Session},
    tap::{QueueFull, Routes, queue},
};

pub(super) struct Handler {
    pub(super) host_key: HostKeyCheck,
    pub(super) routes: Arc<Routes<ChannelId>>,
    pub(super) forwardings: Arc<Forwardings>,
    pub(super) gate: Arc<Gate>,
    pub(super) lost: CancellationToken,
    pub(super) session: Arc<Session>,
}

/// RFC 4254 section 5.2.
const SSH_EXTENDED_DATA_STDERR: u32 = 1;

impl Handler {
    fn checked(&self, pushed: Result<(), QueueFull>) -> Result<(), russh::Error> {
        if let Err(full) = pushed {
            let reason = format!("the server sends faster than the client reads: {full}");
            self.session.end().because_of(Cause::HeldTooMuch, reason);
        }
        Ok(())
    }

    /// Takes up a channel that the target asks for, if something that the client asked for calls for it.
    ///
    /// RFC 4254 sections 6.3.2 and 7.2: others must be refused.
    async fn take_up(
        &self,
        channel: Channel<Msg>,
        channel_type: ChannelType,
        reply: ChannelOpenHandle,
    ) -> Result<(), russh::Error> {
        if !self.forwardings.expects(&channel_type) {
            tracing::warn!(session = %self.session.id(), "the target asked for a channel that nobody had asked it for");
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        if self.routes.len() >= limits::CHANNELS {
            metrics().channel_refused("limit");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        metrics().channel_opened(channel_type.name());
        let (to_client, reader) = queue(&self.gate);
        let opened = to_client.push(Message::Open(channel_type), 0);
        let closed = self.routes.insert(channel.id(), to_client);
        let parts = channel::Parts {
            reader,
            closed,
            routes: self.routes.clone(),
            lost: self.lost.clone(),
            session: self.session.clone(),
        };
        tokio::spawn(channel::take_up(parts, channel, reply));
        self.checked(opened)
    }

    fn push(&self, channel: ChannelId, message: Message) -> Result<(), russh::Error> {
        self.checked(self.routes.push(&channel, message))
    }

    fn push_data(
        &self,
        channel: ChannelId,
        data: &[u8],
        message: fn(Bytes) -> Message,
    ) -> Result<(), russh::Error> {
        self.checked(self.routes.push_data(&channel, data, message))
    }
}

impl Drop for Handler {
    /// russh drops the handler with the connection, however it ends. What was queued is still delivered.
    fn drop(&mut self) {
        self.routes.clear();
        self.lost.cancel();
    }
}

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(self.host_key.accepts(key).await)
    }

    /// The route is made here, before russh reads on: a target may speak right behind its confirmation.
    async fn channel_open_confirmation(
        &mut self,
        channel: ChannelId,
        _max_packet_bytes: u32,
        _window_bytes: u32,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.checked(self.routes.confirm(channel, &self.gate))
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        let channel_type = ChannelType::ForwardedTcpip {
            listening: TcpAddress { host: host.to_owned(), port },
            originator: Originator { address: originator_address.to_owned(), port: originator_port },
        };
        self.take_up(channel, channel_type, reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.take_up(channel, ChannelType::ForwardedStreamlocal { path: path.to_owned() }, reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.take_up(channel, ChannelType::Agent, reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        let originator = Originator { address: originator_address.to_owned(), port: originator_port };
        self.take_up(channel, ChannelType::X11 { originator }, reply).await
    }

    /// No target opens these towards its client; russh would accept them.
    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.push_data(channel, data, Message::Stdout)
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        code: u32,
        data: &[u8],
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        if code != SSH_EXTENDED_DATA_STDERR {
            tracing::debug!(code, "target sent extended data of an unknown kind; dropped");
            return Ok(());
        }
        self.push_data(channel, data, Message::Stderr)
    }

    async fn channel_success(
        &mut self,
        channel: ChannelId,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.push(channel, Message::Success)
    }

    async fn channel_failure(
        &mut self,
        channel: ChannelId,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.push(channel, Message::Failure)
    }

    async fn exit_status(
        &mut self,
        channel: ChannelId,
        status: u32,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.push(channel, Message::ExitStatus(status))
    }

    async fn exit_signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        core_dumped: bool,
        message: &str,
        _language: &str,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        let signal = signal_name(&signal).to_owned();
        self.push(
            channel,
            Message::ExitSignal(ExitSignal { signal, core_dumped, message: message.to_owned() }),
        )
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut client::Session) -> Result<(), russh::Error> {
        self.push(channel, Message::Eof)
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.checked(self.routes.close(&channel))
    }
}

/// The name of a signal as RFC 4254 section 6.10 writes it, without `SIG`.
pub(crate) fn signal_name(signal: &Sig) -> &str {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
}
