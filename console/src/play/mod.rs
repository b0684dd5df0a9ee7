//! Plays what a session's terminal showed: to somebody who sits there ([`live`]), or as it comes.
//!
//! One event is in memory at a time. Every stream of every channel has its own parser, so that a sequence that is
//! split between two events of one stream survives an event of another between them. What the session says reaches
//! standard output only through [`screen`] or
//! [`plain`]; what is said about it goes to standard error, escaped.

mod bounded;
pub mod live;
pub mod pace;
pub mod plain;
pub mod screen;
mod typed;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal},
    time::Duration,
};

use weir_common::{
    recording::{Event, What},
    session::ChannelNo,
};

use crate::{
    cli::PlayArgs,
    escape,
    recording::{Item, Recording, content_bytes},
    run::{Exit, World},
    show, table,
    track::{self, Track},
};
use pace::{AtOnce, Pace, Paced, RealTime};
use plain::PlainText;
use screen::Screen;
use typed::Typed;

/// The most streams that are played side by side.
const STREAMS_MAX: usize = 1000;

/// Why playing stopped.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// Nobody reads the output, or the disk is full.
    #[error("can't write the output: {0}")]
    Write(#[from] io::Error),
    /// No timers or signals.
    #[error("can't play in real time ({source}); --instant needs no clock")]
    Clock {
        /// What the operating system says.
        source: io::Error,
    },
    /// Standard input and output are not a terminal.
    #[error("--command, --search and --follow need a terminal to play on")]
    NoTerminal,
}

/// Plays a recording as the command line says.
///
/// # Errors
/// If nothing can be written, or real time is not to be had.
pub fn play(recording: &mut Recording, args: &PlayArgs, world: &mut World<'_>) -> Result<Exit, PlayError> {
    // A terminal has to be put back in order even if nothing is waited for.
    let timed = world.terminal && !args.text;
    if timed && !args.instant && io::stdin().is_terminal() {
        match track::choose(recording, args.channel) {
            Some(track) => return watch(recording, track, args, world),
            None => writeln!(world.err, "weir: there is nothing to play on this channel")?,
        }
    }
    if args.command.is_some() || args.search.is_some() || args.follow {
        return Err(PlayError::NoTerminal);
    }
    let mut real_time;
    let pace: &mut dyn Pace = if timed {
        real_time = RealTime::start().map_err(|source| PlayError::Clock { source })?;
        &mut real_time
    } else {
        &mut AtOnce
    };
    play_paced(recording, args, world, pace)
}

fn watch(
    recording: &mut Recording,
    track: Track,
    args: &PlayArgs,
    world: &mut World<'_>,
) -> Result<Exit, PlayError> {
    let watched = {
        let mut terminal = live::Terminal::enter()?;
        live::watch(recording, track, args, &mut terminal)?
    };
    let warnings: Vec<_> = recording.warnings.iter().chain(&watched.warnings).collect();
    for warning in &warnings {
        writeln!(world.err, "weir: warning: {}", escape::text(warning))?;
    }
    Ok(if warnings.is_empty() { Exit::Fine } else { Exit::Wrong })
}

/// Plays with this sense of time.
///
/// # Errors
/// If nothing can be written.
pub fn play_paced(
    recording: &Recording,
    args: &PlayArgs,
    world: &mut World<'_>,
    pace: &mut dyn Pace,
) -> Result<Exit, PlayError> {
    let styled = world.terminal && !args.text;
    let mut player = Player::new(args, world, styled);
    match play_all(recording, args, &mut player, pace) {
        // Who reads it has enough. What is wrong is wrong all the same.
        Err(PlayError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        played => played?,
    }
    Ok(if player.warned { Exit::Wrong } else { Exit::Fine })
}

fn play_all(
    recording: &Recording,
    args: &PlayArgs,
    player: &mut Player<'_, '_>,
    pace: &mut dyn Pace,
) -> Result<(), PlayError> {
    player.introduce(recording)?;
    let (mut last_t, mut first_t) = (None, None);
    for item in recording.events() {
        let (event, bulk) = match item {
            Item::Event(event, bulk) => (event, bulk),
            Item::Warning(warning) => {
                player.warn(&warning)?;
                continue;
            }
        };
        if args.channel.is_some_and(|channel| channel != event.ch) {
            continue;
        }
        let start = *first_t.get_or_insert(event.t);
        let begin = args.at.and_then(|at| at.after(start, recording.clock())).unwrap_or_default();
        if event.t.saturating_sub(start) < begin {
            last_t = last_t.max(Some(event.t));
            player.pass_over(&event, bulk.as_deref());
            continue;
        }
        let gap = Duration::from_nanos(event.t.saturating_sub(last_t.unwrap_or(event.t)));
        last_t = last_t.max(Some(event.t));
        if player.styled && !gap.is_zero() {
            player.world.out.flush()?;
        }
        let most = if args.instant { 0.0 } else { args.idle_limit };
        let gap = gap.min(Duration::from_secs_f64(most)).div_f64(args.speed);
        if pace.wait(gap) == Paced::Stop {
            break;
        }
        player.event(&event, bulk.as_deref())?;
    }
    player.finish()
}

enum Stream {
    Screen(Screen),
    Plain(PlainText),
}

impl Stream {
    fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Screen(screen) => screen.filter(bytes),
            Self::Plain(text) => text.filter(bytes),
        }
    }
}

