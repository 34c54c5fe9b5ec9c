//! Sums, differences, products, exact quotients and mixed expressions.
//!
//! Held out are pairs of operands, in either order and however they are worded: no calculation of two numbers that is
//! held out is asked in training, nor is it a step of a mixed expression there. Pairs of digits are never held out:
//! they are the tables that everything rests on.

use rand::RngExt;

use crate::{
    Draw, Split,
    answers::last_number,
    choose::{number, once_in, one_of, some_of},
    expression::{Expression, Op},
    task::{Solution, Task},
    wording::{ask, readings},
    words::{NAMES, THINGS},
    worked,
};

const OPS: [Op; 4] = [Op::Plus, Op::Minus, Op::Times, Op::Over];

const WORDINGS: &[&str] = &[
    "What is {e}?",
    "Calculate {e}.",
    "Compute {e}",
    "{e} = ?",
    "{e}",
    "How much is {e}?",
    "Work out {e}.",
    "Please calculate {e}.",
    "What do you get for {e}?",
    "Find the value of {e}.",
    "Solve: {e}",
    "Give me the result of {e}.",
    "I need the answer to {e}.",
    "Evaluate {e}",
    "Can you tell me what {e} is?",
    "What's {e}?",
    "{e} equals what?",
];

/// Stories with an operation: `n` and `m` have names, `t` are things.
const STORIES: &[(Op, &[&str])] = &[
    (
        Op::Plus,
        &[
            "{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?",
            "There are {a} {t} in one box and {b} in another. How many {t} are there in all?",
            "{n} has {a} {t}. {m} has {b}. How many {t} do they have together?",
            "{n} found {a} {t} on Monday and {b} on Tuesday. How many {t} is that in total?",
            "Add {a} {t} to {b} {t}. How many are there?",
            "What is the sum of {a} and {b}?",
            "Add {a} and {b}.",
            "Increase {a} by {b}.",
        ],
    ),
    (
        Op::Minus,
        &[
            "{n} has {a} {t} and gives {b} to {m}. How many {t} does {n} keep?",
            "There were {a} {t}. {b} of them are gone. How many are left?",
            "{n} needs {a} {t} and has {b}. How many are missing?",
            "Of {a} {t}, {b} are broken. How many are whole?",
            "What is the difference between {a} and {b}?",
            "Take {b} away from {a}.",
            "Subtract {b} from {a}.",
            "Decrease {a} by {b}.",
        ],
    ),
    (
        Op::Times,
        &[
            "{n} has {a} bags with {b} {t} in each. How many {t} are there?",
            "There are {a} rows of {b} {t}. How many {t} is that?",
            "One box holds {b} {t}. How many {t} do {a} boxes hold?",
            "Every day {n} buys {b} {t}. How many {t} does {n} buy in {a} days?",
            "What is the product of {a} and {b}?",
            "Multiply {a} by {b}.",
        ],
    ),
    (
        Op::Over,
        &[
            "{n} shares {a} {t} equally among {b} friends. How many {t} does each get?",
            "{a} {t} are put into {b} boxes, the same number in each. How many {t} are in a box?",
            "How many times does {b} go into {a}?",
            "Divide {a} by {b}.",
            "{n} has {a} {t} and packs {b} in a bag. How many bags are needed?",
        ],
    ),
];

/// Ways to write the operations, in the order of [`OPS`].
const SIGNS: &[[&str; 4]] = &[
    ["+", "-", "*", "/"],
    ["+", "-", "*", "/"],
    ["+", "−", "×", "÷"],
    ["+", "-", "x", "/"],
    ["plus", "minus", "times", "divided by"],
];

/// See [the module](self).
pub(crate) struct Arithmetic;

impl Task for Arithmetic {
    type Problem = Expression;
    const NAME: &'static str = "arithmetic";

    fn problem(&self, draw: &mut Draw) -> Expression {
        if once_in(draw, 4) {
            return loop {
                let n = draw.random_range(3..=4);
                let mixed = mixed(draw, n);
                if steps(&mixed).is_some() {
                    break mixed;
                }
            };
        }
        let op = *one_of(draw, &OPS);
        let (a, b) = match op {
            Op::Times => {
                let n_digits = if once_in(draw, 6) { 3 } else { 2 };
                (number(draw, 3), number(draw, n_digits))
            }
            Op::Over => {
                let b = if once_in(draw, 5) { number(draw, 2) } else { draw.random_range(2..=12) };
                (b * draw.random_range(1..=999 / b), b)
            }
            _ => (number(draw, 3), number(draw, 3)),
        };
        // a negative result is the exception
        let (a, b) = if op == Op::Minus && a < b && !once_in(draw, 8) { (b, a) } else { (a, b) };
        Expression::two(op, Expression::Number(a), Expression::Number(b))
    }

    fn key(&self, problem: &Expression) -> String {
        match operands(problem) {
            Some((op, a, b)) if matches!(op, Op::Plus | Op::Times) => {
                format!("{} {} {}", a.min(b), op.sign(), a.max(b))
            }
            _ => problem.to_string(),
        }
    }

