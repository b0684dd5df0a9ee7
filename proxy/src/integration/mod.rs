//! How targets are found where a host name does not say it.

#[cfg(feature = "aws")]
pub mod aws_ec2;
