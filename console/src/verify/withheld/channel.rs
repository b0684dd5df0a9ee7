//! Whether a channel is shown to carry a file transfer: what the agent has to go by, told from the same events.

use weir_analysis::{
    requests::{Request, Requests},
    transfers::Transfer,
};
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
    requests: Requests,
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
            (_, What::Stdin(_) | What::Stdout(_)) if self.program != Program::None => {
                self.spoken[side(event.dir)] |= event.len > 0;
            }
            (Direction::ClientToTarget, what) => self.asked(what),
            _ => {}
        }
    }

    /// What is wrong with data of this channel that is left out, if anything is.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self.program {
            Program::None | Program::Other => Some(NO_TRANSFER),
            Program::Transfer if self.requests.answer.is_some() => {
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
            self.requests.lose_track();
        }
    }

    fn asked(&mut self, what: &What) {
        let Some(request) = Request::of(what) else { return };
        if !self.requests.asked(request, self.program != Program::None) {
            return;
        }
        let is_transfer = match what {
            // A long command that is not UTF-8 lies in the bulk, and the reviewer sees it there.
            What::Exec(command) => command
                .bytes(&[])
                .is_none_or(|command| Transfer::for_command(command).is_some_and(|it| it.has_content())),
            What::Subsystem { name } => Transfer::for_subsystem(name).is_some_and(|it| it.has_content()),
            _ => false,
        };
        self.program =
            if is_transfer && !self.requests.terminal { Program::Transfer } else { Program::Other };
    }

    fn answered(&mut self, success: bool) {
        if self.requests.answered(success) == Some(false) {
            self.program = Program::None;
        }
    }
}

fn side(direction: Direction) -> usize {
    usize::from(direction == Direction::TargetToClient)
}
