//! The printable alphabet in which byte-level vocabularies write bytes.
//!
//! Printable ASCII and most of Latin-1 stand for themselves; the other 68 bytes, in order, are the characters from
//! U+0100 on. So a space is `Ġ` and a line feed is `Ċ`. Source: the GPT-2 encoder, `bytes_to_unicode`.

/// The character that stands for `byte`.
pub(crate) fn char_of(byte: u8) -> char {
    if stands_for_itself(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !stands_for_itself(b)).count();
    u32::try_from(before).ok().and_then(|n| char::from_u32(0x100 + n)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The bytes that `token` stands for. A character outside of the alphabet stands for its own UTF-8.
pub(crate) fn decode(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The byte that `c` stands for, if it is in the alphabet.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&b| stands_for_itself(b)),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection_of_all_bytes() {
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=255u8 {
            assert!(seen.insert(char_of(byte)));
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(seen.len(), 256);
    }

    #[test]
    fn space_and_line_feed_have_their_known_letters() {
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(decode("Ġaĉ中"), " a\t中".as_bytes());
    }
}
