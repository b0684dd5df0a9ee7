//! A recording as it should be: accepted by `weir verify` and by tools that are not Weir's.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output, Stdio},
};

use ssh_key::PrivateKey;

use crate::support::{allowed_signers, new_key, sample};
use weir_common::recording::{SIGNATURE, SUMS};

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("the program is installed");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8(text).expect("text"))
}

fn weir(args: &[&str], paths: &[&Path]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).args(paths).env_remove("WEIR_ALLOWED_SIGNERS").env("HOME", "/nonexistent");
    let (output, text) = run(&mut command);
    (output.status.code(), text)
}

#[test]
fn a_good_recording_is_intact_for_weir_and_for_sha256sum_and_ssh_keygen() {
    let root = tempfile::tempdir().expect("temporary directory");
    let key = new_key();
    let mut sealed = sample().seal();
    sealed.reseal(&key);
    let dir = sealed.write(root.path());
    let signers = root.path().join("allowed_signers");
    fs::write(&signers, allowed_signers(&key)).expect("writable");

    let (code, text) = weir(&["verify", "--allowed-signers"], &[&signers, &dir]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("INTACT ")), "{text}");

    let (output, text) = run(Command::new("sha256sum").args(["--strict", "-c", SUMS]).current_dir(&dir));
    assert!(output.status.success(), "{text}");

    for (object, signature) in [(SUMS, SIGNATURE), ("000003.ndjson.zst", "000003.sig")] {
        let object = File::open(dir.join(object)).expect("just written");
        let (output, text) = run(Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "weir-agent", "-n", "weir", "-s", signature, "-f"])
            .arg(&signers)
            .stdin(Stdio::from(object))
            .current_dir(&dir));
        assert!(output.status.success(), "{text}");
        assert!(text.starts_with("Good \"weir\" signature for weir-agent"), "{text}");
    }
}

#[test]
fn a_signature_made_by_ssh_keygen_is_accepted_byte_for_byte() {
    let root = tempfile::tempdir().expect("temporary directory");
    let key = root.path().join("key");
    let (output, text) =
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    assert!(output.status.success(), "{text}");
    let mut sealed = sample().seal();
    sealed.reseal(&PrivateKey::read_openssh_file(&key).expect("just made"));
    let dir = sealed.write(root.path());
    for (object, signature) in [("000001.ndjson.zst", "000001.sig"), (SUMS, SIGNATURE)] {
        fs::remove_file(dir.join(signature)).expect("signed above");
        let (output, text) = run(Command::new("ssh-keygen")
            .args(["-Y", "sign", "-n", "weir", "-f"])
            .arg(&key)
            .arg(dir.join(object)));
        assert!(output.status.success(), "{text}");
        fs::rename(dir.join(format!("{object}.sig")), dir.join(signature)).expect("just made");
    }
    let public = fs::read_to_string(root.path().join("key.pub")).expect("made by ssh-keygen");
    let signers = root.path().join("allowed_signers");
    fs::write(&signers, format!("weir-agent {public}")).expect("writable");
    let (code, text) = weir(&["verify", "--allowed-signers"], &[&signers, &dir]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn an_unknown_signer_has_an_exit_code_of_its_own_and_the_line_to_pass_works() {
    let root = tempfile::tempdir().expect("temporary directory");
    let key = new_key();
    let mut sealed = sample().seal();
    sealed.reseal(&key);
    let dir = sealed.write(root.path());
    let (code, text) = weir(&["verify"], &[&dir]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&key.fingerprint(Default::default()).to_string()), "{text}");
    let line =
        text.lines().find(|line| line.trim_start().starts_with("weir-agent ")).expect("a line to pass");
    let signers = root.path().join("allowed_signers");
    fs::write(&signers, line.trim()).expect("writable");
    let (code, text) = weir(&["verify", "--quiet", "--allowed-signers"], &[&signers, &dir]);
    assert_eq!((code, text.lines().count()), (Some(0), 1), "{text}");
}

#[test]
fn of_several_directories_the_worst_decides_and_json_has_one_object_each() {
    let root = tempfile::tempdir().expect("temporary directory");
    let key = new_key();
    let signers = root.path().join("allowed_signers");
    fs::write(&signers, allowed_signers(&key)).expect("writable");
    let good_and_bad = [false, true].map(|bad| {
        let mut sealed = sample().seal();
        sealed.reseal(&key);
        let dir = sealed.write(root.path());
        if bad {
            fs::write(dir.join("extra"), "").expect("writable");
        }
        dir
    });
    let [good, bad] = &good_and_bad;
    let (code, text) = weir(&["verify", "--json", "--allowed-signers"], &[&signers, good, bad]);
    assert_eq!(code, Some(1), "{text}");
    let reports: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!([&reports[0]["verdict"], &reports[1]["verdict"]], ["intact", "not_intact"]);
    assert_eq!(reports[1]["findings"][0]["object"], "extra");
    assert_eq!(reports[1]["findings"][0]["check"], "objects");

    let absent = root.path().join("absent");
    let (code, text) = weir(&["verify", "--quiet", "--allowed-signers"], &[&signers, good, &absent]);
    assert_eq!(code, Some(2), "{text}");
    let (code, _) = weir(&["verify", "--quiet", "--allowed-signers"], &[&signers, &absent, bad]);
    assert_eq!(code, Some(1));
    let (code, _) = weir(&["verify", "--allowed-signers"], &[&absent, good]);
    assert_eq!(code, Some(2));
    let (code, _) = weir(&["verify"], &[]);
    assert_eq!(code, Some(2));
}

#[test]
fn allowed_signers_are_found_in_the_environment_and_in_the_home_directory() {
    let root = tempfile::tempdir().expect("temporary directory");
    let key = new_key();
    let mut sealed = sample().seal();
    sealed.reseal(&key);
    let dir = sealed.write(root.path());
    let config = root.path().join(".config/weir");
    fs::create_dir_all(&config).expect("writable");
    let signers = config.join("allowed_signers");
    fs::write(&signers, allowed_signers(&key)).expect("writable");
    let weir = |name: &str, value: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .args(["verify", "-q"])
            .arg(&dir)
            .env_remove("WEIR_ALLOWED_SIGNERS")
            .env("HOME", "/nonexistent");
        run(command.env(name, value)).0.status.code()
    };
    assert_eq!(weir("HOME", root.path()), Some(0));
    assert_eq!(weir("WEIR_ALLOWED_SIGNERS", &signers), Some(0));
    assert_eq!(weir("HOME", &dir), Some(3));
}

#[test]
fn a_reader_that_closes_the_output_early_does_not_change_the_verdict() {
    let root = tempfile::tempdir().expect("temporary directory");
    let mut sealed = sample().seal();
    sealed.reseal(&new_key());
    let dir = sealed.write(root.path());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("verify").arg(&dir).env_remove("WEIR_ALLOWED_SIGNERS").env("HOME", "/nonexistent");
    assert_eq!(command.stdout(writer).status().expect("it runs").code(), Some(3));
}
