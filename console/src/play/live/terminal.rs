//! The viewer's terminal: raw while a session is watched, and as it was afterwards, whatever happens.

use std::{
    io::{self, Write},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossterm::{
    event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    terminal,
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

use super::{Pressed, Seat, controls::Key};

/// The alternate screen without wrapping, and a cursor that is seen.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?7l\x1b[2J";
const LEAVE: &[u8] = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal while a session is watched on it.
pub struct Terminal {
    stop: Arc<AtomicBool>,
    started: Instant,
    _signals: Runtime,
}

impl Terminal {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// If there is none, or signals are not to be had.
    pub fn enter() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let signals = watch_signals(&stop)?;
        // Said before anything else, or the message would go with the alternate screen.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            before(info);
        }));
        terminal::enable_raw_mode()?;
        let entered = Self { stop, started: Instant::now(), _signals: signals };
        write_all(ENTER)?;
        Ok(entered)
    }
}

fn watch_signals(stop: &Arc<AtomicBool>) -> io::Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signal = {
            let _entered = runtime.enter();
            signal(kind)?
        };
        let stop = Arc::clone(stop);
        runtime.spawn(async move {
            signal.recv().await;
            stop.store(true, Ordering::Relaxed);
        });
    }
    Ok(runtime)
}

fn write_all(bytes: &[u8]) -> io::Result<()> {
    // One write, so that a picture is not seen in halves.
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn leave() {
    // A terminal that is gone needs nothing.
    let _ = write_all(LEAVE);
    let _ = terminal::disable_raw_mode();
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

impl Seat for Terminal {
    fn size(&self) -> (u16, u16) {
        terminal::size().unwrap_or((80, 24))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn key(&mut self, wait: Duration) -> io::Result<Pressed> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Pressed::Stop);
        }
        if !event::poll(wait)? {
            return Ok(Pressed::Nothing);
        }
        Ok(key(&event::read()?).map_or(Pressed::Nothing, Pressed::Key))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_all(bytes)
    }
}

fn key(event: &Event) -> Option<Key> {
    let (code, modifiers) = match event {
        Event::Resize(..) => return Some(Key::Resized),
        Event::Key(KeyEvent {
            code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, ..
        }) => (code, modifiers),
        _ => return None,
    };
    Some(match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(_) if modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => return None,
        KeyCode::Char(c) => Key::Char(*c),
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}
