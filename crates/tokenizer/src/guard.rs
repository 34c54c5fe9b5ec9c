//! Bounds on what is split and merged in one go.
//!
//! Meta's reference cuts a text every 400,000 characters and inside runs of more than 25,000 characters that are all
//! white space or all not (`tokenizer.py`, `_split_whitespaces_or_nonwhitespaces`). Doing the same gives the same ids
//! and bounds the memory that one text takes.

/// Characters after which a text is cut, wherever that is.
const MAX_CHARS: usize = 400_000;
/// Consecutive characters of one kind after which a text is cut.
const MAX_RUN: usize = 25_000;

/// Calls `each` with the pieces of `text`, in order.
pub(crate) fn each_piece<'a>(text: &'a str, mut each: impl FnMut(&'a str)) {
    // Bytes are at least as many as characters.
    if text.len() <= MAX_RUN {
        return each(text);
    }
    let (mut begin, mut chars, mut run, mut run_is_space) = (0, 0, 0, false);
    for (at, c) in text.char_indices() {
        let is_space = is_python_space(c);
        if chars == MAX_CHARS {
            each(text.get(begin..at).unwrap_or_default());
            (begin, chars, run) = (at, 0, 0);
        }
        run = if chars > 0 && is_space == run_is_space { run + 1 } else { 1 };
        if run > MAX_RUN {
            each(text.get(begin..at).unwrap_or_default());
            (begin, run) = (at, 1);
        }
        run_is_space = is_space;
        chars += 1;
    }
    each(text.get(begin..).unwrap_or_default());
}

/// White space as Python's `str.isspace` and `str.strip` see it: Unicode's, and four separators of ASCII.
pub(crate) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(text: &str) -> Vec<usize> {
        let mut lens = Vec::new();
        let mut whole = String::new();
        each_piece(text, |p| {
            lens.push(p.chars().count());
            whole.push_str(p);
        });
        assert_eq!(whole, text);
        lens
    }

    #[test]
    fn short_texts_are_not_cut() {
        assert_eq!(lens(""), [0]);
        assert_eq!(lens(&"é".repeat(25_000)), [25_000]);
        assert_eq!(lens(&"a ".repeat(200_000)), [400_000]);
    }

    #[test]
    fn long_runs_and_long_texts_are_cut_where_the_reference_cuts_them() {
        assert_eq!(lens(&"a".repeat(25_001)), [25_000, 1]);
        assert_eq!(lens(&format!("x{}y", " ".repeat(60_000))), [25_001, 25_000, 10_001]);
        assert_eq!(lens(&"a ".repeat(300_000)), [400_000, 200_000]);
    }
}
