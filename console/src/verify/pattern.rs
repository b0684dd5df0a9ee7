//! OpenSSH's lists of patterns (ssh_config(5), PATTERNS), as principals and namespaces are given in.

/// Whether a comma-separated list of patterns matches; a match of a pattern with `!` refuses.
pub(crate) fn matches_list(list: &str, text: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches_pattern(pattern.as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches_pattern(pattern.as_bytes(), text.as_bytes()),
        }
    }
    found
}

fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if the text behind a `*` turns out not to match.
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    (p, t) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_refusals_work_as_in_openssh() {
        for (list, text, matches) in [
            ("weir-agent", "weir-agent", true),
            ("weir", "weir-agent", false),
            ("bob,weir-*", "weir-agent", true),
            ("w?ir*t", "weir-agent", true),
            ("*,!weir-*", "weir-agent", false),
            ("!bob", "weir-agent", false),
            ("", "weir-agent", false),
            ("", "", true),
        ] {
            assert_eq!(matches_list(list, text), matches, "{list:?} {text:?}");
        }
    }

    #[test]
    fn a_pattern_with_many_stars_is_matched_in_reasonable_time() {
        assert!(!matches_pattern(&b"*a".repeat(2000), &[b'a'; 1999]));
        assert!(matches_pattern(&b"*a".repeat(2000), &[b'a'; 2000]));
    }
}
