//! Encoding a segment: from records in the spool to the objects in the store.
//!
//! Owns determinism: the same records and the same header make the same bytes, whenever and however often
//! they are encoded, so that a segment whose upload was interrupted can be uploaded again. Blocking and free
//! of state: where file content is left out, what that needs of the segments before is part of the source. Not here: which
//! records (`session`), which of their bytes are content (`withholding`), and where the objects go (`store`).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use weir_common::{
    abi::{RECORD_GAP, RecordHeader},
    digest::Sha256,
    frame::{Direction, FrameError, Header, Kind as FrameKind},
    recording::{
        Content, Count, Event, SegmentEntry, SegmentHeader, StoredObject, What, bulk_name, segment_name,
    },
    session::{ChannelNo, SocketCookie},
};

use crate::{
    gap::SpooledGap,
    session::pending::{Extent, Pending},
    spool::{
        self, FileNo,
        entry::{BadEntry, Entry, HEADER_LEN as ENTRY_HEADER_LEN, Kind},
    },
    withholding::{Carried, Withholding},
};

/// zstd level of the events.
const EVENTS_LEVEL: i32 = 3;
/// zstd level of bulk: there is much of it, and it is mostly compressed already.
const BULK_LEVEL: i32 = 1;
/// How much of the bulk is compressed to see whether that pays.
const BULK_SAMPLE_BYTES: usize = 256 * 1024;
/// Compression pays if it leaves at most this share, in percent.
const BULK_PAYS_PERCENT: usize = 90;

/// What to encode.
#[derive(Clone, Debug)]
pub struct SegmentSource {
    /// The spool's directory.
    pub spool: PathBuf,
    /// The segment's first line. Its bulk is found while encoding, unless it is known to be in the store in other
    /// bytes already.
    pub header: SegmentHeader,
    /// Its records.
    pub records: Pending,
    /// What each receiving socket is for.
    pub sockets: HashMap<SocketCookie, (ChannelNo, Direction)>,
    /// Where the segment before ended, if file content is to be left out.
    pub withhold: Option<Carried>,
}

/// A segment's objects, ready for the store.
pub struct EncodedSegment {
    /// What the manifest says about them.
    pub entry: SegmentEntry,
    /// The segment's bytes.
    pub segment: Bytes,
    /// The bulk's bytes, if it has any.
    pub bulk: Option<Bytes>,
    /// What the next segment goes on from.
    pub carried: Carried,
}

