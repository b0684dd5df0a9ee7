//! Labels of metrics in texts: so that tests can keep what alerts and dashboards select in step with what is exposed and
//! documented.
//!
//! Plain alternatives (`a|b`) are all that a regular expression over values of ours may be: more is told as unknown. Not
//! here: whether a query is well-formed otherwise.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of each metric by its name, and the values of each. A label without values is one of which any may come.
pub type Labels = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Labels that Prometheus gives, and the one of a histogram's buckets.
const GIVEN: [&str; 3] = ["instance", "job", "le"];

/// The labels of an exposition, and the values that they have.
#[must_use]
pub fn exposed(text: &str, prefix: &str) -> Labels {
    let mut labels = Labels::new();
    for Selector { name, matchers } in text.lines().flat_map(|line| selectors(line, prefix)) {
        let of_name = labels.entry(name).or_default();
        for Matcher { label, value, .. } in matchers.into_iter().filter(|matcher| matcher.label != "le") {
            of_name.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    labels
}

/// The labels that tables of the form `| names | type | labels | …` give, and the values where these are listed: names and
/// values in backticks, a colon behind a label with values, a semicolon or a comma behind one label.
#[must_use]
pub fn documented(text: &str, prefix: &str) -> Labels {
    let mut labels = Labels::new();
    for row in text.lines() {
        let columns: Vec<_> = row.split('|').collect();
        let [_, names, _, of_names, ..] = columns[..] else { continue };
        let mut known = BTreeMap::new();
        for label in of_names.split(';') {
            let (named, values) = label.split_once(':').unwrap_or((label, ""));
            let values: BTreeSet<_> = quoted(values).map(str::to_owned).collect();
            known.extend(quoted(named).map(|label| (label.to_owned(), values.clone())));
        }
        let names = quoted(names).filter(|name| name.starts_with(prefix));
        labels.extend(names.map(|name| (name.to_owned(), known.clone())));
    }
    labels
}

/// What a text selects of metrics that begin like this and never gets: a label that is not there, or a value that it
/// never has.
#[must_use]
pub fn in_vain(text: &str, prefix: &str, known: &Labels) -> BTreeSet<String> {
    let mut vain = BTreeSet::new();
    for Selector { name, matchers } in selectors(&text.replace("\\\"", "\""), prefix) {
        let Some(labels) = known.get(&name) else { continue };
        for Matcher { label, is_regex, value } in matchers {
            let alternatives: Vec<_> = if is_regex { value.split('|').collect() } else { vec![value] };
            let is_known = match labels.get(label) {
                _ if GIVEN.contains(&label) => true,
                Some(values) => values.is_empty() || alternatives.iter().all(|&value| values.contains(value)),
                None => false,
            };
            if !is_known {
                vain.insert(format!("{name}{{{label}: {value}}}"));
            }
        }
    }
    vain
}

struct Selector<'a> {
    /// Histograms by their base name.
    name: String,
    matchers: Vec<Matcher<'a>>,
}

struct Matcher<'a> {
    label: &'a str,
    is_regex: bool,
    value: &'a str,
}

/// Every `name{label="value",…}` whose name begins like this, and every bare name.
fn selectors<'a>(text: &'a str, prefix: &str) -> Vec<Selector<'a>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(is_name) {
        let word = &rest[at..];
        let (name, behind) = word.split_at(word.find(|c| !is_name(c)).unwrap_or(word.len()));
        rest = behind;
        if !name.starts_with(prefix) {
            continue;
        }
        let mut matchers = Vec::new();
        if let Some(mut inside) = rest.strip_prefix('{') {
            while let Some((matcher, behind)) = matcher(inside) {
                matchers.push(matcher);
                inside = behind;
            }
            rest = inside;
        }
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        found.push(Selector { name: base.unwrap_or(name).to_owned(), matchers });
    }
    found
}

/// The next matcher, and what is behind it.
fn matcher(text: &str) -> Option<(Matcher<'_>, &str)> {
    let (selected, behind) = text.split_once('"')?;
    let label = selected.trim_end_matches(['=', '~', '!']);
    let operator = &selected[label.len()..];
    let label = label.trim_matches([',', ' ']);
    // Of this selector, and not of one behind it.
    if operator.is_empty() || label.contains(['}', '{']) {
        return None;
    }
    let (value, behind) = behind.split_once('"')?;
    Some((Matcher { label, is_regex: operator.ends_with('~'), value }, behind))
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPOSED: &str = "# TYPE x_a counter\nx_a_total{ring=\"0\",cause=\"full\"} 1\nx_a_total{ring=\"0\",cause=\"size\"} 2\n\
                           x_b 3\n# HELP x_c_seconds Some x_a words\nx_c_seconds_bucket{le=\"0.5\",part=\"all\"} 1\n";

    #[test]
    fn what_is_selected_and_never_there_is_told_whatever_it_is_asked_by() {
        let known = exposed(EXPOSED, "x_");
        for fine in [
            "rate(x_a_total{cause=\"full\"}[5m]) > x_b",
            "sum(x_a_total{instance=~\"$agent|.*\",cause=~\"full|size\"}) / x_b{job=\"j\"}",
            "\"expr\": \"x_c_seconds_bucket{part=\\\"all\\\",le=\\\"9\\\"}\"",
            "x_b, {{ $labels.cause }} {y=\"z\"} y_a{cause=\"other\"}",
        ] {
            assert_eq!(in_vain(fine, "x_", &known), BTreeSet::new(), "{fine}");
        }
        for (vain, said) in [
            ("x_a_total{cause=\"fill\"}", "x_a_total{cause: fill}"),
            ("x_a_total{ring=\"0\", cause!=\"fill\"} > 0", "x_a_total{cause: fill}"),
            ("x_a_total{cause=~\"full|fill\"}", "x_a_total{cause: full|fill}"),
            ("\"x_a_total{cause=~\\\"f.*\\\"}\"", "x_a_total{cause: f.*}"),
            ("x_b{state=\"up\"} x_a_total", "x_b{state: up}"),
            ("x_c_seconds_count{part=\"none\"}", "x_c_seconds{part: none}"),
        ] {
            assert!(in_vain(vain, "x_", &known).iter().eq([said]), "{vain}");
        }
    }

    #[test]
    fn tables_give_labels_with_their_values_and_those_that_may_have_any() {
        let table = "| name | type | labels | what |\n|---|---|---|---|\n\
                     | `x_a_total`, `x_d` | counter | `ring`; `cause`: `full`, `size` | `words` |\n\
                     | `x_build_info` | info | `version`, `abi` | 1 |\n| `y_b` | gauge | | |\n";
        let set = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<BTreeSet<_>>();
        let labels = documented(table, "x_");
        assert!(labels.keys().eq(["x_a_total", "x_build_info", "x_d"]));
        assert_eq!(
            (&labels["x_a_total"]["cause"], &labels["x_d"]["ring"]),
            (&set(&["full", "size"]), &set(&[]))
        );
        assert!(labels["x_build_info"].keys().eq(["abi", "version"]));
        assert_eq!(in_vain("x_d{ring=\"7\",cause=\"full\"}", "x_", &labels), BTreeSet::new());
    }
}
