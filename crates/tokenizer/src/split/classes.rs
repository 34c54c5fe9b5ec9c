//! Unicode classes by code point, as bit sets.

use regex_syntax::hir::{Class, HirKind};

/// `\p{L}`
pub(crate) const LETTER: u8 = 1;
/// `\p{N}`
pub(crate) const NUMBER: u8 = 2;
/// `\s`
pub(crate) const SPACE: u8 = 4;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
pub(crate) const UPPER: u8 = 8;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
pub(crate) const LOWER: u8 = 16;
/// `[\p{P}$+<=>^~|]`
pub(crate) const PUNCTUATION: u8 = 32;

/// The classes of every code point.
#[derive(Debug)]
pub(crate) struct Classes(Box<[u8]>);

impl Classes {
    /// Builds the table from the regex engine's own, so that both are of one Unicode version.
    pub fn new() -> Self {
        let mut flags = vec![0; char::MAX as usize + 1];
        for (flag, pattern) in [
            (LETTER, r"\p{L}"),
            (NUMBER, r"\p{N}"),
            (SPACE, r"\s"),
            (UPPER, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
            (LOWER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
            (PUNCTUATION, r"[\p{P}$+<=>^~|]"),
        ] {
            let hir = regex_syntax::parse(pattern).expect("the six patterns above are valid");
            let HirKind::Class(Class::Unicode(class)) = hir.kind() else { continue };
            for range in class.ranges() {
                let codes = range.start() as usize..=range.end() as usize;
                flags.get_mut(codes).into_iter().flatten().for_each(|f| *f |= flag);
            }
        }
        Self(flags.into())
    }

    /// The classes of `c`.
    pub fn of(&self, c: char) -> u8 {
        self.0.get(c as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_classes_of_the_unicode_tables() {
        let classes = Classes::new();
        for (c, expected) in [
            ('a', LETTER | LOWER),
            ('É', LETTER | UPPER),
            ('日', LETTER | UPPER | LOWER),
            ('ʰ', LETTER | UPPER | LOWER),
            ('\u{301}', UPPER | LOWER),
            ('٣', NUMBER),
            ('½', NUMBER),
            ('\u{a0}', SPACE),
            ('\u{1c}', 0),
            ('$', PUNCTUATION),
            ('’', PUNCTUATION),
            ('🙂', 0),
        ] {
            assert_eq!(classes.of(c), expected, "{c:?}");
        }
    }
}
