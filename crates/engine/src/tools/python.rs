//! Python's literals, as JSON.

/// Values within values.
const MOST_DEPTH: usize = 64;

/// The length of the arguments at the beginning of `text` up to the bracket that closes them, that bracket included; `None`
/// if it has not come.
pub(super) fn extent(text: &str) -> Option<usize> {
    let (bytes, mut at, mut depth) = (text.as_bytes(), 0, 0usize);
    // The quotes that end the string that we are in.
    let mut close: Option<&[u8]> = None;
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        match (close, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(quotes), _) if rest.starts_with(quotes) => {
                at += quotes.len() - 1;
                close = None;
            }
            (Some(_), _) => {}
            (None, b'"' | b'\'') => {
                // Three of them, or an empty string when the third is another or has not come.
                let n = if rest.len() >= 3 && rest[1] == *byte && rest[2] == *byte { 3 } else { 1 };
                close = Some(&rest[..n]);
                at += n - 1;
            }
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')') if depth == 0 => return Some(at + 1),
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Keyword arguments, `a=1, b="x"`, as a JSON object; `None` if they are anything else.
pub(super) fn arguments(text: &str) -> Option<String> {
    let mut reader = Reader { rest: text, out: String::from("{") };
    reader.items("", |reader| {
        let name = reader.identifier()?;
        reader.punctuation('=')?;
        reader.key(name);
        reader.value(MOST_DEPTH)
    })?;
    reader.out.push('}');
    Some(reader.out)
}

struct Reader<'a> {
    rest: &'a str,
    out: String,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn punctuation(&mut self, wanted: char) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    /// Items with commas between, and perhaps one after the last, up to `close`, or to the end of the text where it is
    /// empty.
    fn items(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let mut is_first = true;
        loop {
            self.space();
            if close.is_empty() && self.rest.is_empty() {
                return Some(());
            }
            if let Some(rest) = self.rest.strip_prefix(close).filter(|_| !close.is_empty()) {
                self.rest = rest;
                return Some(());
            }
            if !is_first {
                self.out.push_str(", ");
            }
            is_first = false;
            item(self)?;
            self.space();
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None if close.is_empty() && self.rest.is_empty() => {}
                None if !close.is_empty() && self.rest.starts_with(close) => {}
                None => return None,
            }
        }
    }

    fn identifier(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c == '_' || c == '-' || c.is_alphanumeric();
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.chars().next().filter(|c| !c.is_ascii_digit())?;
        Some(name)
    }

    fn key(&mut self, name: &str) {
        self.string(name);
        self.out.push_str(": ");
    }

    fn string(&mut self, text: &str) {
        self.out.push_str(&serde_json::Value::from(text).to_string());
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.space();
        match self.rest.chars().next()? {
            '\'' | '"' => {
                let text = self.quoted()?;
                self.string(&text);
                Some(())
            }
            open @ ('[' | '(') => {
                self.rest = &self.rest[1..];
                self.out.push('[');
                self.items(if open == '[' { "]" } else { ")" }, |reader| reader.value(depth))?;
                self.out.push(']');
                Some(())
            }
            '{' => {
                self.rest = &self.rest[1..];
                self.out.push('{');
                self.items("}", |reader| {
                    reader.space();
                    if reader.rest.starts_with(['\'', '"']) {
                        let key = reader.quoted()?;
                        reader.punctuation(':')?;
                        reader.key(&key);
                    } else {
                        // Meta's own encoder writes `{k=v}`.
                        let key = reader.identifier()?;
                        reader.punctuation('=')?;
                        reader.key(key);
                    }
                    reader.value(depth)
                })?;
                self.out.push('}');
                Some(())
            }
            c if c.is_ascii_digit() || "+-.".contains(c) => self.number(),
            _ => {
                let word = match self.identifier()? {
                    "True" | "true" => "true",
                    "False" | "false" => "false",
                    "None" | "null" => "null",
                    _ => return None,
                };
                self.out.push_str(word);
                Some(())
            }
        }
    }

    /// A number, digit for digit: JSON's numbers have no bound either.
    fn number(&mut self) -> Option<()> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let mut text = number.trim_start_matches('+').replace('_', "");
        // Python takes `.5` and `5.`, JSON does not.
        if let Some(at) = text.find('.') {
            if !text[at + 1..].starts_with(|c: char| c.is_ascii_digit()) {
                text.insert(at + 1, '0');
            }
            if !text[..at].ends_with(|c: char| c.is_ascii_digit()) {
                text.insert(at, '0');
            }
        }
        serde_json::from_str::<serde_json::Number>(&text).ok()?;
        self.out.push_str(&text);
        Some(())
    }

    /// A string in single or double quotes, of one or three.
    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let triple: String = [quote; 3].iter().collect();
        let close = if self.rest.starts_with(&triple) { triple } else { quote.to_string() };
        self.rest = &self.rest[close.len()..];
        let mut text = String::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(close.as_str()) {
                self.rest = rest;
                return Some(text);
            }
            let mut chars = self.rest.chars();
            let c = chars.next()?;
            self.rest = chars.as_str();
            if c == '\\' { self.escape(&mut text)? } else { text.push(c) }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        let n_digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if n_digits > 0 {
            let code = u32::from_str_radix(self.rest.get(..n_digits)?, 16).ok()?;
            self.rest = &self.rest[n_digits..];
            text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            return Some(());
        }
        match c {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            '0' => text.push('\0'),
            '\n' => {}
            '\\' | '\'' | '"' => text.push(c),
            // Python keeps what it does not know.
            c => text.extend(['\\', c]),
        }
        Some(())
    }
}
