//! Reading a model's answer: lenient in how it is put, exact in what it says.

/// The last whole number in `text`. `1,234` and `1234.0` are whole numbers; `12.5` is none, and so the answer of a text
/// that ends in it is no whole number.
pub(crate) fn last_number(text: &str) -> Option<i64> {
    let text = text.replace('−', "-");
    let end = text.rfind(|letter: char| letter.is_ascii_digit())? + 1;
    let begin = text[..end]
        .rfind(|letter: char| !letter.is_ascii_digit() && !",.".contains(letter))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let (whole, fraction) = text[begin..end].split_once('.').unwrap_or((&text[begin..end], "0"));
    if !fraction.bytes().all(|digit| digit == b'0') {
        return None;
    }
    let number: i64 = without_separators(whole.trim_start_matches([',', '.'])).parse().ok()?;
    Some(if is_negative(&text[..begin]) { -number } else { number })
}

/// All whole numbers in `text`, in their order. Commas stand between numbers here.
pub(crate) fn numbers(text: &str) -> Vec<i64> {
    let text = text.replace('−', "-");
    let mut found = Vec::new();
    let mut begin = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        match (begin, letter.is_ascii_digit()) {
            (None, true) => begin = Some(at),
            (Some(first), false) => {
                let number: Option<i64> = text[first..at].parse().ok();
                found.extend(number.map(|number| if is_negative(&text[..first]) { -number } else { number }));
                begin = None;
            }
            _ => {}
        }
    }
    found
}

/// Yes or no: what the answer begins with, or the only one of both that it says.
pub(crate) fn yes_or_no(text: &str) -> Option<bool> {
    let said: Vec<bool> = words(text)
        .iter()
        .filter_map(|word| match word.as_str() {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        })
        .collect();
    let begins = words(text).first().is_some_and(|word| ["yes", "no", "true", "false"].contains(&word.as_str()));
    let first = *said.first()?;
    (begins || said.iter().all(|other| *other == first)).then_some(first)
}

/// The one of `choices` that the answer names; none if it names several.
pub(crate) fn choice<'a>(text: &str, choices: &'a [String]) -> Option<&'a str> {
    let said = words(text);
    let mut named = choices.iter().filter(|choice| said.contains(&choice.to_lowercase()));
    let only = named.next()?;
    named.next().is_none().then_some(only)
}

/// The words of the answer's last line after a colon, if there is one: the items of a list.
pub(crate) fn items(text: &str) -> Vec<String> {
    let line = text.trim().lines().last().unwrap_or_default();
    let list = line.rsplit_once(": ").map_or(line, |(_, list)| list);
    words(list).into_iter().filter(|word| word != "and").collect()
}

/// Words in lower case, without the marks around them.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| letter.is_whitespace() || letter == ',')
        .map(|word| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// Whether a number whose text follows `before` has a sign of its own: `-3` and `= -3`, but not `5-3` and `5 - 3`.
fn is_negative(before: &str) -> bool {
    let Some(before) = before.strip_suffix('-') else { return false };
    !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == ')')
}

fn without_separators(whole: &str) -> String {
    let grouped = whole.split(',').skip(1).all(|group| group.len() == 3);
    if grouped { whole.replace(',', "") } else { whole.rsplit(',').next().unwrap_or_default().to_owned() }
}
