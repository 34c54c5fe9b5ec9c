//! Plain text: documents of bounded length, cut where paragraphs end.

use std::io::{BufRead, Read};

use super::{DOCUMENT_BYTES, Found, Trouble};

pub(super) struct Prose {
    input: Box<dyn BufRead + Send>,
    /// Read and not yet given away: at most a document and its successor's first byte.
    buffer: Vec<u8>,
    /// The line that `buffer` begins at.
    line: u64,
}

impl Prose {
    pub fn new(input: Box<dyn BufRead + Send>) -> Self {
        Self { input, buffer: Vec::new(), line: 1 }
    }

    /// The next document that is not blank, without the line ends around it.
    pub fn next(&mut self) -> Found<String> {
        loop {
            let wanted = (DOCUMENT_BYTES + 1).saturating_sub(self.buffer.len()) as u64;
            if let Err(error) = self.input.by_ref().take(wanted).read_to_end(&mut self.buffer) {
                return Some(Err(Trouble::File(format!("behind line {}: {error}", self.line))));
            }
            if self.buffer.is_empty() {
                return None;
            }
            let rest = self.buffer.split_off(end(&self.buffer));
            let document = std::mem::replace(&mut self.buffer, rest);
            let n_lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let n_blank = document.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let line = self.line + n_lines(&document[..n_blank]);
            self.line += n_lines(&document);
            match String::from_utf8(document) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return Some(Ok((line, text.trim_matches(['\n', '\r']).to_owned()))),
                Err(error) => {
                    let valid = error.utf8_error().valid_up_to();
                    let line = line - n_lines(&error.as_bytes()[..n_blank]) + n_lines(&error.as_bytes()[..valid]);
                    let why = "is not UTF-8, nor is its document read; convert the file".into();
                    return Some(Err(Trouble::Row(line, why)));
                }
            }
        }
    }
}

/// Where the first document of `bytes` ends: behind the last empty line that leaves it at least half of its length, else
/// behind the last line, else behind the last whole character.
fn end(bytes: &[u8]) -> usize {
    if bytes.len() <= DOCUMENT_BYTES {
        return bytes.len();
    }
    let whole = &bytes[..DOCUMENT_BYTES];
    let paragraph = whole.windows(2).rposition(|pair| pair == b"\n\n").map(|at| at + 2);
    let line = whole.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    let is_long = |end: &usize| *end >= DOCUMENT_BYTES / 2;
    // A byte of the form 10xxxxxx continues a character, of which three at most do.
    let n_cut =
        bytes[DOCUMENT_BYTES - 3..=DOCUMENT_BYTES].iter().rev().take_while(|byte| **byte & 0xc0 == 0x80).count();
    let character = if n_cut > 3 { DOCUMENT_BYTES } else { DOCUMENT_BYTES - n_cut };
    paragraph.filter(is_long).or(line.filter(is_long)).unwrap_or(character)
}
