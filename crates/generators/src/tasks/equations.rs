//! Linear equations with one and two unknowns, written and told.
//!
//! Held out are equations by their numbers, however they are worded or the unknown is named.

use rand::RngExt;

use crate::{
    Draw,
    answers::{last_number, numbers},
    choose::{once_in, one_of},
    expression::Expression,
    task::{Solution, Task},
    wording::{Slots, ask, readings},
};

const ONE: &[&str] = &[
    "Solve {e} for {x}.",
    "Solve for {x}: {e}",
    "Find {x}: {e}",
    "If {e}, what is {x}?",
    "What is {x} if {e}?",
    "{e}. What is {x}?",
    "Which value of {x} makes {e} true?",
    "Solve the equation {e}. What is {x}?",
    "Given {e}, find {x}.",
];

const TWO: &[&str] = &[
    "Solve for {x} and {y}: {e} and {f}",
    "Find {x} and {y} if {e} and {f}.",
    "What are {x} and {y} if {e} and {f}?",
    "{e} and {f}. What are {x} and {y}?",
    "Solve this system for {x} and {y}:\n{e}\n{f}",
    "Given {e} and {f}, find {x} and {y}.",
];

/// `a·x + b = c`, told.
const TOLD: &[&str] = &[
    "I think of a number, multiply it by {a} and add {b}. I get {c}. What is the number?",
    "A number times {a}, plus {b}, is {c}. What is the number?",
    "If you multiply my number by {a} and then add {b}, you get {c}. What is my number?",
    "{a} equal boxes and {b} more stones make {c} stones. How many stones are in a box?",
    "A taxi costs {b} to start and {a} for each mile. A ride cost {c}. How many miles was it?",
    "Tickets cost {a} each, and there is a fee of {b}. We paid {c}. How many tickets did we buy?",
];

/// `x + y = a`, `x - y = b`, told; the larger one comes first.
const TOLD_TWO: &[&str] = &[
    "Two numbers add up to {a} and differ by {b}. What are they, the larger one first?",
    "The sum of two numbers is {a}, their difference is {b}. Name both, the larger one first.",
    "Together two bags hold {a} nuts. One has {b} more than the other. How many are in each, the fuller one first?",
];

/// An equation or two, and the names of what is unknown in them.
pub(crate) struct Problem {
    form: Form,
    names: [&'static str; 2],
}

enum Form {
    /// `a·x + b = c·x + d`.
    Line { a: i64, b: i64, c: i64, d: i64 },
    /// `a·(x + b) = c`.
    Product { a: i64, b: i64, c: i64 },
    /// `x/a + b = c`.
    Quotient { a: i64, b: i64, c: i64 },
    /// `a·x + b·y = c` twice.
    Two([i64; 3], [i64; 3]),
}

/// See [the module](self).
pub(crate) struct Equations;

impl Task for Equations {
    type Problem = Problem;
    const NAME: &'static str = "equations";

    fn problem(&self, draw: &mut Draw) -> Problem {
        let x = draw.random_range(-5..=20);
        let a = draw.random_range(2..=9);
        let b = *one_of(draw, &[-12, -7, -5, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 17, 20]);
        let names = *one_of(draw, &[["x", "y"], ["x", "y"], ["a", "b"], ["m", "n"], ["p", "q"], ["s", "t"]]);
        let form = match draw.random_range(0..8) {
            0..=2 => Form::Line { a, b, c: 0, d: a * x + b },
            3 => {
                let c = draw.random_range(1..a);
                Form::Line { a, b, c, d: (a - c) * x + b }
            }
            4 => Form::Product { a, b, c: a * (x + b) },
            5 => Form::Quotient { a, b, c: x + b },
            6 => {
                let (x, y) = (draw.random_range(2..=30), draw.random_range(1..=20));
                let (x, y) = (x.max(y) + 1, x.min(y));
                Form::Two([1, 1, x + y], [1, -1, x - y])
            }
            _ => loop {
                let y = draw.random_range(-5..=10);
                let mut row = || {
                    let (p, q) = (draw.random_range(1..=4), *one_of(draw, &[-3, -2, -1, 1, 2, 3]));
                    [p, q, p * x + q * y]
                };
                let (first, second) = (row(), row());
                if first[0] * second[1] != first[1] * second[0] {
                    break Form::Two(first, second);
                }
            },
        };
        Problem { form, names }
    }

