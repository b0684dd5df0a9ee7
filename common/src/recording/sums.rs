//! The list of digests, in the form of `sha256sum`.

use crate::digest::Sha256;

/// The text of [`super::SUMS`]: a line for each object, in the form of `sha256sum`.
#[must_use]
pub fn sums_text<'a>(objects: impl IntoIterator<Item = (&'a str, Sha256)>) -> String {
    objects.into_iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect()
}

/// Reads the text of [`super::SUMS`]; `None` if a line is not in exactly the form of [`sums_text`] or a name is not
/// a plain file name.
#[must_use]
pub fn parse_sums(text: &str) -> Option<Vec<(&str, Sha256)>> {
    let lines = text.strip_suffix('\n')?.split('\n');
    lines
        .map(|line| {
            let (digest, name) = line.split_once("  ")?;
            let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
            plain.then_some((name, digest.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_text_is_no_digest_list_or_parses_into_plain_names(text in ".*") {
            if let Some(sums) = parse_sums(&text) {
                prop_assert_eq!(sums_text(sums), text);
            }
        }
    }

    #[test]
    fn digest_lists_with_paths_hidden_names_or_odd_lines_are_refused() {
        let digest = Sha256::of(b"");
        let good = sums_text([("a", digest), ("b", digest)]);
        assert_eq!(parse_sums(&good), Some(vec![("a", digest), ("b", digest)]));
        for bad in [
            String::new(),
            good.trim_end().to_owned(),
            format!("{digest}  ../a\n"),
            format!("{digest}  .a\n"),
            format!("{digest} *a\n"),
            format!("{good}\n"),
        ] {
            assert_eq!(parse_sums(&bad), None, "{bad:?}");
        }
    }
}
