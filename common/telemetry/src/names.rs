//! Names of metrics in texts: so that tests can keep documentation, alerts and dashboards in step with what is exposed.

use std::collections::BTreeSet;

/// The metrics of an exposition, by the names under which they are asked for: counters with `_total`, histograms by
/// their base name.
#[must_use]
pub fn exposed(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect()
}

/// The metrics that a text speaks of, of those that begin like this. A histogram's series count as the histogram.
#[must_use]
pub fn mentioned(text: &str, prefix: &str, exposed: &BTreeSet<String>) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names =
        text.split(|c| !is_name(c)).filter(|word| word.len() > prefix.len() && word.starts_with(prefix));
    names
        .map(|name| {
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            histogram.filter(|name| exposed.contains(*name)).unwrap_or(name).to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_they_are_asked_for() {
        let text = "# TYPE weir_x_a counter\n# TYPE weir_x_b_seconds histogram\n# TYPE weir_x_build info\n# TYPE weir_x_c gauge\n";
        let exposed = exposed(text);
        assert!(exposed.iter().eq(["weir_x_a_total", "weir_x_b_seconds", "weir_x_build_info", "weir_x_c"]));
        let query = "rate(weir_x_b_seconds_bucket{le=\"1\"}[5m]) + `weir_x_a_total` weir_y_z weir_x_d_count";
        let mentioned = mentioned(query, "weir_x_", &exposed);
        assert!(mentioned.iter().eq(["weir_x_a_total", "weir_x_b_seconds", "weir_x_d_count"]));
    }
}
