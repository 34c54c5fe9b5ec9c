//! What questions about media share: how a sample is put together and how a short answer is compared.

use rand::RngExt;

use crate::choose::one_of;
use crate::{Draw, Part, Role, Sample, Turn};

/// A question about `media` and its answer. The question comes after the media, in one sample of four before them.
pub(crate) fn sample(
    draw: &mut Draw,
    task: &'static str,
    media: Vec<Part>,
    question: impl Into<String>,
    answer: impl Into<String>,
) -> Sample {
    talk(draw, task, media, vec![(question.into(), answer.into())])
}

/// Questions about `media` and their answers, one after another. The first one comes with the media, as in [`sample`].
pub(crate) fn talk(draw: &mut Draw, task: &'static str, media: Vec<Part>, asked: Vec<(String, String)>) -> Sample {
    let place = if draw.random_bool(0.25) { 0 } else { media.len() };
    let mut media = Some(media);
    let turns = asked.into_iter().flat_map(|(question, answer)| {
        let mut content = media.take().unwrap_or_default();
        content.insert(place.min(content.len()), Part::Text(question));
        [Turn { role: Role::User, content, thinking: None }, Turn::text(Role::Assistant, answer)]
    });
    Sample { task, turns: turns.collect() }
}

/// The text of the last turn, which is the answer.
pub(crate) fn expected(sample: &Sample) -> &str {
    match sample.turns.last().and_then(|turn| turn.content.last()) {
        Some(Part::Text(answer)) => answer,
        _ => "",
    }
}

/// Whether `answer` is what is written, signs and capitals too, but for spaces.
pub(crate) fn is_read(expected: &str, answer: &str) -> bool {
    expected.split_whitespace().eq(answer.split_whitespace())
}

/// Whether two short answers are the same but for case, outer space, a stop at the end and an article at the beginning.
pub(crate) fn is_same(expected: &str, answer: &str) -> bool {
    plain(expected) == plain(answer)
}

/// One of `wordings`, with `*` replaced by `word`.
pub(crate) fn worded(draw: &mut Draw, wordings: &[&str], word: &str) -> String {
    one_of(draw, wordings).replace('*', word)
}

/// Several words or numbers in a row, as they are written in answers.
pub(crate) fn words_of(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.trim_matches([',', ';', '.', '?', '!']).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

fn plain(answer: &str) -> String {
    let mut words = words_of(answer);
    if words.len() > 1 && ["a", "an", "the"].contains(&words[0].as_str()) {
        words.remove(0);
    }
    words.join(" ")
}
