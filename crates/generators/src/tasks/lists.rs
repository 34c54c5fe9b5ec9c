//! Puzzles about a list of numbers.
//!
//! Held out are lists, each with the question that is asked of it.

use rand::RngExt;

use crate::{
    Draw,
    answers::{last_number, numbers},
    choose::{once_in, one_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::joined,
    worked,
};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Largest,
    Smallest,
    SecondLargest,
    Sum,
    Above,
    CountAbove,
    Even,
    Odd,
    Distinct,
    Reverse,
    Nth,
    Last,
    Range,
    Occurrences,
}

const KINDS: &[(Kind, &[&str])] = &[
    (
        Kind::Largest,
        &[
            "What is the largest number in {n}?",
            "Find the maximum of {n}.",
            "Which of these is the greatest: {n}",
            "Name the biggest number: {n}",
            "max({n}) = ?",
        ],
    ),
    (
        Kind::Smallest,
        &[
            "What is the smallest number in {n}?",
            "Find the minimum of {n}.",
            "Which of these is the least: {n}",
            "Name the smallest number: {n}",
            "min({n}) = ?",
        ],
    ),
    (
        Kind::SecondLargest,
        &[
            "What is the second largest number in {n}?",
            "Which number in {n} is second to the greatest?",
            "Find the second biggest of {n}.",
            "Name the second highest number: {n}",
        ],
    ),
    (
        Kind::Sum,
        &[
            "What is the sum of {n}?",
            "Add up {n}.",
            "Add these numbers: {n}",
            "What do {n} make together?",
            "Find the total of {n}.",
        ],
    ),
    (
        Kind::Above,
        &[
            "Which numbers in {n} are greater than {k}?",
            "Keep only the numbers above {k}: {n}",
            "Filter {n}: which are larger than {k}?",
            "List those of {n} that are more than {k}.",
        ],
    ),
    (
        Kind::CountAbove,
        &[
            "How many numbers in {n} are greater than {k}?",
            "Count the numbers above {k}: {n}",
            "How many of {n} are larger than {k}?",
        ],
    ),
    (
        Kind::Even,
        &[
            "Which numbers in {n} are even?",
            "Keep only the even numbers: {n}",
            "List the even ones of {n}.",
            "Filter out the odd numbers from {n}.",
        ],
    ),
    (
        Kind::Odd,
        &[
            "Which numbers in {n} are odd?",
            "Keep only the odd numbers: {n}",
            "List the odd ones of {n}.",
            "Remove the even numbers from {n}.",
        ],
    ),
    (
        Kind::Distinct,
        &[
            "Remove the duplicates from {n}.",
            "Write each number once, in the same order: {n}",
            "Drop repeated numbers from {n}, keeping the first of each.",
            "List {n} without repetitions.",
        ],
    ),
    (
        Kind::Reverse,
        &[
            "Reverse the list {n}.",
            "Write {n} in reverse order.",
            "Turn this list around: {n}",
            "Write these numbers from the last to the first: {n}",
        ],
    ),
    (
        Kind::Nth,
        &[
            "Which number stands at place {k} in {n}?",
            "What is item number {k} of {n}?",
            "Counting from 1, what is number {k} in the list {n}?",
        ],
    ),
    (
        Kind::Last,
        &["What is the last number in {n}?", "Which number comes last: {n}", "Give me the final item of {n}."],
    ),
    (
        Kind::Range,
        &[
            "What is the difference between the largest and the smallest of {n}?",
            "How far apart are the greatest and the least number in {n}?",
            "Find the range of {n}.",
        ],
    ),
    (
        Kind::Occurrences,
        &[
            "How many times does {k} appear in {n}?",
            "Count how often {k} is in the list {n}.",
            "How often does the number {k} occur: {n}",
        ],
    ),
];

/// A list and what is asked of it, with a number that the question names.
pub(crate) struct Problem {
    kind: Kind,
    numbers: Vec<i64>,
    limit: i64,
    has_brackets: bool,
}

/// See [the module](self).
pub(crate) struct Lists;

impl Task for Lists {
    type Problem = Problem;
    const NAME: &'static str = "lists";

