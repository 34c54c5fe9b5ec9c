//! Chains of units, real and invented, and times in hours and minutes.
//!
//! Held out are amounts with their units; invented units never come twice.

use rand::RngExt;

use crate::{
    Draw,
    answers::{last_number, numbers},
    choose::{once_in, one_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::several_invented,
    worked,
};

/// Chains of real units, the smallest first, with how many of the one before are in each.
const CHAINS: &[&[(&str, i64)]] = &[
    &[("seconds", 1), ("minutes", 60), ("hours", 60), ("days", 24), ("weeks", 7)],
    &[("millimeters", 1), ("centimeters", 10), ("meters", 100), ("kilometers", 1000)],
    &[("milligrams", 1), ("grams", 1000), ("kilograms", 1000), ("tons", 1000)],
    &[("milliliters", 1), ("liters", 1000)],
    &[("inches", 1), ("feet", 12), ("yards", 3)],
    &[("cents", 1), ("dollars", 100)],
    &[("single eggs", 1), ("dozens of eggs", 12)],
    &[("months", 1), ("years", 12), ("decades", 10), ("centuries", 10)],
    &[("bits", 1), ("bytes", 8), ("kilobytes", 1000), ("megabytes", 1000)],
];

const DOWN: &[&str] = &[
    "How many {u} are {n} {v}?",
    "Convert {n} {v} to {u}.",
    "{n} {v} = ? {u}",
    "Express {n} {v} in {u}.",
    "What are {n} {v} in {u}?",
    "How many {u} are there in {n} {v}?",
];

const TOLD: &[&str] = &[
    "{r} How many {u} are {n} {v}?",
    "{r} I have {n} {v}. How many {u} is that?",
    "{r} Convert {n} {v} to {u}.",
    "In a far land, {r} How many {u} do you get for {n} {v}?",
    "How many {u} are {n} {v}? {r}",
];

const SPLIT: &[&str] = &[
    "How many hours and minutes are {n} minutes?",
    "Write {n} minutes as hours and minutes.",
    "A film is {n} minutes long. How long is that in hours and minutes?",
    "Convert {n} minutes to hours and minutes.",
];

/// What is asked: an amount of the largest unit in the smallest one; `steps` are the units with their factors.
pub(crate) enum Problem {
    Chain { steps: Vec<(String, i64)>, amount: i64, is_told: bool },
    Up { steps: Vec<(String, i64)>, amount: i64 },
    Minutes(i64),
}

/// See [the module](self).
pub(crate) struct Units;

impl Task for Units {
    type Problem = Problem;
    const NAME: &'static str = "units";

    fn problem(&self, draw: &mut Draw) -> Problem {
        match draw.random_range(0..6) {
            0 | 1 => {
                let n = draw.random_range(2..=4);
                let steps = several_invented(draw, n).into_iter().enumerate();
                let steps = steps
                    .map(|(place, unit)| (format!("{unit}s"), if place == 0 { 1 } else { draw.random_range(2..=9) }));
                Problem::Chain { steps: steps.collect(), amount: draw.random_range(2..=20), is_told: true }
            }
            2 => Problem::Minutes(draw.random_range(61..=600)),
            kind => {
                let chain = *one_of(draw, CHAINS);
                let first = draw.random_range(0..chain.len() - 1);
                let last = (first + if once_in(draw, 3) { 2 } else { 1 }).min(chain.len() - 1);
                let steps = chain[first..=last].iter().map(|(unit, n)| ((*unit).to_owned(), *n)).collect();
                let most = if once_in(draw, 3) { 60 } else { 12 };
                let amount = draw.random_range(2..=most);
                if kind == 5 { Problem::Up { steps, amount } } else { Problem::Chain { steps, amount, is_told: false } }
            }
        }
    }

    fn key(&self, problem: &Problem) -> String {
        match problem {
            Problem::Chain { steps, amount, .. } => format!("{amount} {}", rules(steps)),
            Problem::Up { steps, amount } => format!("up {amount} {}", rules(steps)),
            Problem::Minutes(n) => n.to_string(),
        }
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        match problem {
            Problem::Chain { steps, amount, is_told } => {
                let (small, large) = ends(steps);
                let values = [('u', small), ('v', large), ('n', &amount.to_string()), ('r', &rules(steps))];
                ask(draw, if *is_told { TOLD } else { DOWN }, &values)
            }
            Problem::Up { steps, amount } => {
                let (small, large) = ends(steps);
                let n = amount * factor(steps);
                ask(draw, DOWN, &[('u', large), ('v', small), ('n', &n.to_string())])
            }
            Problem::Minutes(n) => ask(draw, SPLIT, &[('n', &n.to_string())]),
        }
    }

    fn solve(&self, problem: &Problem) -> Solution {
        match problem {
            Problem::Chain { steps, amount, .. } => {
                let mut lines = Vec::new();
                let mut n = *amount;
                for pair in steps.windows(2).rev() {
                    lines.push(format!("{} to {}: * {}", pair[1].0, pair[0].0, pair[1].1));
                    lines.push(scaled(n, pair[1].1));
                    n *= pair[1].1;
                    lines.push(format!("{n} {}", pair[0].0));
                }
                Solution { thinking: lines.join("\n"), answer: n.to_string() }
            }
            Problem::Up { steps, amount } => {
                let mut lines = Vec::new();
                let mut n = amount * factor(steps);
                for pair in steps.windows(2) {
                    lines.push(format!("{} to {}: / {}", pair[0].0, pair[1].0, pair[1].1));
                    lines.push(divided(n, pair[1].1));
                    n /= pair[1].1;
                    lines.push(format!("{n} {}", pair[1].0));
                }
                Solution { thinking: lines.join("\n"), answer: n.to_string() }
            }
            Problem::Minutes(n) => {
                let (hours, minutes) = (n / 60, n % 60);
                let answer = format!("{hours} hours and {minutes} minutes");
                let lines =
                    [format!("{hours} * 60 = {}", hours * 60), worked::subtract(*n, hours * 60), answer.clone()];
                Solution { thinking: lines.join("\n"), answer }
            }
        }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let said = last_number(answer);
        let told = readings(TOLD, question).any(|slots| {
            let (Some(rules), Some(n)) = (slots.text('r'), slots.number('n')) else { return false };
            // the product of all numbers in the rules, each of which says "one … is so many …"
            said.is_some() && said == numbers(rules).iter().try_fold(n, |product, factor| product.checked_mul(*factor))
        });
        let known = || {
            readings(DOWN, question).any(|slots| {
                let (from, to) = (slots.text('v').and_then(size), slots.text('u').and_then(size));
                let (Some((chain, large)), Some((other, small)), Some(n)) = (from, to, slots.number('n')) else {
                    return false;
                };
                said.is_some_and(|said| chain == other && said.checked_mul(small) == n.checked_mul(large))
            })
        };
        let minutes = || {
            readings(SPLIT, question).filter_map(|slots| slots.number('n')).any(|n| match numbers(answer)[..] {
                [hours, minutes] => {
                    (0..60).contains(&minutes) && hours.checked_mul(60).map(|all| all + minutes) == Some(n)
                }
                [hours] => hours * 60 == n,
                _ => false,
            })
        };
        told || known() || minutes()
    }
}

/// The chain that a unit belongs to, and its size in the smallest unit of it.
fn size(unit: &str) -> Option<(usize, i64)> {
    CHAINS.iter().enumerate().find_map(|(chain, units)| {
        let place = units.iter().position(|(name, _)| *name == unit)?;
        Some((chain, units[..=place].iter().map(|(_, n)| n).product()))
    })
}

/// `One blork is 4 snims. One snim is 3 trups.`
fn rules(steps: &[(String, i64)]) -> String {
    let rule =
        |pair: &[(String, i64)]| format!("One {} is {} {}.", pair[1].0.trim_end_matches('s'), pair[1].1, pair[0].0);
    steps.windows(2).rev().map(rule).collect::<Vec<_>>().join(" ")
}

fn ends(steps: &[(String, i64)]) -> (&str, &str) {
    (&steps[0].0, &steps[steps.len() - 1].0)
}

fn factor(steps: &[(String, i64)]) -> i64 {
    steps.iter().map(|(_, n)| n).product()
}

/// A product; powers of ten only write zeros.
fn scaled(n: i64, factor: i64) -> String {
    if factor >= 10 && 10_i64.pow(factor.ilog10()) == factor {
        return format!("{n} * {factor} = {}", n * factor);
    }
    worked::multiply(n, factor)
}

fn divided(n: i64, factor: i64) -> String {
    if factor >= 10 && 10_i64.pow(factor.ilog10()) == factor {
        return format!("{n} / {factor} = {}", n / factor);
    }
    worked::divide(n, factor)
}
