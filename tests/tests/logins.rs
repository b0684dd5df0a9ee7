//! Who gets in, by which proof, and for how long: with the real `ssh` and `ssh-keygen`.

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use support::{
    Ended, LATER, SoftwareToken, Waiting, certify, grant, hashed_secret, ssh_with_secret, stderr, try_in,
};
use weir_tests::{Bed, BedOptions, GRANT, eventually, eventually_within};

/// A bed whose proxy trusts `DIR/user/ca`, honours `DIR/revoked` and takes one-time secrets.
fn bed() -> Bed {
    let mut bed = Bed::prepare_temporary(BedOptions {
        proxy_settings: "login_exempt = [\"127.0.0.0/8\"]\nuser_ca = \"DIR/user/ca.pub\"\n\
                         revoked_keys = \"DIR/revoked\"\nstate_dir = \"DIR/proxy/state\"\n"
            .to_owned(),
        ..Default::default()
    });
    for ca in ["user/ca", "user/other_ca"] {
        bed.ssh_keygen(&["-q", "-t", "ed25519", "-N", "", "-f", ca]);
    }
    fs::write(bed.path("revoked"), "# nothing yet\n").expect("written");
    bed.start_target().expect("the target starts");
    bed.start_agent().expect("the agent starts");
    bed.start_proxy().expect("the proxy starts");
    bed
}

/// What a login by certificate and a command give.
fn by_certificate(bed: &Bed, id: &str, certificate: &str, command: &[&str]) -> Output {
    let mut ssh = bed.ssh_as(id, "user/key");
    let certificate = bed.path(certificate);
    ssh.args(["-o", "BatchMode=yes", "-o", &format!("CertificateFile={}", certificate.display())]);
    ssh.args(command).output().expect("ssh runs")
}

#[test]
fn a_good_certificate_gets_in_and_the_recording_names_it() {
    let bed = bed();
    grant(&bed, "crt", "certificate = true");
    for (name, principal) in
        [("by_user", "ada@example.com"), ("by_grant", "crt"), ("among_others", "x,crt,y")]
    {
        let certificate =
            certify(&bed, name, &["-n", principal, "-z", "7", "-O", "source-address=127.0.0.0/8,10.0.0.1"]);
        let output = by_certificate(&bed, "crt", &certificate, &["echo in"]);
        assert_eq!(output.stdout, b"in\n", "{name}: {}", stderr(&output));
    }
    let recording = bed.recording(3);
    bed.assert_verifies(&recording);
    let proof = &recording.manifest["session"]["proof"];
    assert_eq!(proof["kind"], "certificate", "{}", recording.manifest);
    assert_eq!((proof["key_id"].as_str(), proof["serial"].as_u64()), (Some("ada-laptop"), Some(7)));
}

