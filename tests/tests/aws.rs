//! The integration `aws-ec2-ssh`, against an EC2 API on loopback (moto) and a target that asks it for keys.

use std::{path::PathBuf, process::Command};

use serde_json::json;
use weir_tests::{
    ACCOUNT, Bed, BedOptions, Process, Sshd,
    targets::{NEVER, reached, run, said, start},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/ec2_api.py");

/// The Python that has moto: `cargo xtask test` installs it below the target directory.
fn python(bed: &Bed) -> PathBuf {
    let installed =
        bed.bin().parent().map(|target| target.join("moto/bin/python")).filter(|python| python.exists());
    let python = installed.unwrap_or_else(|| "python3".into());
    let has_moto = Command::new(&python).args(["-c", "import moto.server, boto3"]).output();
    assert!(
        has_moto.is_ok_and(|output| output.status.success()),
        "moto is missing: run `cargo xtask test`, which installs it"
    );
    python
}

struct Api {
    python: PathBuf,
    port: String,
    process: Option<Process>,
}

impl Api {
    fn start(bed: &Bed) -> Self {
        let python = python(bed);
        let mut command = Command::new(&python);
        command.args([SCRIPT, "serve"]);
        let mut process = Process::start("EC2 API", &mut command, &bed.path("ec2.log")).expect("it starts");
        let line = process.wait_for_line("port=", 0).expect("it serves");
        let port = line.trim_start_matches("port=").to_owned();
        Self { python, port, process: Some(process) }
    }

    fn run(&self, command: &str, arguments: &[&str]) -> String {
        let output = Command::new(&self.python)
            .args([SCRIPT, command, &self.port])
            .args(arguments)
            .output()
            .expect("python runs");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// What an SDK finds in the environment of a process on AWS.
fn options() -> BedOptions {
    let variables = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test-secret")];
    BedOptions {
        proxy_env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

/// A target whose `AuthorizedKeysCommand` asks the API, as on a real instance.
fn target(bed: &Bed, api: &Api) -> Sshd {
    let script = bed.path("ec2_api.py");
    std::fs::copy(SCRIPT, &script).expect("copied");
    let command = format!(
        "AuthorizedKeysCommand /usr/bin/python3 {} keys {} %u\nAuthorizedKeysCommandUser nobody\nAuthorizedKeysFile none",
        script.display(),
        api.port
    );
    Sshd::start(bed, "instance", &command)
}

fn resource(bed: &Bed, api: &Api, target: &Sshd, name: &str, instance: &str, more: &str) -> String {
    bed.write_grant_for(name, NEVER, name, ACCOUNT).expect("written");
    format!(
        "[[resources]]\nname = \"{name}\"\nintegration = \"aws-ec2-ssh\"\ninstance_id = \"{instance}\"\nport = {}\n\
         region = \"eu-central-1\"\nendpoint_url = \"http://127.0.0.1:{}\"\nhost_key = \"{}\"\n{more}\n",
        target.port,
        api.port,
        target.read("host_key.pub")
    )
}

fn refused(bed: &Bed, grant: &str, reason: &str) {
    let output = run(bed, grant);
    let answer = said(&output);
    assert_eq!(output.status.code(), Some(255), "{answer}");
    assert!(answer.contains(&format!("cannot connect to {grant}: {reason}")), "{answer}");
    assert!(!answer.contains("i-"), "{answer}");
}

#[test]
fn an_instance_is_found_by_its_id_takes_the_pushed_key_and_the_manifest_says_so() {
    let mut bed = Bed::prepare_temporary(options());
    let mut api = Api::start(&bed);
    let target = target(&bed, &api);
    let instance = api.run("launch", &["127.0.0.1"]);
    let stopped = api.run("launch", &["127.0.0.2"]);
    api.run("stop", &[&stopped]);
    let resources = [
        resource(&bed, &api, &target, "instance", &instance, "address = \"private\"\n"),
        resource(&bed, &api, &target, "stopped", &stopped, ""),
        resource(&bed, &api, &target, "unknown", "i-0123456789abcdef0", ""),
        resource(&bed, &api, &target, "no-ipv6", &instance, "address = \"ipv6\"\n"),
    ];
    start(&mut bed, &resources.concat());

    for session in 1..=2 {
        let expected = json!({
            "address": format!("127.0.0.1:{}", target.port),
            "host_key": target.fingerprint("host_key.pub"),
            "host_key_trust": "pinned",
            "credential": "ec2_instance_connect",
        });
        assert_eq!(reached(&bed, "instance", session), expected);
        let resource = &bed.recording(session).manifest["session"]["resource"];
        assert_eq!(
            (resource["integration"].as_str(), resource["host"].as_str()),
            (Some("aws-ec2-ssh"), Some(&*instance))
        );
    }
    // A key of its own for each session.
    let keys = api.run("keys", &[ACCOUNT]);
    let mut keys: Vec<_> = keys.lines().collect();
    keys.dedup();
    assert_eq!(keys.len(), 2, "{keys:?}");

    refused(&bed, "stopped", "the EC2 instance is stopped");
    refused(&bed, "unknown", "there is no such EC2 instance");
    refused(&bed, "no-ipv6", "the EC2 instance has no address that this connector may use");
    api.run("deny", &[]);
    refused(&bed, "instance", "AWS does not allow this connector to reach it");
    let _ = bed.proxy_said("UnauthorizedOperation");
    api.process.take().expect("it runs").kill();
    refused(&bed, "instance", "AWS does not answer");
    let log = std::fs::read_to_string(bed.path("proxy.log")).expect("readable");
    assert!(!log.contains("test-secret"), "{log}");
}
