//! A bucket of another server: made, and looked into, past the layer that fails.

use std::{fs, net::SocketAddr, path::Path};

use aws_sdk_s3::{
    Client, Config, Error,
    config::{BehaviorVersion, Region},
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, VersioningConfiguration,
    },
};

use crate::{PREFIX, REGION, credentials};

/// A bucket that another server has.
pub(crate) struct Elsewhere {
    client: Client,
    bucket: String,
}

impl Elsewhere {
    /// Makes a bucket that keeps versions.
    pub(crate) async fn make(address: SocketAddr, bucket: &str) -> Result<Self, Error> {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(format!("http://{address}"))
            .force_path_style(true)
            .region(Region::from_static(REGION))
            .credentials_provider(credentials());
        let client = Client::from_conf(config.build());
        let place =
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(REGION));
        client.create_bucket().bucket(bucket).create_bucket_configuration(place.build()).send().await?;
        let versions = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        client.put_bucket_versioning().bucket(bucket).versioning_configuration(versions).send().await?;
        Ok(Self { client, bucket: bucket.to_owned() })
    }

    /// Copies what is below the prefix and not in the directory yet.
    pub(crate) async fn copy_to(&self, dir: &Path) -> Result<(), Error> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(format!("{PREFIX}/"));
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            for key in page?.contents().iter().filter_map(|object| object.key()) {
                let file = dir.join(key.trim_start_matches(PREFIX).trim_start_matches('/'));
                if file.exists() {
                    continue;
                }
                let object = self.client.get_object().bucket(&self.bucket).key(key).send().await?;
                let bytes = object.body.collect().await.expect("a whole body").into_bytes();
                fs::create_dir_all(file.parent().expect("below the directory")).expect("writable");
                fs::write(file, bytes).expect("writable");
            }
        }
        Ok(())
    }
}
