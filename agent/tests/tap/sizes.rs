//! Rings of every size that makes sense on a node.

use weir_agent::tap::{MIN_RING_BYTES, TapOptions};
use weir_common::abi::MAX_MESSAGE;

use crate::support::{Bpffs, armed_pair, counts, message, open, put, split, take};

/// The largest ring that is tried.
const MAX_RING_BYTES: u32 = 64 * 1024 * 1024;

#[test]
fn a_ring_of_any_size_delivers_what_fits_it_and_as_much_again_once_it_is_drained() {
    for ring_bytes in (0..).map(|power| MIN_RING_BYTES << power).take_while(|bytes| *bytes <= MAX_RING_BYTES)
    {
        let bpffs = Bpffs::mount();
        let (mut taps, mut ring) = open(&TapOptions { ring_bytes, ..bpffs.options() }).expect("opening");
        assert_eq!(ring.capacity(), u64::from(ring_bytes));
        let (from, to, cookie) = armed_pair(&mut taps);
        let (mut captured, mut first) = (0, 0);
        for round in 1..=2 {
            let delivered = (first..).take_while(|number| {
                let sent = message(*number, MAX_MESSAGE);
                put(&from, &sent);
                take(&to).inspect(|received| assert!(*received == sent, "message {number}")).is_some()
            });
            let delivered = delivered.count() as u64;
            captured += delivered;
            let percent = 100 * delivered * MAX_MESSAGE as u64 / u64::from(ring_bytes);
            assert!((50..100).contains(&percent), "{percent} % of {ring_bytes} bytes are messages");
            let counts = counts(&taps, cookie);
            assert_eq!((counts.captured.records, counts.tossed_full), (captured, round));

            let mut records = ring.records();
            for number in first..first + delivered {
                let record = records.next().expect("what was delivered is in the ring");
                assert!(split(&record).1 == message(number, MAX_MESSAGE), "{ring_bytes} bytes: {number}");
            }
            assert!(records.next().is_none(), "what was tossed is not");
            let position = records.position();
            ring.release(position);
            first += delivered + 1;
        }
    }
}
