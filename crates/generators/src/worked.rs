//! Calculations written out digit by digit.
//!
//! Each function returns lines that end with `a op b = result`. Steps stay within the tables of one digit, so that a
//! small model has to remember little and never has to leap.

/// `a + b`, which are not negative.
pub(crate) fn add(a: i64, b: i64) -> String {
    if is_small(a, b) {
        return format!("{a} + {b} = {}", a + b);
    }
    let (high, low) = (digits(a), digits(b));
    let mut lines = vec![format!("{a} + {b}: {} + {}", apart(&high), apart(&low))];
    let mut carry = 0;
    let mut written = Vec::new();
    for place in 0..high.len().max(low.len()) {
        let (x, y) = (at(&high, place), at(&low, place));
        let sum = x + y + carry;
        let extra = if carry > 0 { format!(" + {carry}") } else { String::new() };
        carry = sum / 10;
        let rest = if carry > 0 { format!(", carry {carry}") } else { String::new() };
        lines.push(format!("{x} + {y}{extra} = {sum}, write {}{rest}", sum % 10));
        written.push(sum % 10);
    }
    if carry > 0 {
        written.push(carry);
    }
    lines.push(apart(&written));
    lines.push(format!("{a} + {b} = {}", a + b));
    lines.join("\n")
}

/// `a - b`, which are not negative.
pub(crate) fn subtract(a: i64, b: i64) -> String {
    if is_small(a, b) {
        return format!("{a} - {b} = {}", a - b);
    }
    if a < b {
        return format!("{b} is more than {a}\n{}\n{a} - {b} = {}", subtract(b, a), a - b);
    }
    let (high, low) = (digits(a), digits(b));
    let mut lines = vec![format!("{a} - {b}: {} - {}", apart(&high), apart(&low))];
    let mut borrow = 0;
    let mut written = Vec::new();
    for place in 0..high.len() {
        let (x, y) = (at(&high, place), at(&low, place));
        let extra = if borrow > 0 { format!(" - {borrow}") } else { String::new() };
        let is_short = x < y + borrow;
        let top = if is_short { x + 10 } else { x };
        let rest = if is_short { ", borrow 1" } else { "" };
        let digit = top - y - borrow;
        lines.push(format!("{top} - {y}{extra} = {digit}, write {digit}{rest}"));
        borrow = i64::from(is_short);
        written.push(digit);
    }
    lines.push(apart(&written));
    lines.push(format!("{a} - {b} = {}", a - b));
    lines.join("\n")
}

/// `a * b`, which are not negative: a product with each digit of the shorter factor, then their sum.
pub(crate) fn multiply(a: i64, b: i64) -> String {
    if a <= 10 && b <= 10 || a.min(b) <= 1 {
        return format!("{a} * {b} = {}", a * b);
    }
    let (long, short) = if a >= b { (a, b) } else { (b, a) };
    let mut lines = Vec::new();
    let mut parts = Vec::new();
    for (place, digit) in digits(short).iter().enumerate().filter(|(_, digit)| **digit > 0) {
        let scale = 10_i64.pow(u32::try_from(place).unwrap_or(0));
        lines.push(times_digit(long, *digit, scale));
        parts.push(long * digit * scale);
    }
    let mut sum = 0;
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            lines.push(add(sum, *part));
        }
        sum += part;
    }
    if parts.len() > 1 || a != long {
        lines.push(format!("{a} * {b} = {}", a * b));
    }
    lines.join("\n")
}

/// `a / b` with whole result: long division.
pub(crate) fn divide(a: i64, b: i64) -> String {
    if a <= 100 && b <= 10 || b == 1 {
        return format!("{a} / {b} = {}", a / b);
    }
    let mut lines = vec![format!("{a} / {b}: {}", apart(&digits(a)))];
    let mut rest = 0;
    let mut quotient = String::new();
    for digit in digits(a).into_iter().rev() {
        let part = rest * 10 + digit;
        let n = part / b;
        rest = part - n * b;
        if n > 0 || !quotient.is_empty() {
            lines.push(format!("{part}: {n} * {b} = {}, write {n}, rest {rest}", n * b));
            quotient.push_str(&format!(" {n}"));
        } else {
            lines.push(format!("{part} is less than {b}"));
        }
    }
    lines.push(quotient.trim().to_owned());
    lines.push(format!("{a} / {b} = {}", a / b));
    lines.join("\n")
}

/// `a * digit * scale`, with the digits of `a` taken one after another.
fn times_digit(a: i64, digit: i64, scale: i64) -> String {
    let zeros = scale.ilog10() as usize;
    let mut steps = Vec::new();
    let mut carry = 0;
    let mut written = vec![0; zeros];
    let all = digits(a);
    for x in &all {
        let product = x * digit + carry;
        let extra = if carry > 0 { format!(" + {carry}") } else { String::new() };
        carry = product / 10;
        let rest = if carry > 0 { format!(", carry {carry}") } else { String::new() };
        steps.push(format!("{x} * {digit}{extra} = {product}, write {}{rest}", product % 10));
        written.push(product % 10);
    }
    if carry > 0 {
        written.push(carry);
    }
    let ending = match zeros {
        0 => String::new(),
        1 => ", then 1 zero".to_owned(),
        n => format!(", then {n} zeros"),
    };
    let factor = digit * scale;
    format!(
        "{a} * {factor}: {} * {digit}{ending}\n{}\n{}\n{a} * {factor} = {}",
        apart(&all),
        steps.join("\n"),
        apart(&written),
        a * factor
    )
}

fn is_small(a: i64, b: i64) -> bool {
    a <= 10 && b <= 10 || a.min(b) == 0 || a <= 20 && b <= 10 && a >= b
}

/// The digits of a number, the last one first.
fn digits(number: i64) -> Vec<i64> {
    number.to_string().bytes().rev().map(|digit| i64::from(digit - b'0')).collect()
}

fn at(digits: &[i64], place: usize) -> i64 {
    digits.get(place).copied().unwrap_or(0)
}

/// Digits from the first to the last, a blank between them.
fn apart(digits: &[i64]) -> String {
    digits.iter().rev().map(i64::to_string).collect::<Vec<_>>().join(" ")
}
