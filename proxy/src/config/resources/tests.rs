//! What a resource must say, whichever file it is in.

use std::os::unix::fs::PermissionsExt;

use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::*;
#[cfg(feature = "aws")]
use crate::config::Access;

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVnCHT1mUGFW9MPVYvJ2CLS5gHQ3MzQbXxcKu4m6rVp";

/// Loads this as a file of this name in a directory that stands for `DIR` in it, where there is a key that is open to
/// others.
fn load_as(name: &str, text: &str) -> Result<HashMap<String, Arc<Target>>, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
        .expect("a key")
        .to_openssh(LineEnding::LF)
        .expect("its text");
    std::fs::write(dir.path().join("key"), key.as_bytes()).expect("written");
    std::fs::set_permissions(dir.path().join("key"), std::fs::Permissions::from_mode(0o644))
        .expect("changed");
    let path = dir.path().join(name);
    std::fs::write(&path, text.replace("DIR", dir.path().to_str().expect("UTF-8"))).expect("written");
    super::load(Vec::new(), Some(&path)).map_err(|error| error.to_string())
}

fn load(text: &str) -> Result<HashMap<String, Arc<Target>>, String> {
    load_as("resources.toml", text)
}

fn good() -> String {
    format!(
        r#"
        [[resources]]
        name = "web-1"
        integration = "ssh"
        host = "10.0.0.1"
        host_key = "{HOST_KEY}"
        private_key = "DIR/key"
        "#
    )
}

#[test]
fn the_same_resource_is_understood_in_both_formats_and_no_other() {
    assert_eq!(load(&good()).expect("good")["web-1"].resource.port, 22);
    let json = format!(
        r#"{{ "resources": [{{ "name": "web-1", "integration": "ssh", "host": "10.0.0.1", "tags": {{ "team": "a" }},
            "host_key": "{HOST_KEY}", "private_key": "DIR/key" }}] }}"#
    );
    let target = load_as("resources.json", &json).expect("good")["web-1"].clone();
    assert_eq!(target.to_string(), "web-1: ssh 10.0.0.1:22, private key, host key pinned, team=a");
    let error = load_as("resources.yaml", &json).expect_err("neither");
    assert!(error.contains("resources.yaml is neither .toml nor .json"), "{error}");
}

/// The good configuration with this line instead of its host key.
fn trusting(line: &str) -> String {
    good().replace(&format!("host_key = \"{HOST_KEY}\""), line)
}

/// The good configuration with this line instead of its private key.
fn logging_in(line: &str) -> String {
    good().replace("private_key = \"DIR/key\"", line)
}

#[test]
fn a_resource_says_exactly_how_it_is_known_and_logged_in_to() {
    let table = [
        (trusting(""), "nothing says which host key to trust"),
        (trusting("known_hosts = \"DIR/none\""), "known_hosts"),
        (trusting("host_key = \"ssh-ed25519 AAAA\""), "as `ssh-keyscan` prints it"),
        (trusting("host_ca = \"x\""), "host_ca"),
        (trusting("host_key_policy = \"learn\""), "needs learned_hosts"),
        (trusting("learned_hosts = \"DIR/learned\""), "only with host_key_policy"),
        (trusting("host_key_policy = \"ask\""), "unknown variant `ask`"),
        (
            good().replace(
                "private_key",
                "host_key_policy = \"learn\"\nlearned_hosts = \"DIR/x\"\nprivate_key",
            ),
            "can't stand beside",
        ),
        (logging_in(""), "exactly one of private_key"),
        (logging_in("private_key = \"DIR/key\"\nagent_socket = \"DIR/agent\""), "exactly one of private_key"),
        (logging_in("agent_key = \"x\"\nprivate_key = \"DIR/key\""), "there is no agent_socket"),
        (logging_in("agent_socket = \"DIR/agent\"\nagent_key = \"x\""), "as `ssh-add -L` prints it"),
        (logging_in("password_file = \"DIR/key\""), "mode 0644"),
        (logging_in("password = \"secret\""), "unknown field `password`"),
        (logging_in("certificate_authority = \"DIR/key\""), "mode 0644"),
        (good().replace("private_key", "users = [\"\"]\nprivate_key"), "users"),
        (good().replace("private_key", "tags = { \"\" = \"x\" }\nprivate_key"), "tags"),
        (good().replace("private_key", "instance_id = \"i-1\"\nprivate_key"), "aws-ec2-ssh only"),
        (good().replace("private_key", "port = 0\nprivate_key"), "port"),
    ];
    for (text, expected) in table {
        let error = load(&text).expect_err(expected);
        assert!(error.contains(expected), "{error} should name {expected}");
    }
}

#[cfg(feature = "aws")]
#[test]
fn an_ec2_resource_needs_its_instance_and_shares_its_regions_api() {
    let ec2 = |name: &str, more: &str| {
        format!(
            "[[resources]]\nname = \"{name}\"\nintegration = \"aws-ec2-ssh\"\nhost_key = \"{HOST_KEY}\"\n{more}\n"
        )
    };
    let good = [
        ec2("a", "instance_id = \"i-0123456789abcdef0\""),
        ec2("b", "instance_id = \"i-1\""),
        ec2("c", "instance_id = \"i-1\"\nregion = \"eu-central-1\""),
    ];
    let targets = load(&good.concat()).expect("a good configuration");
    let api = |name: &str| match &targets[name].access {
        Access::Ec2(instance) => instance.api.clone(),
        Access::Ssh(_) => panic!("{name} is an instance"),
    };
    assert!(Arc::ptr_eq(&api("a"), &api("b")) && !Arc::ptr_eq(&api("a"), &api("c")));
    assert_eq!(targets["a"].resource.host, "i-0123456789abcdef0");
    for (more, expected) in [
        ("", "instance_id: is missing"),
        ("instance_id = \"web-1\"", "is not like i-"),
        ("instance_id = \"i-1\"\nprivate_key = \"DIR/key\"", "come from EC2"),
        ("instance_id = \"i-1\"\naddress = \"dns\"", "unknown variant `dns`"),
    ] {
        let error = load(&ec2("a", more)).expect_err(expected);
        assert!(error.contains(expected), "{error} should name {expected}");
    }
}

#[test]
fn a_resource_admits_the_logins_it_lists_or_any() {
    let any = load(&good()).expect("a good configuration");
    assert!(any["web-1"].admits("whoever"));
    let some = good().replace("private_key", "user = \"deploy\"\nusers = [\"admin\"]\nprivate_key");
    let some = load(&some).expect("a good configuration");
    let admitted = ["deploy", "admin", "root"].map(|login| some["web-1"].admits(login));
    assert_eq!(admitted, [true, true, false]);
}
