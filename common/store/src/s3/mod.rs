//! A store in a bucket, `s3://…`.
//!
//! Owns what a put means there: created only if nothing has the key, with our SHA-256, and acknowledged with it; from a
//! store that acknowledges without it the object is read back and compared before anybody believes that it is there. The
//! only operations are PutObject, GetObject and ListObjectsV2. Every one ends within the times of the configuration,
//! whatever the server does; trying again and again is the caller's business (`storing`).
//!
//! The digest that recordings carry is also the checksum that S3 verifies and the one that the request's signature
//! covers: the bytes are hashed once.

mod client;
mod error;
mod look;
mod read;
mod signing;

use std::time::Duration;

use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    operation::get_object::GetObjectOutput,
    primitives::{ByteStream, DateTime},
    types::{ChecksumAlgorithm, ChecksumMode, ObjectLockMode, ServerSideEncryption, StorageClass},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use jiff::{Timestamp, ToSpan};
use sha2::Digest;
use weir_common::digest::Sha256;

use self::{
    client::Clients,
    error::{Call, interrupted},
    signing::SignDigest,
};
pub use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};

pub use self::{
    look::{Anonymous, Seen},
    read::{Below, Piece},
};
use crate::{Encryption, GetFuture, LockMode, Put, PutFuture, S3Options, Store, StoreError};

/// The most bytes of an object that are hashed to compare it, where the store gives no SHA-256 of it. Larger than any
/// object of a recording.
const COMPARE_BYTES: u64 = 256 * 1024 * 1024;
/// Ahead of the days that are asked for, so that a clock that is late does not shorten them.
const LOCK_MARGIN_SECONDS: i64 = 3_600;

/// A store in a bucket. Nothing is asked of it before it is needed.
#[derive(Debug)]
pub struct S3Store {
    options: S3Options,
    clients: Clients,
}

impl S3Store {
    /// A store with these settings, and the credentials that the SDK's default chain finds.
    #[must_use]
    pub fn new(options: S3Options) -> Self {
        Self { clients: Clients::new(None), options }
    }

