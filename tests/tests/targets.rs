//! How targets are reached: every credential, every reason to trust a host key, and a clear word for every failure.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use weir_tests::{ACCOUNT, Bed, BedOptions, PASSWORD, PROXY_UID, Process, Sshd, ssh_keygen};

const NEVER: &str = "2099-01-01T00:00:00Z";

/// A bed whose own target is never started.
fn bed() -> Bed {
    Bed::prepare_temporary(BedOptions::default())
}

/// A resource of this name at a target, with this said of host key and credential, and a grant of the same name.
fn resource(bed: &Bed, name: &str, target: &Sshd, more: &str) -> String {
    bed.write_grant_for(name, NEVER, name, ACCOUNT).expect("written");
    format!(
        "[[resources]]\nname = \"{name}\"\nintegration = \"ssh\"\nhost = \"127.0.0.1\"\nport = {}\n{more}\n",
        target.port
    )
}

fn pinned(target: &Sshd) -> String {
    format!("host_key = \"{}\"\n", target.read("host_key.pub"))
}

fn login_key(bed: &Bed) -> String {
    format!("private_key = \"{}\"\n", bed.path("proxy/login_key").display())
}

/// Writes a file that only the proxy may read, and gives its path.
fn secret(bed: &Bed, name: &str, text: &str) -> String {
    let sub = format!("proxy/{name}");
    fs::write(bed.path(&sub), text).expect("written");
    fs::set_permissions(bed.path(&sub), fs::Permissions::from_mode(0o600)).expect("changed");
    bed.give_to_proxy(&sub).expect("given");
    bed.path(&sub).display().to_string()
}

/// Lets the connector's key in.
fn admit_login_key(bed: &Bed, target: &Sshd) {
    fs::copy(bed.path("proxy/login_key.pub"), target.dir.join("authorized_keys")).expect("copied");
}

fn start(bed: &mut Bed, resources: &str) {
    bed.write_proxy_resources(resources).expect("written");
    bed.start_agent().expect("the agent starts");
    bed.start_proxy().expect("the proxy starts");
}

