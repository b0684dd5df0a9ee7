//! Plays one terminal of a session for somebody who sits there: pause, steps, speed, seeking, search.
//!
//! The screen is emulated and drawn from the emulator's cells, so nothing that the session sent reaches the viewer's
//! terminal, whatever it was. Time and keys come from a [`Seat`], so that all of this runs without a terminal, too.

pub mod controls;
mod draw;
mod tape;
mod terminal;
pub mod when;

use std::{io, time::Duration};

use weir_common::recording::{Clock, findings::Command};

pub use self::terminal::Terminal;
use self::{
    controls::{Controls, Key, Order},
    draw::Canvas,
    tape::{Reel, Tape},
    when::When,
};
use crate::{
    cli::PlayArgs,
    emulator::{Picture, row_text},
    findings,
    recording::Recording,
    track::Track,
};

/// The longest that keys are not looked at.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// How often the screen is drawn while much happens.
const DRAW_EVERY: Duration = Duration::from_millis(33);
/// How often it is said how far a long seek is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How often the store is asked for more.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// A command this close behind its beginning is the one that the viewer wants to leave when going back.
const COMMAND_SLACK_NS: u64 = 1_000_000_000;

/// Where somebody sits: a terminal and its keyboard, and a clock.
pub trait Seat {
    /// Columns and rows.
    fn size(&self) -> (u16, u16);
    /// The time since any moment.
    fn now(&self) -> Duration;
    /// Waits for a key.
    ///
    /// # Errors
    /// If there are no keys to be had any more.
    fn key(&mut self, wait: Duration) -> io::Result<Pressed>;
    /// Writes to the terminal.
    ///
    /// # Errors
    /// If it can't be.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// What came while a key was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// Nothing.
    Nothing,
    /// A key.
    Key(Key),
    /// A signal to end.
    Stop,
}

/// How a watching ended.
pub struct Watched {
    /// What does not fit together.
    pub warnings: Vec<String>,
    /// Nanoseconds from the start to what was shown last.
    pub t: u64,
}

/// Why the events are not read on.
enum Turn {
    /// The viewer has enough, or a followed session is over.
    Over,
    /// Go on from where the tape is now.
    Reread,
    /// There may be more in the store.
    Refresh,
}

struct Player<'a, S> {
    seat: &'a mut S,
    args: &'a PlayArgs,
    controls: Controls,
    canvas: Canvas,
    tape: Tape,
    clock: Option<Clock>,
    length: Option<u64>,
    name: String,
    commands: Option<Vec<Command>>,
    finished: bool,
    /// The session's time until the next event is shown.
    left: f64,
    ticked: Duration,
    drawn: Option<Duration>,
    dirty: bool,
    /// What is still to be sought, most urgent last.
    orders: Vec<Order>,
    ended: bool,
}

/// Plays a track until the viewer has enough.
///
/// # Errors
/// If the terminal fails.
pub fn watch<S: Seat>(
    recording: &mut Recording,
    track: Track,
    args: &PlayArgs,
    seat: &mut S,
) -> io::Result<Watched> {
    let mut player = Player::new(recording, track, args, seat);
    loop {
        let mut reel = player.tape.reel(recording);
        match player.turn(recording, &mut reel)? {
            Turn::Over => break,
            Turn::Reread => {}
            Turn::Refresh => {
                drop(reel);
                player.refresh(recording);
            }
        }
    }
    Ok(Watched { warnings: player.tape.warnings.clone(), t: player.tape.t() })
}

impl<'a, S: Seat> Player<'a, S> {
    fn new(recording: &Recording, track: Track, args: &'a PlayArgs, seat: &'a mut S) -> Self {
        let mut controls = Controls::new(args.speed);
        let mut orders = Vec::new();
        if let Some(pattern) = &args.search {
            match controls.search_for(pattern) {
                Ok(()) => orders.push(Order::Search),
                Err(error) => controls.message = Some(error),
            }
        }
        orders.extend(args.at.map(Order::To));
        let name = recording.access().map(|access| format!("{} on {}", access.user, access.resource.name));
        let ticked = seat.now();
        let mut player = Self {
            seat,
            args,
            controls,
            canvas: Canvas::default(),
            clock: recording.clock(),
            length: None,
            name: name.unwrap_or_else(|| recording.session.name()),
            commands: None,
            finished: recording.is_finished(),
            left: 0.0,
            ticked,
            drawn: None,
            dirty: true,
            orders,
            ended: false,
            tape: Tape::new(track),
        };
        player.length = player.length_of(recording);
        if let Some(number) = args.command {
            player.learn_commands(recording);
            let found = player.commands.iter().flatten().find(|command| command.n == number);
            match found.map(|command| command.span.t.saturating_sub(player.tape.track().start)) {
                Some(t) => player.orders.push(Order::To(When::After(t))),
                None => {
                    player.controls.message = Some(format!("there is no command {number} on this channel"));
                }
            }
        }
        player
    }

    /// The session's length, where its end is known.
    fn length_of(&self, recording: &Recording) -> Option<u64> {
        let manifest = recording.manifest.as_ref()?;
        let started = self.clock?.at(self.tape.track().start)?;
        u64::try_from(manifest.closed_at.duration_since(started).as_nanos()).ok()
    }

