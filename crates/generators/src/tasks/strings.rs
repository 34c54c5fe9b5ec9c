//! Puzzles about the letters of a word: the kind that a model which sees tokens gets wrong.
//!
//! Held out are words, each with the question that is asked of it.

use rand::RngExt;

use crate::{
    Draw,
    answers::{choice, last_number, words, yes_or_no},
    choose::{once_in, one_of, some_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::{WORDS, invented, ordinal},
};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reverse,
    Count,
    Nth,
    Length,
    Vowels,
    Palindrome,
    Without,
    Initials,
    Contains,
}

const KINDS: &[(Kind, &[&str])] = &[
    (
        Kind::Reverse,
        &[
            "Reverse the word {w}.",
            "Write {w} backwards.",
            "Spell {w} backwards.",
            "What is {w} in reverse?",
            "Turn around the letters of {w}.",
            "Reverse the string \"{w}\".",
            "How do you write {w} from right to left?",
        ],
    ),
    (
        Kind::Count,
        &[
            "How many times does the letter {l} appear in {w}?",
            "How many {l}'s are in {w}?",
            "Count the letter {l} in the word {w}.",
            "How often is there a \"{l}\" in \"{w}\"?",
            "In {w}, how many letters are {l}?",
            "Count how often {l} occurs in {w}.",
        ],
    ),
    (
        Kind::Nth,
        &[
            "What is the {n} letter of {w}?",
            "Which letter is {n} in {w}?",
            "Give me the {n} letter of the word {w}.",
            "Name the {n} letter in \"{w}\".",
            "In the word {w}, what is the {n} letter?",
        ],
    ),
    (
        Kind::Length,
        &[
            "How many letters does {w} have?",
            "How long is the word {w}?",
            "Count the letters of {w}.",
            "How many letters are there in \"{w}\"?",
            "What is the length of {w}?",
        ],
    ),
    (
        Kind::Vowels,
        &[
            "How many vowels are in {w}?",
            "Count the vowels in {w}.",
            "How many of the letters of {w} are vowels?",
            "The word {w} has how many vowels?",
        ],
    ),
    (
        Kind::Palindrome,
        &[
            "Is {w} a palindrome?",
            "Does {w} read the same backwards?",
            "Is \"{w}\" the same from left to right and from right to left?",
            "Tell me if {w} is a palindrome.",
        ],
    ),
    (
        Kind::Without,
        &[
            "Remove every {l} from {w}.",
            "Write {w} without the letter {l}.",
            "What is left of {w} if you delete each \"{l}\"?",
            "Delete all {l} in the word {w}.",
            "Drop every {l} from \"{w}\".",
        ],
    ),
    (
        Kind::Initials,
        &[
            "Take the first letters of these words: {w}",
            "Which word do the first letters of {w} make?",
            "Write the initials of {w} together.",
            "What do the first letters of these words spell: {w}",
        ],
    ),
    (
        Kind::Contains,
        &[
            "Is there a {l} in {w}?",
            "Does {w} contain the letter {l}?",
            "Does the letter {l} occur in \"{w}\"?",
            "Can you find a {l} in the word {w}?",
        ],
    ),
];

/// A word and what is asked of it.
pub(crate) struct Problem {
    kind: Kind,
    word: String,
    letter: char,
    place: usize,
}

/// See [the module](self).
pub(crate) struct Strings;

impl Task for Strings {
    type Problem = Problem;
    const NAME: &'static str = "strings";
    /// Two of nine kinds are answered by yes or no.
    const CHANCE: f64 = 2.0 / 9.0 * 0.5;

    fn problem(&self, draw: &mut Draw) -> Problem {
        let kind = one_of(draw, KINDS).0;
        let mut word = if once_in(draw, 3) { invented(draw) } else { (*one_of(draw, WORDS)).to_owned() };
        match kind {
            Kind::Palindrome if draw.random_bool(0.5) => {
                let middle = if once_in(draw, 2) { 1 } else { 0 };
                word.truncate(4);
                word = word.chars().chain(word.chars().rev().skip(middle)).collect();
            }
            Kind::Initials => {
                let n = draw.random_range(3..=5);
                word = some_of(draw, WORDS, n).join(" ");
            }
            _ => {}
        }
        let letters: Vec<char> = word.chars().collect();
        let place = draw.random_range(0..letters.len());
        let is_inside = if kind == Kind::Contains { draw.random_bool(0.5) } else { !once_in(draw, 8) };
        let absent: Vec<char> = ('a'..='z').filter(|letter| !letters.contains(letter)).collect();
        let letter = if is_inside || kind == Kind::Without { letters[place] } else { *one_of(draw, &absent) };
        Problem { kind, word, letter, place }
    }