    fn problem(&self, draw: &mut Draw) -> Problem {
        let kind = one_of(draw, KINDS).0;
        let n = if kind == Kind::Sum { draw.random_range(3..=5) } else { draw.random_range(4..=9) };
        let top = if matches!(kind, Kind::Distinct | Kind::Occurrences) { 7 } else { 100 };
        loop {
            let numbers: Vec<i64> = (0..n).map(|_| draw.random_range(1..top)).collect();
            let limit = match kind {
                Kind::Nth => i64::try_from(draw.random_range(1..=numbers.len())).unwrap_or(1),
                Kind::Occurrences if once_in(draw, 8) => 7,
                Kind::Occurrences => *one_of(draw, &numbers),
                _ => draw.random_range(top / 5..top * 4 / 5),
            };
            let problem = Problem { kind, numbers, limit, has_brackets: once_in(draw, 3) };
            // an answer without any number could not be told from none, and the second of two equal ones is disputed
            if !result(&problem).is_empty() && (kind != Kind::SecondLargest || distinct(&problem.numbers).len() == n) {
                return problem;
            }
        }
    }

    fn key(&self, problem: &Problem) -> String {
        let limit = if needs_limit(problem.kind) { problem.limit } else { 0 };
        format!("{:?} {limit} {}", problem.kind, joined(&problem.numbers))
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let (_, wordings) = KINDS.iter().find(|(kind, _)| *kind == problem.kind).expect("every kind has wordings");
        let list = joined(&problem.numbers);
        let list = if problem.has_brackets { format!("[{list}]") } else { list };
        ask(draw, wordings, &[('n', &list), ('k', &problem.limit.to_string())])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let answer = joined(&result(problem));
        let mut lines = steps(problem);
        lines.push(answer.clone());
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        KINDS.iter().any(|(kind, wordings)| {
            readings(wordings, question).any(|slots| {
                let Some(list) = slots.numbers('n') else { return false };
                truth(*kind, &list, slots.number('k').unwrap_or(0)).is_some_and(|truth| match *truth {
                    [only] => last_number(answer) == Some(only) && numbers(answer).len() <= 2,
                    _ => numbers(answer) == truth,
                })
            })
        })
    }
}

/// The answer by sorting and by iterators, where [`result`] goes through the list.
fn truth(kind: Kind, list: &[i64], limit: i64) -> Option<Vec<i64>> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    let all = |keep: &dyn Fn(&i64) -> bool| list.iter().copied().filter(|n| keep(n)).collect::<Vec<i64>>();
    let count = |n: usize| i64::try_from(n).map(|n| vec![n]).ok();
    match kind {
        Kind::Largest => sorted.last().map(|n| vec![*n]),
        Kind::Smallest => sorted.first().map(|n| vec![*n]),
        Kind::SecondLargest => sorted.iter().rev().nth(1).map(|n| vec![*n]),
        Kind::Sum => Some(vec![list.iter().sum()]),
        Kind::Above => Some(all(&|n| *n > limit)),
        Kind::CountAbove => count(all(&|n| *n > limit).len()),
        Kind::Even => Some(all(&|n| n % 2 == 0)),
        Kind::Odd => Some(all(&|n| n % 2 != 0)),
        Kind::Distinct => {
            let places = list.iter().enumerate();
            Some(places.filter(|(place, n)| !list[..*place].contains(n)).map(|(_, n)| *n).collect())
        }
        Kind::Reverse => Some(list.iter().rev().copied().collect()),
        Kind::Nth => list.get(usize::try_from(limit).ok()?.checked_sub(1)?).map(|n| vec![*n]),
        Kind::Last => list.last().map(|n| vec![*n]),
        Kind::Range => Some(vec![sorted.last()? - sorted.first()?]),
        Kind::Occurrences => count(all(&|n| *n == limit).len()),
    }
}

