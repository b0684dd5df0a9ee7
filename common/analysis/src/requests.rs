//! Which program a channel runs, by the requests of the client and the answers of the target.
//!
//! A server runs one program on a channel (RFC 4254, 6.5) and answers requests in their order. So which answer is the one to the
//! program's request is counted; an answer may be to a variable that was set before it or behind it.

use weir_common::{frame::Kind, recording::What};

/// A request that the target is asked to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// For a terminal.
    Terminal,
    /// For a shell, a command or a subsystem.
    Program,
    /// For anything else.
    Other,
}

impl Request {
    /// What a frame of this kind from the client asks for.
    #[must_use]
    pub fn of_kind(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Pty => Some(Self::Terminal),
            Kind::Shell | Kind::Exec | Kind::Subsystem => Some(Self::Program),
            Kind::Env | Kind::AgentForward | Kind::X11 => Some(Self::Other),
            _ => None,
        }
    }

    /// What an event of the client's asks for.
    #[must_use]
    pub fn of(what: &What) -> Option<Self> {
        Self::of_kind(what.kind()?)
    }
}

/// What was asked for on a channel, and not answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests that the target has not answered yet.
    pub unanswered: u32,
    /// Which of the answers that are to come is the one to the program's request; none where none is to come.
    pub answer: Option<u32>,
    /// Whether a terminal was asked for.
    pub terminal: bool,
}

impl Requests {
    /// The client asks. Whether that is for the program that the channel runs from here on, if the target accepts it: so it is
    /// where the channel has no other.
    pub fn asked(&mut self, request: Request, has_program: bool) -> bool {
        self.unanswered = self.unanswered.saturating_add(1);
        self.terminal |= request == Request::Terminal;
        let is_its = request == Request::Program && !has_program;
        if is_its {
            self.answer = Some(self.unanswered);
        }
        is_its
    }

    /// The target answers. If that is to the program's request: whether it runs.
    pub fn answered(&mut self, success: bool) -> Option<bool> {
        self.unanswered = self.unanswered.saturating_sub(1);
        match self.answer {
            Some(1) => {
                self.answer = None;
                Some(success)
            }
            answer => {
                self.answer = answer.map(|answers| answers.saturating_sub(1));
                None
            }
        }
    }

    /// Something is missing: which answers belong to what is not known any more.
    pub fn lose_track(&mut self) {
        (self.unanswered, self.answer) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use Request::{Other, Program, Terminal};

    use super::*;

    #[test]
    fn the_answer_to_the_program_is_told_from_those_around_it() {
        let mut requests = Requests::default();
        assert!(!requests.asked(Terminal, false) && !requests.asked(Other, false));
        assert!(requests.asked(Program, false) && requests.terminal);
        assert!(!requests.asked(Program, true) && !requests.asked(Other, true));
        let answers = [true, false, true, false, false].map(|success| requests.answered(success));
        assert_eq!(answers, [None, None, Some(true), None, None]);
        assert_eq!((requests.answer.is_some(), requests.answered(true)), (false, None));
        assert!(requests.asked(Program, false) && requests.answer.is_some());
        assert_eq!(requests.answered(false), Some(false));
    }

    #[test]
    fn behind_something_that_is_missing_no_answer_is_the_programs() {
        let mut requests = Requests::default();
        requests.asked(Program, false);
        requests.lose_track();
        assert_eq!((requests.answer.is_some(), requests.answered(true)), (false, None));
    }
}