    fn key(&self, problem: &Problem) -> String {
        let Problem { kind, word, letter, place } = problem;
        match kind {
            Kind::Count | Kind::Without | Kind::Contains => format!("{kind:?} {letter} {word}"),
            Kind::Nth => format!("{kind:?} {place} {word}"),
            _ => format!("{kind:?} {word}"),
        }
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let (_, wordings) = KINDS.iter().find(|(kind, _)| *kind == problem.kind).expect("every kind has wordings");
        let place = place_name(problem.place, problem.word.chars().count());
        ask(draw, wordings, &[('w', &problem.word), ('l', &problem.letter.to_string()), ('n', &place)])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let letters: Vec<char> = problem.word.chars().collect();
        let (lines, answer) = match problem.kind {
            Kind::Reverse => reversed(&letters),
            Kind::Count => counted(&letters, |letter| letter == problem.letter),
            Kind::Vowels => counted(&letters, |letter| "aeiou".contains(letter)),
            Kind::Length => counted(&letters, |_| true),
            Kind::Nth => {
                let steps: Vec<String> =
                    letters.iter().take(problem.place + 1).enumerate().map(|(n, l)| format!("{} {l}", n + 1)).collect();
                let named = place_name(problem.place, letters.len());
                let first = if named == "last" { format!("{}\nlast", spelled(&letters)) } else { steps.join(", ") };
                (vec![first], letters[problem.place].to_string())
            }
            Kind::Palindrome => {
                let (lines, backwards) = reversed(&letters);
                let answer = if backwards == problem.word { "yes" } else { "no" };
                (lines, answer.to_owned())
            }
            Kind::Without => {
                let left: Vec<char> = letters.iter().copied().filter(|letter| *letter != problem.letter).collect();
                (vec![spelled(&letters), spelled(&left)], left.iter().collect())
            }
            Kind::Initials => {
                let firsts = |word: &str| word.chars().next().unwrap_or_default();
                let steps: Vec<String> =
                    problem.word.split(' ').map(|word| format!("{word} {}", firsts(word))).collect();
                (steps, problem.word.split(' ').map(firsts).collect())
            }
            Kind::Contains => {
                let answer = if letters.contains(&problem.letter) { "yes" } else { "no" };
                (vec![spelled(&letters)], answer.to_owned())
            }
        };
        let lines = [lines, vec![answer.clone()]].concat();
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        KINDS.iter().any(|(kind, wordings)| {
            readings(wordings, question).any(|slots| {
                let Some(word) = slots.text('w') else { return false };
                is_truth(*kind, word, slots.text('l').or(slots.text('n')).unwrap_or_default(), answer)
            })
        })
    }

    fn options(&self, question: &str) -> Vec<String> {
        let is_closed = KINDS.iter().any(|(kind, wordings)| {
            matches!(kind, Kind::Palindrome | Kind::Contains) && readings(wordings, question).next().is_some()
        });
        if is_closed { vec!["yes".to_owned(), "no".to_owned()] } else { Vec::new() }
    }
}

/// Whether `answer` is right: each kind by library functions on the whole word, not letter by letter.
fn is_truth(kind: Kind, word: &str, detail: &str, answer: &str) -> bool {
    let said = || words(answer).last().cloned().unwrap_or_default();
    let count = |n: usize| last_number(answer) == i64::try_from(n).ok();
    let backwards = || word.chars().rev().collect::<String>();
    match kind {
        Kind::Reverse => said() == backwards(),
        Kind::Count => count(word.matches(detail).count()),
        Kind::Length => count(word.len()),
        Kind::Vowels => count(word.matches(['a', 'e', 'i', 'o', 'u']).count()),
        Kind::Palindrome => yes_or_no(answer) == Some(word == backwards()),
        Kind::Contains => yes_or_no(answer) == Some(word.contains(detail)),
        Kind::Without => said() == word.replace(detail, ""),
        Kind::Initials => said() == word.split(' ').filter_map(|word| word.get(..1)).collect::<String>(),
        Kind::Nth => {
            let n = (1..=word.len()).find(|n| ordinal(*n) == detail).or(match detail {
                "first" => Some(1),
                "second" => Some(2),
                "third" => Some(3),
                "last" => Some(word.len()),
                _ => None,
            });
            let truth = n.and_then(|n| word.get(n - 1..n));
            let letters: Vec<String> = ('a'..='z').map(String::from).collect();
            truth.is_some() && (said() == truth.unwrap_or_default() || choice(answer, &letters) == truth)
        }
    }
}

fn place_name(place: usize, n_letters: usize) -> String {
    match place {
        0 => "first".to_owned(),
        1 => "second".to_owned(),
        _ if place + 1 == n_letters => "last".to_owned(),
        2 => "third".to_owned(),
        _ => ordinal(place + 1),
    }
}

fn spelled(letters: &[char]) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(" ")
}

fn reversed(letters: &[char]) -> (Vec<String>, String) {
    let backwards: Vec<char> = letters.iter().rev().copied().collect();
    (vec![spelled(letters), spelled(&backwards)], backwards.iter().collect())
}

/// Counts aloud: each letter with the count after it.
fn counted(letters: &[char], is_counted: impl Fn(char) -> bool) -> (Vec<String>, String) {
    let mut n = 0;
    let mut steps = Vec::new();
    for letter in letters {
        n += usize::from(is_counted(*letter));
        steps.push(format!("{letter} {n}"));
    }
    (vec![steps.join(", ")], n.to_string())
}
