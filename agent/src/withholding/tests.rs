//! What is left out of a session's channels, frame by frame.

use weir_common::frame::{Env, Pty};

use super::*;
use crate::testing::{opening, sftp, upload_of};

const C2T: Direction = Direction::ClientToTarget;
const T2C: Direction = Direction::TargetToClient;

/// Content that nobody has asked for.
const UNASKED: &[u8] = &[0, 0, 0, 13, 103, 0, 0, 0, 99, 0, 0, 0, 4, b'l', b'a', b't', b'e'];

/// A session's frames, numbered as they come.
struct Frames {
    withholding: Withholding,
    next: BTreeMap<(ChannelNo, bool), u64>,
    /// Whether a segment ends behind each frame.
    cut: bool,
}

impl Frames {
    fn new() -> Self {
        Self { withholding: Withholding::after(&Carried::default()), next: BTreeMap::new(), cut: false }
    }

    fn cut_everywhere() -> Self {
        Self { cut: true, ..Self::new() }
    }

    fn pass(&mut self, channel: u32, direction: Direction, message: Message) -> Option<Vec<Part>> {
        let channel = ChannelNo(channel);
        let next = self.next.entry((channel, direction == T2C)).or_default();
        let seq = *next;
        *next += 1;
        let kind = message.kind();
        let body = message.into_body().expect("short");
        let len = u32::try_from(body.len()).expect("short");
        let parts = self.withholding.frame(channel, direction, Header { kind, len, seq }, &body);
        if let Some(parts) = &parts {
            let bytes = parts.iter().map(Part::len).sum::<u64>();
            assert_eq!(bytes, body.len() as u64, "the parts are the whole body");
        }
        if self.cut {
            self.carry();
        }
        parts
    }

    /// Ends the segment, and goes on with the next from what the spool says.
    fn carry(&mut self) -> usize {
        let before = std::mem::replace(&mut self.withholding, Withholding::after(&Carried::default()));
        let text = serde_json::to_string(&before.carried().expect("writable")).expect("JSON");
        let carried: Carried = serde_json::from_str(&text).expect("just written");
        self.withholding = Withholding::after(&carried);
        text.len()
    }

    fn open(&mut self, channel: u32) {
        self.all(channel, opening());
    }

    fn exec(&mut self, channel: u32, command: &[u8]) {
        self.control(channel, C2T, Message::Exec(command.to_vec()));
        self.control(channel, T2C, Message::Success);
    }

    fn control(&mut self, channel: u32, direction: Direction, message: Message) {
        assert_eq!(self.pass(channel, direction, message), None, "what is no content is recorded");
    }

    fn stdin(&mut self, channel: u32, bytes: &[u8]) -> Option<Vec<Part>> {
        self.pass(channel, C2T, Message::Stdin(Bytes::copy_from_slice(bytes)))
    }

    fn stdout(&mut self, channel: u32, bytes: &[u8]) -> Option<Vec<Part>> {
        self.pass(channel, T2C, Message::Stdout(Bytes::copy_from_slice(bytes)))
    }

    fn all(&mut self, channel: u32, messages: Vec<(Direction, Message)>) {
        for (direction, message) in messages {
            self.control(channel, direction, message);
        }
    }

    /// Begins a transfer that is followed: 4 KiB of content come next.
    fn upload(&mut self, channel: u32) {
        self.all(channel, [opening(), sftp(), upload_of(4096)].concat());
    }

    fn carried(self) -> Carried {
        self.withholding.carried().expect("writable")
    }
}

/// One part, all of which is left out.
fn whole(so_far: &[u8], bytes: usize) -> Option<Vec<Part>> {
    Some(vec![withheld(bytes, Sha256::of(so_far))])
}

#[test]
fn content_is_left_out_with_a_digest_that_runs_on_wherever_segments_end() {
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        frames.upload(0);
        assert_eq!(frames.stdin(0, b"secret"), whole(b"secret", 6));
        assert_eq!(frames.stdin(0, b" and more"), whole(b"secret and more", 9));
        let stderr = Message::Stderr(Bytes::from_static(b"sftp-server: said"));
        assert_eq!(frames.pass(0, T2C, stderr), None, "errors are recorded");
    }
}

