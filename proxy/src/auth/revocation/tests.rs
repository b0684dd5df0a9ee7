//! Against lists that the real `ssh-keygen` writes, and with its answers as the measure.

use std::{fs, path::Path, process::Command};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Keys, certificates and lists in a directory, made by `ssh-keygen`.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().expect("a directory"));
        for name in ["ca", "other_ca", "a", "b"] {
            desk.run(&["-q", "-t", "ed25519", "-N", "", "-f", name]);
        }
        desk
    }

    fn run(&self, arguments: &[&str]) {
        let output =
            Command::new("ssh-keygen").current_dir(&self.0).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn key(&self, name: &str) -> ssh_key::PublicKey {
        let text = fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a key");
        ssh_key::PublicKey::from_openssh(&text).expect("a key")
    }

    /// A certificate for `a` in a file of its own.
    fn certify(&self, ca: &str, serial: u64, id: &str) -> String {
        let name = format!("cert-{ca}-{serial}-{id}");
        fs::copy(self.path("a.pub"), self.path(&format!("{name}.pub"))).expect("copied");
        let serial = serial.to_string();
        self.run(&["-q", "-s", ca, "-I", id, "-n", "ada", "-z", &serial, &format!("{name}.pub")]);
        format!("{name}-cert.pub")
    }

    fn certificate(&self, file: &str) -> Certificate {
        Certificate::from_openssh(&fs::read_to_string(self.path(file)).expect("there"))
            .expect("a certificate")
    }

    /// A KRL of this specification, with serial numbers and key ids as `ca`'s.
    fn krl(&self, specification: &str) -> Revoked {
        fs::write(self.path("spec"), specification).expect("written");
        self.run(&["-q", "-k", "-f", "krl", "-s", "ca.pub", "spec"]);
        Revoked::parse(&fs::read(self.path("krl")).expect("there")).expect("a KRL")
    }

    /// Whether `ssh-keygen` says that it is revoked.
    fn says_revoked(&self, file: &str) -> bool {
        let mut command = Command::new("ssh-keygen");
        let output = command.current_dir(&self.0).args(["-Q", "-f", "krl", file]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("REVOKED") || said.contains(": ok"), "{said}");
        said.contains("REVOKED")
    }
}

fn text_of(desk: &Desk, key: &str) -> String {
    desk.key(key).to_openssh().expect("text")
}

#[test]
fn each_kind_of_entry_revokes_what_it_names_and_nothing_else() {
    let desk = Desk::new();
    let (by_serial, by_id) = (desk.certify("ca", 5, "five"), desk.certify("ca", 900, "ada-laptop"));
    let (untouched, foreign) = (desk.certify("ca", 6, "six"), desk.certify("other_ca", 5, "five"));
    let revoked = desk.krl("serial: 5\nid: ada-laptop\n");
    let check = |file: &str| revoked.check_certificate(&desk.certificate(file));
    assert_eq!(check(&by_serial), Err(Revocation::Serial));
    assert_eq!(check(&by_id), Err(Revocation::KeyId));
    assert_eq!(check(&untouched), Ok(()));
    assert_eq!(check(&foreign), Ok(()), "the list is about another authority");

    for kind in ["key", "sha1", "sha256"] {
        let revoked = desk.krl(&format!("{kind}: {}\n", text_of(&desk, "a")));
        assert_eq!(revoked.check_key(desk.key("a").key_data()), Err(Revocation::Key), "{kind}");
        assert_eq!(revoked.check_key(desk.key("b").key_data()), Ok(()), "{kind}");
        let certified = revoked.check_certificate(&desk.certificate(&untouched));
        assert_eq!(certified, Err(Revocation::Key), "{kind}: the key in a certificate");
    }
    let fingerprint = desk.key("b").fingerprint(ssh_key::HashAlg::Sha256);
    let revoked = desk.krl(&format!("hash: {fingerprint}\n"));
    assert_eq!(revoked.check_key(desk.key("b").key_data()), Err(Revocation::Key));
    let revoked = desk.krl(&format!("key: {}\n", text_of(&desk, "ca")));
    assert_eq!(revoked.check_certificate(&desk.certificate(&untouched)), Err(Revocation::Authority));
    assert_eq!(revoked.check_certificate(&desk.certificate(&foreign)), Ok(()));
}

/// Serial numbers that lie close to each other, and far from each other, so that ssh-keygen writes lists, ranges and bitmaps.
#[test]
fn the_answers_are_those_of_ssh_keygen() {
    let desk = Desk::new();
    let serials =
        [1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 65, 1000, 1001, 5000, 5001, 65_536, u64::MAX - 1, u64::MAX];
    let files: Vec<_> = serials.iter().map(|&serial| desk.certify("ca", serial, "id")).collect();
    let zero = desk.certify("ca", 0, "unnumbered");
    let sparse: String =
        (1..400).filter(|n| n % 7 == 1 || n % 3 == 0).map(|n| format!("serial: {n}\n")).collect();
    let specifications = [
        "serial: 1\nserial: 3\nserial: 7\n".to_owned(),
        "serial: 1-1000\nserial: 5001\n".to_owned(),
        format!("{sparse}serial: 5000-70000\n"),
        format!("serial: 64\nserial: {}\n", u64::MAX),
        format!("serial: {}-{}\n", u64::MAX - 1, u64::MAX),
        "serial: 0x40-0x41\nid: unnumbered\n".to_owned(),
        String::new(),
    ];
    for specification in specifications {
        let revoked = desk.krl(&specification);
        let listed = Revoked::parse(specification.as_bytes()).expect("the same as text");
        for file in files.iter().chain([&zero]) {
            let certificate = desk.certificate(file);
            let expected = desk.says_revoked(file);
            assert_eq!(revoked.check_certificate(&certificate).is_err(), expected, "{file}: {specification}");
            assert_eq!(
                listed.check_certificate(&certificate).is_err(),
                expected,
                "{file} as text: {specification}"
            );
        }
    }
}

