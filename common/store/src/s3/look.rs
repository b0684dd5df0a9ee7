//! What a bucket shows of itself, for `check`: as far as the three permissions of the agent let one see.

use super::{S3Store, StoreError, error::Call, error::status};

/// What the store says of an object, besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How it is encrypted: `AES256`, `aws:kms`, or whatever the store says.
    pub encryption: Option<String>,
    /// Its version, where the bucket keeps versions.
    pub version: Option<String>,
    /// Its Object Lock: the mode. S3 shows it only with `s3:GetObjectRetention`.
    pub lock: Option<String>,
}

/// What a stranger without credentials gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nothing.
    Refused,
    /// What it asked for.
    Allowed,
    /// Something that says neither.
    Unclear(String),
}

impl S3Store {
    /// What the store says of an object.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look(&self, path: &str) -> Result<Seen, StoreError> {
        let look = async {
            let object = self.get_object(path).await?;
            Ok(Seen {
                encryption: object.server_side_encryption().map(|how| how.as_str().to_owned()),
                // Buckets without versions say nothing, those where they are suspended say null.
                version: object.version_id().filter(|version| *version != "null").map(str::to_owned),
                lock: object.object_lock_mode().map(|mode| mode.as_str().to_owned()),
            })
        };
        self.in_time("read", path, look).await
    }

    /// Lists at most one object below the prefix.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<(), StoreError> {
        let list = async {
            let client = self.clients.signed(&self.options).await?;
            let list = client.list_objects_v2().bucket(&self.options.bucket).prefix(self.key("")).max_keys(1);
            list.send().await.map_err(|error| Call::list(&self.options).failed(&error))?;
            Ok(())
        };
        self.in_time("list", &self.options.prefix, list).await
    }

    /// What a stranger gets who reads an object.
    ///
    /// # Errors
    /// [`StoreError`], if it could not be asked.
    pub async fn read_as_stranger(&self, path: &str) -> Result<Anonymous, StoreError> {
        let read = async {
            let client = self.clients.anonymous(&self.options).await?;
            let get = client.get_object().bucket(&self.options.bucket).key(self.key(path)).send().await;
            Ok(get.map_or_else(
                |error| stranger(status(&error), || Call::get(&self.options, path).failed(&error)),
                |_| Anonymous::Allowed,
            ))
        };
        self.in_time("read", path, read).await
    }

    /// What a stranger gets who lists the bucket.
    ///
    /// # Errors
    /// [`StoreError`], if it could not be asked.
    pub async fn list_as_stranger(&self) -> Result<Anonymous, StoreError> {
        let list = async {
            let client = self.clients.anonymous(&self.options).await?;
            let list = client.list_objects_v2().bucket(&self.options.bucket).max_keys(1).send().await;
            Ok(list.map_or_else(
                |error| stranger(status(&error), || Call::list(&self.options).failed(&error)),
                |_| Anonymous::Allowed,
            ))
        };
        self.in_time("list", &self.options.prefix, list).await
    }
}

fn stranger(status: Option<u16>, error: impl FnOnce() -> StoreError) -> Anonymous {
    match status {
        Some(401 | 403) => Anonymous::Refused,
        _ => Anonymous::Unclear(error().to_string()),
    }
}
