//! Looks at a store to which nothing goes, so that an idle node whose store is gone says so before a session needs it.
//!
//! Owns that a look is cheap: while something reaches the store there is none, and of a bucket one small object is asked
//! for (`s3:GetObject`). It is put (`s3:PutObject`) where that fails, or did the last time, and where those who have something
//! to store wait for the store: they may be one session that alone is refused, and nobody else would find out. Not here: what becomes of recordings while a store is away (`breaker`).

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

/// The longest pause between two looks at a store that fails.
const FAILING_PAUSE: Duration = Duration::from_secs(30);
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
    let mut next_look = match &looked {
        Looked::Directory(_) => Instant::now(),
        // It was looked at just now.
        Looked::Bucket(..) => Instant::now() + pause,
    };
    let mut hanging = None;
    loop {
        let (now, health) = (Instant::now(), &metrics().health);
        let puts = failing.is_some() || health.store_is_away();
        let is_used = |lately| health.store_idle_for(now).is_some_and(|for_so_long| for_so_long < lately);
        if is_used(pause.min(FAILING_PAUSE)) {
            failing = None;
        } else if puts || (now >= next_look && !is_used(pause)) {
            next_look = now + pause;
            failing = told(now, looked.look(puts, &mut hanging).await, failing.is_some());
        }
        tokio::time::sleep(pause.min(FAILING_PAUSE)).await;
    }
}

/// Tells what came of a look that began at this time, and says what is wrong, if anything is.
fn told(began: Instant, outcome: Result<bool, String>, was_failing: bool) -> Option<String> {
    match outcome {
        Ok(has_taken) => {
            if was_failing {
                info!("the store answers a look again");
            }
            metrics().health.store_looked_well(has_taken, began);
            None
        }
        Err(error) => {
            if !was_failing {
                warn!(error, "a look at the store was in vain");
            }
            metrics().health.store_look_fails(began);
            Some(error)
        }
    }
}

/// A look at a directory.
type Hanging = tokio::task::JoinHandle<io::Result<()>>;

impl Looked {
    /// Says whether it took something, or what speaks against that it would. A look that a file system has not answered yet is
    /// `hanging`, and no other begins before it has: each takes a thread.
    async fn look(&self, puts: bool, hanging: &mut Option<Hanging>) -> Result<bool, String> {
        match self {
            Self::Directory(root) => {
                let begin = || {
                    let root = root.clone();
                    tokio::task::spawn_blocking(move || directory(&root))
                };
                let mut look = hanging.take().unwrap_or_else(begin);
                match tokio::time::timeout(DIRECTORY_PATIENCE, &mut look).await {
                    Ok(Ok(looked)) => looked.map(|()| false).map_err(|error| error.to_string()),
                    Ok(Err(_)) => Err("the look at it was interrupted".to_owned()),
                    Err(_) => {
                        *hanging = Some(look);
                        Err(format!("its file system has not answered for {DIRECTORY_PATIENCE:?}"))
                    }
                }
            }
            Self::Bucket(bucket, node) => {
                let got = if puts { None } else { Some(store::get(bucket, node).await) };
                let looked = match got {
                    Some(Ok(())) => Ok(false),
                    Some(Err(error @ (StoreError::Unavailable { .. } | StoreError::Setup { .. }))) => {
                        Err(error)
                    }
                    None | Some(Err(_)) => match store::put(bucket, node).await {
                        // It answers; another version's object has that name.
                        Err(StoreError::Conflict { .. }) => Ok(false),
                        other => other.map(|()| true),
                    },
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
