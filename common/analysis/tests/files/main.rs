//! Files that real programs move, as findings tell them.
//!
//! OpenSSH's `sftp` and `scp` and `rsync` talk to OpenSSH's `sftp-server`, `scp` and `rsync` through a relay that takes
//! down what goes which way, as a tap does. Needs these programs.

mod lines;
mod packets;
mod properties;
mod recorded;
mod relay;
mod rsync;
mod scp;
mod sftp;
mod talk;
