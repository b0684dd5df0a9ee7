//! Whether a channel is shown to carry a file transfer: what the agent has to go by, told from the same events.

use weir_analysis::transfers::Transfer;
use weir_common::{
    frame::Direction,
    recording::{Event, What},
};

/// What is wrong where nothing of the sort was asked for.
pub(super) const NO_TRANSFER: &str = "and no command or subsystem was asked for on this channel that transfers \
                                      files and nothing else, without a terminal, and was not refused";

/// What a session channel is used for.
#[derive(Default)]
pub(super) struct Channel {
    program: Program,
    /// The sequence numbers that the next frames have: from the client, from the target.
    next: [u64; 2],
    /// Requests that the target has not answered yet.
    unanswered: u32,
    /// Which of the answers that are to come is the one to the program's request.
    answer: Option<u32>,
    /// Whether a terminal was asked for.
    terminal: bool,
    /// Who has sent data.
    spoken: [bool; 2],
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Program {
    /// None was asked for yet, or the target refused it.
    #[default]
    None,
    /// One that transfers files and does nothing else, if its name is true.
    Transfer,
    /// Any other, or one that may be missing from the recording.
    Other,
}

impl Channel {
    /// Takes the next event of this channel.
    pub(super) fn take(&mut self, event: &Event) {
        if matches!(event.what, What::Gap(_)) {
            // The next frame's number shows it, as it does to the agent.
            return;
        }
        self.in_sequence(event);
        match (event.dir, &event.what) {
            (Direction::TargetToClient, What::Success) => self.answered(true),
            (Direction::TargetToClient, What::Failure) => self.answered(false),
            (
                Direction::ClientToTarget,
                What::Pty(_)
                | What::Env(_)
                | What::AgentForward
                | What::X11(_)
                | What::Shell
                | What::Exec(_)
                | What::Subsystem { .. },
            ) => self.asked(&event.what),
            (_, What::Stdin(_) | What::Stdout(_)) if self.program != Program::None => {
                self.spoken[side(event.dir)] |= event.len > 0;
            }
            _ => {}
        }
    }

    /// What is wrong with data of this channel that is left out, if anything is.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self.program {
            Program::None | Program::Other => Some(NO_TRANSFER),
            Program::Transfer if self.answer.is_some() => {
                Some("and the target has not accepted the transfer")
            }
            Program::Transfer if self.spoken != [true; 2] => {
                Some("before both sides of the transfer have said anything")
            }
            Program::Transfer => None,
        }
    }

    fn in_sequence(&mut self, event: &Event) {
        let next = &mut self.next[side(event.dir)];
        let missing = *next != event.seq;
        *next = event.seq.saturating_add(1);
        if missing {
            if self.problem().is_some() {
                // A program may be among what is missing, or the answer to it.
                self.program = Program::Other;
            }
            (self.unanswered, self.answer) = (0, None);
        }
    }

    fn asked(&mut self, what: &What) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.terminal |= matches!(what, What::Pty(_));
        let transfer = match what {
            What::Shell => None,
            // A long command that is not UTF-8 lies in the bulk, and the reviewer sees it there.
            What::Exec(command) if command.bytes(&[]).is_none() => Some(true),
            What::Exec(command) => {
                command.bytes(&[]).and_then(Transfer::for_command).map(|it| it.has_content())
            }
            What::Subsystem { name } => Transfer::for_subsystem(name).map(|it| it.has_content()),
            _ => return,
        };
        // A server runs one program: who asks for another one behind it cannot change what the first one is.
        if self.program == Program::None {
            let is_transfer = transfer == Some(true) && !self.terminal;
            self.program = if is_transfer { Program::Transfer } else { Program::Other };
            self.answer = Some(self.unanswered);
        }
    }

    fn answered(&mut self, success: bool) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.answer = match self.answer {
            Some(1) => {
                if !success {
                    self.program = Program::None;
                }
                None
            }
            answer => answer.map(|answers| answers.saturating_sub(1)),
        };
    }
}

fn side(direction: Direction) -> usize {
    usize::from(direction == Direction::TargetToClient)
}
