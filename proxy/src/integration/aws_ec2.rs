//! EC2 instances as targets: where an instance is, and a key on it for one session.
//!
//! `ec2:DescribeInstances` says where it is and whether it runs. `ec2-instance-connect:SendSSHPublicKey` then has the
//! instance accept a key for 60 seconds; the private half lives in this process, for this session, only. Host keys
//! are none of this module's business: AWS vouches for none, so they are verified as everywhere.

use std::net::IpAddr;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{Instance, InstanceStateName},
};
use ssh_key::PublicKey;
use tokio::sync::OnceCell;

use crate::{config::AddressKind, limits};

/// Which API: a region's own, or one at another address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The region; without, what the environment says.
    pub region: Option<String>,
    /// Where the API is, if not where AWS has it.
    pub endpoint_url: Option<String>,
}

/// The API of one place. Its clients are made once, with their connections and credentials, and shared by all
/// sessions.
#[derive(Debug)]
pub struct Api {
    place: Place,
    clients: OnceCell<Clients>,
}

#[derive(Debug)]
struct Clients {
    ec2: aws_sdk_ec2::Client,
    instance_connect: aws_sdk_ec2instanceconnect::Client,
}

/// What went wrong. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    /// EC2 does not know the instance.
    #[error("EC2 knows no instance {id}")]
    Unknown {
        /// Its id.
        id: String,
    },
    /// The instance does not run.
    #[error("the instance {id} is {state}")]
    NotRunning {
        /// Its id.
        id: String,
        /// What EC2 says it is.
        state: String,
    },
    /// The instance has no address of the kind that is wanted.
    #[error("the instance {id} has no {kind:?} address")]
    NoAddress {
        /// Its id.
        id: String,
        /// The kind.
        kind: AddressKind,
    },
    /// A call failed.
    #[error("{operation}: {details}")]
    Call {
        /// The call.
        operation: &'static str,
        /// In which way.
        cause: Cause,
        /// What the SDK says.
        details: String,
    },
}

/// In which way a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is not allowed.
    Denied,
    /// Nobody answered, or not in time.
    Unreachable,
    /// It could not be made: no region, no credentials.
    Unconfigured,
    /// It was answered with an error.
    Refused,
}

impl Ec2Error {
    /// What the user is told; nothing of ids, accounts or addresses.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "there is no such EC2 instance",
            Self::NotRunning { state, .. } if state == "stopped" => "the EC2 instance is stopped",
            Self::NotRunning { .. } => "the EC2 instance is not running",
            Self::NoAddress { .. } => "the EC2 instance has no address that this connector may use",
            Self::Call { cause: Cause::Denied, .. } => "AWS does not allow this connector to reach it",
            Self::Call { cause: Cause::Unreachable, .. } => "AWS does not answer",
            Self::Call { cause: Cause::Unconfigured, .. } => "this connector has no access to AWS",
            Self::Call { cause: Cause::Refused, .. } => "AWS refuses the request",
        }
    }
}

impl Api {
    /// The API of a place. Nothing is asked before it is needed.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, clients: OnceCell::new() }
    }

    /// Finds an instance that runs and has it accept a key for a login. The answer is where it is.
    ///
    /// # Errors
    /// [`Ec2Error`].
    pub(crate) async fn admit(
        &self,
        id: &str,
        kind: AddressKind,
        login: &str,
        key: &PublicKey,
    ) -> Result<IpAddr, Ec2Error> {
        let clients = self.clients.get_or_try_init(|| Clients::new(&self.place)).await?;
        let instance = clients.describe(id).await?;
        let address = address(&instance, id, kind)?;
        clients.push(&instance, id, login, key).await?;
        Ok(address)
    }
}

