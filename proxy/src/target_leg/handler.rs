//! What russh tells us of the target, turned into frames. No callback ever waits.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use russh::{ChannelId, Sig, client, keys::PublicKeyOrCertificate};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weir_common::frame::{ExitSignal, Message};

use super::host_key::HostKeyCheck;
use crate::{
    session::End,
    tap::{Queue, QueueFull, Routes},
};

/// The channel that is being opened; there is one at a time.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Opening>>);

pub(super) struct Opening {
    /// Where the channel's messages will go.
    pub(super) queue: Queue,
    /// Hears of the channel once it is there.
    pub(super) closed: oneshot::Sender<CancellationToken>,
}

impl Slot {
    pub(super) fn put(&self, opening: Opening) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(opening);
    }

    pub(super) fn take(&self) -> Option<Opening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

pub(super) struct Handler {
    pub(super) host_key: HostKeyCheck,
    pub(super) routes: Arc<Routes<ChannelId>>,
    pub(super) opening: Arc<Slot>,
    pub(super) lost: CancellationToken,
    pub(super) end: End,
}

/// RFC 4254 section 5.2.
const SSH_EXTENDED_DATA_STDERR: u32 = 1;

impl Handler {
    fn checked(&self, pushed: Result<(), QueueFull>) -> Result<(), russh::Error> {
        if let Err(full) = pushed {
            self.end.because(format!("the server sends faster than the client reads: {full}"));
        }
        Ok(())
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
        let Some(opening) = self.opening.take() else { return Ok(()) };
        let confirmed = opening.queue.push(Message::OpenConfirm, 0);
        let closed = self.routes.insert(channel, opening.queue);
        // Whoever opened it may have given up.
        let _ = opening.closed.send(closed);
        self.checked(confirmed)
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
