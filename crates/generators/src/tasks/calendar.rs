//! Days of the week, leap years, lengths of months and days between dates.
//!
//! Held out are the dates, days and years that a question is about.

use rand::RngExt;

use crate::{
    Draw,
    answers::{choice, last_number, numbers, words, yes_or_no},
    choose::one_of,
    task::{Solution, Task},
    wording::{Slots, ask, readings},
    worked,
};

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const MONTHS: [(&str, i64); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

const LATER: &[&str] = &[
    "Today is {d}. What day of the week is it in {n} days?",
    "If today is {d}, what day will it be {n} days from now?",
    "It is {d}. Which weekday comes {n} days later?",
    "What day is {n} days after {d}?",
    "{d} plus {n} days is which day?",
    "A trip starts on a {d} and ends {n} days later. On which day of the week does it end?",
];

const EARLIER: &[&str] = &[
    "Today is {d}. What day of the week was it {n} days ago?",
    "If today is {d}, what day was it {n} days before?",
    "What day is {n} days before {d}?",
    "It is {d}. Which weekday was {n} days earlier?",
];

const LEAP: &[&str] = &[
    "Is {y} a leap year?",
    "Was or will {y} be a leap year?",
    "Does the year {y} have 366 days?",
    "Does February have 29 days in {y}?",
    "Tell me if {y} is a leap year.",
];

const LENGTH: &[&str] = &[
    "How many days does {m} {y} have?",
    "How long is {m} in the year {y}?",
    "How many days are in {m} {y}?",
    "What is the number of days in {m} {y}?",
];

const BETWEEN: &[&str] = &[
    "How many days are there from {m} {a} to {o} {b}, {y}?",
    "In {y}, how many days after {m} {a} is {o} {b}?",
    "How many days pass between {m} {a} and {o} {b} in {y}?",
    "Count the days from {m} {a}, {y} to {o} {b}, {y}.",
];

const AFTER: &[&str] = &[
    "What is the date {n} days after {m} {a}, {y}?",
    "Which date comes {n} days after {m} {a} in {y}?",
    "It is {m} {a}, {y}. What is the date in {n} days?",
    "Add {n} days to {m} {a}, {y}. What is the date?",
];

/// What a question is about; months and days of the week count from 0.
pub(crate) enum Problem {
    Later { day: usize, n: usize },
    Earlier { day: usize, n: usize },
    Leap { year: i64 },
    Length { month: usize, year: i64 },
    Between { from: (usize, i64), to: (usize, i64), year: i64 },
    After { from: (usize, i64), n: i64, year: i64 },
}

/// See [the module](self).
pub(crate) struct Calendar;

impl Task for Calendar {
    type Problem = Problem;
    const NAME: &'static str = "calendar";
    /// Of eight kinds three ask for a day of the week and one for yes or no.
    const CHANCE: f64 = (3.0 / 7.0 + 1.0 / 2.0) / 8.0;

    fn problem(&self, draw: &mut Draw) -> Problem {
        let year = draw.random_range(1900..=2100);
        let month = draw.random_range(0..12);
        let day = draw.random_range(1..=MONTHS[month].1);
        match draw.random_range(0..8) {
            0 | 1 => Problem::Later { day: draw.random_range(0..7), n: draw.random_range(2..=60) },
            2 => Problem::Earlier { day: draw.random_range(0..7), n: draw.random_range(2..=40) },
            3 => {
                let leap = [1904, 1960, 1984, 1996, 2000, 2016, 2020, 2024, 2028, 2048, 2072, 2400, 1600];
                let is_drawn = draw.random_bool(0.5);
                let multiple = year / 4 * 4;
                let year = if is_drawn { year } else { *one_of(draw, &[multiple, multiple, leap[month]]) };
                Problem::Leap { year: if draw.random_bool(0.1) { year / 100 * 100 } else { year } }
            }
            4 => Problem::Length { month, year },
            5 | 6 => {
                let n_months = draw.random_range(0..=2.min(11 - month));
                let to = month + n_months;
                let last = MONTHS[to].1;
                let end = if n_months == 0 { draw.random_range(day..=last) } else { draw.random_range(1..=last) };
                Problem::Between { from: (month, day), to: (to, end), year }
            }
            _ => {
                let month = month.min(9);
                Problem::After { from: (month, day.min(28)), n: draw.random_range(3..=40), year }
            }
        }
    }

    fn key(&self, problem: &Problem) -> String {
        match problem {
            Problem::Later { day, n } => format!("{day} + {n}"),
            Problem::Earlier { day, n } => format!("{day} - {n}"),
            Problem::Leap { year } => format!("leap {year}"),
            Problem::Length { month, year } => format!("length {month} {year}"),
            Problem::Between { from, to, year } => format!("{from:?} {to:?} {year}"),
            Problem::After { from, n, year } => format!("{from:?} + {n} {year}"),
        }
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let month = |(month, _): &(usize, i64)| MONTHS[*month].0;
        let day = |(_, day): &(usize, i64)| day.to_string();
        match problem {
            Problem::Later { day, n } => ask(draw, LATER, &[('d', DAYS[*day]), ('n', &n.to_string())]),
            Problem::Earlier { day, n } => ask(draw, EARLIER, &[('d', DAYS[*day]), ('n', &n.to_string())]),
            Problem::Leap { year } => ask(draw, LEAP, &[('y', &year.to_string())]),
            Problem::Length { month, year } => ask(draw, LENGTH, &[('m', MONTHS[*month].0), ('y', &year.to_string())]),
            Problem::Between { from, to, year } => {
                let year = year.to_string();
                let values = [('m', month(from)), ('a', &day(from)), ('o', month(to)), ('b', &day(to)), ('y', &year)];
                ask(draw, BETWEEN, &values)
            }
            Problem::After { from, n, year } => {
                let values = [('m', month(from)), ('a', &day(from)), ('n', &n.to_string()), ('y', &year.to_string())];
                ask(draw, AFTER, &values)
            }
        }
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let (lines, answer) = match problem {
            Problem::Later { day, n } => walk(*day, *n, 1),
            Problem::Earlier { day, n } => walk(*day, *n, 6),
            Problem::Leap { year } => {
                let (line, is_leap) = leap(*year);
                (vec![line], if is_leap { "yes" } else { "no" }.to_owned())
            }
            Problem::Length { month, year } => {
                let (lines, n) = length(*month, *year);
                (lines, n.to_string())
            }
            Problem::Between { from, to, year } => between(*from, *to, *year),
            Problem::After { from, n, year } => after(*from, *n, *year),
        };
        let lines = [lines, vec![answer.clone()]].concat();
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let weekdays = DAYS.map(str::to_owned);
        let moved = |wordings: &[&str], sign: i64| {
            readings(wordings, question).any(|slots| {
                let shift = slots.number('n').map(|n| (weekday(&slots).unwrap_or(0) + sign * n).rem_euclid(7));
                shift.is_some_and(|day| {
                    choice(answer, &weekdays) == DAYS.get(usize::try_from(day).unwrap_or(7)).copied()
                })
            })
        };
        let in_year = |slots: &Slots, month: char, day: char| {
            Some(day_number(slots.number('y')?, month_number(slots.text(month)?)?, slots.number(day)?))
        };
        let counts = |slots: &Slots| {
            let (year, month) = (slots.number('y')?, month_number(slots.text('m')?)?);
            Some(day_number(year, month + 1, 1) - day_number(year, month, 1))
        };
        moved(LATER, 1)
            || moved(EARLIER, -1)
            || readings(LEAP, question).any(|slots| {
                let year = slots.number('y');
                let is_leap = year.map(|year| day_number(year + 1, 1, 1) - day_number(year, 1, 1) == 366);
                is_leap.is_some() && yes_or_no(answer) == is_leap
            })
            || readings(LENGTH, question).any(|slots| counts(&slots).is_some_and(|n| last_number(answer) == Some(n)))
            || readings(BETWEEN, question).any(|slots| {
                let n = in_year(&slots, 'o', 'b').zip(in_year(&slots, 'm', 'a')).map(|(to, from)| to - from);
                n.is_some() && last_number(answer) == n
            })
            || readings(AFTER, question).any(|slots| {
                let date = in_year(&slots, 'm', 'a').zip(slots.number('n')).map(|(from, n)| from + n);
                date.is_some() && date == date_of(answer, slots.number('y').unwrap_or(0))
            })
    }

    fn options(&self, question: &str) -> Vec<String> {
        if readings(LEAP, question).next().is_some() {
            return vec!["yes".to_owned(), "no".to_owned()];
        }
        let is_weekday = |wordings: &[&str]| readings(wordings, question).any(|slots| weekday(&slots).is_some());
        if is_weekday(LATER) || is_weekday(EARLIER) { DAYS.map(str::to_owned).to_vec() } else { Vec::new() }
    }
}

fn weekday(slots: &Slots) -> Option<i64> {
    let named = slots.text('d')?;
    (0..).zip(DAYS).find(|(_, day)| *day == named).map(|(place, _)| place)
}

/// The month's number from 1.
fn month_number(name: &str) -> Option<i64> {
    (1..).zip(MONTHS).find(|(_, (month, _))| month.eq_ignore_ascii_case(name)).map(|(place, _)| place)
}

/// Days since the first of March of the year 0, by the formula for a year that begins in March. Months past the twelfth
/// belong to the next year.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let months = year * 12 + month - 1 - 2;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1
}

