//! Writes a sample recording to look at: `cargo run -p weir-console --example sample-session -- DIRECTORY`.
//!
//! Prints the session's directory and the file that allows its signer.

#[path = "../tests/console/support/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod support;

use std::{env, fs, path::PathBuf};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(env::args_os().nth(1).context("pass the directory to write to")?);
    let key = support::new_key();
    let mut sealed = support::sample().seal();
    sealed.reseal(&key);
    let session = sealed.write(&root);
    let signers = root.join("allowed_signers");
    fs::write(&signers, support::allowed_signers(&key))?;
    println!("{}\n{}", session.display(), signers.display());
    Ok(())
}
