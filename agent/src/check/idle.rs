//! Looks at a store to which nothing goes, so that an idle node whose store is gone says so before a session needs it.
//!
//! Owns that a look is cheap: while something reaches the store there is none, and of a bucket one small object is asked
//! for (`s3:GetObject`). It is put (`s3:PutObject`) where that fails, or did the last time: that is what counts, and what it
//! says of a store that is mended. Not here: what becomes of recordings while a store is away (`breaker`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};
use tracing::{info, warn};

use super::{Finding, Level, store};
use crate::{
    metrics::metrics,
    store::{S3Store, StoreError},
};

/// The longest pause between two looks at a store that failed at the last one.
const FAILING_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause between two looks at a directory, which cost next to nothing.
const DIRECTORY_PAUSE: Duration = Duration::from_secs(10);
/// A file system that hangs does not answer.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(10);

/// A store to look at.
#[derive(Clone, Debug)]
pub enum Looked {
    /// A directory.
    Directory(PathBuf),
    /// A bucket, and the node whose object lies in it.
    Bucket(Arc<S3Store>, String),
}

/// Looks whenever nothing has reached the store for this long, and tells the metrics. `found` is what was found of it when the
/// agent started.
pub async fn watch(looked: Looked, idle: Duration, found: Vec<Finding>) {
    let said = |finding: &&Finding| finding.level == Level::Problem && store::STORES.contains(&finding.about);
    let mut failing = found.iter().find(said).map(|finding| finding.text.clone());
    if failing.is_some() {
        metrics().health.store_look_fails(Instant::now());
    }
    let pause = match &looked {
        Looked::Directory(_) => idle.min(DIRECTORY_PAUSE),
        Looked::Bucket(..) => idle,
    };
    let mut looks_at_once = matches!(looked, Looked::Directory(_));
    loop {
        if !std::mem::take(&mut looks_at_once) {
            let pause = if failing.is_some() { pause.min(FAILING_PAUSE) } else { pause };
            tokio::time::sleep(pause).await;
        }
        let (begun, health) = (Instant::now(), &metrics().health);
        if health.store_idle_for(begun).is_some_and(|for_so_long| for_so_long < pause) {
            failing = None;
            continue;
        }
        // Those who have something to store try again and again.
        if health.store_is_away() {
            continue;
        }
        match (looked.look(failing.is_some()).await, &failing) {
            (Ok(()), known) => {
                if known.is_some() {
                    info!("the store answers a look again");
                }
                failing = None;
                health.store_looked_well();
            }
            (Err(error), known) => {
                if known.is_none() {
                    warn!(error, "the store, to which nothing goes at the moment, does not answer");
                }
                failing = Some(error);
                health.store_look_fails(begun);
            }
        }
    }
}

impl Looked {
    /// What speaks against its taking something, if anything does.
    async fn look(&self, is_failing: bool) -> Result<(), String> {
        match self {
            Self::Directory(root) => {
                let root = root.clone();
                let look = tokio::task::spawn_blocking(move || directory(&root));
                match tokio::time::timeout(DIRECTORY_PATIENCE, look).await {
                    Ok(Ok(looked)) => looked.map_err(|error| error.to_string()),
                    Ok(Err(_)) => Err("the look at it was interrupted".to_owned()),
                    Err(_) => Err(format!("its file system has not answered for {DIRECTORY_PATIENCE:?}")),
                }
            }
            Self::Bucket(bucket, node) => {
                let got = if is_failing { None } else { Some(store::get(bucket, node).await) };
                let looked = match got {
                    Some(got @ (Ok(()) | Err(StoreError::Unavailable { .. } | StoreError::Setup { .. }))) => {
                        got
                    }
                    None | Some(Err(_)) => store::put(bucket, node).await,
                };
                looked.map_err(|error| error.to_string())
            }
        }
    }
}

/// Whether a directory may be written and has room.
fn directory(root: &Path) -> io::Result<()> {
    access(root, AccessFlags::W_OK | AccessFlags::X_OK)?;
    if statvfs(root)?.blocks_available() == 0 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}
