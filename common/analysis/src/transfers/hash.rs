//! A SHA-256 under way that can be stored and carried on.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{
    Digest,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use weir_common::digest::Sha256;

/// The most blocks of 64 bytes that a stored state may claim: 16 PiB. With many more the length in bits overflows.
const BLOCKS_MAX: u64 = 1 << 48;
/// Where a state says how many blocks went in: behind the eight words, little endian.
const BLOCKS: std::ops::Range<usize> = 32..40;

/// A SHA-256 under way. Stored it is sha2's serialised state, 104 bytes, as base64: the same text for the same bytes,
/// and stable within sha2 0.11. It holds up to 63 bytes of what was hashed last.
#[derive(Clone, Default)]
pub(super) struct Hash(sha2::Sha256);

impl Hash {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of what went in so far.
    pub(super) fn finish(&self) -> Sha256 {
        self.0.clone().into()
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(SerializableState::serialize(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
        let state = SerializedState::<sha2::Sha256>::try_from(&bytes[..]).map_err(D::Error::custom)?;
        let blocks = bytes[BLOCKS].iter().rev().fold(0, |blocks: u64, byte| blocks << 8 | u64::from(*byte));
        if blocks > BLOCKS_MAX {
            return Err(D::Error::custom("a digest of more bytes than there are"));
        }
        SerializableState::deserialize(&state).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_carried_on_from_any_byte_to_the_same_end() {
        let bytes: Vec<u8> = (0..200).collect();
        for cut in 0..=bytes.len() {
            let mut before = Hash::default();
            before.update(&bytes[..cut]);
            let stored = serde_json::to_string(&before).expect("it serializes");
            assert_eq!(stored.len(), 141, "104 bytes as text");
            let mut after: Hash = serde_json::from_str(&stored).expect("just written");
            after.update(&bytes[cut..]);
            assert_eq!(after.finish(), Sha256::of(&bytes));
        }
    }

    #[test]
    fn a_state_that_no_digest_can_have_is_refused() {
        let stored =
            |bytes: [u8; 104]| serde_json::to_string(&STANDARD_NO_PAD.encode(bytes)).expect("a text");
        assert!(serde_json::from_str::<Hash>(&stored([0; 104])).is_ok());
        assert!(
            serde_json::from_str::<Hash>(&stored([0xff; 104])).is_err(),
            "too many blocks, too full a buffer"
        );
        let mut full = [0; 104];
        full[40] = 64;
        assert!(serde_json::from_str::<Hash>(&stored(full)).is_err(), "too full a buffer");
        for text in ["\"\"", "\"AAAA\"", "\"!\"", "3"] {
            assert!(serde_json::from_str::<Hash>(text).is_err(), "{text}");
        }
    }
}
