//! What a short program prints.
//!
//! Held out are programs, whatever their variables are called. The solver walks a tree of statements and writes a line a
//! step; the checker reads the question's text with an interpreter of its own.

use rand::RngExt;

use crate::{
    Draw,
    choose::{once_in, one_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::joined,
};

mod interpreter;

const WORDINGS: &[&str] = &[
    "What does this program print?\n{p}",
    "What is printed?\n{p}",
    "What is the output of this code?\n{p}",
    "Run this in your head. What does it print?\n{p}",
    "Trace this program and say what it prints.\n{p}",
    "Here is a program:\n{p}\nWhat does it print?",
    "{p}\nWhat is printed?",
    "{p}\nWhat is the output?",
    "Look at this code:\n{p}\nWhich value is printed?",
];

/// Names of two numbers, a list and what goes through it.
const NAMES: &[[&str; 4]] = &[
    ["a", "b", "items", "i"],
    ["x", "y", "xs", "i"],
    ["n", "m", "values", "k"],
    ["total", "step", "numbers", "n"],
    ["count", "limit", "list", "item"],
    ["p", "q", "row", "j"],
    ["s", "t", "data", "d"],
];
const FIRST: usize = 0;
const SECOND: usize = 1;
const LIST: usize = 2;
const EACH: usize = 3;

/// Traces are not longer.
const MOST_STEPS: usize = 16;
/// No value is further from 0: every step can be done in the head.
const LARGEST: i64 = 150;

/// What has a number as value. Variables are places in [`NAMES`].
#[derive(Debug, Clone, Copy)]
enum Value {
    Number(i64),
    Of(usize),
}

#[derive(Debug, Clone, Copy)]
enum Expression {
    Plain(Value),
    Both(Value, char, Value),
    At(i64),
    Len,
    Sum,
}

#[derive(Debug, Clone, Copy)]
struct Condition(Value, &'static str, Value);

#[derive(Debug, Clone)]
enum Statement {
    Set(usize, Expression),
    Append(Value),
    If(Condition, Vec<Self>, Vec<Self>),
    Range(i64, Vec<Self>),
    Each(Vec<Self>),
    While(Condition, Vec<Self>),
}

/// What the last line prints.
#[derive(Debug, Clone, Copy)]
enum Printed {
    Number(Expression),
    List,
}

/// A program.
pub(crate) struct Problem {
    names: [&'static str; 4],
    list: Vec<i64>,
    body: Vec<Statement>,
    printed: Printed,
}

/// See [the module](self).
pub(crate) struct Tracing;

impl Task for Tracing {
    type Problem = Problem;
    const NAME: &'static str = "tracing";

    fn problem(&self, draw: &mut Draw) -> Problem {
        loop {
            let problem = any(draw);
            if run(&problem).is_some() {
                return problem;
            }
        }
    }

    fn key(&self, problem: &Problem) -> String {
        written(problem, &NAMES[0])
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        ask(draw, WORDINGS, &[('p', &written(problem, &problem.names))])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let (mut lines, answer) = run(problem).expect("only programs that end are drawn");
        lines.push(format!("printed: {answer}"));
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let answer = answer.trim().trim_end_matches('.');
        let said = answer.rsplit(['\n', ':']).next().unwrap_or_default().trim();
        readings(WORDINGS, question)
            .filter_map(|slots| interpreter::output(slots.text('p')?))
            .any(|truth| said.replace(' ', "") == truth.replace(' ', ""))
    }
}

fn any(draw: &mut Draw) -> Problem {
    let names = *one_of(draw, NAMES);
    let mut list = Vec::new();
    let mut body = vec![set(FIRST, small(draw))];
    let mut printed = Printed::Number(Expression::Plain(Value::Of(FIRST)));
    match draw.random_range(0..7) {
        0 => {
            body.push(set(SECOND, small(draw)));
            for _ in 0..draw.random_range(1..=4) {
                let place = draw.random_range(FIRST..=SECOND);
                body.push(change(draw, place, Value::Of(1 - place)));
            }
            printed = Printed::Number(Expression::Plain(Value::Of(draw.random_range(FIRST..=SECOND))));
        }
        1 => {
            body.push(change(draw, FIRST, Value::Number(3)));
            let condition = condition(draw, FIRST);
            let (yes, no) = (change(draw, FIRST, Value::Number(2)), change(draw, FIRST, Value::Number(5)));
            body.push(Statement::If(condition, vec![yes], if once_in(draw, 3) { Vec::new() } else { vec![no] }));
        }
        2 => {
            let step = change(draw, FIRST, Value::Of(EACH));
            body.push(Statement::Range(draw.random_range(2..=5), vec![step]));
        }
        3 => {
            body.push(set(SECOND, draw.random_range(0..4)));
            let limit = draw.random_range(6..30);
            let grow = change(draw, FIRST, Value::Number(2));
            let counted = Statement::Set(SECOND, Expression::Both(Value::Of(SECOND), '+', Value::Number(1)));
            body.push(Statement::While(Condition(Value::Of(FIRST), "<", Value::Number(limit)), vec![grow, counted]));
            printed = Printed::Number(Expression::Plain(Value::Of(draw.random_range(FIRST..=SECOND))));
        }
        4 => {
            list = numbers(draw);
            let step = change(draw, FIRST, Value::Of(EACH));
            body = vec![set(FIRST, draw.random_range(0..4)), Statement::Each(vec![step])];
        }
        5 => {
            list = numbers(draw);
            let condition = condition(draw, EACH);
            let plus = if draw.random_bool(0.5) { Value::Number(1) } else { Value::Of(EACH) };
            let found = Statement::Set(FIRST, Expression::Both(Value::Of(FIRST), '+', plus));
            body = vec![set(FIRST, 0), Statement::Each(vec![Statement::If(condition, vec![found], Vec::new())])];
        }
        _ => {
            list = numbers(draw);
            body = vec![Statement::Append(Value::Number(small(draw)))];
            if draw.random_bool(0.5) {
                let doubled = Expression::Both(Value::Of(EACH), '*', Value::Number(2));
                let times = vec![Statement::Set(FIRST, doubled), Statement::Append(Value::Of(FIRST))];
                body = vec![Statement::Range(draw.random_range(1..=3), times)];
            }
            let place = i64::try_from(draw.random_range(0..=list.len())).unwrap_or(0);
            let one = [Expression::At(place), Expression::Len, Expression::Sum];
            printed = if once_in(draw, 3) { Printed::List } else { Printed::Number(*one_of(draw, &one)) };
        }
    }
    Problem { names, list, body, printed }
}

fn small(draw: &mut Draw) -> i64 {
    draw.random_range(1..=12)
}

fn numbers(draw: &mut Draw) -> Vec<i64> {
    (0..draw.random_range(2..=5)).map(|_| draw.random_range(1..=20)).collect()
}

fn set(name: usize, number: i64) -> Statement {
    Statement::Set(name, Expression::Plain(Value::Number(number)))
}

/// `name` plus, minus or times something.
fn change(draw: &mut Draw, name: usize, other: Value) -> Statement {
    let with = if draw.random_bool(0.6) { other } else { Value::Number(draw.random_range(1..=9)) };
    let sign = *one_of(draw, &['+', '+', '-', '*']);
    let with =
        if sign == '*' && matches!(with, Value::Number(_)) { Value::Number(draw.random_range(2..=3)) } else { with };
    Statement::Set(name, Expression::Both(Value::Of(name), sign, with))
}

fn condition(draw: &mut Draw, name: usize) -> Condition {
    let sign = *one_of(draw, &["<", ">", "<=", ">=", "==", "!=", ">"]);
    Condition(Value::Of(name), sign, Value::Number(draw.random_range(3..=15)))
}

/// The program as text.
fn written(problem: &Problem, names: &[&str; 4]) -> String {
    let mut lines = Vec::new();
    if !problem.list.is_empty() {
        lines.push(format!("{} = [{}]", names[LIST], joined(&problem.list)));
    }
    write_all(&problem.body, names, 0, &mut lines);
    lines.push(match problem.printed {
        Printed::Number(number) => format!("print({})", expression(number, names)),
        Printed::List => format!("print({})", names[LIST]),
    });
    lines.join("\n")
}

fn write_all(body: &[Statement], names: &[&str; 4], depth: usize, lines: &mut Vec<String>) {
    let indent = "    ".repeat(depth);
    let value = |it: Value| value(it, names);
    for statement in body {
        match statement {
            Statement::Set(name, to) => lines.push(format!("{indent}{} = {}", names[*name], expression(*to, names))),
            Statement::Append(what) => lines.push(format!("{indent}{}.append({})", names[LIST], value(*what))),
            Statement::If(Condition(left, sign, right), yes, no) => {
                lines.push(format!("{indent}if {} {sign} {}:", value(*left), value(*right)));
                write_all(yes, names, depth + 1, lines);
                if !no.is_empty() {
                    lines.push(format!("{indent}else:"));
                    write_all(no, names, depth + 1, lines);
                }
            }
            Statement::Range(n, inner) => {
                lines.push(format!("{indent}for {} in range({n}):", names[EACH]));
                write_all(inner, names, depth + 1, lines);
            }
            Statement::Each(inner) => {
                lines.push(format!("{indent}for {} in {}:", names[EACH], names[LIST]));
                write_all(inner, names, depth + 1, lines);
            }
            Statement::While(Condition(left, sign, right), inner) => {
                lines.push(format!("{indent}while {} {sign} {}:", value(*left), value(*right)));
                write_all(inner, names, depth + 1, lines);
            }
        }
    }
}

fn value(value: Value, names: &[&str; 4]) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Of(name) => names[name].to_owned(),
    }
}

fn expression(it: Expression, names: &[&str; 4]) -> String {
    match it {
        Expression::Plain(one) => value(one, names),
        Expression::Both(left, sign, right) => format!("{} {sign} {}", value(left, names), value(right, names)),
        Expression::At(place) => format!("{}[{place}]", names[LIST]),
        Expression::Len => format!("len({})", names[LIST]),
        Expression::Sum => format!("sum({})", names[LIST]),
    }
}

/// The trace and what is printed; `None` if that takes too long, grows too large or reads what is not there.
fn run(problem: &Problem) -> Option<(Vec<String>, String)> {
    let mut machine =
        Machine { names: problem.names, numbers: [None; 4], list: problem.list.clone(), lines: Vec::new() };
    if !problem.list.is_empty() {
        machine.lines.push(format!("{} = [{}]", problem.names[LIST], joined(&problem.list)));
    }
    machine.all(&problem.body)?;
    let answer = match problem.printed {
        Printed::Number(number) => machine.worth(number)?.to_string(),
        Printed::List => format!("[{}]", joined(&machine.list)),
    };
    if let Printed::Number(number @ (Expression::At(_) | Expression::Sum | Expression::Len)) = problem.printed {
        let terms = machine.list.iter().map(i64::to_string).collect::<Vec<_>>().join(" + ");
        let way = if matches!(number, Expression::Sum) { format!("{terms} = ") } else { String::new() };
        machine.lines.push(format!("{} = {way}{answer}", expression(number, &problem.names)));
    }
    Some((machine.lines, answer))
}

struct Machine {
    names: [&'static str; 4],
    numbers: [Option<i64>; 4],
    list: Vec<i64>,
    lines: Vec<String>,
}

impl Machine {
    fn all(&mut self, body: &[Statement]) -> Option<()> {
        body.iter().try_for_each(|statement| self.one(statement))
    }

    fn one(&mut self, statement: &Statement) -> Option<()> {
        match statement {
            Statement::Set(name, to) => {
                let worth = self.worth(*to)?;
                let way = match to {
                    Expression::Both(left, sign, right) => {
                        format!("{} {sign} {} = ", self.of(*left)?, self.of(*right)?)
                    }
                    _ => String::new(),
                };
                self.numbers[*name] = Some(worth);
                self.say(format!("{} = {way}{worth}", self.names[*name]))
            }
            Statement::Append(what) => {
                let worth = self.of(*what)?;
                self.list.push(worth);
                self.say(format!("{} = [{}]", self.names[LIST], joined(&self.list)))
            }
            Statement::If(condition, yes, no) => {
                let holds = self.holds(*condition)?;
                self.all(if holds { yes } else { no })
            }
            Statement::Range(n, inner) => (0..*n).try_for_each(|i| self.with(i, inner)),
            Statement::Each(inner) => self.list.clone().into_iter().try_for_each(|item| self.with(item, inner)),
            Statement::While(condition, inner) => {
                while self.holds(*condition)? {
                    self.all(inner)?;
                }
                Some(())
            }
        }
    }

    fn with(&mut self, item: i64, inner: &[Statement]) -> Option<()> {
        self.numbers[EACH] = Some(item);
        self.say(format!("{} = {item}", self.names[EACH]))?;
        self.all(inner)
    }

    fn holds(&mut self, Condition(left, sign, right): Condition) -> Option<bool> {
        let (a, b) = (self.of(left)?, self.of(right)?);
        let holds = match sign {
            "<" => a < b,
            ">" => a > b,
            "<=" => a <= b,
            ">=" => a >= b,
            "==" => a == b,
            _ => a != b,
        };
        self.say(format!("{a} {sign} {b}: {}", if holds { "yes" } else { "no" }))?;
        Some(holds)
    }

    fn worth(&self, it: Expression) -> Option<i64> {
        let worth = match it {
            Expression::Plain(one) => self.of(one)?,
            Expression::Both(left, sign, right) => {
                let (a, b) = (self.of(left)?, self.of(right)?);
                match sign {
                    '+' => a + b,
                    '-' => a - b,
                    _ => a * b,
                }
            }
            Expression::At(place) => *self.list.get(usize::try_from(place).ok()?)?,
            Expression::Len => i64::try_from(self.list.len()).ok()?,
            Expression::Sum => self.list.iter().sum(),
        };
        (worth.abs() <= LARGEST).then_some(worth)
    }

    fn of(&self, value: Value) -> Option<i64> {
        match value {
            Value::Number(number) => Some(number),
            Value::Of(name) => self.numbers[name],
        }
    }

    fn say(&mut self, line: String) -> Option<()> {
        self.lines.push(line);
        (self.lines.len() <= MOST_STEPS).then_some(())
    }
}