#[test]
fn a_certificate_that_is_wrong_in_any_way_is_refused_and_the_log_says_which() {
    let bed = bed();
    grant(&bed, "crt", "certificate = true");
    grant(&bed, "other", "principals = [\"ops\"]");
    let me = ["-n", "ada@example.com"];
    let with = |more: &[&'static str]| [&me[..], more].concat();
    // russh itself refuses what is not valid now, before it asks anybody; OpenSSH falls back on the key.
    let not_now = "that one is expired, not valid yet";
    let table = [
        ("expired", with(&["-V", "20200101:20210101"]), not_now),
        ("not_yet", with(&["-V", "20980101:20990101"]), not_now),
        ("wrong_ca", with(&["-s", "user/other_ca"]), "is not in user_ca"),
        ("wrong_principal", vec!["-n", "eve@example.com"], "the certificate's principals are"),
        ("no_principal", vec![], "the certificate's principals are"),
        ("elsewhere", with(&["-O", "source-address=10.0.0.0/8"]), "source-address"),
        (
            "unknown_option",
            with(&["-O", "critical:from-the-future=x"]),
            "\"from-the-future\", which is not supported",
        ),
        // OpenSSH's client does not offer it, and falls back on the key itself.
        ("host", with(&["-h"]), "is not listed in the grant"),
    ];
    for (name, arguments, cause) in table {
        let certificate = certify(&bed, name, &arguments);
        let output = by_certificate(&bed, "crt", &certificate, &["echo in"]);
        assert_eq!(output.status.code(), Some(255), "{name}");
        assert!(
            output.stdout.is_empty() && stderr(&output).contains("Permission denied (publickey"),
            "{name}"
        );
        let _ = bed.proxy_said(cause);
    }
    let good = certify(&bed, "good", &me);
    for (id, cause) in [(GRANT, "does not accept certificates"), ("other", "the grant accepts [\"ops\"]")] {
        // The user's key is listed in the bed's own grant, so that only the certificate may be offered there.
        grant(
            &bed,
            GRANT,
            "public_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVnCHT1mUGFW9MPVYvJ2CLS5gHQ3MzQbXxcKu4m6rVp\"]",
        );
        assert_eq!(by_certificate(&bed, id, &good, &["echo in"]).status.code(), Some(255));
        let _ = bed.proxy_said(cause);
    }
}

#[test]
fn authorities_are_those_in_the_file_at_the_time_of_the_login() {
    let bed = bed();
    grant(&bed, "crt", "certificate = true");
    let certificate = certify(&bed, "other", &["-n", "crt", "-s", "user/other_ca"]);
    let gets_in = || by_certificate(&bed, "crt", &certificate, &["echo in"]).stdout == b"in\n";
    assert!(!gets_in());
    fs::copy(bed.path("user/other_ca.pub"), bed.path("user/ca.pub")).expect("copied");
    assert!(gets_in());
    fs::write(bed.path("user/ca.pub"), "nonsense").expect("written");
    assert!(!gets_in());
    let _ = bed.proxy_said("nobody gets in by certificate: user_ca");
}

#[test]
fn a_grant_for_another_integration_than_its_resource_has_is_refused_with_the_reason() {
    let bed = bed();
    let key = bed.public_key("user/key").expect("a key");
    for (integration, gets_in) in [("ssh", true), ("aws-ec2-ssh", false)] {
        grant(&bed, "int", &format!("public_keys = [\"{key}\"]\nintegration = \"{integration}\""));
        let output = try_in(&bed, "int", "user/key");
        assert_eq!(output.stdout == b"in\n", gets_in, "{}", stderr(&output));
        assert_eq!(stderr(&output).contains("the grant's integration is not its resource's"), !gets_in);
    }
}

#[test]
fn a_forced_command_runs_instead_of_whatever_is_asked_for() {
    let bed = bed();
    grant(&bed, "crt", "certificate = true");
    let certificate = certify(&bed, "forced", &["-n", "crt", "-O", "force-command=echo forced"]);
    let subsystem = ["-s", "sftp"];
    for request in [&["rm -r /nowhere"][..], &[], &subsystem] {
        let mut arguments = vec!["-T"];
        arguments.extend(request);
        // Options of ssh stand before the host, a subsystem's name behind it.
        let output = match request {
            ["-s", name] => {
                let mut ssh = bed.ssh_as("crt", "user/key");
                let file = format!("CertificateFile={}", bed.path(&certificate).display());
                ssh.args(["-T", "-o", &file, "-s", name]).output().expect("ssh runs")
            }
            _ => by_certificate(&bed, "crt", &certificate, &arguments),
        };
        assert_eq!(output.stdout, b"forced\n", "{request:?}: {}", stderr(&output));
    }
    let recording = bed.recording(3);
    bed.assert_verifies(&recording);
    assert_eq!(recording.command().as_deref(), Some("echo forced"));
    assert!(recording.kind("subsystem").is_empty());
    assert_eq!(
        recording
            .kind("env")
            .iter()
            .filter(|event| event.json.to_string().contains("SSH_ORIGINAL_COMMAND"))
            .count(),
        1
    );
}

#[test]
fn what_a_certificate_does_not_permit_is_taken_away() {
    let bed = bed();
    grant(&bed, "crt", "certificate = true");
    let plain = certify(&bed, "plain", &["-n", "crt"]);
    let clear = certify(&bed, "clear", &["-n", "crt", "-O", "clear"]);
    let tty =
        |certificate: &str| by_certificate(&bed, "crt", certificate, &["-tt", "test -t 0 && echo terminal"]);
    assert_eq!(tty(&plain).stdout, b"terminal\r\n");
    let output = tty(&clear);
    assert!(stderr(&output).contains("PTY allocation request failed"), "{}", stderr(&output));
    assert_eq!(by_certificate(&bed, "crt", &clear, &["echo in"]).stdout, b"in\n");
}

#[test]
fn what_is_revoked_is_refused_from_the_next_login_on() {
    let bed = bed();
    grant(&bed, "crt", "certificate = true");
    let certificate = certify(&bed, "c", &["-n", "crt", "-z", "42"]);
    let gets_in = || by_certificate(&bed, "crt", &certificate, &["echo in"]).stdout == b"in\n";
    assert!(gets_in());
    let key = bed.public_key("user/key").expect("a key");
    let ca = bed.public_key("user/ca").expect("a key");
    let table = [
        ("serial: 40-50\n".to_owned(), "its serial number is revoked"),
        ("id: ada-laptop\n".to_owned(), "its key id is revoked"),
        (format!("sha256: {key}\n"), "its key is revoked"),
        (format!("key: {ca}\n"), "its authority's key is revoked"),
    ];
    for (specification, cause) in table {
        // As a text, and as the KRL that ssh-keygen makes of it.
        fs::write(bed.path("spec"), &specification).expect("written");
        bed.ssh_keygen(&["-q", "-k", "-f", "krl", "-s", "user/ca.pub", "spec"]);
        for form in ["spec", "krl"] {
            fs::copy(bed.path(form), bed.path("revoked")).expect("copied");
            assert!(!gets_in(), "{form}: {specification}");
            let _ = bed.proxy_said(cause);
        }
        fs::write(bed.path("revoked"), "serial: 41\nid: somebody\n").expect("written");
        assert!(gets_in(), "the list is about others");
    }

    fs::write(bed.path("revoked"), format!("{key}\n")).expect("written");
    assert_eq!(try_in(&bed, GRANT, "user/key").status.code(), Some(255), "a listed key");
    fs::remove_file(bed.path("revoked")).expect("removed");
    assert_eq!(try_in(&bed, GRANT, "user/key").status.code(), Some(255), "without the list nobody gets in");
    let _ = bed.proxy_said("nobody gets in by key or certificate: cannot read");
}

#[test]
fn listed_keys_of_every_kind_get_in_and_rsa_only_with_sha2() {
    let bed = bed();
    for (kind, bits) in [("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")] {
        let key = format!("user/{kind}{bits}");
        bed.ssh_keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-f", &key]);
        let line = bed.public_key(&key).expect("a key");
        grant(&bed, kind, &format!("public_keys = [\"{line}\"]"));
        let output = bed.ssh_as(kind, &key).arg("echo in").output().expect("ssh runs");
        assert_eq!(output.stdout, b"in\n", "{key}: {}", stderr(&output));
    }
    for (algorithms, gets_in) in [("rsa-sha2-256", true), ("ssh-rsa", false)] {
        let algorithms = format!("PubkeyAcceptedAlgorithms={algorithms}");
        let mut ssh = bed.ssh_as("rsa", "user/rsa2048");
        let output =
            ssh.args(["-o", "BatchMode=yes", "-o", &algorithms, "echo in"]).output().expect("ssh runs");
        assert_eq!(output.stdout == b"in\n", gets_in, "{algorithms}: {}", stderr(&output));
    }
}

#[test]
fn fido_keys_get_in_where_the_grant_does_without_proof_of_touch() {
    let bed = bed();
    for kind in ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"] {
        let token = SoftwareToken::start(&bed, kind);
        grant(&bed, "sk", &format!("public_keys = [\"no-touch-required {}\"]", token.public_key()));
        let run = || token.ssh(&bed, "sk").arg("echo in").output().expect("ssh runs");
        let output = run();
        assert_eq!(output.stdout, b"in\n", "{kind}: {}", stderr(&output));
        token.sign_wrongly(true);
        assert_eq!(run().status.code(), Some(255), "{kind}: a wrong signature");
        token.sign_wrongly(false);
        grant(&bed, "sk", &format!("public_keys = [\"{}\"]", token.public_key()));
        assert_eq!(run().status.code(), Some(255));
        let _ = bed.proxy_said("write no-touch-required before it");
    }
}

