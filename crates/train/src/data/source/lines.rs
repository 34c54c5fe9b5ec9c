//! JSONL: one object a line.

use std::io::{BufRead, Read};

use super::{Found, ROW_LIMIT_BYTES, Trouble};

pub(super) struct Lines {
    input: Box<dyn BufRead + Send>,
    line: u64,
}

impl Lines {
    pub fn new(input: Box<dyn BufRead + Send>) -> Self {
        Self { input, line: 0 }
    }

    /// The next line that is not blank, without its end.
    pub fn next(&mut self) -> Found<Vec<u8>> {
        loop {
            self.line += 1;
            let mut line = Vec::new();
            let limit = ROW_LIMIT_BYTES as u64 + 1;
            match self.input.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(Trouble::File(format!("line {}: {error}", self.line)))),
            }
            if line.last() != Some(&b'\n') && line.len() > ROW_LIMIT_BYTES {
                drop(line);
                return Some(Err(self.skip_long_line()));
            }
            line.truncate(line.trim_ascii_end().len());
            if self.line == 1 && line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
            if line.is_empty() {
                continue;
            }
            if let Err(error) = std::str::from_utf8(&line) {
                let why = format!("is not UTF-8 at byte {}; convert the file", error.valid_up_to() + 1);
                return Some(Err(Trouble::Row(self.line, why)));
            }
            return Some(Ok((self.line, line)));
        }
    }

    fn skip_long_line(&mut self) -> Trouble {
        match self.input.skip_until(b'\n') {
            Ok(_) => Trouble::Row(self.line, format!("is longer than {} MiB; cut it", ROW_LIMIT_BYTES >> 20)),
            Err(error) => Trouble::File(format!("line {}: {error}", self.line)),
        }
    }
}