#[test]
fn each_file_protocol_keeps_its_names_and_not_what_is_in_the_files() {
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        frames.open(0);
        frames.exec(0, b"scp -r -t /srv");
        assert_eq!(frames.stdout(0, b"\0"), None);
        let parts = frames.stdin(0, b"C0600 6 first\nsecret\0C0600 5 second\nsec").expect("some is content");
        let kept = |bytes: &[u8]| Part::Kept(bytes.to_vec());
        let left_out = |bytes: &[u8]| withheld(bytes.len(), Sha256::of(bytes));
        let protocol = [kept(b"C0600 6 first\n"), kept(b"\0C0600 5 second\n")];
        let [first, second] = protocol;
        assert_eq!(parts, [first, left_out(b"secret"), second, left_out(b"sec")]);
        assert_eq!(frames.stdin(0, b"re\0"), Some(vec![withheld(2, Sha256::of(b"secre")), kept(b"\0")]));

        frames.open(1);
        frames.exec(1, b"rsync --server -e.LsfxCIvu . /srv");
        assert_eq!(frames.stdin(1, &[31, 0, 0, 0]), None);
        let answer = vec![kept(&[31, 0, 0, 0]), left_out(b"answer")];
        assert_eq!(frames.stdout(1, b"\x1f\0\0\0answer"), Some(answer));
        assert_eq!(frames.stdin(1, b"list"), whole(b"list", 4));
    }
}

#[test]
fn shells_and_commands_that_are_no_file_transfer_are_recorded() {
    for command in
        [&b"cat > file"[..], b"cat secret", b"tar c .", b"bash", b"echo rsync --server", b"git-upload-pack x"]
    {
        let mut frames = Frames::new();
        frames.open(0);
        frames.exec(0, command);
        frames.all(0, upload_of(10));
        assert_eq!(frames.stdin(0, b"bytes"), None, "{command:?}");
    }
    for command in [&b"/tmp/scp -t file"[..], b"./sftp-server", b"scp -t file; bash", b"scp -t $(bash)"] {
        let mut frames = Frames::new();
        frames.open(0);
        frames.exec(0, command);
        assert_eq!(frames.stdout(0, b"\0"), None);
        for said in ["C0644 4 file\n", "typed", "\0", "ls\n"] {
            assert_eq!(frames.stdin(0, said.as_bytes()), None, "{command:?}");
        }
    }
    let mut frames = Frames::new();
    frames.open(0);
    frames.control(0, C2T, Message::Shell);
    frames.control(0, T2C, Message::Success);
    frames.all(0, upload_of(10));
    assert_eq!(frames.stdin(0, b"bytes"), None);
}

#[test]
fn a_terminal_makes_no_file_transfer() {
    let mut frames = Frames::cut_everywhere();
    frames.open(0);
    let pty = Pty { term: "xterm".into(), size: Default::default(), modes: Vec::new() };
    frames.control(0, C2T, Message::Pty(pty));
    frames.control(0, T2C, Message::Success);
    frames.all(0, [sftp(), upload_of(10)].concat());
    assert_eq!(frames.stdin(0, b"typed"), None);
}

#[test]
fn what_a_channel_is_used_for_says_the_first_request_that_the_target_accepted() {
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        frames.open(0);
        frames.exec(0, b"bash");
        frames.all(0, [sftp(), upload_of(10)].concat());
        assert_eq!(frames.stdin(0, b"typed"), None, "the shell goes on");

        frames.open(1);
        let env = Message::Env(Env { name: "LANG".into(), value: "C".into() });
        frames.control(1, C2T, env.clone());
        frames.control(1, C2T, Message::Subsystem("sftp".into()));
        frames.control(1, C2T, env);
        frames.control(1, T2C, Message::Failure);
        frames.control(1, T2C, Message::Success);
        frames.control(1, T2C, Message::Failure);
        frames.all(1, upload_of(10));
        assert_eq!(frames.stdin(1, b"file"), whole(b"file", 4), "only variables were refused");

        frames.open(2);
        frames.control(2, C2T, Message::Subsystem("sftp".into()));
        frames.control(2, T2C, Message::Failure);
        frames.exec(2, b"bash");
        frames.all(2, upload_of(10));
        assert_eq!(frames.stdin(2, b"typed"), None, "the transfer was refused");
    }
}

#[test]
fn forwarded_connections_are_recorded() {
    let mut frames = Frames::new();
    let socket = ChannelType::DirectStreamlocal { path: "/run/sftp".into() };
    frames.control(0, C2T, Message::Open(socket));
    frames.all(0, [sftp(), upload_of(10)].concat());
    assert_eq!(frames.stdin(0, b"bytes"), None);
}

