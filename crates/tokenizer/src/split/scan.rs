//! The scanner: for a place in a text, where the pattern's match that begins there ends.

use super::classes::{Classes, LETTER, LOWER, NUMBER, SPACE, UPPER};

/// A text being scanned. Places are byte offsets at character borders; every match is at least one character long.
pub(super) struct Scan<'a> {
    pub text: &'a str,
    pub classes: &'a Classes,
}

/// Whether `'S` is as good as `'s` in a contraction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Exact,
    Ignored,
}

impl Scan<'_> {
    /// One match of the o200k pattern.
    pub fn o200k(&self, at: usize) -> usize {
        self.cased_word(at)
            .or_else(|| self.digits(at, 3))
            .or_else(|| self.symbols(at, &['\r', '\n', '/']))
            .unwrap_or_else(|| self.spaces_and_lines(at))
    }

    /// One match of Llama 3's pattern, or of Qwen2's, with at most `n_digits` digits together.
    pub fn llama3(&self, at: usize, n_digits: usize) -> usize {
        self.contraction(at, Case::Ignored)
            .or_else(|| self.word_starts(at).into_iter().flatten().find_map(|start| self.run(start, LETTER)))
            .or_else(|| self.digits(at, n_digits))
            .or_else(|| self.symbols(at, &['\r', '\n']))
            .unwrap_or_else(|| self.spaces_and_lines(at))
    }

    /// One match of GPT-2's pattern.
    pub fn gpt2(&self, at: usize) -> usize {
        let start = self.after_space(at);
        self.contraction(at, Case::Exact)
            .or_else(|| self.run(start, LETTER))
            .or_else(|| self.run(start, NUMBER))
            .or_else(|| self.symbols(at, &[]))
            .unwrap_or_else(|| self.spaces(at))
    }

    /// `[^\r\n\p{L}\p{N}]?U*W+C?` else `[^\r\n\p{L}\p{N}]?U+W*C?`, U the upper, W the lower class, C a contraction.
    fn cased_word(&self, at: usize) -> Option<usize> {
        let starts = self.word_starts(at);
        let lower = starts.into_iter().flatten().find_map(|start| self.upper_then_lower(start));
        let end = lower.or_else(|| {
            let upper = starts.into_iter().flatten().find_map(|start| self.run(start, UPPER))?;
            Some(self.run(upper, LOWER).unwrap_or(upper))
        })?;
        Some(self.contraction(end, Case::Ignored).unwrap_or(end))
    }

    /// `U*W+`: greedy, then giving back to the last character of the run that is in both classes.
    fn upper_then_lower(&self, start: usize) -> Option<usize> {
        let upper = self.run(start, UPPER).unwrap_or(start);
        self.run(upper, LOWER).or_else(|| {
            let run = self.text.get(start..upper)?;
            let (offset, c) = run.char_indices().rev().find(|&(_, c)| self.classes.of(c) & LOWER != 0)?;
            Some(start + offset + c.len_utf8())
        })
    }

    /// Where a word may start: after `[^\r\n\p{L}\p{N}]`, and right here.
    fn word_starts(&self, at: usize) -> [Option<usize>; 2] {
        let lead = self.char(at).filter(|&c| c != '\r' && c != '\n' && self.classes.of(c) & (LETTER | NUMBER) == 0);
        [lead.map(|c| at + c.len_utf8()), Some(at)]
    }

    /// `\p{N}{1,most}`
    fn digits(&self, at: usize, most: usize) -> Option<usize> {
        let len: usize = self
            .rest(at)
            .chars()
            .take(most)
            .take_while(|&c| self.classes.of(c) & NUMBER != 0)
            .map(char::len_utf8)
            .sum();
        (len > 0).then_some(at + len)
    }

    /// ` ?[^\s\p{L}\p{N}]+[tail]*`
    fn symbols(&self, at: usize, tail: &[char]) -> Option<usize> {
        let start = self.after_space(at);
        let is_symbol = |&c: &char| self.classes.of(c) & (SPACE | LETTER | NUMBER) == 0;
        let len: usize = self.rest(start).chars().take_while(is_symbol).map(char::len_utf8).sum();
        if len == 0 {
            return None;
        }
        let end = start + len;
        Some(end + self.rest(end).chars().take_while(|c| tail.contains(c)).count())
    }

    /// `\s*[\r\n]+` else [`Scan::spaces`].
    fn spaces_and_lines(&self, at: usize) -> usize {
        let run = self.text.get(at..self.run(at, SPACE).unwrap_or(at)).unwrap_or_default();
        match run.rfind(['\r', '\n']) {
            Some(last) => at + last + 1,
            None => self.spaces(at),
        }
    }

    /// `\s+(?!\S)` else `\s+`: a run of white space that something follows leaves its last character to that.
    fn spaces(&self, at: usize) -> usize {
        // Every character is white space, a letter, a number or a symbol, so a run is here; one character otherwise.
        let end = self.run(at, SPACE).unwrap_or(at + self.char(at).map_or(1, char::len_utf8));
        let last = self.text.get(at..end).and_then(|run| run.chars().next_back()).map_or(0, char::len_utf8);
        if end == self.text.len() || end - last == at { end } else { end - last }
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`
    fn contraction(&self, at: usize, case: Case) -> Option<usize> {
        let tail = self.rest(at).strip_prefix('\'')?;
        let fold = |c: char| match (case, c) {
            (Case::Exact, c) => c,
            // The one letter outside of ASCII that folds to one of these, U+017F.
            (Case::Ignored, 'ſ') => 's',
            (Case::Ignored, c) => c.to_ascii_lowercase(),
        };
        let mut letters = tail.chars();
        let first = letters.next()?;
        let second = letters.next();
        let len = match (fold(first), second.map(fold)) {
            ('s' | 't' | 'm' | 'd', _) => first.len_utf8(),
            ('r' | 'v', Some('e')) | ('l', Some('l')) => 2,
            _ => return None,
        };
        Some(at + 1 + len)
    }

    /// The end of the run of characters of `class` that begins here, if there is one.
    fn run(&self, at: usize, class: u8) -> Option<usize> {
        let len: usize =
            self.rest(at).chars().take_while(|&c| self.classes.of(c) & class != 0).map(char::len_utf8).sum();
        (len > 0).then_some(at + len)
    }

    /// ` ?`
    fn after_space(&self, at: usize) -> usize {
        if self.char(at) == Some(' ') { at + 1 } else { at }
    }

    fn char(&self, at: usize) -> Option<char> {
        self.rest(at).chars().next()
    }

    fn rest(&self, at: usize) -> &str {
        self.text.get(at..).unwrap_or_default()
    }
}
