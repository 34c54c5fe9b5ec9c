//! Putting numbers and words in order.
//!
//! Held out are sets of items, in whatever order and for both directions.

use rand::RngExt;

use crate::{
    Draw,
    answers::{items, numbers},
    choose::{once_in, some_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::{WORDS, joined},
};

const UP: &[&str] = &[
    "Sort these numbers: {n}",
    "Sort {n} in ascending order.",
    "Put these in order from smallest to largest: {n}",
    "Order from low to high: {n}",
    "Arrange the numbers {n} from the least to the greatest.",
    "Please sort the list {n}.",
    "Write these numbers in increasing order: {n}",
];

const DOWN: &[&str] = &[
    "Sort these numbers from largest to smallest: {n}",
    "Sort {n} in descending order.",
    "Order from high to low: {n}",
    "Put these in order, the biggest first: {n}",
    "Write these numbers in decreasing order: {n}",
    "Arrange the numbers {n} from the greatest to the least.",
];

const WORDS_UP: &[&str] = &[
    "Sort these words: {n}",
    "Put these words in alphabetical order: {n}",
    "Alphabetize: {n}",
    "Order the words {n} from A to Z.",
    "Write these words as they come in a dictionary: {n}",
    "Sort alphabetically: {n}",
];

/// What to sort.
pub(crate) enum Problem {
    Up(Vec<i64>),
    Down(Vec<i64>),
    Words(Vec<&'static str>),
}

/// See [the module](self).
pub(crate) struct Sorting;

impl Task for Sorting {
    type Problem = Problem;
    const NAME: &'static str = "sorting";

    fn problem(&self, draw: &mut Draw) -> Problem {
        let n = draw.random_range(3..=8);
        if once_in(draw, 3) {
            return Problem::Words(some_of(draw, WORDS, n.min(6)));
        }
        let top = if once_in(draw, 3) { 1000 } else { 100 };
        let mut numbers: Vec<i64> = Vec::new();
        while numbers.len() < n {
            let range = if once_in(draw, 12) { -top..0 } else { 0..top };
            let number = draw.random_range(range);
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        if once_in(draw, 3) { Problem::Down(numbers) } else { Problem::Up(numbers) }
    }

    fn key(&self, problem: &Problem) -> String {
        match problem {
            Problem::Up(numbers) | Problem::Down(numbers) => {
                let mut numbers = numbers.clone();
                numbers.sort_unstable();
                joined(&numbers)
            }
            Problem::Words(words) => {
                let mut words = words.clone();
                words.sort_unstable();
                joined(&words)
            }
        }
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        match problem {
            Problem::Up(numbers) => ask(draw, UP, &[('n', &joined(numbers))]),
            Problem::Down(numbers) => ask(draw, DOWN, &[('n', &joined(numbers))]),
            Problem::Words(words) => ask(draw, WORDS_UP, &[('n', &joined(words))]),
        }
    }

    fn solve(&self, problem: &Problem) -> Solution {
        match problem {
            Problem::Up(numbers) => by_selection(numbers, "smallest", |a, b| a < b),
            Problem::Down(numbers) => by_selection(numbers, "largest", |a, b| a > b),
            Problem::Words(words) => by_selection(words, "first", |a, b| a < b),
        }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let truth = |wordings: &[&str], is_down: bool| {
            readings(wordings, question).find_map(|slots| {
                let mut truth = slots.numbers('n')?;
                truth.sort_unstable();
                if is_down {
                    truth.reverse();
                }
                Some(truth)
            })
        };
        if let Some(truth) = truth(DOWN, true).or_else(|| truth(UP, false)) {
            return numbers(answer) == truth;
        }
        readings(WORDS_UP, question).find_map(|slots| slots.words('n')).is_some_and(|mut truth| {
            truth.sort_unstable();
            items(answer) == truth
        })
    }
}

/// Takes the item that comes first again and again.
fn by_selection<T: ToString + Copy>(list: &[T], name: &str, comes_before: impl Fn(&T, &T) -> bool) -> Solution {
    let mut left = list.to_vec();
    let mut lines = Vec::new();
    let mut done: Vec<T> = Vec::new();
    while !left.is_empty() {
        let place =
            (1..left.len()).fold(0, |best, other| if comes_before(&left[other], &left[best]) { other } else { best });
        let item = left.remove(place);
        let rest = if left.is_empty() { String::new() } else { format!(", left {}", joined(&left)) };
        lines.push(format!("{name} {}{rest}", item.to_string()));
        done.push(item);
    }
    let answer = joined(&done);
    lines.push(answer.clone());
    Solution { thinking: lines.join("\n"), answer }
}