#[test]
fn a_certificate_in_a_text_list_is_revoked_by_its_number_or_its_id() {
    let desk = Desk::new();
    let (numbered, unnumbered) = (desk.certify("ca", 5, "x"), desk.certify("ca", 0, "y"));
    let text =
        [&numbered, &unnumbered].map(|file| fs::read_to_string(desk.path(file)).expect("there")).concat();
    let revoked = Revoked::parse(text.as_bytes()).expect("a list");
    assert_eq!(revoked.check_certificate(&desk.certificate(&numbered)), Err(Revocation::Serial));
    assert_eq!(revoked.check_certificate(&desk.certificate(&unnumbered)), Err(Revocation::KeyId));
    let other = desk.certify("other_ca", 5, "x");
    assert_eq!(revoked.check_certificate(&desk.certificate(&other)), Ok(()));
    assert_eq!(revoked.check_key(desk.key("a").key_data()), Ok(()), "the key itself is still good");
}

#[test]
fn what_is_wrong_with_a_list_is_named() {
    for (text, expected) in [
        ("nonsense", "line 1: not a public key"),
        ("# fine\n\nserial: x", "line 3: \"x\" is not a serial number"),
        ("serial: 9-5", "not a range"),
        ("serial: 0", "stands for none"),
        ("serials: 5", "\"serials\" is not serial, id"),
        ("hash: MD5:00", "SHA256"),
        ("id:", "empty"),
    ] {
        let error = Revoked::parse(text.as_bytes()).expect_err(expected);
        assert!(error.contains(expected), "{error} should name {expected}");
    }
    assert!(Revoked::parse(&[0xff, 0xfe]).is_err());
    assert!(Revoked::parse(b"").is_ok(), "nothing is revoked");
}

#[test]
fn a_file_that_changes_counts_at_once_and_one_that_is_gone_counts_for_nobody() {
    let desk = Desk::new();
    let file = RevokedKeys::new(desk.path("revoked"));
    let certificate = desk.certificate(&desk.certify("ca", 5, "x"));
    assert!(matches!(file.load(), Err(RevocationError::Read { .. })));
    for (text, revoked) in [("serial: 4\n", false), ("serial: 5\n", true), ("serial: 6\n", false)] {
        fs::write(file.path(), text).expect("written");
        let now = file.load().expect("readable");
        assert_eq!(now.check_certificate(&certificate).is_err(), revoked, "{text}");
    }
    fs::write(file.path(), "serial: five").expect("written");
    assert!(matches!(file.load(), Err(RevocationError::Malformed { .. })));
    fs::remove_file(file.path()).expect("removed");
    assert!(matches!(file.load(), Err(RevocationError::Read { .. })));
    assert!(RevokedKeys::new(Path::new("/").to_owned()).load().is_err());
}

/// A KRL of one certificates section for any authority, made by hand.
fn by_hand(parts: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let string =
        |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let mut section = [string(b""), string(b"")].concat();
    for (kind, bytes) in parts {
        section.push(*kind);
        section.extend(string(bytes));
    }
    let mut krl = [&krl::MAGIC[..], &1_u32.to_be_bytes(), &[0; 24], &string(b""), &string(b"")].concat();
    krl.push(1);
    krl.extend(string(&section));
    krl
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_refused_without_panic(bytes: Vec<u8>, as_krl: bool) {
        let prefix: &[u8] = if as_krl { b"SSHKRL\n\0\0\0\0\x01" } else { b"" };
        let _ = Revoked::parse(&[prefix, &bytes].concat());
    }

    #[test]
    fn a_krl_that_is_cut_off_is_refused(cut in 0_usize..80) {
        let whole = by_hand(&[(0x20, 5_u64.to_be_bytes().to_vec()), (0x23, b"\0\0\0\x02id".to_vec())]);
        prop_assert!(Revoked::parse(&whole).is_ok());
        // Behind the header a list may end between sections.
        prop_assume!(cut < whole.len() && cut != 44);
        let cut_off = Revoked::parse(&whole[..cut]);
        prop_assert!(cut < krl::MAGIC.len() || cut_off.is_err());
    }

    #[test]
    fn a_bitmap_holds_the_bits_it_has(offset: u64, bytes in prop::collection::vec(0_u8..128, 0..20), bit in 0_u64..400) {
        let bitmap = Bitmap { offset, bytes: bytes.clone() };
        let expected = bytes.iter().rev().nth((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
        if let Some(serial) = offset.checked_add(bit) {
            prop_assert_eq!(bitmap.contains(serial), expected);
        }
        prop_assert!(!bitmap.contains(offset.saturating_sub(1)) || offset == 0 || bytes.is_empty());
    }
}
