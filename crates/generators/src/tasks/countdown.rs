//! Reaching a number with given numbers and the four operations.
//!
//! Held out are sets of numbers with their target. The way back from the target is worked out: what must be left if one
//! number and one operation are taken away.

use rand::RngExt;

use crate::{
    Draw,
    choose::one_of,
    expression::Expression,
    task::{Solution, Task},
    wording::{ask, readings},
    words::joined,
};

const WORDINGS: &[&str] = &[
    "Make {t} from {n}. Use each number at most once.",
    "Reach {t} with the numbers {n}, each at most once, and + - * /.",
    "Use {n} and + - * / to get {t}. No number may be used twice.",
    "Countdown: the numbers are {n}, the target is {t}. Write an expression.",
    "Find an expression with {n} that equals {t}.",
    "How can you get {t} out of {n} with plus, minus, times and divided by?",
    "Numbers: {n}. Target: {t}. You may use each number once.",
    "Combine some of {n} to make {t}.",
    "Write {t} as a calculation with numbers from {n}.",
];

/// Numbers and what they shall make.
pub(crate) struct Problem {
    numbers: Vec<i64>,
    target: i64,
}

/// See [the module](self).
pub(crate) struct Countdown;

/// What the way back does: takes a number away with an operation.
#[derive(Clone, Copy)]
enum Undo {
    Add(i64),
    Subtract(i64),
    Multiply(i64),
    Divide(i64),
}

impl Task for Countdown {
    type Problem = Problem;
    const NAME: &'static str = "countdown";

    fn problem(&self, draw: &mut Draw) -> Problem {
        loop {
            let n = draw.random_range(2..=4);
            let numbers: Vec<i64> = (0..n).map(|_| draw.random_range(1..=if n == 2 { 50 } else { 20 })).collect();
            let n_used = draw.random_range(2..=n);
            let mut target = numbers[0];
            for number in &numbers[1..n_used] {
                let choices = [target + number, target - number, target * number];
                target = *one_of(draw, &choices);
            }
            let numbers = sorted(&numbers);
            if (1..=200).contains(&target) && !numbers.contains(&target) && can_reach(target, &numbers) {
                return Problem { numbers, target };
            }
        }
    }

    fn key(&self, problem: &Problem) -> String {
        format!("{} from {}", problem.target, joined(&problem.numbers))
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let numbers = crate::choose::some_of(draw, &problem.numbers, problem.numbers.len());
        ask(draw, WORDINGS, &[('t', &problem.target.to_string()), ('n', &joined(&numbers))])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let mut lines = vec![format!("{} from {}", problem.target, joined(&problem.numbers))];
        let answer = search(problem.target, &problem.numbers, &mut lines).unwrap_or_default();
        lines.push(format!("{answer} = {}", problem.target));
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        readings(WORDINGS, question)
            .find_map(|slots| Some((slots.number('t')?, slots.numbers('n')?)))
            .is_some_and(|(target, numbers)| reaches(answer, target, &numbers))
    }
}

/// Whether the last expression of `answer` uses only `numbers` and equals `target`.
fn reaches(answer: &str, target: i64, numbers: &[i64]) -> bool {
    let line = answer.trim().lines().last().unwrap_or_default();
    let text = line.rsplit_once(": ").map_or(line, |(_, after)| after).trim_end_matches('.');
    let mut sides = text.split('=');
    let Some(expression) = sides.next().and_then(Expression::parse) else { return false };
    let others_agree = sides.all(|side| side.trim().parse() == Ok(target));
    let mut left = numbers.to_vec();
    let is_allowed = expression.numbers().iter().all(|number| {
        let place = left.iter().position(|other| other == number);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    is_allowed && others_agree && expression.whole() == Some(target)
}

/// An expression for `target`, its search added to `lines`: at most two ways that lead nowhere, so that it stays short.
fn search(target: i64, numbers: &[i64], lines: &mut Vec<String>) -> Option<String> {
    let mut n_wrong = 0;
    for (undo, before, left) in undos(target, numbers) {
        if can_reach(before, &left) {
            lines.push(undo.told(target, before));
            return follow(undo, before, &left, lines);
        }
        if n_wrong < 2 && left.len() > 1 {
            n_wrong += 1;
            lines.push(format!("{}, {before} from {}? no", undo.told(target, before), joined(&left)));
        }
    }
    None
}

/// Goes on from `before`, which can be reached with `left`.
fn follow(undo: Undo, before: i64, left: &[i64], lines: &mut Vec<String>) -> Option<String> {
    if left.contains(&before) {
        lines.push(format!("{before} is there"));
        return Some(undo.redone(&before.to_string(), true));
    }
    lines.push(format!("{before} from {}", joined(left)));
    let inner = search(before, left, lines)?;
    Some(undo.redone(&inner, false))
}

/// Whether `target` is reached by taking numbers away one after another.
fn can_reach(target: i64, numbers: &[i64]) -> bool {
    numbers.contains(&target) || undos(target, numbers).iter().any(|(_, before, left)| can_reach(*before, left))
}

/// All that can have been the last step, with what was before it and which numbers are left for that.
fn undos(target: i64, numbers: &[i64]) -> Vec<(Undo, i64, Vec<i64>)> {
    let mut all = Vec::new();
    if numbers.len() < 2 {
        return all;
    }
    for (place, n) in numbers.iter().enumerate().rev() {
        let mut left = numbers.to_vec();
        left.remove(place);
        if *n > 1 && target % n == 0 {
            all.push((Undo::Multiply(*n), target / n, left.clone()));
        }
        all.push((Undo::Add(*n), target - n, left.clone()));
        all.push((Undo::Subtract(*n), target + n, left.clone()));
        if *n > 1 && target * n <= 400 {
            all.push((Undo::Divide(*n), target * n, left));
        }
    }
    all.retain(|(_, before, _)| *before > 0);
    all
}

impl Undo {
    /// The step back, as it is thought.
    fn told(self, target: i64, before: i64) -> String {
        match self {
            Self::Add(n) => format!("{target} - {n} = {before}"),
            Self::Subtract(n) => format!("{target} + {n} = {before}"),
            Self::Multiply(n) => format!("{target} / {n} = {before}"),
            Self::Divide(n) => format!("{target} * {n} = {before}"),
        }
    }

    /// The step itself, on `inner`.
    fn redone(self, inner: &str, is_number: bool) -> String {
        let closed = if is_number { inner.to_owned() } else { format!("({inner})") };
        match self {
            Self::Add(n) => format!("{inner} + {n}"),
            Self::Subtract(n) => format!("{inner} - {n}"),
            Self::Multiply(n) => format!("{closed} * {n}"),
            Self::Divide(n) => format!("{closed} / {n}"),
        }
    }
}

fn sorted(numbers: &[i64]) -> Vec<i64> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers
}
