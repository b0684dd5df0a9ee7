//! A session whose agent goes away and comes back, with an agent that answers by hand.

use std::path::Path;

use tokio_seqpacket::UnixSeqpacketListener;
use weir_common::fuzz;

use super::*;

const STALL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The agent's side of a connection.
struct Agent(UnixSeqpacket);

impl Agent {
    /// The next agent: the socket is made anew, as an agent does that starts.
    async fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let mut listener = UnixSeqpacketListener::bind(socket).expect("a fresh name");
        Self(timeout(PATIENCE, listener.accept()).await.expect("the proxy comes").expect("accepts"))
    }

    async fn asked(&self) -> Request {
        let mut buffer = vec![0; MAX_MESSAGE];
        let asked =
            timeout(PATIENCE, self.0.recv(&mut buffer)).await.expect("the proxy asks").expect("readable");
        control::decode(&buffer[..asked.bytes_read()]).expect("a request")
    }

    async fn answer(&self, reply: &Reply) {
        self.0.send(&control::encode(reply).expect("short")).await.expect("the proxy listens");
    }
}

fn options(dir: &Path) -> AgentOptions {
    AgentOptions { socket: dir.join("agent.sock"), connect_timeout: PATIENCE, stall_timeout: STALL_TIMEOUT }
}

/// A session that is registered with an agent which then goes away.
async fn left_alone(options: &AgentOptions, capture_policy: CapturePolicy) -> (Registration, Lost) {
    let meta = SessionMeta { capture_policy, ..fuzz::meta() };
    let agent = async {
        let agent = Agent::start(&options.socket).await;
        assert!(matches!(agent.asked().await, Request::Open { resume: false, .. }));
        agent.answer(&Reply::Opened).await;
    };
    let (registered, ()) = tokio::join!(register(options.clone(), meta), agent);
    registered.expect("registered")
}

#[tokio::test]
async fn under_best_effort_neither_the_end_of_a_channel_nor_a_new_one_ends_a_session_whose_agent_is_away() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = options(dir.path());
    let (registration, mut lost) = left_alone(&options, CapturePolicy::BestEffort).await;
    registration.disarm(ChannelNo(1));
    let [client, target] =
        UnixSeqpacket::pair().map(|(one, other)| [one, other].map(Arc::new)).expect("a pair");
    // Told each time that the agent is away: lost just now, or waited for in vain.
    for _ in 0..3 {
        let armed = registration.arm(ChannelNo(2), client.clone(), target.clone()).await;
        assert!(matches!(armed, Err(AgentError::Busy(_) | AgentError::Lost(_))), "{armed:?}");
    }
    registration.disarm(ChannelNo(3));
    assert!(lost.try_recv().is_err(), "the session goes on");
    let agent = Agent::start(&options.socket).await;
    assert!(matches!(agent.asked().await, Request::Open { resume: true, .. }));
    agent.answer(&Reply::Opened).await;
    for channel in [1, 3].map(ChannelNo) {
        assert!(matches!(agent.asked().await, Request::Disarm { channel: over } if over == channel));
        agent.answer(&Reply::Disarmed { channel }).await;
    }
}

#[tokio::test]
async fn a_session_that_is_to_end_waits_for_its_agent_as_long_as_it_may_stall_and_so_does_one_that_fails_closed()
 {
    for policy in [CapturePolicy::BestEffort, CapturePolicy::FailClosed] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (registration, lost) = left_alone(&options(dir.path()), policy).await;
        if policy == CapturePolicy::BestEffort {
            registration.close(Outcome::Completed).await;
        }
        let why = timeout(PATIENCE, lost).await.expect("in time").expect("it says why");
        assert!(matches!(why, AgentError::Unreachable { .. }), "{why}");
        drop(registration);
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_waited_with_for_an_agent_once_more_from_then_on_and_comes_after_what_was_before()
 {
    let (sender, mut commands) = commands::queue();
    assert!(commands.put_off(), "nothing is to be said");
    let (done, _answer) = oneshot::channel();
    let close = Command::Close { outcome: Outcome::Completed, done };
    for command in [Command::Disarm { channel: ChannelNo(1) }, close] {
        assert!(sender.send(command).await.is_ok());
    }
    assert!(commands.put_off(), "it was not waited with yet");
    assert!(!commands.put_off(), "it was");
    assert!(matches!(commands.next().await, Some(Command::Disarm { .. })));
    assert!(matches!(commands.next().await, Some(Command::Close { outcome: Outcome::Completed, .. })));
}
