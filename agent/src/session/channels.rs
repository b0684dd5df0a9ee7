//! A session's channels: armed, then disarmed or there at the end.
//!
//! Owns that neither a channel's number nor a socket serves twice once something has passed, and that the
//! counts of a channel that is over stay for the manifest.

use serde::{Deserialize, Serialize};
use weir_common::{
    frame::{Direction, Inbound},
    recording::{ChannelTotals, Count, DirectionTotals},
    session::ChannelNo,
};

use super::{ChannelKernel, Session, StepError, TapCookies, loss::Unsure};

/// The most channels of a session that are armed at a time.
pub const ARMED_MAX: usize = 1024;
/// The most channels of a session over its whole life. Each keeps its counts until the end, as some 700 bytes
/// of a checkpoint: all of them stay well below what an entry of the spool may have.
pub const CHANNELS_MAX: usize = 32_768;

/// A channel that is armed, or was at the session's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) no: ChannelNo,
    pub(super) c2t: Way,
    pub(super) t2c: Way,
}

/// One direction of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Way {
    pub(super) inbound: Inbound,
    pub(super) totals: DirectionTotals,
    /// Where frames of it may have been lost with a part of the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unsure: Option<Unsure>,
}

impl Session {
    /// Adds a channel. One that nothing has passed yet may be armed again, with other sockets.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn arm(&mut self, channel: ChannelNo, cookies: TapCookies) -> Result<(), StepError> {
        self.may_arm(channel, cookies)?;
        let way = |direction, cookie| Way {
            inbound: Inbound::new(direction),
            totals: DirectionTotals {
                cookie,
                accepted: Count::default(),
                duplicate: Count::default(),
                out_of_sequence: Count::default(),
                malformed: Count::default(),
                passed: Count::default(),
                kernel: None,
            },
            unsure: None,
        };
        self.channels.retain(|other| other.no != channel);
        self.channels.push(Channel {
            no: channel,
            c2t: way(Direction::ClientToTarget, cookies.c2t),
            t2c: way(Direction::TargetToClient, cookies.t2c),
        });
        Ok(())
    }

    /// Whether [`Self::arm`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_arm(&self, channel: ChannelNo, cookies: TapCookies) -> Result<(), StepError> {
        if self.end.is_some() {
            return Err(StepError::Ended);
        }
        if self.frozen {
            return Err(StepError::Frozen);
        }
        if self.disarmed.contains_key(&channel) {
            return Err(StepError::ChannelUsed { channel });
        }
        let had = |totals: &&ChannelTotals| {
            [totals.c2t.cookie, totals.t2c.cookie]
                .iter()
                .any(|cookie| [cookies.c2t, cookies.t2c].contains(cookie))
        };
        if let Some(other) = self.disarmed.values().find(had) {
            return Err(StepError::SocketUsed { channel: other.channel });
        }
        match self.channels.iter().find(|other| other.no == channel) {
            Some(used) if used.drained() > 0 => Err(StepError::ChannelUsed { channel }),
            Some(_) => Ok(()),
            None if self.channels.len() >= ARMED_MAX => Err(StepError::TooManyArmed),
            None if self.channels.len() + self.disarmed.len() >= CHANNELS_MAX => {
                Err(StepError::TooManyChannels)
            }
            None => Ok(()),
        }
    }

    /// Takes a channel back that could not be armed.
    ///
    /// # Errors
    /// [`StepError::NoChannel`], [`StepError::ChannelUsed`].
    pub fn take_back(&mut self, channel: ChannelNo) -> Result<(), StepError> {
        self.may_take_back(channel)?;
        self.channels.retain(|other| other.no != channel);
        Ok(())
    }

    /// Whether [`Self::take_back`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_take_back(&self, channel: ChannelNo) -> Result<(), StepError> {
        match self.channels.iter().find(|other| other.no == channel) {
            None => Err(StepError::NoChannel { channel }),
            Some(used) if used.drained() > 0 => Err(StepError::ChannelUsed { channel }),
            Some(_) => Ok(()),
        }
    }

    /// A channel is over. Its counts stay.
    ///
    /// # Errors
    /// [`StepError::NoChannel`], [`StepError::Ended`].
    pub fn disarm(&mut self, kernel: ChannelKernel) -> Result<(), StepError> {
        self.may_disarm(kernel.channel)?;
        self.settle_by(kernel);
        for mut channel in self.channels.extract_if(.., |channel| channel.no == kernel.channel) {
            channel.count(kernel);
            self.disarmed.insert(channel.no, channel.totals());
        }
        Ok(())
    }

    /// Whether [`Self::disarm`] would succeed.
    ///
    /// # Errors
    /// The [`StepError`] that it would return.
    pub fn may_disarm(&self, channel: ChannelNo) -> Result<(), StepError> {
        if self.end.is_some() {
            return Err(StepError::Ended);
        }
        let armed = self.channels.iter().any(|other| other.no == channel);
        armed.then_some(()).ok_or(StepError::NoChannel { channel })
    }
}

impl Channel {
    /// Messages of both directions, whatever became of them, those included that passed unrecorded.
    pub(super) fn drained(&self) -> u64 {
        [&self.c2t.totals, &self.t2c.totals]
            .map(|totals| totals.drained().records.saturating_add(totals.passed.records))
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    pub(super) fn count(&mut self, kernel: ChannelKernel) {
        let ChannelKernel { channel: _, c2t, t2c } = kernel;
        self.c2t.totals.kernel = c2t;
        self.t2c.totals.kernel = t2c;
    }

    pub(super) fn totals(&self) -> ChannelTotals {
        ChannelTotals { channel: self.no, c2t: self.c2t.totals, t2c: self.t2c.totals }
    }
}
