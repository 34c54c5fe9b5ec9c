//! Dates for templates that ask for today's.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment in UTC, `unix_seconds` after 1970 began, in the form that C's `strftime` gives it.
///
/// Knows the directives that templates use: `a A b B d e H I j m M p S y Y %`, and `-` before a number to drop its
/// padding. An unknown one stays as it is.
pub(super) fn format(pattern: &str, unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day, day_of_year) = civil(days);
    let hour = seconds / 3600;
    let name = |names: &'static [&'static str], at: u64| -> &'static str {
        usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or_default()
    };
    let short = |name: &'static str| name.get(..3).unwrap_or(name).to_owned();
    let mut text = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let padded = rest.next_if_eq(&'-').is_none();
        let number = |value: u64, width: usize| match padded {
            true => format!("{value:0width$}"),
            false => value.to_string(),
        };
        text.push_str(&match rest.next() {
            Some('a') => short(name(&DAYS, days % 7)),
            Some('A') => name(&DAYS, days % 7).to_owned(),
            Some('b') => short(name(&MONTHS, month - 1)),
            Some('B') => name(&MONTHS, month - 1).to_owned(),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:2}"),
            Some('H') => number(hour, 2),
            Some('I') => number((hour + 11) % 12 + 1, 2),
            Some('j') => number(day_of_year, 3),
            Some('m') => number(month, 2),
            Some('M') => number(seconds / 60 % 60, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('S') => number(seconds % 60, 2),
            Some('y') => number(year % 100, 2),
            Some('Y') => year.to_string(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => "%".to_owned(),
        });
    }
    text
}

/// Year, month from 1, day from 1 and day of the year from 1, of a day counted from 1970.
fn civil(mut days: u64) -> (u64, u64, u64, u64) {
    // Whole cycles of 400 years first, so that the loop below is short for any input.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = days + 1;
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    (year, month, days + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_their_dates() {
        for (seconds, expected) in [
            (0, "Thu Thursday 01 Jan January 1970 70 01 001 00:00:00 12AM"),
            (951_782_399, "Mon Monday 28 Feb February 2000 00 02 059 23:59:59 11PM"),
            (951_782_400, "Tue Tuesday 29 Feb February 2000 00 02 060 00:00:00 12AM"),
            (1_735_689_599, "Tue Tuesday 31 Dec December 2024 24 12 366 23:59:59 11PM"),
            (4_107_542_400, "Mon Monday 01 Mar March 2100 00 03 060 00:00:00 12AM"),
        ] {
            assert_eq!(format("%a %A %d %b %B %Y %y %m %j %H:%M:%S %I%p", seconds), expected);
        }
        assert_eq!(format("%-d %e%% %Q %", 0), "1  1% %Q %");
        assert!(!format("%d %b %Y", u64::MAX).is_empty());
    }
}
