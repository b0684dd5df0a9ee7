//! The SDK's clients, with every time bounded.

use aws_config::{BehaviorVersion, ConfigLoader, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{SharedCredentialsProvider, StalledStreamProtectionConfig},
};
use tokio::sync::OnceCell;

use super::StoreError;
use crate::S3Options;

/// Tries of one request; `storing` tries for ever, with pauses.
const ATTEMPTS: u32 = 2;
/// Most of what nobody asks about when another endpoint than AWS's is named.
const ANY_REGION: &str = "us-east-1";

/// Clients that are made when they are first needed: what they need may not be there before.
#[derive(Debug)]
pub(super) struct Clients {
    signed: OnceCell<Client>,
    anonymous: OnceCell<Client>,
    credentials: Option<SharedCredentialsProvider>,
}

impl Clients {
    /// With these credentials, or with those of the SDK's default chain.
    pub(super) fn new(credentials: Option<SharedCredentialsProvider>) -> Self {
        Self { signed: OnceCell::new(), anonymous: OnceCell::new(), credentials }
    }

    /// One with credentials.
    pub(super) async fn signed(&self, options: &S3Options) -> Result<&Client, StoreError> {
        let make = || {
            let loader = loader(options);
            make(
                options,
                match &self.credentials {
                    Some(credentials) => loader.credentials_provider(credentials.clone()),
                    None => loader,
                },
            )
        };
        self.signed.get_or_try_init(make).await
    }

    /// One without any, as a stranger has.
    pub(super) async fn anonymous(&self, options: &S3Options) -> Result<&Client, StoreError> {
        self.anonymous.get_or_try_init(|| make(options, loader(options).no_credentials())).await
    }
}

fn loader(options: &S3Options) -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.request_timeout)
        .operation_timeout(options.request_timeout)
        .build();
    // A body that does not move either way.
    let stalled = StalledStreamProtectionConfig::enabled()
        .upload_enabled(true)
        .download_enabled(true)
        .grace_period(options.request_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .stalled_stream_protection(stalled)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    } else if options.endpoint.is_some() {
        loader = loader
            .region(aws_config::meta::region::RegionProviderChain::default_provider().or_else(ANY_REGION));
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    loader
}

async fn make(options: &S3Options, loader: ConfigLoader) -> Result<Client, StoreError> {
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(StoreError::Setup {
            problem: "neither the settings nor the environment names a region".to_owned(),
            advice: "set region in [s3], or --region, to the bucket's",
        });
    }
    let mut config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(options.path_style);
    // The bucket's API alone: credentials come from where they always come.
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    if shared.credentials_provider().is_none() {
        config = config.allow_no_auth();
    }
    Ok(Client::from_conf(config.build()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::Encryption;

    pub(in crate::s3) fn options(endpoint: &str) -> S3Options {
        S3Options {
            bucket: "recordings".into(),
            prefix: "weir".into(),
            region: Some("eu-central-1".into()),
            endpoint: Some(endpoint.into()),
            path_style: true,
            profile: None,
            encryption: Encryption::BucketDefault,
            lock: None,
            tags: BTreeMap::new(),
            storage_class: None,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
        }
    }
}