/// The day number of a date like `May 4`, `4 May` or `May 4, 2024`.
fn date_of(answer: &str, year: i64) -> Option<i64> {
    let month = words(answer).iter().rev().find_map(|word| month_number(word))?;
    let day = numbers(answer).into_iter().rfind(|n| (1..=31).contains(n))?;
    Some(day_number(year, month, day))
}

/// Full weeks, then day by day; `step` is 1 forwards and 6 backwards.
fn walk(day: usize, n: usize, step: usize) -> (Vec<String>, String) {
    let rest = n % 7;
    let mut lines = vec![format!("{n} = {} * 7 + {rest}", n / 7)];
    let mut now = day;
    let mut steps = vec![DAYS[day].to_owned()];
    for count in 1..=rest {
        now = (now + step) % 7;
        steps.push(format!("{count} {}", DAYS[now]));
    }
    lines.push(steps.join(", "));
    (lines, DAYS[now].to_owned())
}

fn leap(year: i64) -> (String, bool) {
    if year % 100 == 0 {
        let is_leap = year % 400 == 0;
        let rest = format!("{year} = {} * 400 + {}", year / 400, year % 400);
        return (format!("{year} ends in 00\n{rest}\n{}", told_leap(is_leap)), is_leap);
    }
    let end = year % 100;
    let is_leap = end % 4 == 0;
    (format!("{year} ends in {end:02}\n{end} = {} * 4 + {}\n{}", end / 4, end % 4, told_leap(is_leap)), is_leap)
}

