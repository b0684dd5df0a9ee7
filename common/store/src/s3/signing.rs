//! Signing a put with the digest that is known already, instead of having the SDK hash the body again.

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut},
    error::BoxError,
};
use weir_common::digest::Sha256;

/// Has the signature cover this digest as the body's: `x-amz-content-sha256`.
#[derive(Debug)]
pub(super) struct SignDigest(pub(super) Sha256);

impl Intercept for SignDigest {
    fn name(&self) -> &'static str {
        "SignDigest"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.to_string()));
        Ok(())
    }
}