    /// A store with credentials of the caller's own.
    #[must_use]
    pub fn with_credentials(options: S3Options, credentials: impl ProvideCredentials + 'static) -> Self {
        Self { clients: Clients::new(Some(SharedCredentialsProvider::new(credentials))), options }
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &S3Options {
        &self.options
    }

    /// The bucket and the key of an object, for people.
    #[must_use]
    pub fn location(&self, path: &str) -> String {
        format!("s3://{}/{}", self.options.bucket, self.key(path))
    }

    fn key(&self, path: &str) -> String {
        match self.options.prefix.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    async fn put_object(&self, path: &str, body: Bytes, sha256: Sha256) -> Result<Put, StoreError> {
        let call = Call::put(&self.options, path);
        let client = self.clients.signed(&self.options).await?;
        let ours = BASE64_STANDARD.encode(sha256.as_bytes());
        let mut put = client
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.key(path))
            // Said as well as given: S3 wants to hear it where an object is locked.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&ours)
            .if_none_match("*")
            .body(ByteStream::from(body));
        match &self.options.encryption {
            Encryption::BucketDefault => {}
            Encryption::Aes256 => put = put.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::Kms(key) => {
                put = put.server_side_encryption(ServerSideEncryption::AwsKms).set_ssekms_key_id(key.clone());
            }
        }
        if let Some(lock) = self.options.lock {
            let mode = match lock.mode {
                LockMode::Governance => ObjectLockMode::Governance,
                LockMode::Compliance => ObjectLockMode::Compliance,
            };
            put = put.object_lock_mode(mode).object_lock_retain_until_date(retain_until(lock.days));
        }
        put = put.set_tagging(tagging(&self.options));
        put = put.set_storage_class(self.options.storage_class.as_deref().map(StorageClass::from));
        match put.customize().interceptor(SignDigest(sha256)).send().await {
            Ok(put) => match put.checksum_sha256() {
                Some(theirs) if theirs == ours => Ok(Put::Stored),
                Some(theirs) => Err(altered(path, ours, theirs.to_owned())),
                None => self.confirm(path, sha256).await,
            },
            Err(error)
                if error.code() == Some("PreconditionFailed") || error::status(&error) == Some(412) =>
            {
                self.compare(path, sha256).await
            }
            Err(error) => Err(call.failed(&error)),
        }
    }

    /// Whether what a put was acknowledged for without a checksum is there.
    async fn confirm(&self, path: &str, sha256: Sha256) -> Result<Put, StoreError> {
        match self.compare(path, sha256).await {
            Ok(_) => Ok(Put::Stored),
            Err(StoreError::Conflict { expected, found, .. }) => {
                let [expected, found] =
                    [expected, found].map(|digest| BASE64_STANDARD.encode(digest.as_bytes()));
                Err(altered(path, expected, found))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether what is there is what should be there.
    async fn compare(&self, path: &str, expected: Sha256) -> Result<Put, StoreError> {
        let object = self.get_object(path).await?;
        let found = match stated(&object) {
            Some(digest) => digest,
            None => self.hash(path, object).await?,
        };
        if found == expected {
            return Ok(Put::AlreadyThere);
        }
        Err(StoreError::Conflict { path: path.to_owned(), expected, found })
    }

    async fn hash(&self, path: &str, mut object: GetObjectOutput) -> Result<Sha256, StoreError> {
        let (mut hasher, mut bytes) = (sha2::Sha256::new(), 0);
        while let Some(chunk) = object.body.next().await {
            let chunk = chunk.map_err(|error| interrupted(path, &error))?;
            bytes += chunk.len() as u64;
            if bytes > COMPARE_BYTES {
                return Err(StoreError::TooLarge { path: path.to_owned(), max_bytes: COMPARE_BYTES });
            }
            hasher.update(&chunk);
        }
        Ok(hasher.into())
    }

    async fn get_object(&self, path: &str) -> Result<GetObjectOutput, StoreError> {
        let client = self.clients.signed(&self.options).await?;
        let get = client.get_object().bucket(&self.options.bucket).key(self.key(path));
        let get = get.checksum_mode(ChecksumMode::Enabled).send().await;
        get.map_err(|error| Call::get(&self.options, path).failed(&error))
    }

    async fn read(&self, path: &str, max_bytes: u64) -> Result<Bytes, StoreError> {
        let mut object = self.get_object(path).await?;
        let too_large = || StoreError::TooLarge { path: path.to_owned(), max_bytes };
        let announced = object.content_length().and_then(|bytes| u64::try_from(bytes).ok());
        if announced.is_some_and(|bytes| bytes > max_bytes) {
            return Err(too_large());
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = object.body.next().await {
            let chunk = chunk.map_err(|error| interrupted(path, &error))?;
            if (bytes.len() + chunk.len()) as u64 > max_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The whole of an operation has its time, credentials and bodies included; a server that never answers must not
    /// hold a slot for ever.
    async fn in_time<T>(
        &self,
        op: &'static str,
        path: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let most = self.whole_timeout();
        tokio::time::timeout(most, work).await.unwrap_or_else(|_| {
            let details = format!("not done within {} s", most.as_secs());
            Err(StoreError::Unavailable { op, path: path.to_owned(), details })
        })
    }

    /// A put, the get that may have to follow, and the credentials before it.
    fn whole_timeout(&self) -> Duration {
        self.options.request_timeout * 2 + self.options.connect_timeout
    }
}

impl Store for S3Store {
    fn put<'a>(&'a self, path: &'a str, body: Bytes, sha256: Sha256) -> PutFuture<'a> {
        Box::pin(self.in_time("store", path, self.put_object(path, body, sha256)))
    }

    fn get<'a>(&'a self, path: &'a str, max_bytes: u64) -> GetFuture<'a> {
        Box::pin(self.in_time("read", path, self.read(path, max_bytes)))
    }
}

fn altered(path: &str, expected: String, found: String) -> StoreError {
    StoreError::Altered { path: path.to_owned(), expected, found }
}

/// The SHA-256 that the store states of a whole object; one of its parts' digests is none.
fn stated(object: &GetObjectOutput) -> Option<Sha256> {
    let bytes = BASE64_STANDARD.decode(object.checksum_sha256()?).ok()?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.parse().ok()
}

fn retain_until(days: u32) -> DateTime {
    // Far below the end of time: the configuration bounds the days.
    let lasting = (i64::from(days) * 24).hours().seconds(LOCK_MARGIN_SECONDS);
    let until = Timestamp::now().checked_add(lasting).unwrap_or(Timestamp::MAX);
    DateTime::from_secs(until.as_second())
}

/// The tags as a query string, which is how S3 wants them in a header.
fn tagging(options: &S3Options) -> Option<String> {
    if options.tags.is_empty() {
        return None;
    }
    let url = reqwest::Url::parse_with_params("s3:", &options.tags).ok()?;
    // Form encoding writes a space as +, which not every server reads as one.
    Some(url.query()?.replace('+', "%20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_a_query_string_without_plus_for_spaces() {
        let options = S3Options {
            tags: [("a b", "c+d"), ("team", "x=y/z")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..client::tests::options("http://127.0.0.1:1")
        };
        assert_eq!(tagging(&options).as_deref(), Some("a%20b=c%2Bd&team=x%3Dy%2Fz"));
    }

    #[test]
    fn a_lock_lasts_at_least_the_days_that_were_asked_for() {
        let until = retain_until(2).secs();
        let days = (until - Timestamp::now().as_second()) / 86_400;
        assert_eq!(days, 2);
    }

    #[tokio::test]
    async fn nobody_who_listens_is_unavailable() {
        let store = S3Store::new(client::tests::options("http://127.0.0.1:1"));
        let error = store.put("v1/x", Bytes::from_static(b"x"), Sha256::of(b"x")).await.expect_err("nobody");
        assert!(error.is_store_wide(), "{error:?}");
    }
}
