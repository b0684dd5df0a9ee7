//! Writes a session in a form that other programs read: asciicast, a transcript, a page, NDJSON, CSV.
//!
//! Everything streams, one event at a time; only the page is bounded instead, by `--max-bytes`. What comes out of here
//! has no control characters, whatever the recording holds: in asciicast they are escaped, and what a player makes of
//! them went through the filter of `weir play` unless `--raw` asks for the bytes as they were.

pub mod cast;
pub mod csv;
pub mod html;
pub mod ndjson;
pub mod text;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{
    cli::{ExportArgs, Format},
    emulator::LineFeeds,
    escape,
    findings::{self, Kept, Origin},
    play::screen::Screen,
    recording::{Item, Recording},
    run::{Exit, World},
    track::{self, Beat, Beside, Track},
};
use cast::{Code, Encoder, Header, Utf8, Version};

/// Why nothing was exported, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Nobody reads the output, or the disk is full.
    #[error("can't write the output: {0}")]
    Write(#[from] io::Error),
    /// The file can't be made.
    #[error("can't make {}: {source}", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is nothing of what was asked for.
    #[error("there is no channel with output in what is stored; `weir show` lists the channels")]
    NoChannel,
    /// The channel that was asked for has no events.
    #[error("there is no channel {0}; `weir show` lists the channels")]
    UnknownChannel(weir_common::session::ChannelNo),
}

/// Writes a recording as the command line says.
///
/// # Errors
/// An [`ExportError`].
pub fn export(recording: &Recording, args: &ExportArgs, world: &mut World<'_>) -> Result<Exit, ExportError> {
    let mut file;
    let World { out, err, .. } = world;
    let out: &mut dyn Write = match &args.output {
        Some(path) => {
            file = BufWriter::new(create(path)?);
            &mut file
        }
        None => *out,
    };
    let mut told = Told { err: *err, warned: false };
    told.warnings(&recording.warnings);
    if !recording.is_finished() {
        told.say("this session is not finished: what is stored so far is exported");
    }
    match write(recording, args, out, &mut told).and_then(|()| Ok(out.flush()?)) {
        // Who reads it has enough. What is wrong is wrong all the same.
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(if told.warned { Exit::Wrong } else { Exit::Fine })
}

fn write(
    recording: &Recording,
    args: &ExportArgs,
    out: &mut dyn Write,
    told: &mut Told<'_>,
) -> Result<(), ExportError> {
    let mut warnings = Vec::new();
    match args.format {
        Format::Cast => asciicast(recording, args, Version::V2, out, told),
        Format::Cast3 => asciicast(recording, args, Version::V3, out, told),
        Format::Html => page(recording, args, out, told),
        Format::Txt => {
            let origin = text::write(recording, &mut warnings, out);
            told.warnings(&warnings);
            told.origin(origin?);
            Ok(())
        }
        Format::Ndjson => events(recording, args, out, told),
        Format::Csv => {
            let mut csv = csv::Csv::new(args.what, out);
            let origin = findings::each(recording, &mut csv, &mut warnings);
            told.warnings(&warnings);
            csv.finish()?;
            told.origin(origin);
            Ok(())
        }
    }
}

/// What was typed may be in it, so it is for its owner alone.
fn create(path: &Path) -> Result<File, ExportError> {
    let create = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    create.map_err(|source| ExportError::Create { path: path.to_owned(), source })
}

/// What the user is told on standard error.
struct Told<'a> {
    err: &'a mut dyn Write,
    warned: bool,
}

impl Told<'_> {
    fn say(&mut self, text: &str) {
        // Where even standard error is closed there is nobody to tell.
        let _ = writeln!(self.err, "weir: {}", escape::text(text));
    }

    fn warnings(&mut self, warnings: &[String]) {
        for warning in warnings {
            self.warned = true;
            self.say(&format!("warning: {warning}"));
        }
    }

    fn origin(&mut self, origin: Origin) {
        self.say(match origin {
            Origin::Stored => "as the agent stored it",
            Origin::Made => "made from the events just now: the agent stored no findings that are as listed",
        });
    }

    fn beside(&mut self, beside: &Beside, track: &Track) {
        self.warnings(&beside.warnings);
        for (channel, words) in &beside.others {
            self.say(&format!("channel {channel} is not in it: {words}"));
        }
        self.say(&format!("channel {} was exported", track.channel));
    }
}

fn choose(recording: &Recording, args: &ExportArgs) -> Result<Track, ExportError> {
    track::choose(recording, args.channel)
        .ok_or_else(|| args.channel.map_or(ExportError::NoChannel, ExportError::UnknownChannel))
}

/// The commands that are marked.
fn commands(recording: &Recording, told: &mut Told<'_>) -> Kept {
    let mut warnings = Vec::new();
    let kept = findings::kept(recording, &mut warnings);
    // Reading the events again will say the same.
    if kept.findings_from == Origin::Stored {
        told.warnings(&warnings);
    }
    if kept.findings_left_out > 0 {
        told.say(&format!("{} commands and files have no mark, they are too many", kept.findings_left_out));
    }
    kept
}

