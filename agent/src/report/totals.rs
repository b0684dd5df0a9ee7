//! What a session came to, read off its manifest.

use bytes::Bytes;
use weir_common::{
    digest::Sha256,
    recording::{Count, DirectionTotals, Manifest, SUMS},
    report::Totals,
};

/// The totals of a session with this manifest, which `objects` complete in the store, signed by the key with this
/// fingerprint.
#[must_use]
pub fn totals(manifest: &Manifest, objects: &[(&str, Bytes)], signer: &str) -> Totals {
    let ways = || manifest.channels.iter().flat_map(|channel| [&channel.c2t, &channel.t2c]);
    let sum = |count: fn(&DirectionTotals) -> Count, ways: &mut dyn Iterator<Item = &DirectionTotals>| {
        ways.map(count).fold(Count::default(), |sum, count| sum + count)
    };
    let named = manifest.objects().fold(0, |sum: u64, object| sum.saturating_add(object.bytes));
    let closing: u64 = objects.iter().map(|(_, body)| body.len() as u64).sum();
    let sums = objects.iter().find(|(name, _)| *name == SUMS).map_or(&[][..], |(_, body)| &body[..]);
    Totals {
        closed_at: manifest.closed_at,
        outcome: manifest.outcome.clone(),
        channels: manifest.channels.len() as u64,
        segments: manifest.segments.len() as u64,
        c2t: sum(|way| way.accepted, &mut manifest.channels.iter().map(|channel| &channel.c2t)),
        t2c: sum(|way| way.accepted, &mut manifest.channels.iter().map(|channel| &channel.t2c)),
        passed: sum(|way| way.passed, &mut ways()),
        stored_bytes: named.saturating_add(closing),
        adds_up: adds_up(ways()),
        findings: manifest.findings.as_ref().and_then(|findings| findings.counts),
        sums: Sha256::of(sums),
        signer: signer.to_owned(),
    }
}

fn adds_up<'a>(ways: impl Iterator<Item = &'a DirectionTotals>) -> Option<bool> {
    let mut all_known = true;
    for way in ways {
        match way.kernel {
            None => all_known = false,
            Some(kernel) if kernel.captured != way.drained() || kernel.passed != way.passed => {
                return Some(false);
            }
            Some(_) => {}
        }
    }
    all_known.then_some(true)
}

#[cfg(test)]
mod tests {
    use weir_common::{recording::KernelCount, session::SocketCookie};

    use super::*;

    fn way(accepted: u64, kernel: Option<u64>) -> DirectionTotals {
        let count = |records| Count { records, bytes: records * 10 };
        DirectionTotals {
            cookie: SocketCookie(1),
            accepted: count(accepted),
            duplicate: count(1),
            out_of_sequence: Count::default(),
            malformed: Count::default(),
            passed: Count::default(),
            kernel: kernel.map(|records| KernelCount { captured: count(records), ..KernelCount::default() }),
        }
    }

    #[test]
    fn it_adds_up_only_where_the_kernel_was_asked_about_every_direction_and_agrees() {
        assert_eq!(adds_up([].into_iter()), Some(true));
        assert_eq!(adds_up([way(3, Some(4)), way(0, Some(1))].iter()), Some(true));
        assert_eq!(adds_up([way(3, Some(4)), way(0, None)].iter()), None);
        assert_eq!(adds_up([way(3, None), way(0, Some(7))].iter()), Some(false));
    }
}
