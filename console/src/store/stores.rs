//! From addresses to stores and sessions.

use std::{cell::RefCell, collections::HashMap, io, path::Path, sync::Arc};

use tokio::runtime::{Builder, Runtime};
use weir_store::{
    S3Options, S3Store,
    s3::{ProvideCredentials, SharedCredentialsProvider},
};

use super::{Bucket, SessionDir, Store, StoreError, io_error};

/// How buckets are reached. What is not said comes from where AWS's own tools have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Recordings in a bucket (s3://…)")]
pub struct Access {
    /// The bucket's region.
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
    /// Where the S3 API is, if not at AWS.
    #[arg(long, global = true, value_name = "URL", env = "WEIR_S3_ENDPOINT")]
    pub endpoint: Option<String>,
    /// Name the bucket in the path, as most S3-compatible servers want it.
    #[arg(long, global = true, env = "WEIR_S3_PATH_STYLE")]
    pub path_style: bool,
    /// The profile of the shared configuration files.
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
}

/// Everything that recordings are read from.
pub struct Stores {
    access: Access,
    credentials: Option<SharedCredentialsProvider>,
    runtime: RefCell<Option<Arc<Runtime>>>,
    buckets: RefCell<HashMap<String, Arc<Bucket>>>,
}

impl Stores {
    /// Reaches buckets in this way, with the credentials that the SDK's default chain finds. Nothing is opened yet.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, credentials: None, runtime: RefCell::default(), buckets: RefCell::default() }
    }

    /// The same with credentials of the caller's own.
    #[must_use]
    pub fn with_credentials(access: Access, credentials: impl ProvideCredentials + 'static) -> Self {
        Self { credentials: Some(SharedCredentialsProvider::new(credentials)), ..Self::new(access) }
    }

    /// The session at an address: `s3://bucket/prefix/v1/dt=…/<session id>`, `file:///…` or a path.
    ///
    /// # Errors
    /// If there is no such directory. Of a bucket nothing is asked yet.
    pub fn session(&self, address: &Path) -> Result<SessionDir, StoreError> {
        let Some(place) = address.to_str().and_then(|text| text.strip_prefix(S3)) else {
            return SessionDir::open(local(address));
        };
        let place = place.trim_end_matches('/');
        let wrong = |problem: &str| StoreError::Address {
            address: address.display().to_string(),
            problem: problem.to_owned(),
        };
        // What is above belongs to the store, so that advice about permissions is about all of it.
        let at =
            place.rfind(LAYOUT).ok_or_else(|| wrong("a session is at …/v1/dt=YYYY-MM-DD/<session id>"))?;
        let path = &place[at + 1..];
        if path.split('/').count() != 3 || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong("a session is at …/v1/dt=YYYY-MM-DD/<session id>"));
        }
        Ok(SessionDir::in_bucket(self.bucket(&place[..at])?, path.to_owned()))
    }

    /// The store at an address: `s3://bucket/prefix`, `file:///…` or a path.
    ///
    /// # Errors
    /// If there is no such directory. Of a bucket nothing is asked yet.
    pub fn store(&self, address: &Path) -> Result<Store, StoreError> {
        match address.to_str().and_then(|text| text.strip_prefix(S3)) {
            Some(place) => Ok(Store::in_bucket(self.bucket(place.trim_end_matches('/'))?)),
            None => Store::open(local(address)),
        }
    }

    fn bucket(&self, place: &str) -> Result<Arc<Bucket>, StoreError> {
        if let Some(bucket) = self.buckets.borrow().get(place) {
            return Ok(Arc::clone(bucket));
        }
        let Access { region, endpoint, path_style, profile } = self.access.clone();
        let options = S3Options::new(place).and_then(|options| {
            let options = S3Options { region, endpoint, path_style, profile, ..options };
            options.check_access()?;
            Ok(options)
        });
        let options = options.map_err(|error| StoreError::Address {
            address: format!("{S3}{place}"),
            problem: match error.setting {
                "store" => error.problem,
                setting => format!("--{setting}: {}", error.problem),
            },
        })?;
        let runtime = self.runtime().map_err(|source| io_error("wait for", Path::new(S3), source))?;
        let store = match &self.credentials {
            Some(credentials) => S3Store::with_credentials(options, credentials.clone()),
            None => S3Store::new(options),
        };
        let bucket = Arc::new(Bucket { store, runtime });
        self.buckets.borrow_mut().insert(place.to_owned(), Arc::clone(&bucket));
        Ok(bucket)
    }

    fn runtime(&self) -> io::Result<Arc<Runtime>> {
        if let Some(runtime) = &*self.runtime.borrow() {
            return Ok(Arc::clone(runtime));
        }
        // One thread moves the bytes of all connections; whoever reads waits in a thread of its own.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("s3").enable_all().build()?;
        let runtime = Arc::new(runtime);
        *self.runtime.borrow_mut() = Some(Arc::clone(&runtime));
        Ok(runtime)
    }
}

fn local(address: &Path) -> &Path {
    // As the agent's configuration names it.
    address.to_str().and_then(|text| text.strip_prefix("file://")).map_or(address, Path::new)
}

const S3: &str = "s3://";
const LAYOUT: &str = "/v1/dt=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_can_be_no_session_or_store_are_told() {
        let stores = Stores::new(Access::default());
        for (address, said) in [
            ("s3://recordings/weir", "a session is at"),
            ("s3://recordings/v1/dt=2026-01-02", "a session is at"),
            ("s3://recordings/v1/dt=2026-01-02/x/y", "a session is at"),
            ("s3://recordings/v1/dt=2026-01-02/..", "a session is at"),
            ("s3://Recordings/v1/dt=2026-01-02/x", "bucket's name"),
        ] {
            let error = stores.session(Path::new(address)).expect_err("no session").to_string();
            assert!(error.contains(said), "{address}: {error}");
        }
        let session = stores.session(Path::new("s3://recordings/a/v1/dt=2026-01-02/x/")).expect("an address");
        assert_eq!((session.name().as_str(), session.partition().as_deref()), ("x", Some("2026-01-02")));
        assert_eq!(session.path(), Path::new("s3://recordings/a/v1/dt=2026-01-02/x"));
        let access = Access { endpoint: Some("nowhere".into()), ..Access::default() };
        let error = Stores::new(access).store(Path::new("s3://recordings")).expect_err("no endpoint");
        assert!(error.to_string().contains("--endpoint"), "{error}");
    }
}
