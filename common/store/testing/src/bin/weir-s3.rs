//! The S3 server as a program, for machines that tests run on. Not for anything that is worth keeping: who is let in, and with what, is
//! in this repository.

#![forbid(unsafe_code)]

use std::{error::Error, net::SocketAddr, path::PathBuf};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use weir_store_testing::Server;

/// An S3 server for tests, with one bucket `recordings`.
#[derive(Parser)]
#[command(name = "weir-s3")]
struct Options {
    /// Where objects are kept: `recordings/<key>` is the object itself.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where it listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options { root, listen } = Options::parse();
    let server =
        Server::start_at(&root, listen).map_err(|error| format!("{listen}, {}: {error}", root.display()))?;
    println!("serving {} at {}", root.display(), server.endpoint());
    server.run_until(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    })?;
    Ok(())
}
