//! Expressions as people and programs write them: parsed, evaluated exactly.

use std::fmt;

use crate::ratio::Ratio;

/// Longest expression that is read, which bounds how deep it can nest.
const LIMIT_BYTES: usize = 256;

/// An operation on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Plus,
    Minus,
    Times,
    Over,
    /// Division rounded down.
    Floor,
    Remainder,
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Number(i64),
    Name(String),
    Negated(Box<Expression>),
    Two(Op, Box<Expression>, Box<Expression>),
}

impl Op {
    /// How it is written in programs.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Over => "/",
            Self::Floor => "//",
            Self::Remainder => "%",
        }
    }

    /// The result, or `None` where there is none.
    pub(crate) fn apply(self, left: Ratio, right: Ratio) -> Option<Ratio> {
        match self {
            Self::Plus => left.plus(right),
            Self::Minus => left.plus(right.negated()?),
            Self::Times => left.times(right),
            Self::Over => left.times(right.inverse()?),
            Self::Floor | Self::Remainder => {
                let (left, right) = (left.to_whole()?, right.to_whole()?);
                let remainder = left.checked_rem_euclid(right).filter(|_| right > 0)?;
                Some(Ratio::whole(if self == Self::Floor { (left - remainder) / right } else { remainder }))
            }
        }
    }

    /// How tightly it binds.
    fn rank(self) -> u8 {
        if matches!(self, Self::Plus | Self::Minus) { 1 } else { 2 }
    }
}

impl Expression {
    /// `left op right`.
    pub(crate) fn two(op: Op, left: Self, right: Self) -> Self {
        Self::Two(op, Box::new(left), Box::new(right))
    }

    /// Reads an expression: numbers, names, `+ - * / // %` (also `× ÷ −`), parentheses, and `3x` or `3(x + 1)` for a
    /// product. `None` if it is not one as a whole.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > LIMIT_BYTES {
            return None;
        }
        let text = text.replace('×', "*").replace('÷', "/").replace('−', "-");
        let mut parser = Parser { rest: &text };
        let expression = parser.sum()?;
        parser.rest.trim().is_empty().then_some(expression)
    }

    /// Its value, with `value` giving that of names.
    pub(crate) fn value(&self, value: &dyn Fn(&str) -> Option<i64>) -> Option<Ratio> {
        match self {
            Self::Number(number) => Some(Ratio::whole(*number)),
            Self::Name(name) => value(name).map(Ratio::whole),
            Self::Negated(inner) => inner.value(value)?.negated(),
            Self::Two(op, left, right) => op.apply(left.value(value)?, right.value(value)?),
        }
    }

    /// Its value as a whole number, if it has no names.
    pub(crate) fn whole(&self) -> Option<i64> {
        self.value(&|_| None)?.to_whole()
    }

    /// All its numbers, from left to right.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        match self {
            Self::Number(number) => vec![*number],
            Self::Name(_) => Vec::new(),
            Self::Negated(inner) => inner.numbers(),
            Self::Two(_, left, right) => [left.numbers(), right.numbers()].concat(),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Two(op, ..) => op.rank(),
            Self::Negated(_) => 1,
            Self::Number(_) | Self::Name(_) => 3,
        }
    }
}

impl fmt::Display for Expression {
    /// As programs write it, with the parentheses that are needed.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |part: &Self, is_closed: bool| if is_closed { part.to_string() } else { format!("({part})") };
        match self {
            Self::Number(number) => write!(out, "{number}"),
            Self::Name(name) => write!(out, "{name}"),
            Self::Negated(part) => write!(out, "-{}", inner(part, part.rank() > 1)),
            Self::Two(op, left, right) => {
                let left = inner(left, left.rank() >= op.rank());
                // a sum on the right keeps its parentheses after + too: they are part of what is asked
                write!(out, "{left} {} {}", op.sign(), inner(right, right.rank() > op.rank()))
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn sum(&mut self) -> Option<Expression> {
        let mut left = self.product()?;
        while let Some(op) = self.op(&[("+", Op::Plus), ("-", Op::Minus)]) {
            left = Expression::two(op, left, self.product()?);
        }
        Some(left)
    }

    fn product(&mut self) -> Option<Expression> {
        let mut left = self.atom()?;
        loop {
            let ops = [("*", Op::Times), ("//", Op::Floor), ("/", Op::Over), ("%", Op::Remainder)];
            let op = match self.op(&ops) {
                Some(op) => op,
                None if self.is_factor() => Op::Times,
                None => return Some(left),
            };
            left = Expression::two(op, left, self.atom()?);
        }
    }

    fn atom(&mut self) -> Option<Expression> {
        self.rest = self.rest.trim_start();
        if let Some(rest) = self.rest.strip_prefix('-') {
            self.rest = rest;
            return Some(Expression::Negated(Box::new(self.atom()?)));
        }
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let inner = self.sum()?;
            self.rest = self.rest.trim_start().strip_prefix(')')?;
            return Some(inner);
        }
        let is_number = self.rest.starts_with(|letter: char| letter.is_ascii_digit());
        let belongs = |letter: char| if is_number { letter.is_ascii_digit() } else { letter.is_ascii_alphabetic() };
        let end = self.rest.find(|letter| !belongs(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if is_number {
            return word.parse().ok().map(Expression::Number);
        }
        (!word.is_empty()).then(|| Expression::Name(word.to_owned()))
    }

    fn op(&mut self, ops: &[(&str, Op)]) -> Option<Op> {
        let trimmed = self.rest.trim_start();
        let (rest, op) = ops.iter().find_map(|(sign, op)| Some((trimmed.strip_prefix(sign)?, *op)))?;
        self.rest = rest;
        Some(op)
    }

    /// Whether a factor follows without a sign: `3x`, `3(x + 1)`.
    fn is_factor(&self) -> bool {
        self.rest.starts_with(|letter: char| letter == '(' || letter.is_ascii_alphabetic())
    }
}
