//! What fuzzers feed with bytes, and seeds for them: see `docs/fuzzing.md`, and [`weir_common::fuzz`].

use crate::masking::{LineState, MASK, Masking};

/// Text that holds secrets or not, as a command and as lines.
pub fn masking(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let masking = Masking::default();
    let (masked, count) = masking.mask(&text);
    assert_eq!(count == 0, masked == text, "what is counted is replaced");
    assert!(masked.len() <= 4 * text.len() + MASK.len());
    let masks = |text: &str| text.matches(MASK).count();
    assert!(masks(&masked) >= usize::try_from(count).expect("few"));
    let mut state = LineState::default();
    for line in text.lines() {
        let (masked, _) = masking.mask_line(&mut state, line);
        assert!(masked.len() <= 4 * line.len() + MASK.len());
        assert!(!masked.contains('\n'));
    }
}