    fn refresh(&mut self, recording: &mut Recording) {
        if let Err(error) = recording.refresh() {
            self.controls.message = Some(error.to_string());
        }
        self.finished = recording.is_finished();
        self.clock = recording.clock();
        self.length = self.length_of(recording);
        self.commands = None;
    }

    /// Plays until something else has to be read.
    fn turn(&mut self, recording: &Recording, reel: &mut Reel<'_>) -> io::Result<Turn> {
        loop {
            if let Some(order) = self.orders.pop() {
                if let Some(turn) = self.seek(order, recording, reel)? {
                    return Ok(turn);
                }
                self.rest(reel);
                continue;
            }
            let next = self.tape.next_t(reel);
            self.tick();
            let ended_before = std::mem::replace(&mut self.ended, next.is_none());
            self.dirty |= ended_before != self.ended;
            if self.ended && self.args.follow && self.finished {
                self.draw()?;
                return Ok(Turn::Over);
            }
            if next.is_some() && !self.controls.paused && self.left <= 0.0 {
                self.show(reel);
                if self.drawn.is_some_and(|drawn| self.seat.now() < drawn + DRAW_EVERY) && self.left <= 0.0 {
                    continue;
                }
            }
            if self.dirty {
                self.draw()?;
            }
            match self.seat.key(self.wait())? {
                Pressed::Stop => return Ok(Turn::Over),
                Pressed::Nothing if self.ended && self.args.follow && !self.finished => {
                    return Ok(Turn::Refresh);
                }
                Pressed::Nothing => {}
                Pressed::Key(key) => {
                    self.dirty = true;
                    match self.controls.key(key) {
                        Order::Nothing => {}
                        Order::Quit => return Ok(Turn::Over),
                        order => self.orders.push(order),
                    }
                }
            }
        }
    }

    /// Shows the next event and notes how long to wait for the one behind it.
    fn show(&mut self, reel: &mut Reel<'_>) {
        self.tape.advance(reel);
        self.dirty = true;
        // Somewhat late is caught up with, much is not.
        self.left = self.left.max(-0.1);
        self.await_next(reel);
    }

    fn await_next(&mut self, reel: &mut Reel<'_>) {
        let now = self.tape.t();
        if let Some(next) = self.tape.next_t(reel) {
            let gap = Duration::from_nanos(next.saturating_sub(now)).as_secs_f64();
            self.left += gap.min(self.args.idle_limit);
        }
    }

    /// After a seek time begins anew.
    fn rest(&mut self, reel: &mut Reel<'_>) {
        self.left = 0.0;
        self.await_next(reel);
        self.ticked = self.seat.now();
        self.dirty = true;
    }

    /// Lets the time pass that has passed.
    fn tick(&mut self) {
        let now = self.seat.now();
        let passed = now.saturating_sub(std::mem::replace(&mut self.ticked, now));
        if !self.controls.paused && !self.ended {
            self.left -= passed.as_secs_f64() * self.controls.speed;
        }
    }

    fn wait(&self) -> Duration {
        if self.ended && self.args.follow {
            return REFRESH_EVERY;
        }
        if self.controls.paused || self.ended {
            return KEY_WAIT;
        }
        let left = Duration::try_from_secs_f64(self.left / self.controls.speed).unwrap_or_default();
        left.min(KEY_WAIT)
    }

    fn draw(&mut self) -> io::Result<()> {
        let line = self.line();
        let drawn = self.canvas.draw(&self.tape.picture(), &line, self.seat.size());
        self.seat.write(drawn.as_bytes())?;
        self.drawn = Some(self.seat.now());
        self.dirty = false;
        Ok(())
    }

    /// The line below the screen.
    fn line(&self) -> String {
        if let Some(text) = self.controls.entered().or_else(|| self.controls.message.clone()) {
            return format!(" {text}");
        }
        let state = match (self.ended, self.controls.paused) {
            (true, _) if self.args.follow && !self.finished => "waiting",
            (true, _) => "end",
            (false, true) => "paused",
            (false, false) => "playing",
        };
        let length = self.length.map(|length| format!(" / {}", clock(length))).unwrap_or_default();
        let at = self.clock.and_then(|at| at.at(self.tape.track().start.saturating_add(self.tape.t())));
        let at = at.map(|at| at.strftime(" · %H:%M:%SZ").to_string()).unwrap_or_default();
        let speed = self.controls.speed;
        let mut line = format!(" {state} {}{length}{at} · {speed}×", clock(self.tape.t()));
        if let Some(gap) = self.tape.gap() {
            line.push_str(&format!(" · {gap}"));
        }
        if let Some(command) = self.command_now() {
            let first = command.text.lines().next().unwrap_or_default();
            line.push_str(&format!(" · {}: {first}", command.n));
        }
        if self.args.stdin && !self.tape.typed().is_empty() {
            line.push_str(&format!(" · ‹{}›", self.tape.typed()));
        }
        line.push_str(&format!(" · {} · channel {} · h help", self.name, self.tape.track().channel));
        line
    }