/// Why a segment could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The spool cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The spool file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The spool does not hold what was written to it.
    #[error("spool file {file} is damaged at {offset}: {source}")]
    Damaged {
        /// The spool file.
        file: FileNo,
        /// Where.
        offset: u64,
        /// What is wrong.
        source: BadEntry,
    },
    /// An entry that cannot be one of the session's records.
    #[error("spool file {file} holds something else at {offset} than a record of the session")]
    NotARecord {
        /// The spool file.
        file: FileNo,
        /// Where.
        offset: u64,
    },
    /// A record that was accepted and is no frame.
    #[error("an accepted record is no frame: {0}")]
    Frame(#[from] FrameError),
    /// The encoder failed.
    #[error("cannot compress: {0}")]
    Compress(#[source] io::Error),
    /// An event that is not JSON.
    #[error("cannot write an event: {0}")]
    Json(#[from] serde_json::Error),
}

/// Encodes a segment.
///
/// # Errors
/// [`SegmentError`].
pub fn encode(source: &SegmentSource) -> Result<EncodedSegment, SegmentError> {
    let withholding = source.withhold.as_ref().map(Withholding::after);
    let mut events = Events { withholding, ..Events::default() };
    let mut pieces = Pieces::new(&source.spool);
    for extent in source.records.extents() {
        pieces.open(&extent)?;
        events.extent(&extent, &mut pieces, &source.sockets)?;
    }
    let Events { lines, bulk, count, withholding } = events;
    let carried = withholding.map(Withholding::carried).transpose()?.unwrap_or_default();
    let index = source.header.index;
    let bulk = compress_where_it_pays(bulk, index)?.map(|(name, bytes)| (object(name, &bytes), bytes));
    let (bulk_object, bulk) = bulk.unzip();
    let named = source.header.bulk.clone().or_else(|| bulk_object.clone());
    let header = SegmentHeader { bulk: named, ..source.header.clone() };
    let segment = compress(EVENTS_LEVEL, &[&json_line(&header)?, &lines]).map_err(SegmentError::Compress)?;
    let entry = SegmentEntry {
        index,
        events: count,
        segment: object(segment_name(index), &segment),
        bulk: bulk_object,
        signature: None,
    };
    Ok(EncodedSegment { entry, segment, bulk, carried })
}

#[derive(Default)]
struct Events {
    lines: Vec<u8>,
    bulk: Vec<u8>,
    count: Count,
    withholding: Option<Withholding>,
}

impl Events {
    fn extent(
        &mut self,
        extent: &Extent,
        pieces: &mut Pieces<'_>,
        sockets: &HashMap<SocketCookie, (ChannelNo, Direction)>,
    ) -> Result<(), SegmentError> {
        let file = extent.place.file;
        for number in 0..extent.skip + extent.records {
            let (offset, entry) = pieces.next(file)?;
            if number < extent.skip {
                continue;
            }
            let record = RecordHeader::split(entry.payload).filter(|_| entry.kind == Kind::Record);
            let known = record.and_then(|(header, message)| {
                Some((sockets.get(&SocketCookie(header.cookie))?, header, message))
            });
            let (&(ch, dir), header, message) = known.ok_or(SegmentError::NotARecord { file, offset })?;
            if header.kind == RECORD_GAP {
                let gap = SpooledGap::from_message(message);
                let SpooledGap { seq, gap } = gap.ok_or(SegmentError::NotARecord { file, offset })?;
                let what = What::Gap(gap);
                self.write(&Event { t: header.boot_ns, dir, ch, seq, len: 0, what }, 0)?;
            } else {
                self.event(header.boot_ns, ch, dir, message)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, t: u64, ch: ChannelNo, dir: Direction, message: &[u8]) -> Result<(), SegmentError> {
        let (header, body) = Header::split(message)?;
        let Header { kind, len, seq } = header;
        let withheld = self.withholding.as_mut().and_then(|after| after.frame(ch, dir, header, body));
        let what = match (kind, withheld) {
            (FrameKind::Stdin, Some(parts)) => What::Stdin(Content::Withheld(parts)),
            (FrameKind::Stdout, Some(parts)) => What::Stdout(Content::Withheld(parts)),
            _ => What::read(kind, body, &mut self.bulk)?,
        };
        self.write(&Event { t, dir, ch, seq, len, what }, message.len() as u64)
    }

    fn write(&mut self, event: &Event, captured_bytes: u64) -> Result<(), SegmentError> {
        serde_json::to_writer(&mut self.lines, event)?;
        self.lines.push(b'\n');
        self.count.add(captured_bytes);
        Ok(())
    }
}

/// How much of the spool is read at a time: little enough to stay in the processor's cache until it is encoded.
const PIECE_BYTES: usize = 256 * 1024;

/// Reads extents piece by piece, into one buffer.
struct Pieces<'a> {
    dir: &'a Path,
    file: Option<(FileNo, File)>,
    buffer: Vec<u8>,
    /// What of the buffer was read and not taken yet.
    unread: std::ops::Range<usize>,
    /// Where in the file the buffer's unread part ends.
    offset: u64,
    /// Bytes of the extent behind that.
    left: u64,
}

impl<'a> Pieces<'a> {
    fn new(dir: &'a Path) -> Self {
        Self { dir, file: None, buffer: vec![0; PIECE_BYTES], unread: 0..0, offset: 0, left: 0 }
    }

    fn open(&mut self, extent: &Extent) -> Result<(), SegmentError> {
        let no = extent.place.file;
        if self.file.as_ref().is_none_or(|&(open, _)| open != no) {
            let path = spool::path(self.dir, no);
            let file = File::open(&path).map_err(|source| SegmentError::Read { path, source })?;
            self.file = Some((no, file));
        }
        (self.unread, self.offset, self.left) = (0..0, extent.place.offset, extent.len);
        Ok(())
    }

    /// The next entry, and where it lies.
    fn next(&mut self, file: FileNo) -> Result<(u64, Entry<'_>), SegmentError> {
        while self.unread.len() < Entry::extent(&self.buffer[self.unread.clone()]) && self.left > 0 {
            if self.unread.len() == self.buffer.len() {
                break;
            }
            self.fill()?;
        }
        let offset = self.offset - self.unread.len() as u64;
        let (entry, _) = Entry::decode(&self.buffer[self.unread.clone()], offset)
            .map_err(|source| SegmentError::Damaged { file, offset, source })?;
        self.unread.start += ENTRY_HEADER_LEN + entry.payload.len();
        Ok((offset, entry))
    }

    fn fill(&mut self) -> Result<(), SegmentError> {
        self.buffer.copy_within(self.unread.clone(), 0);
        let kept = self.unread.len();
        let room = (self.buffer.len() - kept) as u64;
        let len = usize::try_from(room.min(self.left)).expect("at most the buffer's length");
        let Some((no, file)) = &self.file else { return Ok(()) };
        file.read_exact_at(&mut self.buffer[kept..kept + len], self.offset)
            .map_err(|source| SegmentError::Read { path: spool::path(self.dir, *no), source })?;
        self.unread = 0..kept + len;
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(())
    }
}

/// The bulk's name and bytes, if there is any.
fn compress_where_it_pays(bulk: Vec<u8>, index: u32) -> Result<Option<(String, Bytes)>, SegmentError> {
    if bulk.is_empty() {
        return Ok(None);
    }
    let sample = &bulk[..bulk.len().min(BULK_SAMPLE_BYTES)];
    let small = compress(BULK_LEVEL, &[sample]).map_err(SegmentError::Compress)?;
    let pays = small.len() <= sample.len() / 100 * BULK_PAYS_PERCENT;
    let bytes = match pays {
        true => compress(BULK_LEVEL, &[&bulk]).map_err(SegmentError::Compress)?,
        false => bulk.into(),
    };
    Ok(Some((bulk_name(index, pays), bytes)))
}

fn compress(level: i32, parts: &[&[u8]]) -> io::Result<Bytes> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    // Most segments are small, and tables for the level's full window are a megabyte to clear.
    encoder.set_pledged_src_size(Some(parts.iter().map(|part| part.len() as u64).sum()))?;
    for part in parts {
        encoder.write_all(part)?;
    }
    Ok(encoder.finish()?.into())
}

fn json_line(value: &impl serde::Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

fn object(name: String, bytes: &[u8]) -> StoredObject {
    StoredObject { name, sha256: Sha256::of(bytes), bytes: bytes.len() as u64 }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use weir_common::recording::{FORMAT_VERSION, Gap, GapCause};

    use super::*;
    use crate::{
        spool::{
            Place,
            entry::{Entry, Stamp},
        },
        testing::{cookies, frame, opening, record, session_id, sftp, stdout_record, upload_of},
    };
    use weir_common::frame::{MAX_BODY, Message};

    /// A spool file with these records, all of one segment.
    fn source(dir: &Path, records: &[Vec<u8>]) -> SegmentSource {
        let (mut bytes, mut pending, stamp) = (Vec::new(), Pending::default(), Stamp::of_new_file());
        for payload in records {
            let entry = Entry { kind: Kind::Record, position: 1, payload };
            let place = Place { file: FileNo(1), offset: bytes.len() as u64 };
            bytes.extend_from_slice(&entry.header(stamp, place.offset).expect("short"));
            bytes.extend_from_slice(payload);
            pending.push(place, entry.len(), 1, 0);
        }
        fs::write(spool::path(dir, FileNo(1)), bytes).expect("writable");
        let [c2t, t2c] = cookies(1);
        SegmentSource {
            spool: dir.to_owned(),
            header: SegmentHeader {
                weir: FORMAT_VERSION,
                session: session_id(1),
                index: 1,
                previous: Some(Sha256::of(b"before")),
                bulk: None,
                opened: None,
            },
            records: pending,
            sockets: HashMap::from([
                (c2t, (ChannelNo(0), Direction::ClientToTarget)),
                (t2c, (ChannelNo(0), Direction::TargetToClient)),
            ]),
            withhold: None,
        }
    }

    fn lines(segment: &Bytes) -> Vec<String> {
        let text = String::from_utf8(zstd::decode_all(&segment[..]).expect("zstd")).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// Bytes that no compressor makes smaller.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(next).flatten().take(len).collect()
    }

    #[test]
    fn records_across_the_pieces_in_which_the_spool_is_read_are_encoded_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bodies: Vec<_> = (0..100).map(|number| noise(300 + number * 320)).collect();
        let records: Vec<_> = (0..).zip(&bodies).map(|(seq, body)| stdout_record(1, seq, body)).collect();
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        assert!(bytes > 4 * PIECE_BYTES, "not many pieces: {bytes} bytes");
        let encoded = encode(&source(dir.path(), &records)).expect("encodes");
        // The bodies begin alike, so together they can be compressed.
        let bulk = zstd::decode_all(&encoded.bulk.expect("noise is bulk")[..]).expect("zstd");
        assert!(bulk == bodies.concat(), "the bulk is not what was recorded");
        assert_eq!(encoded.entry.events.records, 100);
    }

    #[test]
    fn the_same_records_make_the_same_bytes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records: Vec<_> = (0..50).map(|seq| stdout_record(1, seq, &noise(2000))).collect();
        let source = source(dir.path(), &records);
        let (first, second) = (encode(&source).expect("encodes"), encode(&source).expect("encodes"));
        assert_eq!(first.entry, second.entry);
        assert!(first.segment == second.segment && first.bulk == second.bulk);
        assert_eq!(first.entry.events, Count { records: 50, bytes: 50 * 2016 });
        assert_eq!(first.entry.segment.sha256, Sha256::of(&first.segment));
    }

    #[test]
    fn text_stays_readable_and_the_first_line_names_what_belongs_to_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let encoded =
            encode(&source(dir.path(), &[stdout_record(1, 0, "grüße\n".as_bytes())])).expect("encodes");
        let lines = lines(&encoded.segment);
        let header: SegmentHeader = serde_json::from_str(&lines[0]).expect("a header");
        assert_eq!((header.index, header.previous, header.bulk), (1, Some(Sha256::of(b"before")), None));
        assert_eq!(
            lines[1..],
            [r#"{"t":2000,"dir":"t2c","ch":0,"seq":0,"len":8,"kind":"stdout","text":"grüße\n"}"#]
        );
        assert!(encoded.bulk.is_none());
    }

    #[test]
    fn bulk_is_compressed_only_where_that_pays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let repetitive = vec![0xff; 30_000];
        for (data, name) in [(repetitive, "000001.bin.zst"), (noise(30_000), "000001.bin")] {
            let encoded = encode(&source(dir.path(), &[stdout_record(1, 0, &data)])).expect("encodes");
            let (object, bulk) = (encoded.entry.bulk.expect("bulk"), encoded.bulk.expect("bulk"));
            assert_eq!((object.name.as_str(), object.sha256), (name, Sha256::of(&bulk)));
            let header: SegmentHeader = serde_json::from_str(&lines(&encoded.segment)[0]).expect("a header");
            assert_eq!(header.bulk.as_ref(), Some(&object));
            let plain = if name.ends_with(".zst") {
                zstd::decode_all(&bulk[..]).expect("zstd")
            } else {
                bulk.to_vec()
            };
            assert!(plain == data);
        }
    }

    #[test]
    fn records_of_the_segment_before_are_skipped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records: Vec<_> = (0..5).map(|seq| stdout_record(1, seq, b"x")).collect();
        let mut source = source(dir.path(), &records);
        assert_eq!(source.records.take(2).map(|before| before.total().records), Some(2));
        source.records = source.records.take(2).expect("three are left");
        let lines = lines(&encode(&source).expect("encodes").segment);
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains(r#""seq":2"#) && lines[2].contains(r#""seq":3"#));
    }

    #[test]
    fn a_spool_that_does_not_hold_what_was_written_is_an_error_and_no_segment() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = source(dir.path(), &[stdout_record(1, 0, b"said"), stdout_record(1, 1, b"more")]);
        let path = spool::path(dir.path(), FileNo(1));
        let whole = fs::read(&path).expect("readable");
        for byte in 0..whole.len() {
            let mut altered = whole.clone();
            altered[byte] ^= 4;
            fs::write(&path, altered).expect("writable");
            assert!(matches!(encode(&source), Err(SegmentError::Damaged { .. })), "byte {byte}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("writable");
        assert!(matches!(encode(&source), Err(SegmentError::Read { .. })));
    }

    #[test]
    fn a_gap_is_an_event_of_its_own_that_says_how_much_is_missing_and_why() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let gap = Gap { records: 3, bytes: 300, since: 1500, cause: GapCause::SpoolFull };
        let gap = SpooledGap { seq: 1, gap }.to_record(cookies(1)[1], 1900);
        let records = [stdout_record(1, 0, b"x"), gap, stdout_record(1, 4, b"y")];
        let encoded = encode(&source(dir.path(), &records)).expect("encodes");
        assert_eq!(
            lines(&encoded.segment)[2],
            r#"{"t":1900,"dir":"t2c","ch":0,"seq":1,"len":0,"kind":"gap","records":3,"bytes":300,"since":1500,"cause":"spool_full"}"#
        );
        assert_eq!(encoded.entry.events, Count { records: 3, bytes: 34 });
    }

    /// Messages of a session's only channel as records, numbered as they come.
    fn numbered(messages: Vec<(Direction, Message)>) -> Vec<Vec<u8>> {
        let mut next = [0, 0];
        let record = |(direction, message)| {
            let side = usize::from(direction == Direction::TargetToClient);
            next[side] += 1;
            record(cookies(1)[side], &frame(message, next[side] - 1))
        };
        messages.into_iter().map(record).collect()
    }

    #[test]
    fn where_content_is_left_out_the_same_records_and_the_same_state_make_the_same_bytes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let content = (Direction::ClientToTarget, Message::Stdin(noise(2000).into()));
        let messages = [opening(), sftp(), upload_of(4000), vec![content.clone(), content]].concat();
        let records = numbered(messages);
        let whole = SegmentSource { withhold: Some(Carried::default()), ..source(dir.path(), &records) };
        let (first, second) = (encode(&whole).expect("encodes"), encode(&whole).expect("encodes"));
        assert!(first.segment == second.segment && first.bulk.is_none() && first.carried == second.carried);
        assert_eq!(first.entry.events.records, records.len() as u64);
        let last = lines(&first.segment).pop().expect("there are some");
        let sha256 = Sha256::of(&noise(2000).repeat(2));
        assert!(
            last.ends_with(&format!(r#""withheld":[{{"withheld":{{"bytes":2000,"sha256":"{sha256}"}}}}]}}"#)),
            "{last}"
        );
        // In two segments they are the same lines.
        let mut rest = whole.clone();
        let before = rest.records.take(records.len() as u64 - 1).expect("as many");
        let before = encode(&SegmentSource { records: before, ..whole.clone() }).expect("encodes");
        let rest = encode(&SegmentSource { withhold: Some(before.carried), ..rest }).expect("encodes");
        let both = [&lines(&before.segment)[1..], &lines(&rest.segment)[1..]].concat();
        assert_eq!(both, lines(&first.segment)[1..]);
        let kept = encode(&SegmentSource { withhold: None, ..whole }).expect("encodes");
        assert!(kept.bulk.is_some() && kept.carried.is_empty());
    }

    #[test]
    fn a_frame_full_of_tiny_answers_is_a_line_that_readers_take() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // READs of a byte each of the file that is open, and DATA for each.
        let answers = u32::try_from(MAX_BODY / 14).expect("few");
        let read = |id: u32| {
            let place =
                [&[0, 0, 0, 2, b'h', b'1', 0, 0, 0, 0][..], &id.to_be_bytes(), &[0, 0, 0, 1]].concat();
            [&[0, 0, 0, 23, 5][..], &id.to_be_bytes(), &place].concat()
        };
        let data = |id: u32| [&[0, 0, 0, 10, 103][..], &id.to_be_bytes(), &[0, 0, 0, 1, b'.']].concat();
        let asked: Vec<_> = (0..answers).map(|id| read(100 + id)).collect();
        let asked = asked.chunks(1000).map(|some| Message::Stdin(some.concat().into()));
        let asked: Vec<_> = asked.map(|message| (Direction::ClientToTarget, message)).collect();
        let answered = (0..answers).flat_map(|id| data(100 + id)).collect::<Vec<_>>();
        let beginning = [opening(), sftp(), upload_of(1)].concat();
        let written = vec![(Direction::ClientToTarget, Message::Stdin(b"x"[..].into()))];
        let answered = vec![(Direction::TargetToClient, Message::Stdout(answered.into()))];
        let records = numbered([beginning, written, asked, answered].concat());
        let source = SegmentSource { withhold: Some(Carried::default()), ..source(dir.path(), &records) };
        let lines = lines(&encode(&source).expect("encodes").segment);
        let line = lines.last().expect("there are some");
        assert_eq!(line.matches("sha256").count(), MAX_BODY / 14);
        let readers = [weir_console::segment::LINE_MAX as u64, crate::stored_lines::LINE_MAX];
        assert!(readers.iter().all(|&most| line.len() as u64 <= most), "{} bytes", line.len());
    }

    #[test]
    fn a_record_of_another_session_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let foreign = record(cookies(9)[0], &frame(Message::Shell, 0));
        let encoded = encode(&source(dir.path(), &[foreign]));
        assert!(matches!(encoded, Err(SegmentError::NotARecord { .. })));
    }
}
