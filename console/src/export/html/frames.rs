//! What changes from one picture of a screen to the next, as the page's script reads it.

use std::collections::HashMap;

use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::emulator::{Colour, Picture, Row, Style};

/// After so many frames one stands for itself, to seek from.
const WHOLE_EVERY: u32 = 250;
/// The most styles; a session that makes more gets the rest without colours.
const STYLES_MAX: usize = 20_000;

/// A frame. Its names are short: there are many.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Frame {
    /// Milliseconds since the start.
    t: u64,
    /// Whether it does not depend on the one before.
    #[serde(rename = "k", skip_serializing_if = "is_false")]
    whole: bool,
    /// The screen's columns and rows, where they changed.
    #[serde(rename = "z", skip_serializing_if = "Option::is_none")]
    size: Option<(u16, u16)>,
    /// By how many rows everything went up first.
    #[serde(rename = "u", skip_serializing_if = "is_zero")]
    up: usize,
    /// The rows that changed: number, and column, style and text of each run; a 1 behind it where its characters are wide.
    #[serde(rename = "r", skip_serializing_if = "Vec::is_empty")]
    rows: Vec<(usize, Vec<PageRun>)>,
    /// Column and row of the cursor, none where it is hidden.
    #[serde(rename = "c")]
    cursor: Option<(u16, u16)>,
    /// What was typed.
    #[serde(rename = "i", skip_serializing_if = "String::is_empty")]
    pub(super) typed: String,
    /// Whether nothing on the screen changes.
    #[serde(rename = "n", skip_serializing_if = "is_false")]
    nothing: bool,
}

impl Frame {
    /// A frame in which nothing on the screen changes.
    pub(super) fn at(t: u64) -> Self {
        Self { t, nothing: true, ..Self::default() }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct PageRun {
    col: u16,
    style: usize,
    text: String,
    wide: bool,
}

impl Serialize for PageRun {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.wide {
            (self.col, self.style, &self.text, 1).serialize(serializer)
        } else {
            (self.col, self.style, &self.text).serialize(serializer)
        }
    }
}

/// Finds out what changed.
#[derive(Default)]
pub(super) struct Differ {
    before: Picture,
    frames: u32,
}

impl Differ {
    /// The frame that turns the picture before into this one; `None` if they are the same.
    pub(super) fn frame(&mut self, t: u64, picture: Picture, palette: &mut Palette) -> Option<Frame> {
        let before = std::mem::replace(&mut self.before, picture);
        let now = &self.before;
        let whole = self.frames.is_multiple_of(WHOLE_EVERY) || before.size != now.size;
        if !whole && before == *now {
            return None;
        }
        self.frames += 1;
        let up = if whole { 0 } else { scrolled(&before.rows, &now.rows) };
        let blank = Row::new();
        let stood = |row: usize| if whole { &blank } else { before.rows.get(row + up).unwrap_or(&blank) };
        let changed = now.rows.iter().enumerate().filter(|(number, row)| *row != stood(*number));
        let rows = changed.map(|(number, row)| (number, palette.runs(row))).collect();
        let size = whole.then_some((now.size.cols, now.size.rows));
        Some(Frame { t, whole, size, up, rows, cursor: now.cursor, ..Frame::default() })
    }
}

/// By how many rows most of the screen went up, where that spares rows. Of all numbers only those are tried by which most rows
/// seem to have gone up, so that a screen costs no more than a few looks at each of its rows.
fn scrolled(before: &[Row], now: &[Row]) -> usize {
    let changed = |up: usize| {
        let stood = before[up..].iter().chain(std::iter::repeat_n(&EMPTY, up));
        now.iter().zip(stood).filter(|(now, stood)| now != stood).count()
    };
    let still = changed(0);
    if still <= 2 || before.len() != now.len() {
        return 0;
    }
    let best = likely(before, now).into_iter().map(|up| (changed(up), up)).min();
    best.filter(|(rows, _)| *rows < still).map_or(0, |(_, up)| up)
}

/// The numbers of rows by which the most rows can have gone up.
fn likely(before: &[Row], now: &[Row]) -> Vec<usize> {
    let mut stood: HashMap<&Row, Vec<usize>> = HashMap::new();
    for (at, row) in before.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
        let places = stood.entry(row).or_default();
        if places.len() < PLACES_MAX {
            places.push(at);
        }
    }
    let mut votes = vec![0_usize; before.len()];
    for (at, row) in now.iter().enumerate() {
        let places = stood.get(row).into_iter().flatten();
        places.filter_map(|stood| stood.checked_sub(at)).for_each(|up| votes[up] += 1);
    }
    let mut numbers: Vec<_> = (1..votes.len()).filter(|up| votes[*up] > 0).collect();
    numbers.sort_by_key(|up| std::cmp::Reverse(votes[*up]));
    numbers.truncate(LIKELY_MAX);
    numbers
}

/// The most places that a row is looked for: screens have many that are the same.
const PLACES_MAX: usize = 8;
/// The most numbers of rows that are tried.
const LIKELY_MAX: usize = 8;