    fn belongs(&self, problem: &Expression, split: Split) -> bool {
        let of = |expression: &Expression| match operands(expression) {
            Some((_, a, b)) if a < 10 && b < 10 => Split::Train,
            _ => Split::of(&self.key(expression)),
        };
        let is_free = || steps(problem).is_some_and(|steps| steps.iter().all(|step| of(step) == Split::Train));
        of(problem) == split && (split == Split::HeldOut || is_free())
    }

    fn question(&self, problem: &Expression, draw: &mut Draw) -> String {
        if let Some((op, a, b)) = operands(problem)
            && a >= b
            && once_in(draw, 3)
        {
            let (_, stories) = STORIES.iter().find(|(known, _)| *known == op).expect("every operation has stories");
            let names = some_of(draw, NAMES, 2);
            let thing = *one_of(draw, THINGS);
            let (a, b) = (a.to_string(), b.to_string());
            return ask(draw, stories, &[('a', &a), ('b', &b), ('n', names[0]), ('m', names[1]), ('t', thing)]);
        }
        let n_styles = if operands(problem).is_some() { SIGNS.len() } else { SIGNS.len() - 1 };
        let signs = one_of(draw, &SIGNS[..n_styles]);
        let mut text = problem.to_string();
        for (op, sign) in OPS.iter().zip(signs) {
            text = text.replace(&format!(" {} ", op.sign()), &format!(" {sign} "));
        }
        if once_in(draw, 10) && signs[2] != "x" && signs[0] == "+" {
            text = text.replace(' ', "");
        }
        ask(draw, WORDINGS, &[('e', &text)])
    }

    fn solve(&self, problem: &Expression) -> Solution {
        let mut lines = Vec::new();
        let mut rest = problem.clone();
        while let Some(step) = next_step(&rest) {
            if operands(&rest).is_none() {
                lines.push(rest.to_string());
            }
            lines.push(worked_step(&step));
            rest = with_step_done(&rest, &mut false);
        }
        let answer = rest.to_string();
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let truth = readings(WORDINGS, question)
            .find_map(|slots| written(slots.text('e')?))
            .or_else(|| STORIES.iter().find_map(|(op, stories)| told(*op, stories, question)))
            .and_then(|expression| expression.whole());
        truth.is_some() && last_number(answer) == truth
    }
}

/// The expression that a question writes in any of the styles.
fn written(text: &str) -> Option<Expression> {
    let mut text = format!(" {text} ");
    for signs in SIGNS {
        for (op, sign) in OPS.iter().zip(signs) {
            text = text.replace(&format!(" {sign} "), &format!(" {} ", op.sign()));
        }
    }
    Expression::parse(text.trim())
}

fn told(op: Op, stories: &[&str], question: &str) -> Option<Expression> {
    readings(stories, question).find_map(|slots| {
        Some(Expression::two(op, Expression::Number(slots.number('a')?), Expression::Number(slots.number('b')?)))
    })
}

/// A mixed expression of `n` small numbers.
fn mixed(draw: &mut Draw, n: usize) -> Expression {
    if n == 1 {
        return Expression::Number(draw.random_range(1..=20));
    }
    let n_left = draw.random_range(1..n);
    let op = *one_of(draw, &[Op::Plus, Op::Minus, Op::Times, Op::Plus, Op::Minus, Op::Times, Op::Over]);
    let (left, right) = (mixed(draw, n_left), mixed(draw, n - n_left));
    Expression::two(op, left, right)
}

/// All steps of an expression, if none leaves the whole numbers from 0 to 999.
fn steps(expression: &Expression) -> Option<Vec<Expression>> {
    let mut rest = expression.clone();
    let mut steps = Vec::new();
    while let Some(step) = next_step(&rest) {
        let result = step.whole()?;
        let is_single = operands(expression).is_some();
        if !is_single && !(0..=999).contains(&result) {
            return None;
        }
        rest = with_step_done(&rest, &mut false);
        steps.push(step);
    }
    Some(steps)
}

/// The operation and its operands, if the expression is a single one.
fn operands(expression: &Expression) -> Option<(Op, i64, i64)> {
    match expression {
        Expression::Two(op, left, right) => match (&**left, &**right) {
            (Expression::Number(a), Expression::Number(b)) => Some((*op, *a, *b)),
            _ => None,
        },
        _ => None,
    }
}

/// The leftmost operation whose operands are known.
fn next_step(expression: &Expression) -> Option<Expression> {
    match expression {
        _ if operands(expression).is_some() => Some(expression.clone()),
        Expression::Two(_, left, right) => next_step(left).or_else(|| next_step(right)),
        _ => None,
    }
}

/// The expression with the result in the place of its [`next_step`].
fn with_step_done(expression: &Expression, is_done: &mut bool) -> Expression {
    if !*is_done && operands(expression).is_some() {
        *is_done = true;
        return Expression::Number(expression.whole().unwrap_or(0));
    }
    match expression {
        Expression::Two(op, left, right) => {
            let left = with_step_done(left, is_done);
            Expression::two(*op, left, with_step_done(right, is_done))
        }
        _ => expression.clone(),
    }
}

fn worked_step(step: &Expression) -> String {
    match operands(step) {
        Some((Op::Plus, a, b)) => worked::add(a, b),
        Some((Op::Minus, a, b)) => worked::subtract(a, b),
        Some((Op::Times, a, b)) => worked::multiply(a, b),
        Some((_, a, b)) => worked::divide(a, b),
        None => step.to_string(),
    }
}
