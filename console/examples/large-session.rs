//! Writes a recording of so many MiB of log lines, to measure on: `cargo run -p weir-console --example large-session --
//! DIRECTORY MIB`.
//!
//! Prints the session's directory.

#[path = "../tests/console/support/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod support;

use std::{env, fmt::Write, path::PathBuf};

use anyhow::Context;
use support::{C2T, COPY, Draft, T2C};
use weir_common::frame::{ChannelType, Message};

/// Of what a program prints in one frame.
const FRAME_BYTES: usize = 16 << 10;
/// As the agent seals segments.
const SEGMENT_FRAMES: usize = 512;

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(env::args_os().nth(1).context("pass the directory to write to")?);
    let mib: usize = env::args().nth(2).context("pass the size in MiB")?.parse()?;
    let mut draft = Draft::new();
    draft.segment(false);
    draft.frame(0, COPY, C2T, Message::Open(ChannelType::Session));
    draft.frame(1, COPY, T2C, Message::OpenConfirm);
    draft.frame(1, COPY, C2T, Message::Exec(b"journalctl".to_vec()));
    let (mut text, mut line) = (String::new(), 0_u64);
    for frame in 1..=mib * (1 << 20) / FRAME_BYTES {
        while text.len() < FRAME_BYTES {
            let id = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            writeln!(
                text,
                "Jan 02 03:04:05 db-1 sshd[{}]: request {id:016x} from 10.0.{}.7 took {} ms",
                id >> 48,
                line % 256,
                id >> 54
            )?;
            line += 1;
        }
        let rest = text.split_off(FRAME_BYTES);
        draft.frame(1, COPY, T2C, Message::Stdout(std::mem::replace(&mut text, rest).into()));
        if frame % SEGMENT_FRAMES == 0 {
            draft.segment(false);
        }
    }
    draft.frame(1, COPY, T2C, Message::Close);
    draft.frame(1, COPY, C2T, Message::Close);
    println!("{}", draft.seal().write(&root).display());
    Ok(())
}