fn run(bed: &Bed, grant: &str) -> Output {
    bed.ssh_as(grant, "user/key").args(["-o", "BatchMode=yes", "echo in"]).output().expect("ssh runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a session and gives what its manifest says of the target.
fn reached(bed: &Bed, grant: &str, session: usize) -> Value {
    let output = run(bed, grant);
    assert_eq!(output.stdout, b"in\n", "{grant}: {}", said(&output));
    let recording = bed.recording(session);
    bed.assert_verifies(&recording);
    recording.manifest["target"].clone()
}

/// Runs a session that does not reach its target, for this reason, which names nothing that users need not know.
fn refused(bed: &Bed, grant: &str, reason: &str) {
    let output = run(bed, grant);
    assert_eq!(output.status.code(), Some(255), "{grant}");
    let answer = said(&output);
    assert!(answer.contains(reason), "{grant} should say {reason:?}: {answer}");
    let told: Vec<_> = answer.lines().filter(|line| line.contains("weir:")).collect();
    assert!(told.iter().all(|line| !line.contains(ACCOUNT) && !line.contains("/proxy/")), "{told:?}");
}

/// An agent that runs as the proxy, with this key in it.
fn agent_with(bed: &Bed, socket: &str, keys: &[&str]) -> Process {
    let path = bed.path(socket);
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(&path).uid(PROXY_UID).gid(PROXY_UID);
    let agent =
        Process::start("ssh-agent", &mut command, &bed.path("ssh-agent.log")).expect("ssh-agent starts");
    weir_tests::eventually("ssh-agent listens", || path.exists().then_some(()));
    for key in keys {
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(bed.path(key))
            .env("SSH_AUTH_SOCK", &path)
            .uid(PROXY_UID)
            .gid(PROXY_UID)
            .output()
            .expect("ssh-add runs");
        assert!(added.status.success(), "{}", said(&added));
    }
    agent
}

#[test]
fn every_credential_logs_in_and_the_manifest_says_which_it_was() {
    let mut bed = bed();
    let ca = bed.path("proxy/user_ca").display().to_string();
    ssh_keygen(&["-t", "ed25519", "-N", "", "-f", &ca]).expect("a CA");
    bed.give_to_proxy("proxy/user_ca").expect("given");
    let config = format!("PasswordAuthentication yes\nTrustedUserCAKeys {ca}.pub");
    let target = Sshd::start(&bed, "plain", &config);
    admit_login_key(&bed, &target);
    fs::create_dir_all(bed.path("asking")).expect("made");
    fs::write(
        bed.path("asking/pam"),
        "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
    )
    .expect("written");
    let asking = Sshd::start(&bed, "asking", "UsePAM yes\nKbdInteractiveAuthentication yes");
    let password = format!("password_file = \"{}\"\n", secret(&bed, "password", &format!("{PASSWORD}\n")));
    let _agent = agent_with(&bed, "proxy/agent", &["proxy/login_key"]);
    let agent = format!("agent_socket = \"{}\"\n", bed.path("proxy/agent").display());
    let resources = [
        resource(&bed, "key", &target, &(pinned(&target) + &login_key(&bed))),
        resource(&bed, "password", &target, &(pinned(&target) + &password)),
        resource(&bed, "asked", &asking, &(pinned(&asking) + &password)),
        resource(&bed, "agent", &target, &(pinned(&target) + &agent)),
        resource(&bed, "ca", &target, &(pinned(&target) + &format!("certificate_authority = \"{ca}\"\n"))),
    ];
    start(&mut bed, &resources.concat());

    let table = [
        ("key", &target, "private_key"),
        ("password", &target, "password"),
        ("asked", &asking, "password"),
        ("agent", &target, "agent"),
        ("ca", &target, "certificate"),
    ];
    for (session, (grant, target, credential)) in (1..).zip(table) {
        let expected = json!({
            "address": format!("127.0.0.1:{}", target.port),
            "host_key": target.fingerprint("host_key.pub"),
            "host_key_trust": "pinned",
            "credential": credential,
        });
        assert_eq!(reached(&bed, grant, session), expected, "{grant}");
    }
    // The target's own log names the session.
    let id = bed.recording(5).manifest["session"]["session_id"].as_str().expect("an id").to_owned();
    assert!(target.log().contains(&format!("ID {id} (serial")), "{}", target.log());
    assert!(!fs::read_to_string(bed.path("proxy.log")).expect("readable").contains(PASSWORD));
}

#[test]
fn a_certificate_permits_what_the_grant_permits_and_nothing_else() {
    let mut bed = bed();
    let ca = bed.path("proxy/user_ca").display().to_string();
    ssh_keygen(&["-t", "ed25519", "-N", "", "-f", &ca]).expect("a CA");
    bed.give_to_proxy("proxy/user_ca").expect("given");
    let target = Sshd::start(&bed, "target-2", &format!("TrustedUserCAKeys {ca}.pub\nExposeAuthInfo yes"));
    let more = pinned(&target) + &format!("certificate_authority = \"{ca}\"\n");
    let resources = resource(&bed, "ca", &target, &more);
    start(&mut bed, &resources);
    let output = bed.ssh_as("ca", "user/key").arg("cat $SSH_USER_AUTH").output().expect("ssh runs");
    let (used, text) = (bed.path("used-cert.pub"), String::from_utf8_lossy(&output.stdout).into_owned());
    let certificate = text.strip_prefix("publickey ").unwrap_or_else(|| panic!("no certificate in {text:?}"));
    fs::write(&used, certificate).expect("written");
    let shown = Command::new("ssh-keygen").arg("-Lf").arg(&used).output().expect("ssh-keygen runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for expected in ["user certificate", "permit-pty", ACCOUNT, "ED25519-CERT"] {
        assert!(shown.contains(expected), "{shown} should have {expected}");
    }
    for unexpected in
        ["forever", "permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding"]
    {
        assert!(!shown.contains(unexpected), "{shown} should not have {unexpected}");
    }
}

#[test]
fn a_login_that_the_target_refuses_is_tried_once_and_said_plainly() {
    let mut bed = bed();
    let target =
        Sshd::start(&bed, "target-2", "PasswordAuthentication yes\nKbdInteractiveAuthentication yes");
    let wrong = format!("password_file = \"{}\"\n", secret(&bed, "password", "wrong\n"));
    let _agent = agent_with(&bed, "proxy/agent", &["proxy/login_key"]);
    let stranger = bed.public_key("user/stranger_key").expect("a key");
    let agent = format!("agent_socket = \"{}\"\n", bed.path("proxy/agent").display());
    let no_agent = format!("agent_socket = \"{}\"\n", bed.path("proxy/no-agent").display());
    let resources = [
        resource(&bed, "password", &target, &(pinned(&target) + &wrong)),
        resource(&bed, "key", &target, &(pinned(&target) + &login_key(&bed))),
        resource(&bed, "agent", &target, &(pinned(&target) + &agent)),
        resource(
            &bed,
            "agent-key",
            &target,
            &format!("{}{agent}agent_key = \"{stranger}\"\n", pinned(&target)),
        ),
        resource(&bed, "no-agent", &target, &(pinned(&target) + &no_agent)),
        resource(
            &bed,
            "other-login",
            &target,
            &format!("{}{}user = \"admin\"\n", pinned(&target), login_key(&bed)),
        ),
    ];
    start(&mut bed, &resources.concat());
    for grant in ["password", "key", "agent"] {
        refused(&bed, grant, &format!("{grant} does not accept this connector's login"));
    }
    assert_eq!(target.log().matches("Failed password").count(), 1, "{}", target.log());
    for grant in ["agent-key", "no-agent"] {
        refused(&bed, grant, &format!("this connector has nothing to log in to {grant} with"));
    }
    refused(&bed, "other-login", "the grant's login is not one that this connector has for the resource");
    for cause in [
        "the login was refused; the target would go on with: publickey, password, keyboard-interactive",
        "holds 1 keys, but not the one that agent_key names",
        "proxy/no-agent: ",
        "the grant names a login that the resource does not admit",
    ] {
        let _ = bed.proxy_said(cause);
    }
    assert!(!target.log().contains("Accepted"), "{}", target.log());
}

/// Has a CA certify a target's host key for this host name, and gives the CA's public key.
fn certify_host(bed: &Bed, target_dir: &str, name: &str, options: &[&str]) -> String {
    let (ca, key) = (bed.path(&format!("{target_dir}/ca")), bed.path(&format!("{target_dir}/host_key")));
    let (ca, key) = (ca.display().to_string(), key.display().to_string());
    for path in [&ca, &key] {
        if !Path::new(path).exists() {
            ssh_keygen(&["-t", "ed25519", "-N", "", "-C", "", "-f", path]).expect("a key");
        }
    }
    let public = format!("{key}.pub");
    let arguments: [&[&str]; 3] = [&["-s", &ca, "-I", "host", "-h", "-n", name], options, &[&public]];
    ssh_keygen(&arguments.concat()).expect("certified");
    fs::read_to_string(format!("{ca}.pub")).expect("readable").trim_end().to_owned()
}

#[test]
fn every_reason_to_trust_a_host_key_counts_and_the_manifest_says_which_it_was() {
    let mut bed = bed();
    fs::create_dir_all(bed.path("certified")).expect("made");
    let authority = certify_host(&bed, "certified", "127.0.0.1", &["-V", "-1h:+1h"]);
    let certified = Sshd::start(&bed, "certified", "HostCertificate DIR/host_key-cert.pub");
    admit_login_key(&bed, &certified);
    fs::create_dir_all(bed.path("many")).expect("made");
    let rsa = bed.path("many/rsa_key").display().to_string();
    ssh_keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-C", "", "-f", &rsa]).expect("a key");
    let many = Sshd::start(&bed, "many", "HostKey DIR/rsa_key");
    admit_login_key(&bed, &many);

    let known_hosts = |name: &str, text: String| {
        let path = bed.path(&format!("proxy/{name}"));
        fs::write(&path, text).expect("written");
        format!("known_hosts = \"{}\"\n", path.display())
    };
    let key = many.read("host_key.pub");
    let plain = known_hosts("plain", format!("# ours\n[127.0.0.1]:{} {key}\n", many.port));
    let hashed = known_hosts("hashed", format!("[127.0.0.1]:{} {key}\n", many.port));
    let hashed_file = bed.path("proxy/hashed").display().to_string();
    ssh_keygen(&["-H", "-f", &hashed_file]).expect("hashed");
    assert!(!fs::read_to_string(&hashed_file).expect("readable").contains("127"), "it is hashed");
    let signed = known_hosts("signed", format!("@cert-authority 127.0.0.?,!127.0.0.2 {authority}\n"));
    let two = format!("host_keys = [\"{}\", \"{key}\"]\n", bed.public_key("user/key").expect("a key"));
    let rsa = format!("host_key = \"{}\"\n", many.read("rsa_key.pub"));
    let learned =
        format!("host_key_policy = \"learn\"\nlearned_hosts = \"{}\"\n", bed.path("proxy/learned").display());
    let table = [
        ("two", &many, two, "host_key.pub", "pinned"),
        ("rsa", &many, rsa, "rsa_key.pub", "pinned"),
        ("plain", &many, plain, "host_key.pub", "known_hosts"),
        ("hashed", &many, hashed, "host_key.pub", "known_hosts"),
        ("signed", &certified, signed, "host_key.pub", "cert_authority"),
        ("ca", &certified, format!("host_ca = \"{authority}\"\n"), "host_key.pub", "cert_authority"),
        ("bare", &certified, pinned(&certified), "host_key.pub", "pinned"),
        ("learn", &many, learned.clone(), "host_key.pub", "learned"),
        ("learn-again", &many, learned, "host_key.pub", "learned"),
    ];
    let resources: Vec<_> = table
        .iter()
        .map(|(name, target, more, ..)| resource(&bed, name, target, &(login_key(&bed) + more)))
        .collect();
    start(&mut bed, &resources.concat());
    for (session, (grant, target, _, key, trust)) in (1..).zip(&table) {
        let peer = reached(&bed, grant, session);
        assert_eq!(peer["host_key_trust"], *trust, "{grant}");
        assert_eq!(peer["host_key"], target.fingerprint(key), "{grant}");
    }
    let learned = fs::read_to_string(bed.path("proxy/learned")).expect("readable");
    assert_eq!(learned.lines().count(), 1, "{learned}");
    let _ = bed.proxy_said("this host key was learned");
}

#[test]
fn a_host_key_that_nobody_vouches_for_is_refused_loudly_and_nothing_is_sent() {
    let mut bed = bed();
    for (name, principal, validity) in [
        ("elsewhere", "10.9.8.7", "-1h:+1h"),
        ("expired", "127.0.0.1", "-2h:-1h"),
        ("valid", "127.0.0.1", "-1h:+1h"),
    ] {
        fs::create_dir_all(bed.path(name)).expect("made");
        certify_host(&bed, name, principal, &["-V", validity]);
    }
    let certificate = "HostCertificate DIR/host_key-cert.pub";
    let elsewhere = Sshd::start(&bed, "elsewhere", certificate);
    let expired = Sshd::start(&bed, "expired", certificate);
    let valid = Sshd::start(&bed, "valid", certificate);
    let (key, authority) = (valid.read("host_key.pub"), valid.read("ca.pub"));
    let other = bed.public_key("user/stranger_key").expect("a key");
    let known_hosts = |name: &str, text: &str| {
        let path = bed.path(&format!("proxy/{name}"));
        fs::write(&path, text.replace("HOST", &format!("[127.0.0.1]:{}", valid.port))).expect("written");
        format!("known_hosts = \"{}\"\n", path.display())
    };
    let ca = |target: &Sshd| format!("host_ca = \"{}\"\n", target.read("ca.pub"));
    let changed = "is not the one this connector expects; nothing was sent";
    let certificate = "is not good for it now; nothing was sent";
    let table = [
        ("pinned", &valid, format!("host_key = \"{other}\"\n"), changed),
        ("changed", &valid, known_hosts("changed", &format!("HOST {other}\n")), changed),
        (
            "unknown",
            &valid,
            known_hosts("unknown", &format!("elsewhere {key}\n")),
            "is not known to this connector",
        ),
        ("revoked", &valid, known_hosts("revoked", &format!("HOST {key}\n@revoked * {key}\n")), "is revoked"),
        (
            "revoked-ca",
            &valid,
            known_hosts("revoked-ca", &format!("@cert-authority HOST {authority}\n@revoked * {authority}\n")),
            "is revoked",
        ),
        ("other-ca", &valid, format!("host_ca = \"{other}\"\n"), changed),
        ("elsewhere", &elsewhere, ca(&elsewhere), certificate),
        ("expired", &expired, ca(&expired), certificate),
        (
            "gone",
            &valid,
            known_hosts("gone", &format!("HOST {key}\n")),
            "cannot tell which host key gone should have",
        ),
        (
            "unwritable",
            &valid,
            "host_key_policy = \"learn\"\nlearned_hosts = \"/proc/learned\"\n".to_owned(),
            "is not known",
        ),
        ("learned", &valid, learned_with(&bed, &valid, &other), changed),
    ];
    let resources: Vec<_> = table
        .iter()
        .map(|(name, target, more, _)| resource(&bed, name, target, &(login_key(&bed) + more)))
        .collect();
    start(&mut bed, &resources.concat());
    fs::remove_file(bed.path("proxy/gone")).expect("removed");
    for (grant, _, _, reason) in &table {
        refused(&bed, grant, reason);
    }
    for target in [&elsewhere, &expired, &valid] {
        assert!(!target.log().contains("userauth-request"), "a login was tried: {}", target.log());
    }
    let line = bed.proxy_said("expected: ");
    assert!(line.contains("ERROR") && line.contains(&valid.fingerprint("host_key.pub")), "{line}");
    assert_eq!(line.matches("SHA256:").count(), 2, "both keys are named: {line}");
    for cause in ["it is not for this host name", "it has expired", "which is revoked", "can't be kept"] {
        let _ = bed.proxy_said(cause);
    }
}

/// A file that has learned another key of a target before.
fn learned_with(bed: &Bed, target: &Sshd, key: &str) -> String {
    let path = bed.path("proxy/learned");
    fs::write(&path, format!("[127.0.0.1]:{} {key}\n", target.port)).expect("written");
    bed.give_to_proxy("proxy/learned").expect("given");
    format!("host_key_policy = \"learn\"\nlearned_hosts = \"{}\"\n", path.display())
}

#[test]
fn a_target_that_can_not_be_reached_is_named_with_the_reason() {
    let mut bed = bed();
    let target = Sshd::start(&bed, "target-2", "");
    admit_login_key(&bed, &target);
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    let refusing = TcpListener::bind("127.0.0.1:0").map(|listener| port(&listener)).expect("bound");
    let more = pinned(&target) + &login_key(&bed);
    let at = |name: &str, host: &str, port: u16| {
        let text = resource(&bed, name, &target, &more);
        text.replace("127.0.0.1", host)
            .replace(&format!("port = {}\n", target.port), &format!("port = {port}\n"))
    };
    let resources = [
        "target_connect_timeout_ms = 3000\n".to_owned(),
        at("nameless", "no-such-name.invalid", 22),
        at("refusing", "127.0.0.1", refusing),
        at("refusing-name", "localhost", refusing),
        at("silent", "127.0.0.1", port(&silent)),
        at("local", "localhost", target.port),
    ];
    start(&mut bed, &resources.concat());
    refused(&bed, "refusing", "cannot connect to refusing: connection refused");
    refused(&bed, "refusing-name", "cannot connect to refusing-name: connection refused");
    refused(&bed, "silent", "silent did not answer within 3 s");
    let output = said(&run(&bed, "nameless"));
    let reasons = ["its name does not resolve", "did not answer within 3 s"];
    assert!(reasons.iter().any(|reason| output.contains(reason)), "{output}");
    // It listens on one of that name's addresses only.
    let output = run(&bed, "local");
    assert_eq!(output.stdout, b"in\n", "{}", said(&output));
    let line = bed.proxy_said("no connection: ");
    assert!(line.contains("session=") && line.contains(&format!("127.0.0.1:{refusing}: ")), "{line}");
}

#[test]
fn resources_come_from_a_file_of_their_own_too_and_check_shows_them() {
    let mut bed = bed();
    let target = Sshd::start(&bed, "target-2", "");
    admit_login_key(&bed, &target);
    let inline = resource(&bed, "inline", &target, &(pinned(&target) + &login_key(&bed)));
    bed.write_grant_for("filed", NEVER, "filed", ACCOUNT).expect("written");
    let filed = json!({ "resources": [{
        "name": "filed", "integration": "ssh", "host": "127.0.0.1", "port": target.port, "users": [ACCOUNT],
        "tags": { "environment": "production" }, "host_key": target.read("host_key.pub"),
        "private_key": bed.path("proxy/login_key"),
    }]});
    let file = bed.path("resources.json");
    fs::write(&file, filed.to_string()).expect("written");
    start(&mut bed, &format!("resources_file = \"{}\"\n{inline}", file.display()));
    for (session, grant) in [(1, "inline"), (2, "filed")] {
        assert_eq!(reached(&bed, grant, session)["host_key_trust"], "pinned");
    }
    let check = || {
        Command::new(bed.path("bin/weir-proxy"))
            .arg("--check")
            .arg("--config")
            .arg(bed.path("proxy.toml"))
            .output()
            .expect("it runs")
    };
    let shown = String::from_utf8_lossy(&check().stdout).into_owned();
    let expected = format!(
        "filed: ssh 127.0.0.1:{}, private key, host key pinned, logins {ACCOUNT}, environment=production",
        target.port
    );
    assert!(shown.lines().any(|line| line == expected), "{shown}");

    fs::write(&file, filed.to_string().replace("filed", "inline")).expect("written");
    let refused = said(&check());
    assert!(refused.contains("\"inline\" is there twice"), "{refused}");
    fs::write(&file, "{ \"resources\": [{ \"nam\": 1 }]}").expect("written");
    let refused = said(&check());
    assert!(refused.contains("resources.json") && refused.contains("unknown field `nam`"), "{refused}");
}