fn told_leap(is_leap: bool) -> &'static str {
    if is_leap { "leap year" } else { "no leap year" }
}

fn length(month: usize, year: i64) -> (Vec<String>, i64) {
    let (name, n) = MONTHS[month];
    if month != 1 {
        return (vec![format!("{name} {n}")], n);
    }
    let (line, is_leap) = leap(year);
    let n = if is_leap { 29 } else { 28 };
    (vec![line, format!("{name} {n}")], n)
}

fn between(from: (usize, i64), to: (usize, i64), year: i64) -> (Vec<String>, String) {
    if from.0 == to.0 {
        return (vec![worked::subtract(to.1, from.1)], (to.1 - from.1).to_string());
    }
    let (mut lines, n) = length(from.0, year);
    let mut sum = n - from.1;
    lines.push(format!("rest of {}: {n} - {} = {sum}", MONTHS[from.0].0, from.1));
    for month in from.0 + 1..to.0 {
        let (more, n) = length(month, year);
        lines.extend(more);
        lines.push(worked::add(sum, n));
        sum += n;
    }
    lines.push(worked::add(sum, to.1));
    (lines, (sum + to.1).to_string())
}

fn after(from: (usize, i64), n: i64, year: i64) -> (Vec<String>, String) {
    let (mut month, mut day) = (from.0, from.1 + n);
    let mut lines = vec![worked::add(from.1, n)];
    loop {
        let (more, n) = length(month, year);
        lines.extend(more);
        if day <= n {
            return (lines, format!("{} {day}", MONTHS[month].0));
        }
        lines.push(worked::subtract(day, n));
        (month, day) = (month + 1, day - n);
    }
}