impl Clients {
    /// Fails without a region, which the environment may yet come to know: then it is tried again.
    async fn new(Place { region, endpoint_url }: &Place) -> Result<Self, Ec2Error> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits::AWS_ATTEMPT_TIMEOUT)
            .operation_attempt_timeout(limits::AWS_ATTEMPT_TIMEOUT)
            .operation_timeout(limits::AWS_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(limits::AWS_ATTEMPTS));
        if let Some(region) = region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint_url) = endpoint_url {
            loader = loader.endpoint_url(endpoint_url);
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(Ec2Error::Call {
                operation: DESCRIBE,
                cause: Cause::Unconfigured,
                details: "neither the resource nor the environment names a region".to_owned(),
            });
        }
        Ok(Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            instance_connect: aws_sdk_ec2instanceconnect::Client::new(&config),
        })
    }

    async fn describe(&self, id: &str) -> Result<Instance, Ec2Error> {
        let unknown = || Ec2Error::Unknown { id: id.to_owned() };
        let described = self.ec2.describe_instances().instance_ids(id).send().await.map_err(|error| {
            match error.code() {
                Some("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed") => unknown(),
                _ => failed(DESCRIBE, &error),
            }
        })?;
        let instances =
            described.reservations.into_iter().flatten().flat_map(|reservation| reservation.instances);
        let mut instances = instances.flatten().filter(|instance| instance.instance_id() == Some(id));
        instances.next().ok_or_else(unknown)
    }

    async fn push(
        &self,
        instance: &Instance,
        id: &str,
        login: &str,
        key: &PublicKey,
    ) -> Result<(), Ec2Error> {
        let key = key.to_openssh().map_err(|error| Ec2Error::Call {
            operation: PUSH,
            cause: Cause::Refused,
            details: error.to_string(),
        })?;
        let zone = instance.placement().and_then(|placement| placement.availability_zone());
        self.instance_connect
            .send_ssh_public_key()
            .instance_id(id)
            .instance_os_user(login)
            .ssh_public_key(key)
            .set_availability_zone(zone.map(str::to_owned))
            .send()
            .await
            .map_err(|error| failed(PUSH, &error))?;
        Ok(())
    }
}

/// The address to connect to, if the instance runs and has it.
fn address(instance: &Instance, id: &str, kind: AddressKind) -> Result<IpAddr, Ec2Error> {
    match instance.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Running) => {}
        state => {
            let state = state.map_or("in an unknown state", InstanceStateName::as_str).to_owned();
            return Err(Ec2Error::NotRunning { id: id.to_owned(), state });
        }
    }
    let address = match kind {
        AddressKind::Private => instance.private_ip_address(),
        AddressKind::Public => instance.public_ip_address(),
        AddressKind::Ipv6 => instance.ipv6_address(),
    };
    address
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| Ec2Error::NoAddress { id: id.to_owned(), kind })
}

fn failed<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Ec2Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let cause = match error {
        SdkError::ServiceError(service) if service.raw().status().as_u16() == 403 => Cause::Denied,
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => Cause::Refused,
        SdkError::TimeoutError(_) => Cause::Unreachable,
        SdkError::DispatchFailure(dispatch) if dispatch.is_io() || dispatch.is_timeout() => {
            Cause::Unreachable
        }
        // Most of these are credentials that can't be had.
        _ => Cause::Unconfigured,
    };
    Ec2Error::Call { operation, cause, details: DisplayErrorContext(error).to_string() }
}

// As policies name them.
const DESCRIBE: &str = "ec2:DescribeInstances";
const PUSH: &str = "ec2-instance-connect:SendSSHPublicKey";

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::InstanceState;

    use super::*;

    fn instance(state: InstanceStateName) -> Instance {
        Instance::builder()
            .state(InstanceState::builder().name(state).build())
            .private_ip_address("10.0.0.5")
            .ipv6_address("2001:db8::5")
            .build()
    }

    #[test]
    fn an_instance_that_runs_is_where_it_says() {
        let running = instance(InstanceStateName::Running);
        let at = |kind| address(&running, "i-1", kind);
        assert_eq!(at(AddressKind::Private).expect("there"), IpAddr::from([10, 0, 0, 5]));
        assert_eq!(at(AddressKind::Ipv6).expect("there").to_string(), "2001:db8::5");
        assert!(matches!(at(AddressKind::Public), Err(Ec2Error::NoAddress { .. })));
    }

    #[test]
    fn an_instance_that_does_not_run_is_nowhere() {
        let stopped = address(&instance(InstanceStateName::Stopped), "i-1", AddressKind::Private);
        assert_eq!(stopped.expect_err("stopped").reason(), "the EC2 instance is stopped");
        for state in [InstanceStateName::Pending, InstanceStateName::Terminated] {
            let error = address(&instance(state), "i-1", AddressKind::Private).expect_err("not running");
            assert_eq!(error.reason(), "the EC2 instance is not running");
        }
    }

    #[test]
    fn what_the_user_is_told_names_no_instance() {
        let error = Ec2Error::Unknown { id: "i-0abc".to_owned() };
        assert!(error.to_string().contains("i-0abc") && !error.reason().contains("i-0abc"));
    }
}
