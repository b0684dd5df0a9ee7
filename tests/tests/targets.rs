//! How targets are logged in to and reached: every credential, and a clear word for every failure.

use std::{fs, net::TcpListener, os::unix::process::CommandExt, process::Command};

use serde_json::json;
use weir_tests::{
    ACCOUNT, Bed, PASSWORD, PROXY_UID, Port, Process, Sshd, ssh_keygen,
    targets::{
        NEVER, admit_login_key, bed, login_key, pinned, reached, refused, resource, run, said, secret, start,
    },
};

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
    let rsa = bed.path("proxy/rsa_key").display().to_string();
    ssh_keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", &rsa]).expect("a key");
    bed.give_to_proxy("proxy/rsa_key").expect("given");
    let admitted =
        target.read("authorized_keys") + "\n" + &bed.public_key("proxy/rsa_key").expect("a key") + "\n";
    fs::write(target.dir.join("authorized_keys"), admitted).expect("written");
    let rsa = format!("private_key = \"{rsa}\"\n");
    let resources = [
        resource(&bed, "rsa", &target, &(pinned(&target) + &rsa)),
        resource(&bed, "key", &target, &(pinned(&target) + &login_key(&bed))),
        resource(&bed, "password", &target, &(pinned(&target) + &password)),
        resource(&bed, "asked", &asking, &(pinned(&asking) + &password)),
        resource(&bed, "agent", &target, &(pinned(&target) + &agent)),
        resource(&bed, "ca", &target, &(pinned(&target) + &format!("certificate_authority = \"{ca}\"\n"))),
    ];
    start(&mut bed, &resources.concat());

    let table = [
        ("key", &target, "private_key"),
        ("rsa", &target, "private_key"),
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
    let id = bed.recording(6).manifest["session"]["session_id"].as_str().expect("an id").to_owned();
    assert!(target.log().contains(&format!("ID {id} (serial")), "{}", target.log());
    assert!(!fs::read_to_string(bed.path("proxy.log")).expect("readable").contains(PASSWORD));
}

#[test]
fn a_certificate_permits_what_the_grant_permits_and_nothing_else() {
    let mut bed = bed();
    let ca = bed.path("proxy/user_ca").display().to_string();
    ssh_keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", &ca]).expect("a CA");
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
    for expected in ["user certificate", "permit-pty", ACCOUNT, "ED25519-CERT", "using rsa-sha2-512"] {
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

#[test]
fn a_target_that_can_not_be_reached_is_named_with_the_reason() {
    let mut bed = bed();
    let target = Sshd::start(&bed, "target-2", "");
    admit_login_key(&bed, &target);
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let refusing = Port::reserve().expect("bound");
    let more = pinned(&target) + &login_key(&bed);
    let at = |name: &str, host: &str, port: u16| {
        let text = resource(&bed, name, &target, &more);
        text.replace("127.0.0.1", host)
            .replace(&format!("port = {}\n", target.port), &format!("port = {port}\n"))
    };
    let resources = [
        "target_connect_timeout_ms = 3000\n".to_owned(),
        at("nameless", "no-such-name.invalid", 22),
        at("refusing", "127.0.0.1", refusing.number()),
        at("refusing-name", "localhost", refusing.number()),
        at("silent", "127.0.0.1", silent.local_addr().expect("bound").port()),
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
    assert!(
        line.contains("session=") && line.contains(&format!("127.0.0.1:{}: ", refusing.number())),
        "{line}"
    );
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