    /// The command that was begun last.
    fn command_now(&self) -> Option<&Command> {
        let now = self.tape.track().start.saturating_add(self.tape.t());
        let begun = self.commands.iter().flatten().filter(|command| command.span.t <= now);
        begun.max_by_key(|command| command.span.t)
    }

    /// Carries out an order that is more than a key; says what has to be read then.
    fn seek(&mut self, order: Order, recording: &Recording, reel: &mut Reel<'_>) -> io::Result<Option<Turn>> {
        let now = self.tape.t();
        let target = match order {
            Order::Nothing | Order::Quit => return Ok(None),
            Order::Redraw => {
                self.canvas.forget();
                return Ok(None);
            }
            Order::Step => {
                let before = self.tape.picture();
                while self.tape.advance(reel) && self.tape.picture() == before {}
                return Ok(None);
            }
            Order::Search => return self.search(reel),
            Order::By(ns) => now.saturating_add_signed(ns),
            Order::End => u64::MAX,
            Order::To(when) => match when.after(self.tape.track().start, self.clock) {
                Some(t) => t,
                None => {
                    self.controls.message =
                        Some("that is before the start, or the session has no clock".into());
                    return Ok(None);
                }
            },
            Order::NextCommand | Order::PreviousCommand => {
                match self.command_beside(recording, order == Order::NextCommand)? {
                    Some(t) => t,
                    None => return Ok(None),
                }
            }
        };
        if target < now && self.tape.rewind(target) {
            self.orders.push(Order::To(When::After(target)));
            return Ok(Some(Turn::Reread));
        }
        let mut told = self.seat.now();
        while self.tape.next_t(reel).is_some_and(|t| t <= target) {
            self.tape.advance(reel);
            if self.is_stopped(&mut told)? {
                return Ok(None);
            }
        }
        if self.tape.next_t(reel).is_some() {
            self.tape.settle(target);
        }
        Ok(None)
    }

    /// Goes on to where the pattern stands on the screen next: in a row that did not stand there before.
    fn search(&mut self, reel: &mut Reel<'_>) -> io::Result<Option<Turn>> {
        let Some(pattern) = self.controls.pattern.clone() else { return Ok(None) };
        let matching = |picture: &Picture| -> Vec<String> {
            let rows = picture.rows.iter().map(|row| row_text(row));
            rows.filter(|row| pattern.is_match(row)).collect()
        };
        let start = self.tape.t();
        let mut before = matching(&self.tape.picture());
        let mut told = self.seat.now();
        let lines = usize::from(self.tape.picture().size.rows / 2);
        while self.tape.advance_lines(reel, lines) {
            let found = matching(&self.tape.picture());
            if found.iter().any(|row| !before.contains(row)) {
                self.controls.paused = true;
                self.controls.message = Some(format!("/{pattern} at {} · n next", clock(self.tape.t())));
                return Ok(None);
            }
            before = found;
            if self.is_stopped(&mut told)? {
                return Ok(None);
            }
        }
        self.controls.message = Some(format!("/{pattern} is not shown after {}", clock(start)));
        if self.tape.rewind(start) {
            self.orders.push(Order::To(When::After(start)));
            return Ok(Some(Turn::Reread));
        }
        Ok(None)
    }

    /// Says now and then how far a long way is, and whether the viewer will not wait for its end.
    fn is_stopped(&mut self, told: &mut Duration) -> io::Result<bool> {
        if self.seat.now() < *told + TELL_EVERY {
            return Ok(false);
        }
        *told = self.seat.now();
        let before =
            self.controls.message.replace(format!("at {} · any key stops here", clock(self.tape.t())));
        self.draw()?;
        self.controls.message = before;
        Ok(match self.seat.key(Duration::ZERO)? {
            Pressed::Nothing | Pressed::Key(Key::Resized) => false,
            Pressed::Key(Key::Interrupt | Key::Char('q')) | Pressed::Stop => {
                self.orders.clear();
                self.controls.paused = true;
                true
            }
            Pressed::Key(_) => true,
        })
    }

    fn command_beside(&mut self, recording: &Recording, forward: bool) -> io::Result<Option<u64>> {
        if self.commands.is_none() {
            self.controls.message = Some("looking for commands …".to_owned());
            self.draw()?;
            self.controls.message = None;
            self.learn_commands(recording);
        }
        let (start, now) = (self.tape.track().start, self.tape.t());
        let times = self.commands.iter().flatten().map(|command| command.span.t.saturating_sub(start));
        let found = if forward {
            times.filter(|t| *t > now).min()
        } else {
            times.filter(|t| *t < now.saturating_sub(COMMAND_SLACK_NS)).max()
        };
        if found.is_none() {
            let side = if forward { "behind" } else { "before" };
            self.controls.message = Some(format!("there is no command {side} this"));
        }
        Ok(found)
    }

    fn learn_commands(&mut self, recording: &Recording) {
        let kept = findings::kept(recording, &mut Vec::new());
        let channel = self.tape.track().channel;
        self.commands = Some(kept.commands.into_iter().filter(|command| command.ch == channel).collect());
    }
}

/// A time since the start.
fn clock(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
