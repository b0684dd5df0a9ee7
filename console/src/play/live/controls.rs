//! What keys do: a state machine without a terminal or a clock.

use regex::{Regex, RegexBuilder};

use super::when::When;

/// The most bytes that a pattern may be compiled to.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// The most characters that can be entered.
const ENTRY_CHARS_MAX: usize = 200;
/// The slowest and the fastest that a session is played.
const SPEEDS: (f64, f64) = (1.0 / 16.0, 1024.0);
const S: i64 = 1_000_000_000;

/// A key of the viewer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// An arrow.
    Left,
    /// An arrow.
    Right,
    /// An arrow.
    Up,
    /// An arrow.
    Down,
    /// To the start.
    Home,
    /// To the end.
    End,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Ctrl-C.
    Interrupt,
    /// Nothing was pressed: the terminal has another size.
    Resized,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Draw at the most.
    Nothing,
    /// Draw everything again.
    Redraw,
    /// Stop playing.
    Quit,
    /// Show the next event.
    Step,
    /// Go on or back by so many nanoseconds.
    By(i64),
    /// Go to a time.
    To(When),
    /// Go to the end of what there is.
    End,
    /// Go to the next command.
    NextCommand,
    /// Go to the command before.
    PreviousCommand,
    /// Go to where the pattern is shown next.
    Search,
}

/// What is being entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Pattern,
    Time,
}

/// The state that keys change.
pub struct Controls {
    /// Whether time stands still.
    pub paused: bool,
    /// How many times as fast as it was.
    pub speed: f64,
    /// What is searched for.
    pub pattern: Option<Regex>,
    /// Something to tell, until the next key.
    pub message: Option<String>,
    entry: Option<(Entry, String)>,
}

impl Controls {
    /// Playing at this speed.
    #[must_use]
    pub fn new(speed: f64) -> Self {
        Self { paused: false, speed, pattern: None, message: None, entry: None }
    }

    /// What stands there of what is being entered.
    #[must_use]
    pub fn entered(&self) -> Option<String> {
        let (entry, text) = self.entry.as_ref()?;
        Some(match entry {
            Entry::Pattern => format!("/{text}"),
            Entry::Time => format!("go to: {text}"),
        })
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Order {
        if key == Key::Resized {
            return Order::Redraw;
        }
        self.message = None;
        match self.entry.take() {
            _ if key == Key::Interrupt => Order::Quit,
            Some((entry, text)) => self.enter(entry, text, key),
            None => self.command(key),
        }
    }

    /// Sets what is searched for.
    ///
    /// # Errors
    /// If it is no pattern.
    pub fn search_for(&mut self, pattern: &str) -> Result<(), String> {
        let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
        let pattern = built.map_err(|_| "that is not a regular expression".to_owned())?;
        self.pattern = Some(pattern);
        Ok(())
    }

    fn command(&mut self, key: Key) -> Order {
        match key {
            Key::Char('q' | 'Q') => return Order::Quit,
            Key::Char(' ') => self.paused = !self.paused,
            Key::Char('.') => {
                self.paused = true;
                return Order::Step;
            }
            Key::Char('+' | '=') => self.speed = (self.speed * 2.0).min(SPEEDS.1),
            Key::Char('-') => self.speed = (self.speed / 2.0).max(SPEEDS.0),
            Key::Left => return Order::By(-5 * S),
            Key::Right => return Order::By(5 * S),
            Key::Up => return Order::By(60 * S),
            Key::Down => return Order::By(-60 * S),
            Key::Home => return Order::To(When::After(0)),
            Key::End => return Order::End,
            Key::Char(']') => return Order::NextCommand,
            Key::Char('[') => return Order::PreviousCommand,
            Key::Char('/') => self.entry = Some((Entry::Pattern, String::new())),
            Key::Char('g') => self.entry = Some((Entry::Time, String::new())),
            Key::Char('n') if self.pattern.is_some() => return Order::Search,
            Key::Char('n') => self.message = Some("nothing to search for yet: / begins a search".to_owned()),
            Key::Char('h' | '?') => self.message = Some(HELP.to_owned()),
            _ => {}
        }
        Order::Nothing
    }

    fn enter(&mut self, entry: Entry, mut text: String, key: Key) -> Order {
        match key {
            Key::Enter if text.is_empty() => {
                let again = entry == Entry::Pattern && self.pattern.is_some();
                return if again { Order::Search } else { Order::Nothing };
            }
            Key::Enter => {
                let done = match entry {
                    Entry::Pattern => self.search_for(&text).map(|()| Order::Search),
                    Entry::Time => When::parse(&text).map(Order::To),
                };
                return done.unwrap_or_else(|error| {
                    self.message = Some(error);
                    Order::Nothing
                });
            }
            Key::Escape => return Order::Nothing,
            Key::Backspace if text.pop().is_none() => return Order::Nothing,
            Key::Char(c) if text.chars().count() < ENTRY_CHARS_MAX && !c.is_control() => text.push(c),
            _ => {}
        }
        self.entry = Some((entry, text));
        Order::Nothing
    }
}

const HELP: &str =
    "space pause · . step · + - speed · ←→ 5 s · ↓↑ 1 min · [ ] command · / n search · g time · q quit";

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(controls: &mut Controls, text: &str) -> Vec<Order> {
        text.chars().map(|c| controls.key(if c == '\r' { Key::Enter } else { Key::Char(c) })).collect()
    }

