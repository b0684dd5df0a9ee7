use std::process::Command;

use proptest::prelude::*;

use super::*;

const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVnCHT1mUGFW9MPVYvJ2CLS5gHQ3MzQbXxcKu4m6rVp";
const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4fdbSd4m4YsQq4yqoVjUjrDFsUCSrLkTyWb1Xo8tGk";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).expect("a key")
}

fn lookup(file: &str, host: &str, port: u16) -> Known {
    KnownHosts::parse(file).expect("understood").lookup(host, port)
}

#[test]
fn names_match_as_openssh_has_them() {
    let table: &[(&str, &str, u16, bool)] = &[
        ("web-1", "web-1", 22, true),
        ("web-1", "web-2", 22, false),
        ("web-1", "WEB-1", 22, true),
        ("Web-1", "web-1", 22, true),
        ("web-1,10.0.0.5", "10.0.0.5", 22, true),
        ("*.example.com", "a.example.com", 22, true),
        ("*.example.com", "example.com", 22, false),
        ("web-?", "web-1", 22, true),
        ("web-?", "web-12", 22, false),
        ("*.example.com,!bad.example.com", "bad.example.com", 22, false),
        ("!bad.example.com,*.example.com", "good.example.com", 22, true),
        ("!bad.example.com", "good.example.com", 22, false),
        ("[web-1]:2222", "web-1", 2222, true),
        ("[web-1]:2222", "web-1", 22, false),
        ("[web-1]:2222", "web-1", 2223, false),
        ("[*.example.com]:2222", "a.example.com", 2222, true),
        // Without a line for the port, one without a port counts.
        ("web-1", "web-1", 2222, true),
        ("[::1]:2222", "::1", 2222, true),
        ("::1", "::1", 22, true),
    ];
    for &(hosts, host, port, expected) in table {
        let known = lookup(&format!("{hosts} {ONE} a comment\n"), host, port);
        assert_eq!(known.keys == [key(ONE)], expected, "{hosts} for {host} port {port}");
    }
}

#[test]
fn a_line_for_the_port_counts_more_than_one_without() {
    let file = format!("web-1 {ONE}\n[web-1]:2222 {TWO}\n");
    assert_eq!(lookup(&file, "web-1", 2222).keys, [key(TWO)]);
    assert_eq!(lookup(&file, "web-1", 22).keys, [key(ONE)]);
}

#[test]
fn markers_comments_and_spacing_are_understood() {
    let file = format!(
        "# a comment\n\n  \t\n@cert-authority *.example.com {ONE} CA\n@revoked * {TWO}\n\tweb.example.com\t{}\n",
        ONE.replace(' ', "\t  ")
    );
    let known = lookup(&file, "web.example.com", 22);
    assert_eq!(known, Known { keys: vec![key(ONE)], authorities: vec![key(ONE)], revoked: vec![key(TWO)] });
    assert_eq!(lookup(&file, "elsewhere", 22).revoked, [key(TWO)]);
    assert!(lookup(&file, "elsewhere", 22).keys.is_empty());
}

#[test]
fn what_is_revoked_without_a_port_is_revoked_with_one() {
    let file = format!("@revoked web-1 {ONE}\n[web-1]:2222 {ONE}\n");
    assert_eq!(lookup(&file, "web-1", 2222).revoked, [key(ONE)]);
}

#[test]
fn a_line_that_can_not_be_understood_trusts_nobody_and_spoils_no_other() {
    let file = format!(
        "web-1\nweb-1 ssh-ed25519\nweb-1 ssh-ed25519 AAAA\n@new web-1 {ONE}\n|1|x {ONE}\nweb-1 {TWO}\n"
    );
    assert_eq!(lookup(&file, "web-1", 22).keys, [key(TWO)]);
}

#[test]
fn a_revocation_that_can_not_be_understood_spoils_the_file() {
    for line in ["@revoked", "@revoked *", "@revoked * ssh-ed25519 AAAA", "  @revoked * nonsense x"] {
        let error = KnownHosts::parse(&format!("web-1 {ONE}\n{line}\n")).expect_err(line).to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let error = KnownHosts::read_from(io::repeat(b'#')).expect_err("too long").to_string();
    assert!(error.contains("longer than 8 MiB"), "{error}");
}

#[test]
fn names_that_ssh_keygen_hashed_are_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("known_hosts");
    std::fs::write(&path, format!("web-1 {ONE}\n[web-2]:2222 {TWO}\n")).expect("written");
    let hashed =
        Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&path).output().expect("ssh-keygen is there");
    assert!(hashed.status.success(), "{}", String::from_utf8_lossy(&hashed.stderr));
    let text = std::fs::read_to_string(&path).expect("readable");
    assert!(!text.contains("web-"), "{text}");
    let known = KnownHosts::read(&path).expect("understood");
    assert_eq!(known.lookup("web-1", 22).keys, [key(ONE)]);
    assert_eq!(known.lookup("web-2", 2222).keys, [key(TWO)]);
    assert_eq!(known.lookup("web-2", 22).keys, []);
}

/// The definition, for comparison: what `matches` does quickly.
fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if matches_by_definition(rest, text) => true,
        (Some((b'*', _)), Some((_, text))) => matches_by_definition(pattern, text),
        (Some((&p, pattern)), Some((&t, text))) => {
            (p == b'?' || p == t) && matches_by_definition(pattern, text)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_parsed_without_panic(text in "(.|\n)*") {
        if let Ok(known) = KnownHosts::parse(&text) {
            let _ = known.lookup("web-1", 22);
        }
    }

    #[test]
    fn almost_lines_are_parsed_without_panic(
        lines in prop::collection::vec("(@revoked |@cert-authority |)[a-z*?!,|1=\\[\\]:]{0,12} (ssh-ed25519|ssh-rsa) [A-Za-z0-9+/=]{0,80}", 0..8)
    ) {
        if let Ok(known) = KnownHosts::parse(&lines.join("\n")) {
            let _ = known.lookup("a", 2222);
        }
    }

    #[test]
    fn wildcards_match_as_defined(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        prop_assert_eq!(
            matches(pattern.as_bytes(), text.as_bytes()),
            matches_by_definition(pattern.as_bytes(), text.as_bytes())
        );
    }

    #[test]
    fn a_name_without_wildcards_matches_itself_only(name in "[a-z0-9.-]{1,20}", other in "[a-z0-9.-]{1,20}") {
        let file = format!("{name} {ONE}\n");
        prop_assert_eq!(lookup(&file, &name, 22).keys.len(), 1);
        prop_assert_eq!(lookup(&file, &other, 22).keys.len(), usize::from(name == other));
    }

    #[test]
    fn a_negated_name_matches_nothing_whatever_else_is_listed(name in "[a-z0-9.-]{1,20}", others in "[a-z*?,]{0,20}") {
        let file = format!("{others},!{name},* {ONE}\n");
        prop_assert!(lookup(&file, &name, 22).keys.is_empty());
    }
}