#[test]
fn a_one_time_secret_gets_in_once_also_after_a_restart() {
    let mut bed = bed();
    let (secret, line) = hashed_secret(&bed);
    grant(&bed, "otp", &line);
    let output = ssh_with_secret(&bed, "otp", "wrong").output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(255));
    let output = ssh_with_secret(&bed, "otp", &secret).output().expect("ssh runs");
    assert_eq!(output.stdout, b"in\n", "{}", stderr(&output));
    let again = || ssh_with_secret(&bed, "otp", &secret).output().expect("ssh runs").status.code();
    assert_eq!(again(), Some(255), "it is spent");
    let _ = bed.proxy_said("the one-time secret was used before");
    let recording = bed.recording(1);
    assert_eq!(recording.manifest["session"]["proof"]["kind"], "one_time_secret", "{}", recording.manifest);

    bed.take_proxy().kill();
    bed.start_proxy().expect("the proxy starts");
    let output = ssh_with_secret(&bed, "otp", &secret).output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(255), "it is still spent");
    let log = fs::read_to_string(bed.path("proxy.log")).expect("a log");
    assert!(!log.contains(&secret), "the secret is in the log");
}

#[test]
fn of_several_logins_at_once_with_one_secret_exactly_one_gets_in() {
    let bed = bed();
    let (secret, line) = hashed_secret(&bed);
    grant(&bed, "otp", &line);
    let racing: Vec<_> = (0..4)
        .map(|_| {
            let mut ssh = ssh_with_secret(&bed, "otp", &secret);
            thread::spawn(move || ssh.output().expect("ssh runs").stdout == b"in\n")
        })
        .collect();
    let got_in = racing.into_iter().filter_map(|login| login.join().expect("no panic").then_some(()));
    assert_eq!(got_in.count(), 1);
}