struct Player<'a, 'w> {
    args: &'a PlayArgs,
    world: &'a mut World<'w>,
    styled: bool,
    /// Standard output and standard error of each channel.
    streams: BTreeMap<(ChannelNo, bool), Stream>,
    subsystems: BTreeSet<ChannelNo>,
    speaking: Option<ChannelNo>,
    line_start: bool,
    warned: bool,
}

impl<'a, 'w> Player<'a, 'w> {
    fn new(args: &'a PlayArgs, world: &'a mut World<'w>, styled: bool) -> Self {
        Self {
            args,
            world,
            styled,
            streams: BTreeMap::new(),
            subsystems: BTreeSet::new(),
            speaking: None,
            line_start: true,
            warned: false,
        }
    }

    fn introduce(&mut self, recording: &Recording) -> Result<(), PlayError> {
        for warning in &recording.warnings {
            self.warn(warning)?;
        }
        let Some(manifest) = &recording.manifest else {
            return self.say("this session is not finished: no manifest; what is stored so far follows");
        };
        let session = &manifest.session;
        let (opened, closed) = (manifest.opened_at, manifest.closed_at);
        self.say(&format!(
            "{} on {}, {} UTC, {}, {}",
            session.user,
            session.resource.name,
            opened.strftime("%Y-%m-%d %H:%M:%S"),
            table::duration(opened, closed),
            manifest.outcome
        ))
    }

    /// Takes an event that is not shown.
    fn pass_over(&mut self, event: &Event, bulk: Option<&[u8]>) {
        match &event.what {
            What::Stdout(content) => drop(self.filter(event.ch, false, content_bytes(content, bulk))),
            What::Stderr(content) => drop(self.filter(event.ch, true, content_bytes(content, bulk))),
            What::Subsystem { .. } if self.args.channel.is_none() => {
                self.subsystems.insert(event.ch);
            }
            _ => {}
        }
    }

    fn event(&mut self, event: &Event, bulk: Option<&[u8]>) -> Result<(), PlayError> {
        match &event.what {
            What::Stdout(content) => self.output(event.ch, false, content_bytes(content, bulk)),
            What::Stderr(content) => self.output(event.ch, true, content_bytes(content, bulk)),
            What::Stdin(content) if self.args.stdin && !self.is_hidden(event.ch) => {
                self.speak(event.ch)?;
                let typed = Typed { bytes: content_bytes(content, bulk), coloured: self.styled };
                write!(self.world.out, "{typed}")?;
                self.line_start = false;
                Ok(())
            }
            What::Subsystem { name } if self.args.channel.is_none() => {
                self.subsystems.insert(event.ch);
                self.say(&format!(
                    "channel {0} is the subsystem {name} and carries no text; --channel {0} plays it anyway",
                    event.ch
                ))
            }
            What::Pty(pty) if self.styled => self.say(&format!(
                "channel {} was on a terminal of {} columns and {} rows; yours should not be smaller",
                event.ch, pty.size.cols, pty.size.rows
            )),
            What::Gap(gap) => {
                let length = show::gap_length(event).unwrap_or_default();
                self.say(&format!("channel {}, {}: {}, for {length}", event.ch, event.dir, show::gap(gap)))
            }
            _ => Ok(()),
        }
    }

    fn output(&mut self, channel: ChannelNo, stderr: bool, bytes: &[u8]) -> Result<(), PlayError> {
        let Some(safe) = self.filter(channel, stderr, bytes) else { return Ok(()) };
        self.speak(channel)?;
        self.world.out.write_all(&safe)?;
        self.line_start = safe.last().map_or(self.line_start, |&last| last == b'\n');
        Ok(())
    }

    /// What of a stream may be shown; `None` if it is not shown at all.
    fn filter(&mut self, channel: ChannelNo, stderr: bool, bytes: &[u8]) -> Option<Vec<u8>> {
        let known = self.streams.contains_key(&(channel, stderr));
        if self.is_hidden(channel) || (!known && self.streams.len() == STREAMS_MAX) {
            return None;
        }
        let styled = self.styled;
        let fresh = || {
            if styled { Stream::Screen(Screen::default()) } else { Stream::Plain(PlainText::default()) }
        };
        Some(self.streams.entry((channel, stderr)).or_insert_with(fresh).filter(bytes))
    }

    /// Says which channel comes next, where that is not the one before.
    fn speak(&mut self, channel: ChannelNo) -> Result<(), PlayError> {
        if self.speaking.replace(channel).is_some_and(|before| before != channel) {
            let line_feed = if self.line_start { "" } else { "\n" };
            writeln!(self.world.out, "{line_feed}[channel {channel}]")?;
        }
        Ok(())
    }

    fn is_hidden(&self, channel: ChannelNo) -> bool {
        self.subsystems.contains(&channel)
    }

    fn finish(&mut self) -> Result<(), PlayError> {
        for stream in self.streams.values() {
            if let Stream::Screen(screen) = stream {
                self.world.out.write_all(&screen.restore())?;
            }
        }
        self.world.out.flush()?;
        if self.styled {
            if !self.line_start {
                self.world.out.write_all(b"\r\n")?;
            }
            self.say("end")?;
        }
        Ok(())
    }

    fn warn(&mut self, warning: &str) -> Result<(), PlayError> {
        self.warned = true;
        self.say(&format!("warning: {warning}"))
    }

    fn say(&mut self, text: &str) -> Result<(), PlayError> {
        // In order with the output, where both go to one terminal.
        self.world.out.flush()?;
        writeln!(self.world.err, "weir: {}", escape::text(text))?;
        Ok(())
    }
}