#[test]
fn where_the_track_is_lost_nothing_more_is_kept_but_sizes_and_digests_of_each_event() {
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        frames.upload(0);
        assert!(frames.stdin(0, b"before").is_some());
        *frames.next.get_mut(&(ChannelNo(0), false)).expect("it was used") += 3;
        assert_eq!(frames.stdin(0, b"behind"), whole(b"behind", 6));
        assert_eq!(frames.stdin(0, b"more"), whole(b"more", 4));
        assert_eq!(frames.stdout(0, b"done"), whole(b"done", 4), "in both directions");
        assert_eq!(frames.stdin(0, b""), None);
    }
    let mut frames = Frames::new();
    frames.open(0);
    *frames.next.get_mut(&(ChannelNo(0), false)).expect("it was used") += 1;
    assert_eq!(frames.stdin(0, b"bytes"), None, "nothing says that this is a file");
}

#[test]
fn what_never_spoke_the_protocol_is_recorded_and_what_broke_it_is_not_kept_from_there_on() {
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        frames.all(0, [opening(), sftp()].concat());
        assert_eq!(frames.stdout(0, b"a shell in its place\n"), None);
        assert_eq!(frames.stdin(0, b"cat /etc/shadow\n"), None);
        assert_eq!(frames.stdout(0, b"root:"), None);
        frames.all(1, [opening(), sftp(), upload_of(4)].concat());
        assert_eq!(frames.stdin(1, b"file"), whole(b"file", 4));
        assert_eq!(frames.stdout(1, UNASKED), whole(UNASKED, UNASKED.len()), "what broke it is not kept");
        assert_eq!(frames.stdout(1, b"done"), whole(b"done", 4));
    }
}

#[test]
fn what_another_version_carried_and_is_not_understood_is_taken_for_a_transfer_whose_track_is_lost() {
    let mut frames = Frames::new();
    frames.upload(0);
    let mut carried = Frames::new();
    std::mem::swap(&mut carried.withholding, &mut frames.withholding);
    let mut carried = carried.carried();
    carried.0[0].transfer = Some("{\"another\":\"version\"}".to_owned());
    frames.withholding = Withholding::after(&carried);
    assert_eq!(frames.stdin(0, b"content"), whole(b"content", 7));
    assert!(!format!("{carried:?}").contains("version"), "content has no Debug");
}

#[test]
fn a_closed_channel_is_forgotten_and_an_aborted_transfers_late_data_is_not_kept() {
    let mut frames = Frames::new();
    frames.upload(0);
    frames.open(1);
    frames.exec(1, b"bash");
    frames.control(1, C2T, Message::Close);
    frames.control(0, C2T, Message::Close);
    assert_eq!(frames.stdout(0, UNASKED), whole(UNASKED, UNASKED.len()));
    frames.control(0, T2C, Message::Close);
    assert!(frames.carried().is_empty());
}

#[test]
fn what_is_carried_is_bounded() {
    let mut frames = Frames::new();
    for channel in 0..u32::try_from(CHANNELS_MAX).expect("few") + 10 {
        frames.open(channel);
        if channel % 2 == 0 {
            frames.all(channel, [sftp(), upload_of(4)].concat());
        } else {
            frames.exec(channel, b"bash");
        }
    }
    let bytes = frames.carry();
    assert!(bytes < 4 * TRANSFERS_BYTES_MAX, "{bytes} bytes");
    assert!(bytes <= Carried::default().next_bytes_max(CHANNELS_MAX), "{bytes} bytes");
    let most = State {
        used_for: Use::Nothing,
        next: [u64::MAX; 2],
        unanswered: u32::MAX,
        answer: Some(u32::MAX),
        terminal: true,
        closed: [false; 2],
        spoken: [false; 2],
    };
    let most = CarriedChannel { channel: ChannelNo(u32::MAX), state: most, transfer: Some(String::new()) };
    let bytes = serde_json::to_string(&most).expect("writable").len() + ",".len();
    assert!(bytes <= CHANNEL_BYTES_MAX, "{bytes} bytes of a channel");
    let last = u32::try_from(CHANNELS_MAX).expect("few") + 8;
    assert!(frames.stdin(last, b"file").is_some(), "those that were opened last are known");
}