    #[test]
    fn keys_pause_step_and_change_the_speed_within_limits() {
        let mut controls = Controls::new(1.0);
        assert_eq!(keys(&mut controls, " "), [Order::Nothing]);
        assert!(controls.paused);
        assert_eq!(keys(&mut controls, " ."), [Order::Nothing, Order::Step]);
        assert!(controls.paused, "a step is a step");
        keys(&mut controls, "+++");
        assert!((controls.speed - 8.0).abs() < 1e-9);
        keys(&mut controls, &"-".repeat(50));
        assert!((controls.speed - SPEEDS.0).abs() < 1e-9);
        keys(&mut controls, &"+".repeat(50));
        assert!((controls.speed - SPEEDS.1).abs() < 1e-9);
    }

    #[test]
    fn arrows_brackets_and_ends_go_elsewhere() {
        let mut controls = Controls::new(1.0);
        let orders =
            [Key::Left, Key::Right, Key::Up, Key::Down, Key::Home, Key::End, Key::Char(']'), Key::Char('[')]
                .map(|key| controls.key(key));
        assert_eq!(
            orders,
            [
                Order::By(-5 * S),
                Order::By(5 * S),
                Order::By(60 * S),
                Order::By(-60 * S),
                Order::To(When::After(0)),
                Order::End,
                Order::NextCommand,
                Order::PreviousCommand
            ]
        );
    }

    #[test]
    fn a_pattern_is_entered_corrected_and_searched_for_again() {
        let mut controls = Controls::new(1.0);
        assert_eq!(keys(&mut controls, "n"), [Order::Nothing]);
        assert!(controls.message.is_some());
        keys(&mut controls, "/q ");
        assert_eq!(controls.entered().as_deref(), Some("/q "), "keys are text now");
        controls.key(Key::Backspace);
        assert_eq!(controls.key(Key::Enter), Order::Search);
        assert_eq!(controls.pattern.as_ref().map(Regex::as_str), Some("q"));
        assert_eq!(keys(&mut controls, "n/\r"), [Order::Search, Order::Nothing, Order::Search]);
        assert_eq!(keys(&mut controls, "/(\r").last(), Some(&Order::Nothing));
        assert_eq!(controls.message.as_deref(), Some("that is not a regular expression"));
        assert_eq!(controls.pattern.as_ref().map(Regex::as_str), Some("q"));
    }

    #[test]
    fn a_time_is_entered_or_given_up() {
        let mut controls = Controls::new(1.0);
        assert_eq!(keys(&mut controls, "g1:30\r").last(), Some(&Order::To(When::After(90_000_000_000))));
        keys(&mut controls, "gx");
        assert_eq!(controls.key(Key::Escape), Order::Nothing);
        assert_eq!(controls.entered(), None);
        assert_eq!(keys(&mut controls, "gx\r").last(), Some(&Order::Nothing));
        assert!(controls.message.is_some());
        keys(&mut controls, "g1");
        assert_eq!(controls.key(Key::Interrupt), Order::Quit);
    }
}
