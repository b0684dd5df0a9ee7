//! A FIDO key in software, behind an ssh-agent's socket (draft-ietf-sshm-ssh-agent), so that the real `ssh` logs in with it.
//!
//! What an authenticator signs is in OpenSSH's PROTOCOL.u2f: the hash of the application, flags, a counter, the hash of the message.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use sha2::{Digest, Sha256};
use ssh_key::{Algorithm, EcdsaCurve, PrivateKey, PublicKey, private::KeypairData};
use weir_tests::Bed;

const APPLICATION: &str = "ssh:";
const TOUCHED: u8 = 1;

pub(crate) struct SoftwareToken {
    name: String,
    line: String,
    broken: Arc<AtomicBool>,
}

impl SoftwareToken {
    /// A token with a key of this kind, listening in the bed.
    pub(crate) fn start(bed: &Bed, kind: &str) -> Self {
        let algorithm = if kind.contains("ed25519") {
            Algorithm::Ed25519
        } else {
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }
        };
        let key = PrivateKey::random(&mut rand::rng(), algorithm).expect("a key");
        let mut blob = string(kind.as_bytes());
        match key.key_data() {
            KeypairData::Ed25519(pair) => blob.extend(string(pair.public.as_ref())),
            KeypairData::Ecdsa(_) => {
                blob.extend(string(b"nistp256"));
                let point = key.public_key().key_data().ecdsa().expect("ECDSA").as_sec1_bytes();
                blob.extend(string(point));
            }
            _ => unreachable!("made above"),
        }
        blob.extend(string(APPLICATION.as_bytes()));
        let line = PublicKey::from_bytes(&blob).expect("a public key").to_openssh().expect("text");
        let name = format!("user/{}", kind.split('@').next().expect("a name"));
        std::fs::write(bed.path(&format!("{name}.pub")), &line).expect("written");
        let listener = UnixListener::bind(bed.path(&format!("{name}.sock"))).expect("bound");
        let broken = Arc::new(AtomicBool::new(false));
        let token = Arc::new(Token { kind: kind.to_owned(), blob, key, broken: broken.clone() });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is done.
                let _ = token.serve(stream);
            }
        });
        Self { name, line, broken }
    }

    pub(crate) fn public_key(&self) -> &str {
        &self.line
    }

    /// Signs something else from now on, or what it is asked to.
    pub(crate) fn sign_wrongly(&self, wrongly: bool) {
        self.broken.store(wrongly, Ordering::Relaxed);
    }

    pub(crate) fn ssh(&self, bed: &Bed, grant: &str) -> Command {
        let socket = bed.path(&format!("{}.sock", self.name));
        let mut ssh = bed.ssh_as(grant, &format!("{}.pub", self.name));
        ssh.args(["-o", "BatchMode=yes", "-o", &format!("IdentityAgent={}", socket.display())]);
        ssh
    }
}

struct Token {
    kind: String,
    blob: Vec<u8>,
    key: PrivateKey,
    broken: Arc<AtomicBool>,
}

impl Token {
    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request)?;
            stream.write_all(&string(&self.answer(&request)))?;
        }
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        const FAILURE: u8 = 5;
        match request.split_first() {
            Some((11, _)) => [&[12, 0, 0, 0, 1][..], &string(&self.blob), &string(b"token")].concat(),
            Some((13, rest)) => {
                let message = take_string(&rest[4 + take_string(rest).len()..]);
                [&[14][..], &string(&self.sign(message))].concat()
            }
            _ => vec![FAILURE],
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let (flags, counter) = ([TOUCHED], 7_u32.to_be_bytes());
        let (application, message) = (Sha256::digest(APPLICATION), Sha256::digest(message));
        let mut signed = [&application[..], &flags, &counter, &message].concat();
        if self.broken.load(Ordering::Relaxed) {
            signed[0] ^= 1;
        }
        let signature = sign(&self.key, &signed);
        [&string(self.kind.as_bytes())[..], &string(signature.as_bytes()), &flags, &counter].concat()
    }
}

fn sign(key: &impl ssh_key::SigningKey, message: &[u8]) -> ssh_key::Signature {
    key.try_sign(message).expect("a signature")
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

fn take_string(bytes: &[u8]) -> &[u8] {
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
    &bytes[4..4 + length as usize]
}
