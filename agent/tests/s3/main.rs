//! The store in a bucket, against `s3s-fs` in process behind a layer of faults, and against `moto`.

mod backlog;
mod chaos;
mod check;
mod credentials;
mod fake;
mod faults;
mod findings;
mod idle;
mod moto;
mod poisoned;
mod recovering;
mod soak;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod web_identity;

use weir_store_testing as server;
