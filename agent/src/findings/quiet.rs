//! Panics that do not say what they panicked about: a slice's panic quotes the text, and that is the session's.

use std::{cell::Cell, panic};

thread_local! {
    static QUIETLY: Cell<bool> = const { Cell::new(false) };
}

/// From now on panics of the analysis are reported by their place only. Others are reported as before. For the program's
/// start.
pub fn hide_content_in_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !QUIETLY.get() {
            return usual(info);
        }
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a session's analysis panicked");
    }));
}

/// While this lives, this thread's panics are reported by their place only.
pub(super) struct Quietly;

impl Quietly {
    pub(super) fn begin() -> Self {
        QUIETLY.set(true);
        Self
    }
}

impl Drop for Quietly {
    fn drop(&mut self) {
        QUIETLY.set(false);
    }
}
