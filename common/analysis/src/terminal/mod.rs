//! A terminal: what stood on it, and which commands were entered there.

use weir_common::{
    frame::{Direction, WindowSize},
    session::ChannelNo,
};

use crate::{At, Findings};

/// Follows the terminal of one channel.
pub struct Terminal {
    ch: ChannelNo,
}

impl Terminal {
    /// A terminal of this size. `exec` says that it runs a command and no login shell.
    #[must_use]
    pub fn new(ch: ChannelNo, size: WindowSize, exec: bool) -> Self {
        let _ = (size, exec);
        Self { ch }
    }

    /// Bytes that the user's client sent.
    pub fn input(&mut self, at: At, bytes: &[u8], out: &mut dyn Findings) {
        let _ = (at, bytes, out);
    }

    /// Bytes that the target sent.
    pub fn output(&mut self, at: At, bytes: &[u8], out: &mut dyn Findings) {
        let _ = (at, bytes, out);
    }

    /// The user's window has another size now.
    pub fn resize(&mut self, at: At, size: WindowSize, out: &mut dyn Findings) {
        let _ = (at, size, out);
    }

    /// Something is missing here.
    pub fn gap(&mut self, direction: Direction) {
        let _ = direction;
    }

    /// The terminal is gone, or the recording ends (`at` is none then).
    pub fn end(self, at: Option<At>, exit_code: Option<i32>, out: &mut dyn Findings) {
        let _ = (self.ch, at, exit_code, out);
    }
}
