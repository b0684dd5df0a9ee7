//! rsync: where it goes by the command line, how much, and the digest of its stream each way.
//!
//! Its protocol is not looked into: files go as differences and compressed, in an order that both ends work out. Only
//! the greeting is read, four bytes each way, so that what is no rsync does not pass for one.

use serde::{Deserialize, Serialize};
use weir_common::{
    frame::Direction,
    recording::findings::{FileAccess, FileOperation, FileProtocol, FileResult},
};

use super::{
    bytes_text,
    command::{fitting, joined},
    flow::Flow,
    input::{Input, Out},
    lost::Lost,
};

/// The versions of the protocol that a greeting may name: 20 is the oldest that is spoken, and 32 came in 2020.
const VERSIONS: std::ops::RangeInclusive<u32> = 20..=100;
/// The most bytes of a command line that comes as data.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;

/// Follows one run.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Rsync {
    path: String,
    t: Option<u64>,
    client: Side,
    target: Side,
}

/// One direction.
#[derive(Clone, Serialize, Deserialize)]
enum Side {
    /// The command line: words that end in NUL, up to an empty one.
    Arguments(#[serde(with = "bytes_text")] Vec<u8>),
    Greeting(#[serde(with = "bytes_text")] Vec<u8>),
    Stream(Flow),
}

impl Rsync {
    pub(super) fn new(path: String, is_secluded: bool) -> Self {
        let client = if is_secluded { Side::Arguments(Vec::new()) } else { Side::Greeting(Vec::new()) };
        Self { path, t: None, client, target: Side::Greeting(Vec::new()) }
    }

    pub(super) fn feed(
        &mut self,
        direction: Direction,
        input: &mut Input<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Lost> {
        self.t = self.t.or(out.now());
        let side = match direction {
            Direction::ClientToTarget => &mut self.client,
            Direction::TargetToClient => &mut self.target,
        };
        while !input.is_empty() {
            match side {
                Side::Arguments(words) => {
                    words.extend_from_slice(input.protocol(1)?);
                    if words.ends_with(&[0, 0]) || words[..] == [0] {
                        self.path = paths(words);
                        *side = Side::Greeting(Vec::new());
                    } else if words.len() > ARGUMENTS_BYTES_MAX {
                        return Err(Lost::Malformed);
                    }
                }
                Side::Greeting(version) => {
                    version.extend_from_slice(input.protocol(1)?);
                    if let Ok(version) = <[u8; 4]>::try_from(&version[..]) {
                        if !VERSIONS.contains(&u32::from_le_bytes(version)) {
                            return Err(Lost::Malformed);
                        }
                        // What goes is no file from its first byte on.
                        *side = Side::Stream(Flow::new(false));
                    }
                }
                Side::Stream(flow) => {
                    input.content(u64::MAX, flow, out)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self, out: &mut Out<'_>, t_end: Option<u64>) {
        let Some(t) = self.t else { return };
        let transferred = |side: &Side| match side {
            Side::Stream(flow) => Some(flow.transferred()),
            _ => None,
        };
        out.file(t, t_end, |ch, span| FileAccess {
            n: 0,
            ch,
            span,
            protocol: FileProtocol::Rsync,
            operation: FileOperation::Transfer,
            path: self.path.clone(),
            other_path: None,
            result: FileResult::Unknown,
            mode: None,
            read: transferred(&self.target),
            written: transferred(&self.client),
        });
    }

    pub(super) fn is_sound(&self) -> bool {
        [&self.client, &self.target].into_iter().all(|side| match side {
            Side::Arguments(words) => words.len() <= ARGUMENTS_BYTES_MAX,
            Side::Greeting(version) => version.len() < 4,
            Side::Stream(_) => true,
        })
    }
}

/// The paths on a command line that came as data: what is behind the word `.`.
fn paths(words: &[u8]) -> String {
    let paths = words.split(|byte| *byte == 0).skip_while(|word| word != b".").skip(1);
    joined(&fitting(paths.take_while(|word| !word.is_empty())))
}
