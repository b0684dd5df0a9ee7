//! What fuzzers feed with bytes, and seeds for them: see `docs/fuzzing.md`, and [`weir_common::fuzz`].

use weir_common::{
    digest::Sha256,
    fuzz,
    recording::{parse_sums, sums_text},
};

use crate::{
    manifest::parse_manifest,
    segment::{Line, SegmentReader},
};

/// The most lines that are read of a segment here: a fuzzer that finds how to pack many wants none of them.
const LINES_MAX: usize = 10_000;

/// A segment as it is stored: events up to the first thing that is wrong.
pub fn segment(bytes: &[u8]) {
    read_segment(bytes);
}

/// How many lines could be read, and whether that was all.
fn read_segment(bytes: &[u8]) -> (Vec<Result<String, ()>>, bool) {
    let mut lines = Vec::new();
    let Ok(mut reader) = SegmentReader::new(bytes) else { return (lines, false) };
    for _ in 0..LINES_MAX {
        match reader.next_line() {
            Ok(Some((_, Line::Event(event)))) => {
                let text = serde_json::to_string(&event).expect("what was read can be written");
                lines.push(Ok(text));
            }
            Ok(Some((_, Line::Malformed(_)))) => lines.push(Err(())),
            Ok(None) => {
                let stored = reader.finish().expect("in memory");
                assert_eq!(stored.sha256, Sha256::of(bytes));
                return (lines, true);
            }
            Err(_) => return (lines, false),
        }
    }
    (lines, false)
}

/// A manifest.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = parse_manifest(bytes) else { return };
    let text = serde_json::to_vec(&manifest).expect("what was read can be written");
    assert_eq!(parse_manifest(&text).expect("just written"), manifest);
}

/// The list of digests.
pub fn sums(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(sums) = parse_sums(text) {
        assert_eq!(sums_text(sums), text);
    }
}

/// A valid input of each body here, by the body's name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (manifest, sums) = fuzz::manifest();
    let manifest = serde_json::to_vec(&manifest).expect("samples serialize");
    vec![("segment", packed_segment()), ("manifest", manifest), ("sums", sums.into_bytes())]
}

fn packed_segment() -> Vec<u8> {
    let header = serde_json::to_string(&fuzz::segment_header()).expect("samples serialize");
    let events = [
        r#"{"t":5,"dir":"c2t","ch":0,"seq":0,"len":0,"kind":"shell"}"#,
        r#"{"t":6,"dir":"t2c","ch":0,"seq":0,"len":3,"kind":"stdout","text":"hi\n"}"#,
        r#"{"t":7,"dir":"t2c","ch":0,"seq":1,"len":1,"kind":"stderr","b64":"/w=="}"#,
        r#"{"t":8,"dir":"t2c","ch":0,"seq":2,"len":900,"kind":"stdout","bulk":{"at":0,"bytes":900}}"#,
    ];
    let text: String =
        std::iter::once(header.as_str()).chain(events).map(|line| format!("{line}\n")).collect();
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("in memory");
    encoder.include_checksum(true).expect("in memory");
    std::io::Write::write_all(&mut encoder, text.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for body in [segment, manifest, sums] {
                body(&bytes);
            }
        }

        #[test]
        fn a_changed_segment_reads_as_it_was_written_or_ends_with_an_error(
            at: prop::sample::Index, with: Vec<u8>, cut in 0_usize..8,
        ) {
            let good = packed_segment();
            let (lines, whole) = read_segment(&good);
            prop_assert!(whole && lines.len() == 4 && lines.iter().all(Result::is_ok));
            let bytes = changed(&good, at, &with, cut);
            let (found, whole) = read_segment(&bytes);
            // What is read before the checksum at the end says no counts for nothing.
            prop_assert!(!whole || found == lines);
        }

        #[test]
        fn a_changed_manifest_or_list_is_refused_or_read_as_what_could_have_been_written(
            at: prop::sample::Index, with: Vec<u8>, cut in 0_usize..8,
        ) {
            let (_, list) = fuzz::manifest();
            sums(&changed(list.as_bytes(), at, &with, cut));
            for (name, seed) in seeds() {
                if name == "manifest" {
                    manifest(&changed(&seed, at, &with, cut));
                }
            }
        }
    }

    fn changed(good: &[u8], at: prop::sample::Index, with: &[u8], cut: usize) -> Vec<u8> {
        let at = at.index(good.len());
        [&good[..at], with, &good[(at + cut).min(good.len())..]].concat()
    }
}