#[test]
fn transfers_with_too_much_state_are_treated_as_lost_the_largest_first() {
    let mut carried = Frames::new();
    for channel in 0..3 {
        carried.upload(channel);
    }
    let mut large = Vec::new();
    for (CarriedChannel { channel, state, transfer }, bytes) in
        carried.carried().0.into_iter().zip([0, 40, 50])
    {
        // Blanks before it do not change what it says.
        let transfer = transfer.map(|text| " ".repeat(bytes << 10) + &text);
        large.push(CarriedChannel { channel, state, transfer });
    }
    give_up_the_largest(&mut large);
    let kept: Vec<_> = large.iter().map(|channel| channel.state.used_for).collect();
    assert_eq!(kept, [Use::Files, Use::Files, Use::Lost]);
}

const GREETING: &[u8] = &[31, 0, 0, 0];

#[test]
fn nothing_is_left_out_before_the_target_has_accepted_the_transfer_and_both_sides_have_spoken() {
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        // A target that says nothing, one that has not answered yet, and then refuses.
        for (channel, command, answer) in [
            (0, &b"rsync --server . x"[..], Some(Message::Success)),
            (1, b"rsync --server . x", Some(Message::Failure)),
            (2, b"rsync --server . x", None),
        ] {
            frames.open(channel);
            frames.control(channel, C2T, Message::Exec(command.to_vec()));
            answer.into_iter().for_each(|answer| frames.control(channel, T2C, answer));
            assert_eq!(frames.stdin(channel, GREETING), None);
            assert_eq!(frames.stdin(channel, b"anything"), None);
        }
        assert_eq!(frames.stdout(2, GREETING), None, "it has not accepted");
        assert_eq!(frames.stdin(2, b"anything"), None);
        frames.control(2, T2C, Message::Failure);
        assert_eq!(frames.stdin(2, b"anything"), None);
        assert_eq!(frames.stdout(0, GREETING), None);
        assert_eq!(
            frames.stdin(0, b"list"),
            whole(b"anythinglist", 4),
            "the digest covers what was recorded"
        );

        frames.open(3);
        frames.exec(3, b"scp -t file");
        assert_eq!(frames.stdin(3, b"C0600 9 x\nty"), None);
        assert_eq!(frames.stdin(3, b"ped"), None);
        assert_eq!(frames.stdout(3, b"\0"), None);
        assert_eq!(frames.stdin(3, b"file"), whole(b"typedfile", 4));
    }
}

#[test]
fn where_the_track_of_what_was_not_shown_to_be_a_transfer_is_lost_everything_is_recorded() {
    let skip = |frames: &mut Frames, from_target| {
        *frames.next.get_mut(&(ChannelNo(0), from_target)).expect("it was used") += 1;
    };
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        // The refusal is lost, and a shell follows.
        frames.open(0);
        frames.control(0, C2T, Message::Exec(b"rsync --server . x".to_vec()));
        skip(&mut frames, true);
        frames.control(0, C2T, Message::Shell);
        frames.control(0, T2C, Message::Success);
        assert_eq!(frames.stdin(0, b"typed"), None);
        assert_eq!(frames.stdout(0, b"shown"), None);
    }
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        // Accepted, and one side has spoken.
        frames.open(0);
        frames.exec(0, b"rsync --server . x");
        assert_eq!(frames.stdin(0, GREETING), None);
        skip(&mut frames, false);
        assert_eq!(frames.stdin(0, b"typed"), None);
        assert_eq!(frames.stdout(0, GREETING), None);
        assert_eq!(frames.stdin(0, b"typed"), None);
    }
    for mut frames in [Frames::new(), Frames::cut_everywhere()] {
        // What is missing may have been a shell, and the first answer the one to that.
        frames.open(0);
        skip(&mut frames, false);
        frames.exec(0, b"rsync --server . x");
        assert_eq!((frames.stdin(0, GREETING), frames.stdout(0, GREETING)), (None, None));
        assert_eq!(frames.stdin(0, b"typed"), None);
    }
}

#[test]
fn state_that_is_given_up_of_what_was_not_shown_to_be_a_transfer_leads_to_recording() {
    let mut frames = Frames::new();
    frames.open(0);
    frames.exec(0, b"rsync --server . x");
    assert_eq!(frames.stdin(0, GREETING), None);
    let mut carried = frames.carried();
    let mut another = carried.clone();
    another.0[0].transfer = Some("{\"another\":\"version\"}".to_owned());
    let taken_up = Withholding::after(&another).carried().expect("writable");
    assert_eq!(taken_up.0[0].state.used_for, Use::Other);
    carried.0[0].transfer = Some(" ".repeat(TRANSFERS_BYTES_MAX + 1));
    give_up_the_largest(&mut carried.0);
    assert_eq!(carried.0[0].state.used_for, Use::Other);
}
