//! What the configuration says of a target that is an EC2 instance.

use serde::Deserialize;

use super::super::{ConfigError, value};
#[cfg(feature = "aws")]
use crate::integration::aws_ec2::{Api, Place};

/// Which of an instance's addresses the connector connects to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// The private IPv4 address.
    #[default]
    Private,
    /// The public IPv4 address.
    Public,
    /// The IPv6 address.
    Ipv6,
}

/// An EC2 instance and the API that knows it.
#[derive(Clone)]
pub struct Ec2Instance {
    /// Its id.
    pub id: String,
    /// Which of its addresses.
    pub address: AddressKind,
    /// The API of its region.
    #[cfg(feature = "aws")]
    pub api: std::sync::Arc<Api>,
}

/// The keys of a resource that say which instance it is.
#[derive(Default)]
pub(super) struct RawEc2 {
    pub(super) instance_id: Option<String>,
    pub(super) region: Option<String>,
    pub(super) endpoint_url: Option<String>,
    pub(super) address: Option<AddressKind>,
}

/// The APIs that resources share: one per region and endpoint.
#[derive(Default)]
pub(in crate::config) struct Clients {
    #[cfg(feature = "aws")]
    apis: std::collections::HashMap<Place, std::sync::Arc<Api>>,
}

impl RawEc2 {
    /// Whether any of them is there.
    pub(super) fn is_given(&self) -> bool {
        let Self { instance_id, region, endpoint_url, address } = self;
        instance_id.is_some() || region.is_some() || endpoint_url.is_some() || address.is_some()
    }

    pub(super) fn validate(
        self,
        field: impl Fn(&str) -> String,
        clients: &mut Clients,
    ) -> Result<Ec2Instance, ConfigError> {
        let Self { instance_id, region, endpoint_url, address } = self;
        let id = instance_id.ok_or_else(|| value(&field("instance_id"), "is missing"))?;
        if !is_instance_id(&id) {
            return Err(value(&field("instance_id"), &format!("{id:?} is not like i-0123456789abcdef0")));
        }
        clients.instance(id, address.unwrap_or_default(), region, endpoint_url, field)
    }
}

impl Clients {
    #[cfg(feature = "aws")]
    fn instance(
        &mut self,
        id: String,
        address: AddressKind,
        region: Option<String>,
        endpoint_url: Option<String>,
        _: impl Fn(&str) -> String,
    ) -> Result<Ec2Instance, ConfigError> {
        let place = Place { region, endpoint_url };
        let api = self.apis.entry(place.clone()).or_insert_with(|| std::sync::Arc::new(Api::new(place)));
        Ok(Ec2Instance { id, address, api: api.clone() })
    }

    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_self, reason = "the same in both builds")]
    fn instance(
        &mut self,
        _: String,
        _: AddressKind,
        _: Option<String>,
        _: Option<String>,
        field: impl Fn(&str) -> String,
    ) -> Result<Ec2Instance, ConfigError> {
        Err(value(
            &field("integration"),
            "this weir-proxy was built without aws-ec2-ssh (cargo feature `aws`)",
        ))
    }
}

fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|digits| {
        (1..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
