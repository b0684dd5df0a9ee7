//! Every reason to trust a target's host key, and every reason not to.

use std::{fs, path::Path};

use weir_tests::{
    Bed, Sshd, ssh_keygen,
    targets::{admit_login_key, bed, login_key, pinned, reached, refused, resource, start},
};

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