/// Ends a session by a change, and another if that took a second, up to three: a busy machine is late for once. Gives how
/// many it were.
fn ends_within_a_second(
    case: &str,
    mut begin: impl FnMut() -> Waiting,
    change: &dyn Fn(),
    reason: &str,
) -> usize {
    let mut late = Vec::new();
    while late.len() < 3 {
        let Ended { after, said } = begin().ended_by(change);
        assert!(said.contains(reason), "{case}: {said}");
        if after < Duration::from_secs(1) {
            return late.len() + 1;
        }
        late.push(after);
    }
    panic!("{case}: {late:?}");
}

#[test]
fn a_running_session_ends_within_a_second_of_its_grant_being_taken_back_and_says_why() {
    let bed = bed();
    let key = bed.public_key("user/key").expect("a key");
    let listed = format!("public_keys = [\"{key}\"]");
    let text = |lines: &str| Bed::grant_text(LATER, lines);
    let rename_over = |text: String| {
        fs::write(bed.path("proxy/next"), text).expect("written");
        fs::rename(bed.path("proxy/next"), bed.grant_file("live")).expect("renamed");
    };
    type Change<'a> = &'a dyn Fn();
    let remove = || fs::remove_file(bed.grant_file("live")).expect("removed");
    let rewrite = || {
        fs::write(bed.grant_file("live"), text(&listed).replace("\"root\"", "\"daemon\"")).expect("written");
    };
    let unlist = || rename_over(text("certificate = true"));
    let reduce = || rename_over(text(&format!("{listed}\npermissions = [\"shell\"]")));
    let spoil = || fs::write(bed.grant_file("live"), "user = [").expect("written");
    let expire = || rename_over(Bed::grant_text("2001-01-01T00:00:00Z", &listed));
    let revoke = || fs::write(bed.path("revoked"), format!("{key}\n")).expect("written");
    let changes: [(&str, Change<'_>, &str); 6] = [
        ("removed", &remove, "the grant was revoked; the session was closed"),
        ("rewritten", &rewrite, "the grant was changed: it names another target login now"),
        ("key unlisted", &unlist, "it does not list the key any more that you logged in with"),
        ("permission gone", &reduce, "it permits no commands any more"),
        ("spoilt", &spoil, "the grant was changed: its file can't be understood"),
        ("expired earlier", &expire, "the grant has expired"),
    ];
    let mut bystander = Some(Waiting::start(bed.ssh_as(GRANT, "user/key")));
    let mut sessions = 0;
    for (case, change, reason) in changes {
        let begin = || {
            rename_over(text(&listed));
            Waiting::start(bed.ssh_as("live", "user/key"))
        };
        sessions += ends_within_a_second(case, begin, change, reason);
    }
    // The list of what is revoked concerns the bystander as well, which goes on until then.
    let begin = || {
        bystander.take().unwrap_or_else(|| {
            fs::write(bed.path("revoked"), "# nothing any more\n").expect("written");
            Waiting::start(bed.ssh_as(GRANT, "user/key"))
        })
    };
    let reason = "the key that you logged in with was revoked";
    sessions += ends_within_a_second("key revoked", begin, &revoke, reason);
    let recording = bed.recording(sessions);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
}

#[test]
fn a_mounted_directory_of_grants_that_is_swapped_is_followed() {
    // As Kubernetes mounts a Secret: files are links into a directory that a link points to, which is replaced.
    let bed = bed();
    let dir = bed.path("proxy/grants");
    let key = bed.public_key("user/key").expect("a key");
    for (version, login) in [("v1", "root"), ("v2", "daemon")] {
        fs::create_dir(dir.join(version)).expect("made");
        let text = Bed::grant_text(LATER, &format!("public_keys = [\"{key}\"]"))
            .replace("\"root\"", &format!("{login:?}"));
        fs::write(dir.join(version).join("live.toml"), text).expect("written");
    }
    let point_to = |version: &str| {
        symlink(version, dir.join("..new")).expect("linked");
        fs::rename(dir.join("..new"), dir.join("..data")).expect("renamed");
    };
    symlink("..data/live.toml", bed.grant_file("live")).expect("linked");
    let begin = || {
        point_to("v1");
        Waiting::start(bed.ssh_as("live", "user/key"))
    };
    ends_within_a_second("swapped", begin, &|| point_to("v2"), "it names another target login now");
}

#[test]
fn a_grant_that_changes_for_the_better_changes_the_session_in_place() {
    let bed = bed();
    let key = bed.public_key("user/key").expect("a key");
    let soon = support::in_seconds(12);
    let lines = format!("public_keys = [\"{key}\"]\npermissions = [\"exec\"]");
    fs::write(bed.grant_file("live"), Bed::grant_text(&soon, &lines)).expect("written");
    let control = format!("ControlPath={}", bed.control_path().display());
    let session = Waiting::start({
        let mut ssh = bed.ssh_as("live", "user/key");
        ssh.args(["-o", "ControlMaster=yes", "-o", &control]);
        ssh
    });
    let again = |subsystem: &[&str]| {
        let mut ssh = bed.ssh_as("live", "user/key");
        ssh.args(["-o", &control]).args(subsystem).output().expect("ssh runs")
    };
    eventually("the master listens", || bed.control_path().exists().then_some(()));
    assert!(!again(&["-s", "sftp"]).status.success(), "not permitted");
    let wider = lines.replace("[\"exec\"]", "[\"exec\", \"subsystem\"]");
    fs::write(bed.grant_file("live"), Bed::grant_text(LATER, &wider)).expect("written");
    eventually_within(Duration::from_secs(10), "the permission is there", || {
        again(&["-s", "sftp"]).status.success().then_some(())
    });
    eventually("the old expiry has passed", || (support::in_seconds(0) > soon).then_some(()));
    assert_eq!(again(&["echo still"]).stdout, b"still\n");
    drop(session);
}

#[test]
fn a_source_whose_logins_fail_too_often_is_refused_for_a_while() {
    let bed = Bed::start(BedOptions {
        proxy_settings: "login_failures_max = 3\nlogin_failures_window_ms = 25000\n".to_owned(),
        ..Default::default()
    });
    for _ in 0..3 {
        assert!(stderr(&try_in(&bed, "nobody", "user/key")).contains("Permission denied"));
    }
    let refused = |output: &Output| stderr(output).contains("kex_exchange_identification");
    let output = try_in(&bed, GRANT, "user/key");
    assert!(refused(&output), "{}", stderr(&output));
    let gets_in = || bed.ssh().arg("echo in").output().expect("ssh runs").stdout == b"in\n";
    eventually_within(Duration::from_secs(40), "it is let in again", || gets_in().then_some(()));
    let _ = bed.proxy_said("too many logins have failed");
}

#[test]
fn one_source_cannot_take_the_places_of_all_strangers() {
    let bed = Bed::start(BedOptions {
        proxy_settings: "max_unauthenticated_per_source = 2\n".to_owned(),
        login_timeout_ms: 6_000,
        ..Default::default()
    });
    let port = bed.proxy_port();
    let silent: Vec<_> =
        (0..2).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected")).collect();
    let output = eventually("there is no place left", || {
        let output = try_in(&bed, GRANT, "user/key");
        (output.status.code() == Some(255)).then_some(output)
    });
    assert!(stderr(&output).contains("kex_exchange_identification"), "{}", stderr(&output));
    drop(silent);
    eventually("there are places again", || try_in(&bed, GRANT, "user/key").status.success().then_some(()));
}

#[test]
fn strangers_see_the_same_byte_for_byte_and_wait_as_long() {
    let bed = bed();
    let (_, secret) = hashed_secret(&bed);
    let other = bed.public_key("user/stranger_key").expect("a key");
    grant(&bed, "wrong-key", &format!("public_keys = [\"{other}\"]"));
    grant(&bed, "crt", "certificate = true");
    grant(&bed, "secret", &secret);
    let key = bed.public_key("user/key").expect("a key");
    let expired = Bed::grant_text("2001-01-01T00:00:00Z", &format!("public_keys = [\"{key}\"]\n{secret}"));
    fs::write(bed.grant_file("expired"), expired).expect("written");
    fs::write(bed.grant_file("broken"), "user = [").expect("written");
    let mut seen = Vec::new();
    for id in ["unknown", "expired", "wrong-key", "broken", "crt", "secret", ".."] {
        let start = Instant::now();
        let output = ssh_with_secret(&bed, id, "wrong").arg("-v").output().expect("ssh runs");
        let took = start.elapsed();
        // One second for the key, one for the secret, whatever the cause.
        assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&took), "{id}: {took:?}");
        seen.push((id, support::exchange(&output, id)));
    }
    let (_, first) = &seen[0];
    assert!(first.contains("Authentications that can continue: publickey,keyboard-interactive"), "{first}");
    assert!(first.contains("Server accepts key"), "{first}");
    for (id, exchange) in &seen {
        assert_eq!(exchange, first, "{id}");
    }
}
