//! What an auditor's tool finds on the connector's port.

use std::process::Command;

use serde_json::Value;
use weir_tests::{Bed, BedOptions};

/// The one objection that stays: users' clients that can't do better must be able to connect.
const CLASSICAL: &str = "does not provide protection against post-quantum attacks";

#[test]
fn ssh_audit_finds_no_weak_algorithm() {
    let bed = Bed::start(BedOptions::default());
    let audit = bed.bin().parent().expect("the target directory").join("ssh-audit/bin/ssh-audit");
    let port = bed.proxy_port().to_string();
    let output = Command::new(&audit)
        .args(["--json", "--skip-rate-test", "--port", &port, "127.0.0.1"])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask test` installs it", audit.display()));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut offered = 0;
    for kind in ["kex", "key", "enc", "mac"] {
        for algorithm in found[kind].as_array().unwrap_or_else(|| panic!("no {kind} in {found}")) {
            offered += 1;
            let notes = &algorithm["notes"];
            assert!(notes["fail"].is_null(), "{algorithm}");
            let warnings = notes["warn"].as_array().map_or(&[][..], Vec::as_slice);
            assert!(warnings.iter().all(|warning| kind == "kex" && warning == CLASSICAL), "{algorithm}");
        }
    }
    assert!(offered > 10, "{found}");
    let names = |kind: &str| -> Vec<&str> {
        let algorithms = found[kind].as_array().into_iter().flatten();
        algorithms.filter_map(|algorithm| algorithm["algorithm"].as_str()).collect()
    };
    assert_eq!(names("kex")[0], "mlkem768x25519-sha256");
    assert!(names("kex").contains(&"kex-strict-s-v00@openssh.com"), "open to CVE-2023-48795");
    assert!(names("mac").iter().all(|name| name.contains("-etm@")), "{:?}", names("mac"));
    assert_eq!(found["cves"].as_array().map(Vec::len), Some(0));
}

#[test]
fn openssh_connects_with_each_algorithm_that_is_offered() {
    let bed = Bed::start(BedOptions::default());
    let table = [
        (
            "KexAlgorithms",
            &["curve25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group16-sha512"][..],
        ),
        (
            "Ciphers",
            &[
                "aes128-gcm@openssh.com",
                "aes256-gcm@openssh.com",
                "chacha20-poly1305@openssh.com",
                "aes256-ctr",
                "aes128-ctr",
            ],
        ),
    ];
    for (option, names) in table {
        for name in names {
            let output =
                bed.ssh().args(["-o", &format!("{option}={name}"), "echo in"]).output().expect("ssh runs");
            assert_eq!(output.stdout, b"in\n", "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    for mac in ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com"] {
        let options = ["-o", "Ciphers=aes128-ctr", "-o", &format!("MACs={mac}"), "echo in"];
        let output = bed.ssh().args(options).output().expect("ssh runs");
        assert_eq!(output.stdout, b"in\n", "{mac}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for weak in ["MACs=hmac-sha1", "KexAlgorithms=diffie-hellman-group14-sha1", "Ciphers=aes128-cbc"] {
        let output = bed.ssh().args(["-o", weak, "-o", "Ciphers=aes128-ctr", "echo in"]).output();
        assert_eq!(output.expect("ssh runs").status.code(), Some(255), "{weak} was accepted");
    }
}