fn title(recording: &Recording) -> Option<String> {
    recording.access().map(|access| format!("{} on {}", access.user, access.resource.name))
}

fn asciicast(
    recording: &Recording,
    args: &ExportArgs,
    version: Version,
    out: &mut dyn Write,
    told: &mut Told<'_>,
) -> Result<(), ExportError> {
    let track = choose(recording, args)?;
    if args.raw {
        told.say("warning: whatever this session sent to its terminal is in it, and will reach that of who plays it");
    }
    let marks = commands(recording, told);
    let mut encoder = Encoder::new(version);
    let start = recording.clock().and_then(|clock| clock.at(track.start));
    let header = Header {
        size: track.size,
        term: track.term.clone(),
        timestamp: start.map(jiff::Timestamp::as_second),
        idle_limit: args.idle_limit,
        command: track.command.clone(),
        title: title(recording),
    };
    out.write_all(encoder.header(&header).as_bytes())?;
    let mut output = Output::new(args.raw, track.term.is_some());
    let mut typed = Utf8::default();
    let mut size = track.size;
    let mut beside = Beside::default();
    let followed = track::follow(recording, &track, &marks.commands, &mut beside, &mut |t, beat| {
        let event = match beat {
            Beat::Output(bytes) => (Code::Output, output.text(bytes)),
            Beat::Typed(bytes) if args.stdin => (Code::Input, typed.push(bytes)),
            Beat::Resize(new) if new != size => {
                size = new;
                (Code::Resize, format!("{}x{}", new.cols, new.rows))
            }
            Beat::Command(command) => (Code::Marker, first_line(&command.text)),
            Beat::Gap(words) => (Code::Marker, words),
            Beat::Exit(code) => (Code::Exit, code.to_string()),
            Beat::Typed(_) | Beat::Resize(_) => return Ok(ControlFlow::Continue(())),
        };
        let (code, data) = event;
        if !data.is_empty() || code == Code::Marker {
            out.write_all(encoder.event(t, code, &data).unwrap_or_default().as_bytes())?;
        }
        Ok::<_, ExportError>(ControlFlow::Continue(()))
    });
    told.warnings(&std::mem::take(&mut beside.warnings));
    followed?;
    told.beside(&beside, &track);
    Ok(())
}

/// A command as the label of a mark.
fn first_line(text: &str) -> String {
    match text.split_once('\n') {
        Some((first, _)) => format!("{first} …"),
        None => text.to_owned(),
    }
}

/// Output on its way into an asciicast.
struct Output {
    line_feeds: LineFeeds,
    filter: Result<Screen, Utf8>,
}

impl Output {
    fn new(raw: bool, cooked: bool) -> Self {
        let filter = if raw { Err(Utf8::default()) } else { Ok(Screen::default()) };
        Self { line_feeds: LineFeeds::new(cooked), filter }
    }

    fn text(&mut self, bytes: &[u8]) -> String {
        let bytes = self.line_feeds.apply(bytes);
        match &mut self.filter {
            Ok(screen) => String::from_utf8_lossy(&screen.filter(&bytes)).into_owned(),
            Err(utf8) => utf8.push(&bytes),
        }
    }
}

fn page(
    recording: &Recording,
    args: &ExportArgs,
    out: &mut dyn Write,
    told: &mut Told<'_>,
) -> Result<(), ExportError> {
    let track = choose(recording, args)?;
    let marks = commands(recording, told);
    let about = html::About {
        title: title(recording),
        session: recording.session.name(),
        started_at: recording.clock().and_then(|clock| clock.at(track.start)),
        channel: track.channel,
        finished: recording.is_finished(),
        idle_limit: args.idle_limit.unwrap_or(html::IDLE_LIMIT_S),
    };
    let mut page = html::Page::new(&about, &track, args.max_bytes, out)?;
    let mut beside = Beside::default();
    let followed = track::follow(recording, &track, &marks.commands, &mut beside, &mut |t, beat| {
        page.beat(t, beat, args.stdin)
    });
    told.warnings(&std::mem::take(&mut beside.warnings));
    followed?;
    if let Some(cut) = page.finish(&marks.commands, track.start)? {
        told.say(&format!(
            "warning: the page ends after {}.{:03} s of the session, at --max-bytes {}; more makes a longer page",
            cut / 1_000_000_000,
            cut / 1_000_000 % 1000,
            args.max_bytes
        ));
    }
    told.beside(&beside, &track);
    Ok(())
}

fn events(
    recording: &Recording,
    args: &ExportArgs,
    out: &mut dyn Write,
    told: &mut Told<'_>,
) -> Result<(), ExportError> {
    let clock = recording.clock();
    for item in recording.events() {
        match item {
            Item::Event(event, _) if args.channel.is_some_and(|channel| channel != event.ch) => {}
            Item::Event(event, bulk) => ndjson::event(&event, bulk.as_deref(), clock, out)?,
            Item::Warning(warning) => told.warnings(&[warning]),
        }
    }
    Ok(())
}
