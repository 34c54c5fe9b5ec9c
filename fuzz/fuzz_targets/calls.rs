//! An answer says the same, and loses nothing, however it is cut.
#![no_main]

use engine::tools::{Part, Recogniser};

const NAMES: [&str; 3] = ["f", "get_weather", "g-2"];

/// An answer's text, and its calls with their arguments.
type Said = (String, Vec<(String, String)>);

fn take(said: &mut Said, parts: Vec<Part>) {
    for part in parts {
        match part {
            Part::Text(text) => said.0.push_str(&text),
            Part::Call { index, name } => {
                assert_eq!(index, said.1.len());
                said.1.push((name, String::new()));
            }
            Part::Arguments { index, text } => {
                assert_eq!(index + 1, said.1.len());
                said.1[index].1.push_str(&text);
            }
        }
    }
}

fn said<'a>(pieces: impl Iterator<Item = &'a str>) -> Said {
    let mut recogniser = Recogniser::new(NAMES.map(str::to_owned));
    let mut said = Said::default();
    pieces.for_each(|piece| take(&mut said, recogniser.push(piece)));
    take(&mut said, recogniser.finish());
    said
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let whole = said(std::iter::once(&*text));
    if whole.1.is_empty() {
        assert_eq!(whole.0, text, "an answer without a call is text, all of it");
    }
    let characters = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
    assert_eq!(said(characters), whole);
});
