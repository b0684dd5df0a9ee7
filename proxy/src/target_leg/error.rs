//! Why a target could not be reached: one sentence for the user, everything for the log.

use std::{fmt, io, time::Duration};

use super::{credential::CredentialError, host_key::Refusal, known_hosts::KnownHostsError};
#[cfg(feature = "aws")]
use crate::integration::aws_ec2::Ec2Error;

/// Why a target could not be reached. `Display` is what the user is told: what they can act on, and nothing of the
/// network or the accounts behind the connector. The source says all there is, for the log.
#[derive(Debug)]
pub struct ConnectError {
    /// The resource's name.
    pub resource: String,
    /// What went wrong.
    pub failure: Failure,
}

/// What went wrong. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name does not resolve.
    #[error("the name does not resolve: {0}")]
    Resolve(#[source] io::Error),
    /// No TCP connection.
    #[error("no connection: {}", tried.join("; "))]
    Tcp {
        /// Each address, and why not.
        tried: Vec<String>,
        /// The failure that says most.
        source: io::Error,
    },
    /// The host key is not one to trust.
    #[error(transparent)]
    HostKey(Refusal),
    /// What is known of host keys can't be read.
    #[error("the known_hosts file {0}")]
    KnownHosts(#[from] KnownHostsError),
    /// SSH could not be set up.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] russh::Error),
    /// The login was refused.
    #[error("the login was refused; the target would go on with: {offers}")]
    Login {
        /// The methods it names.
        offers: String,
    },
    /// There is nothing to log in with.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// EC2 does not say where it is, or does not take the key.
    #[cfg(feature = "aws")]
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    /// Not in time.
    #[error("not done within {} s", after.as_secs_f32())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, failure } = self;
        match failure {
            Failure::Resolve(_) => write!(f, "cannot connect to {resource}: its name does not resolve"),
            Failure::Tcp { source, .. } => write!(f, "cannot connect to {resource}: {}", tcp_reason(source)),
            Failure::HostKey(refusal) => host_key_reason(f, resource, refusal),
            Failure::KnownHosts(_) => write!(
                f,
                "this connector cannot tell which host key {resource} should have; nothing was sent. Tell your \
                 administrator"
            ),
            Failure::Handshake(_) => write!(f, "{resource} does not complete the SSH handshake"),
            Failure::Login { .. } => write!(f, "{resource} does not accept this connector's login"),
            Failure::Credential(_) => write!(
                f,
                "this connector has nothing to log in to {resource} with at the moment; tell your administrator"
            ),
            #[cfg(feature = "aws")]
            Failure::Ec2(error) => write!(f, "cannot connect to {resource}: {}", error.reason()),
            Failure::Timeout { after } => {
                write!(f, "{resource} did not answer within {} s", after.as_secs_f32())
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

fn tcp_reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to it",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => "connection lost",
        _ => "its name or address does not work",
    }
}

fn host_key_reason(f: &mut fmt::Formatter<'_>, resource: &str, refusal: &Refusal) -> fmt::Result {
    match refusal {
        Refusal::Changed { .. } => write!(
            f,
            "the host key of {resource} is not the one this connector expects; nothing was sent. \
             Either the server was rebuilt or somebody is in between: tell your administrator"
        ),
        Refusal::Revoked { .. } => {
            write!(f, "the host key of {resource} is revoked; nothing was sent. Tell your administrator")
        }
        Refusal::Unknown { .. } | Refusal::Learn { .. } => {
            write!(
                f,
                "the host key of {resource} is not known to this connector; nothing was sent. Tell your administrator"
            )
        }
        Refusal::Certificate { .. } => {
            write!(
                f,
                "the host certificate of {resource} is not good for it now; nothing was sent. Tell your administrator"
            )
        }
    }
}
