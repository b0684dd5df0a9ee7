//! Reading a bucket for people: what lies below a path, and objects a piece at a time.
//!
//! Pieces, because whoever reads may pause for hours in the middle: no connection waits for them, and no more than a
//! piece is in memory. `If-Match` has all pieces come from one and the same object.

use aws_sdk_s3::error::ProvideErrorMetadata;
use bytes::{Bytes, BytesMut};

use super::{
    S3Store, StoreError,
    error::{Call, interrupted, status},
};

/// What lies right below a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// Names that have more below them.
    pub dirs: Vec<String>,
    /// Names of objects.
    pub objects: Vec<String>,
    /// Whether there is more than was asked for.
    pub is_cut: bool,
}

/// A piece of an object.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its bytes; none where the object ends before it.
    pub bytes: Bytes,
    /// The bytes of the whole object, where the store says so.
    pub total: Option<u64>,
    /// What the store calls this content of the object.
    pub etag: Option<String>,
}

impl S3Store {
    /// Lists what lies right below a path, in the order of S3's keys and at most `max` names of it.
    ///
    /// # Errors
    /// [`StoreError`]. That nothing lies there is none.
    pub async fn list_below(&self, path: &str, max: usize) -> Result<Below, StoreError> {
        let prefix = match self.key(path) {
            key if key.is_empty() || key.ends_with('/') => key,
            key => key + "/",
        };
        let (mut below, mut next) = (Below::default(), None);
        loop {
            let page = async {
                let client = self.clients.signed(&self.options).await?;
                let list =
                    client.list_objects_v2().bucket(&self.options.bucket).prefix(&prefix).delimiter("/");
                let list = list.set_continuation_token(next.take());
                list.send().await.map_err(|error| Call::list(&self.options).failed(&error))
            };
            let page = self.in_time("list", path, page).await?;
            let name = |key: Option<&str>| key?.strip_prefix(prefix.as_str()).map(str::to_owned);
            let dirs = page.common_prefixes().iter().filter_map(|dir| name(dir.prefix()));
            below.dirs.extend(dirs.map(|dir| dir.trim_end_matches('/').to_owned()));
            let objects = page.contents().iter().filter_map(|object| name(object.key()));
            // The path itself may be an object: some tools make such to have a directory to show.
            below.objects.extend(objects.filter(|name| !name.is_empty()));
            next = page.next_continuation_token().map(str::to_owned);
            below.is_cut = below.dirs.len() + below.objects.len() > max;
            if below.is_cut || next.is_none() {
                below.dirs.truncate(max);
                below.objects.truncate(max - below.dirs.len());
                return Ok(below);
            }
        }
    }

    /// Reads at most `most` bytes of an object from this offset on; of the content with this ETag, if one is given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_piece(
        &self,
        path: &str,
        from: u64,
        most: u32,
        etag: Option<&str>,
    ) -> Result<Piece, StoreError> {
        self.in_time("read", path, self.piece(path, from, most, etag)).await
    }

    async fn piece(&self, path: &str, from: u64, most: u32, etag: Option<&str>) -> Result<Piece, StoreError> {
        let call = Call::get(&self.options, path);
        let client = self.clients.signed(&self.options).await?;
        let last = from.saturating_add(u64::from(most)).saturating_sub(1);
        let get = client
            .get_object()
            .bucket(&self.options.bucket)
            .key(self.key(path))
            .range(format!("bytes={from}-{last}"))
            .set_if_match(etag.map(str::to_owned));
        let mut object = match get.send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some("InvalidRange") || status(&error) == Some(416) => {
                return Ok(Piece { bytes: Bytes::new(), total: None, etag: etag.map(str::to_owned) });
            }
            Err(error) if status(&error) == Some(412) => {
                return Err(call.refused("it was replaced while it was read".to_owned()));
            }
            Err(error) => return Err(call.failed(&error)),
        };
        let total = match object.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok()) {
            Some(total) => Some(total),
            None if from == 0 => object.content_length().and_then(|bytes| u64::try_from(bytes).ok()),
            None => return Err(call.refused("this server gives no part of an object".to_owned())),
        };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = object.body.next().await {
            let chunk = chunk.map_err(|error| interrupted(path, &error))?;
            let room = most as usize - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if bytes.len() == most as usize {
                break;
            }
        }
        Ok(Piece { bytes: bytes.freeze(), total, etag: object.e_tag().map(str::to_owned) })
    }
}
