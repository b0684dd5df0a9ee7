//! Samples by route, and what is said of them.

use serde::Serialize;

use crate::lab::Route;

/// What was measured, a sample a round (or more) for each route; empty where there is nothing to measure.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Samples {
    direct: Vec<f64>,
    jump: Vec<f64>,
    weir: Vec<f64>,
}

impl Samples {
    pub(crate) fn push(&mut self, route: Route, sample: f64) {
        match route {
            Route::Direct => self.direct.push(sample),
            Route::Jump => self.jump.push(sample),
            Route::Weir => self.weir.push(sample),
        }
    }

    pub(crate) fn median(&self, route: Route) -> Option<f64> {
        quantile(self.of(route), 0.5)
    }

    fn of(&self, route: Route) -> &[f64] {
        match route {
            Route::Direct => &self.direct,
            Route::Jump => &self.jump,
            Route::Weir => &self.weir,
        }
    }
}

/// The value that this share of the samples is below, interpolated; none of none.
pub(crate) fn quantile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len().checked_sub(1)? as f64 * share;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last")]
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}
