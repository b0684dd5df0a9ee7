//! The server as a process of its own.

use std::{io, net::SocketAddr, path::Path};

use crate::Server;

impl Server {
    /// One that listens there, keeps what the directory has already, and remembers nothing of what it is asked.
    ///
    /// # Errors
    /// If the directory can't be written, or the address be listened on.
    pub fn start_at(root: &Path, address: SocketAddr) -> io::Result<Self> {
        let server = Self::try_start(root, address, false)?;
        server.forgets_what_is_asked();
        Ok(server)
    }

    /// Serves until this is done.
    pub fn run_until<T>(&self, done: impl Future<Output = T>) -> T {
        self.runtime.block_on(done)
    }
}
