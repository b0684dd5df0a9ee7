//! What prompts look like, and which of them are of the same shell.

/// The most characters of a prompt's last line.
pub(super) const PROMPT_CHARS_MAX: usize = 300;

/// What prompts end in.
const ENDS: &[char] = &['$', '#', '%', '>', '❯', '➜', '»', 'λ', '›', '➤', '⟩', '▶', '\u{e0b0}', '»'];

/// Whether this looks like a prompt: it ends as prompts do, with one blank at most.
pub(super) fn is_promptish(text: &str) -> bool {
    let trimmed = text.strip_suffix([' ', '\u{a0}']).unwrap_or(text);
    trimmed.ends_with(ENDS) && text.chars().count() <= PROMPT_CHARS_MAX
}

/// Whether two prompts are likely to be of the same shell: they end alike, and differ only in the middle, where the
/// directory, the time or the last exit code stand.
pub(super) fn is_similar(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_end(), b.trim_end());
    let (len_a, len_b) = (a.chars().count(), b.chars().count());
    if len_a == 0 || len_b == 0 {
        return false;
    }
    let before = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let shorter = len_a.min(len_b);
    let behind = a
        .chars()
        .rev()
        .zip(b.chars().rev())
        .take_while(|(a, b)| a == b)
        .count()
        .min(shorter - before.min(shorter));
    if before + behind == 0 || (behind == 0 && before < shorter) {
        return false;
    }
    a == b || before >= 3 || (before + behind) * 2 >= len_a.max(len_b)
}

/// Where the command begins in a line, by a prompt that ends like this one: behind what they begin alike with, and
/// the next end like it.
pub(super) fn by_shape(line: &str, prompt: &str) -> Option<usize> {
    let end: String = {
        let mut last: Vec<char> = prompt.chars().rev().take(2).collect();
        last.reverse();
        last.into_iter().collect()
    };
    if end.trim().is_empty() {
        return None;
    }
    let alike: usize =
        line.chars().zip(prompt.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    line[alike..].find(&end).map(|at| alike + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_told_from_questions() {
        for prompt in ["$ ", "user@host:~$ ", "root@host /etc # ", "❯ ", "C:\\>", "[a@b ~]$ "] {
            assert!(is_promptish(prompt), "{prompt}");
        }
        for question in ["Password: ", "Continue [y/N]? ", "name: ", "", "total 5"] {
            assert!(!is_promptish(question), "{question}");
        }
    }

    #[test]
    fn prompts_of_one_shell_differ_in_the_middle() {
        assert!(is_similar("u@h:~$ ", "u@h:/var/log$ "));
        assert!(is_similar("root@vm ~ # ", "root@vm ~ [127]# "));
        assert!(!is_similar("$ ", "# "));
        assert!(!is_similar("bash-5.2# ", "# "));
        assert!(!is_similar("u@h:~$ ", ">>> "));
    }

    #[test]
    fn the_command_follows_a_prompt_of_the_same_shape() {
        assert_eq!(by_shape("u@h:/etc$ ls $ x", "u@h:~$ "), Some(10));
        assert_eq!(by_shape("nothing", "$ "), None);
    }
}