    fn key(&self, problem: &Problem) -> String {
        let [first, second] = problem.form.written(["x", "y"]);
        format!("{first} {second}")
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let is_told = once_in(draw, 3);
        match &problem.form {
            Form::Line { a, b, c: 0, d } if is_told && *b > 0 && d > b => {
                return ask(draw, TOLD, &[('a', &a.to_string()), ('b', &b.to_string()), ('c', &d.to_string())]);
            }
            Form::Two([1, 1, sum], [1, -1, difference]) if is_told && *difference > 0 => {
                return ask(draw, TOLD_TWO, &[('a', &sum.to_string()), ('b', &difference.to_string())]);
            }
            _ => {}
        }
        let [x, y] = problem.names;
        let [first, second] = problem.form.written(problem.names);
        if second.is_empty() {
            return ask(draw, ONE, &[('e', &first), ('x', x)]);
        }
        ask(draw, TWO, &[('e', &first), ('f', &second), ('x', x), ('y', y)])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let x = problem.names[0];
        let (lines, answer) = match &problem.form {
            Form::Line { a, b, c, d } => solve_line([*a, *b, *c, *d], x),
            Form::Product { a, b, c } => {
                let inner = c / a;
                let mut lines = vec![format!("divide by {a}: {c} / {a} = {inner}")];
                lines.push(format!("{x}{} = {inner}", signed(*b)));
                lines.push(moved(inner, *b));
                (lines, inner - b)
            }
            Form::Quotient { a, b, c } => {
                let quotient = c - b;
                let lines = vec![
                    moved(*c, *b),
                    format!("{x} / {a} = {quotient}"),
                    format!("{quotient} * {a} = {}", quotient * a),
                ];
                (lines, quotient * a)
            }
            Form::Two(first, second) => return solve_two(*first, *second, problem.names),
        };
        let lines = [lines, vec![format!("{x} = {answer}")]].concat();
        Solution { thinking: lines.join("\n"), answer: answer.to_string() }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let (value, pair) = (last_number(answer), pair_of(answer));
        let is_one = |slots: &Slots| Some(holds(slots.text('e')?, &[(slots.text('x')?, value?)]));
        let is_two = |slots: &Slots| {
            let values = [(slots.text('x')?, pair?.0), (slots.text('y')?, pair?.1)];
            Some(holds(slots.text('e')?, &values) && holds(slots.text('f')?, &values))
        };
        let is_told = |slots: &Slots| {
            let (a, b, c) = (slots.number('a')?, slots.number('b')?, slots.number('c')?);
            Some(value?.checked_mul(a)?.checked_add(b)? == c)
        };
        let is_told_two = |slots: &Slots| {
            let (x, y) = pair?;
            Some(x.checked_add(y)? == slots.number('a')? && x.checked_sub(y)? == slots.number('b')?)
        };
        readings(ONE, question).any(|slots| is_one(&slots) == Some(true))
            || readings(TWO, question).any(|slots| is_two(&slots) == Some(true))
            || readings(TOLD, question).any(|slots| is_told(&slots) == Some(true))
            || readings(TOLD_TWO, question).any(|slots| is_told_two(&slots) == Some(true))
    }
}

impl Form {
    /// The equations, the second one empty if there is one unknown.
    fn written(&self, [x, y]: [&str; 2]) -> [String; 2] {
        match self {
            Self::Line { a, b, c: 0, d } => [format!("{}{} = {d}", times(*a, x), signed(*b)), String::new()],
            Self::Line { a, b, c, d } => {
                [format!("{}{} = {}{}", times(*a, x), signed(*b), times(*c, x), signed(*d)), String::new()]
            }
            Self::Product { a, b, c } => [format!("{a}({x}{}) = {c}", signed(*b)), String::new()],
            Self::Quotient { a, b, c } => [format!("{x} / {a}{} = {c}", signed(*b)), String::new()],
            Self::Two(first, second) => [first, second].map(|[p, q, r]| {
                let sign = if *q < 0 { '-' } else { '+' };
                format!("{} {sign} {} = {r}", times(*p, x), times(q.abs(), y))
            }),
        }
    }
}

/// Steps and solution of `a·x + b = c·x + d`.
fn solve_line([a, b, c, d]: [i64; 4], name: &str) -> (Vec<String>, i64) {
    let mut lines = Vec::new();
    let n = a - c;
    if c != 0 {
        lines.push(format!("{a} - {c} = {n}"));
        lines.push(format!("{}{} = {d}", times(n, name), signed(b)));
    }
    lines.push(moved(d, b));
    lines.push(format!("{} = {}", times(n, name), d - b));
    let x = (d - b) / n;
    if n != 1 {
        lines.push(format!("{} / {n} = {x}", d - b));
    }
    (lines, x)
}

/// Two equations by elimination: the first times the second's number of x, and the other way round, then their difference.
fn solve_two(first: [i64; 3], second: [i64; 3], names: [&str; 2]) -> Solution {
    let scaled = |row: [i64; 3], n: i64| row.map(|number| number * n);
    let show = |[p, q, r]: [i64; 3]| {
        let sign = if q < 0 { '-' } else { '+' };
        format!("{} {sign} {} = {r}", times(p, names[0]), times(q.abs(), names[1]))
    };
    let mut lines = Vec::new();
    let (upper, lower) = (scaled(first, second[0]), scaled(second, first[0]));
    for (row, n, result) in [(first, second[0], upper), (second, first[0], lower)] {
        if n != 1 {
            lines.push(format!("{} times {n}: {}", show(row), show(result)));
        }
    }
    let (q, r) = (upper[1] - lower[1], upper[2] - lower[2]);
    lines.push(format!("{} minus {}", show(upper), show(lower)));
    lines.push(format!("{}: {} - {} = {q}", names[1], upper[1], in_sum(lower[1])));
    lines.push(format!("{} - {} = {r}", upper[2], in_sum(lower[2])));
    let y = r / q;
    lines.push(format!("{} = {r}, {} = {y}", times(q, names[1]), names[1]));
    let [p, q, r] = first;
    let part = q * y;
    lines.push(format!("{}: {q} * {} = {part}", show(first), in_sum(y)));
    lines.push(format!("{} = {r} - {} = {}", times(p, names[0]), in_sum(part), r - part));
    let x = (r - part) / p;
    lines.push(format!("{} = {x}, {} = {y}", names[0], names[1]));
    Solution { thinking: lines.join("\n"), answer: format!("{x} and {y}") }
}

/// `c` after `+ b` was taken to its side.
fn moved(c: i64, b: i64) -> String {
    if b < 0 { format!("add {}: {c} + {} = {}", -b, -b, c - b) } else { format!("subtract {b}: {c} - {b} = {}", c - b) }
}

fn times(n: i64, name: &str) -> String {
    match n {
        1 => name.to_owned(),
        -1 => format!("-{name}"),
        _ => format!("{n}{name}"),
    }
}

fn signed(number: i64) -> String {
    match number {
        0 => String::new(),
        _ if number < 0 => format!(" - {}", -number),
        _ => format!(" + {number}"),
    }
}

/// A number as the second of a sum, in parentheses if it has a sign.
fn in_sum(number: i64) -> String {
    if number < 0 { format!("({number})") } else { number.to_string() }
}

/// Whether the equation holds with these values.
fn holds(equation: &str, values: &[(&str, i64)]) -> bool {
    let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let side = |text: &str| Expression::parse(text)?.value(&value);
    match equation.split_once('=') {
        Some((left, right)) => side(left).is_some_and(|left| Some(left) == side(right)),
        None => false,
    }
}

/// The last two numbers of an answer.
fn pair_of(answer: &str) -> Option<(i64, i64)> {
    let all = numbers(answer);
    let (last, others) = all.split_last()?;
    Some((*others.last()?, *last))
}
