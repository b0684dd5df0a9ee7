//! `weir search` and `weir sessions` over the store that a connector and its agent filled.

use std::process::{Command, Output};

use serde_json::Value;
use weir_tests::{Bed, BedOptions};

fn weir(bed: &Bed, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(bed.bin().join("weir"));
    let Output { status, stdout, stderr } =
        command.args(args).arg("--json").env("WEIR_STORE", bed.store()).output().expect("weir runs");
    let out = String::from_utf8(stdout).expect("text");
    let lines = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(String::from_utf8_lossy(&stderr), "", "{out}");
    (status.code(), lines)
}

#[test]
fn a_line_that_somebody_saw_is_found_with_the_command_that_printed_it() {
    let bed = Bed::start(BedOptions::default());
    for command in
        ["printf 'alpha\\nbeta needle\\n'", "seq 1 30000", "echo needless; echo needle >&2; exit 3"]
    {
        bed.ssh().arg(command).output().expect("ssh runs");
    }
    let third = bed.recording(3);
    bed.assert_verifies(&third);

    let (code, found) = weir(&bed, &["search", "needle$", "--in", "output", "--oldest-first"]);
    assert_eq!(code, Some(0));
    let seen: Vec<_> = found
        .iter()
        .map(|line| (line["command"].as_str(), line["line"].as_str(), line["user"].as_str()))
        .collect();
    let user = Some("ada@example.com");
    let expected = [
        (Some("printf 'alpha\\nbeta needle\\n'"), Some("beta needle"), user),
        (Some("echo needless; echo needle >&2; exit 3"), Some("needle"), user),
    ];
    assert_eq!(seen, expected);
    assert_eq!(found[0]["request_id"], "REQ-1042");

    let (code, found) = weir(&bed, &["search", "^29999$", "--since", "1h", "--user", "ada*"]);
    assert_eq!((code, &found[0]["command"], found.len()), (Some(0), &"seq 1 30000".into(), 1));
    assert_eq!(weir(&bed, &["search", "needle", "--until", "1h"]), (Some(1), Vec::new()));
    let (code, listed) = weir(&bed, &["sessions", "--since", "1h"]);
    assert_eq!((code, listed.len()), (Some(0), 3));
    assert!(listed.iter().all(|session| session["state"] == "completed"), "{listed:?}");
    assert_eq!(listed.iter().filter(|session| session["session"] == found[0]["session"]).count(), 1);
}