static EMPTY: Row = Row::new();

/// The styles of a page, each with its number.
#[derive(Default)]
pub(super) struct Palette {
    numbers: HashMap<Style, usize>,
    styles: Vec<Style>,
}

impl Palette {
    fn runs(&mut self, row: &Row) -> Vec<PageRun> {
        let run = |run: &crate::emulator::Run| PageRun {
            col: run.col,
            style: self.number(run.style),
            text: run.text.clone(),
            wide: run.wide,
        };
        row.iter().map(run).collect()
    }

    fn number(&mut self, style: Style) -> usize {
        let plain = Style { foreground: None, background: None, ..style };
        let full = self.styles.len() >= STYLES_MAX && !self.numbers.contains_key(&style);
        let style = if full { plain } else { style };
        *self.numbers.entry(style).or_insert_with(|| {
            self.styles.push(style);
            self.styles.len() - 1
        })
    }
}

/// Foreground, background (a number of the palette, `#rrggbb` or nothing) and the letters of what else there is.
impl Serialize for Palette {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut styles = serializer.serialize_seq(Some(self.styles.len()))?;
        for style in &self.styles {
            let Style { foreground, background, bold, faint, italic, underline, strike, inverse } = *style;
            let letters =
                [(bold, 'b'), (faint, 'f'), (italic, 'i'), (underline, 'u'), (strike, 's'), (inverse, 'v')];
            let letters: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
            styles.serialize_element(&(colour(foreground), colour(background), letters))?;
        }
        styles.end()
    }
}

fn colour(colour: Option<Colour>) -> serde_json::Value {
    match colour {
        None => serde_json::Value::Null,
        Some(Colour::Indexed(index)) => index.into(),
        Some(Colour::Rgb(r, g, b)) => format!("#{r:02x}{g:02x}{b:02x}").into(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::emulator::{Emulator, Size};

    /// What the page's script does with a frame.
    fn paint(screen: &mut Vec<Vec<PageRun>>, frame: Frame) {
        if let Some((_, rows)) = frame.size.filter(|_| frame.whole) {
            *screen = (0..rows).map(|_| Vec::new()).collect();
        }
        screen.drain(..frame.up);
        screen.extend((0..frame.up).map(|_| Vec::new()));
        for (number, row) in frame.rows {
            screen[number] = row;
        }
    }

    proptest! {
        #[test]
        fn frames_add_up_to_the_picture(
            parts in prop::collection::vec("([a-z]{1,9}|\r\n|\r\n\r\n|\x1b\\[[1-5];[1-9]H|\x1b\\[3[1-7]m|\x1b\\[K|\x1b\\[2J|\x1bM){1,6}", 1..30),
        ) {
            let mut emulator = Emulator::new(Size { cols: 12, rows: 5 }, true);
            let (mut differ, mut palette, mut screen) = (Differ::default(), Palette::default(), Vec::new());
            for part in parts {
                emulator.feed(part.as_bytes());
                let picture = emulator.picture();
                if let Some(frame) = differ.frame(0, picture.clone(), &mut palette) {
                    paint(&mut screen, frame);
                }
                let expected: Vec<_> = picture.rows.iter().map(|row| palette.runs(row)).collect();
                prop_assert_eq!(&screen, &expected);
            }
        }
    }

    #[test]
    fn a_screen_that_went_up_is_found_whatever_else_is_the_same() {
        let row = |text: &str| -> Row {
            vec![crate::emulator::Run { col: 0, wide: false, style: Style::default(), text: text.to_owned() }]
        };
        let lines: Vec<_> =
            (0..500).map(|n| row(&format!("line {}", if n % 3 == 0 { 0 } else { n }))).collect();
        for up in [1, 2, 7, 300] {
            let mut now = lines[up..].to_vec();
            now.extend((0..up).map(|n| row(&format!("new {n}"))));
            assert_eq!(scrolled(&lines, &now), up);
        }
        assert_eq!(scrolled(&lines, &lines), 0);
        assert!(likely(&lines, &lines).len() <= LIKELY_MAX);
        let same: Vec<_> = (0..500).map(|_| row("x")).collect();
        assert!(likely(&same, &same).len() <= LIKELY_MAX && scrolled(&same, &lines) == 0);
    }

    #[test]
    fn a_line_more_at_the_bottom_is_a_line_more_in_the_page() {
        let mut emulator = Emulator::new(Size { cols: 20, rows: 10 }, true);
        let (mut differ, mut palette) = (Differ::default(), Palette::default());
        for n in 0..10 {
            emulator.feed(format!("line {n}\r\n").as_bytes());
        }
        differ.frame(0, emulator.picture(), &mut palette);
        emulator.feed(b"one more\r\n");
        let frame = differ.frame(5, emulator.picture(), &mut palette).expect("it changed");
        assert_eq!((frame.up, frame.rows.len()), (1, 1));
        let json = serde_json::to_string(&frame).expect("it serializes");
        assert_eq!(json, r#"{"t":5,"u":1,"r":[[8,[[0,0,"one more"]]]],"c":[0,9]}"#);
    }
}