fn result(problem: &Problem) -> Vec<i64> {
    let Problem { kind, numbers, limit, .. } = problem;
    let best = |is_better: fn(i64, i64) -> bool, not: Option<i64>| {
        numbers.iter().copied().filter(|n| Some(*n) != not).reduce(|best, n| if is_better(n, best) { n } else { best })
    };
    let (largest, smallest) = (best(|a, b| a > b, None), best(|a, b| a < b, None));
    let chosen = |keep: &dyn Fn(i64) -> bool| {
        let mut chosen = Vec::new();
        for n in numbers {
            if keep(*n) {
                chosen.push(*n);
            }
        }
        chosen
    };
    let counted = |keep: &dyn Fn(i64) -> bool| vec![numbers.iter().fold(0, |count, n| count + i64::from(keep(*n)))];
    match kind {
        Kind::Largest => largest.into_iter().collect(),
        Kind::Smallest => smallest.into_iter().collect(),
        Kind::SecondLargest => best(|a, b| a > b, largest).into_iter().collect(),
        Kind::Sum => vec![numbers.iter().sum()],
        Kind::Above => chosen(&|n| n > *limit),
        Kind::CountAbove => counted(&|n| n > *limit),
        Kind::Even => chosen(&|n| n & 1 == 0),
        Kind::Odd => chosen(&|n| n & 1 == 1),
        Kind::Distinct => distinct(numbers),
        Kind::Reverse => numbers.iter().fold(Vec::new(), |done, n| [vec![*n], done].concat()),
        Kind::Nth => numbers.iter().zip(1..).filter(|(_, place)| place == limit).map(|(n, _)| *n).collect(),
        Kind::Last => numbers[numbers.len() - 1..].to_vec(),
        Kind::Range => largest.zip(smallest).map(|(high, low)| high - low).into_iter().collect(),
        Kind::Occurrences => counted(&|n| n == *limit),
    }
}

/// The lines of thought before the answer.
fn steps(problem: &Problem) -> Vec<String> {
    let Problem { kind, numbers, limit, .. } = problem;
    let each = |tell: &dyn Fn(i64) -> String| vec![numbers.iter().map(|n| tell(*n)).collect::<Vec<_>>().join(", ")];
    let told = |n: i64, is_so: bool| format!("{n} {}", if is_so { "yes" } else { "no" });
    match kind {
        Kind::Largest => running(numbers, |a, b| a > b),
        Kind::Smallest => running(numbers, |a, b| a < b),
        Kind::SecondLargest => {
            let largest = numbers.iter().copied().max().unwrap_or_default();
            let left: Vec<i64> = numbers.iter().copied().filter(|n| *n != largest).collect();
            [vec![format!("largest {largest}, left {}", joined(&left))], running(&left, |a, b| a > b)].concat()
        }
        Kind::Sum => {
            let mut sum = numbers[0];
            let mut lines = Vec::new();
            for n in &numbers[1..] {
                lines.push(worked::add(sum, *n));
                sum += n;
            }
            lines
        }
        Kind::Above => each(&|n| told(n, n > *limit)),
        Kind::Even | Kind::Odd => each(&|n| format!("{n} {}", if n % 2 == 0 { "even" } else { "odd" })),
        Kind::Distinct => {
            let is_first = |place: usize| !numbers[..place].contains(&numbers[place]);
            let told = |(place, n): (usize, &i64)| format!("{n} {}", if is_first(place) { "new" } else { "again" });
            vec![numbers.iter().enumerate().map(told).collect::<Vec<_>>().join(", ")]
        }
        Kind::CountAbove | Kind::Occurrences => {
            let is_counted = |n: i64| if *kind == Kind::Occurrences { n == *limit } else { n > *limit };
            let mut count = 0;
            let mut steps = Vec::new();
            for n in numbers {
                count += i64::from(is_counted(*n));
                steps.push(format!("{}: {count}", told(*n, is_counted(*n))));
            }
            vec![steps.join(", ")]
        }
        Kind::Nth => {
            let places = usize::try_from(*limit).unwrap_or(1);
            let steps: Vec<String> =
                numbers.iter().zip(1..).take(places).map(|(n, place)| format!("{place}: {n}")).collect();
            vec![steps.join(", ")]
        }
        Kind::Reverse | Kind::Last => Vec::new(),
        Kind::Range => {
            let (high, low) = (numbers.iter().max().unwrap_or(&0), numbers.iter().min().unwrap_or(&0));
            vec![format!("largest {high}, smallest {low}"), worked::subtract(*high, *low)]
        }
    }
}

/// The best so far after each number.
fn running(numbers: &[i64], is_better: impl Fn(i64, i64) -> bool) -> Vec<String> {
    let mut best = numbers[0];
    let mut steps = Vec::new();
    for n in numbers {
        if is_better(*n, best) {
            best = *n;
        }
        steps.push(format!("{n}: {best}"));
    }
    vec![steps.join(", ")]
}

fn distinct(numbers: &[i64]) -> Vec<i64> {
    let mut done = Vec::new();
    for n in numbers {
        if !done.contains(n) {
            done.push(*n);
        }
    }
    done
}

fn needs_limit(kind: Kind) -> bool {
    matches!(kind, Kind::Above | Kind::CountAbove | Kind::Nth | Kind::Occurrences)
}
