//! Runs the text of a program, line by line.

use std::collections::HashMap;

/// Lines that may be run.
const MOST_LINES: usize = 2_000;

#[derive(Debug, Clone)]
enum Held {
    Number(i64),
    List(Vec<i64>),
}

/// What `program` prints last; `None` if it is no program or goes wrong.
pub(super) fn output(program: &str) -> Option<String> {
    let lines: Vec<(usize, &str)> =
        program.lines().map(|line| (line.len() - line.trim_start().len(), line.trim())).collect();
    let mut run = Run { held: HashMap::new(), printed: None, left: MOST_LINES };
    run.block(&lines)?;
    run.printed
}

struct Run {
    held: HashMap<String, Held>,
    printed: Option<String>,
    left: usize,
}

impl Run {
    fn block(&mut self, lines: &[(usize, &str)]) -> Option<()> {
        let mut rest = lines;
        let mut was_true = None;
        while let Some(((indent, line), after)) = rest.split_first() {
            self.left = self.left.checked_sub(1)?;
            let n_inner = after.iter().take_while(|(deeper, _)| deeper > indent).count();
            let (inner, next) = after.split_at(n_inner);
            rest = next;
            match line.strip_suffix(':') {
                None => self.simple(line)?,
                Some("else") => {
                    if !was_true.take()? {
                        self.block(inner)?;
                    }
                }
                Some(head) => {
                    let (word, head) = head.split_once(' ')?;
                    match word {
                        "if" => {
                            let holds = self.holds(head)?;
                            was_true = Some(holds);
                            if holds {
                                self.block(inner)?;
                            }
                        }
                        "while" => {
                            while self.holds(head)? {
                                self.block(inner)?;
                            }
                        }
                        "for" => {
                            let (name, over) = head.split_once(" in ")?;
                            for item in self.items(over)? {
                                self.held.insert(name.to_owned(), Held::Number(item));
                                self.block(inner)?;
                            }
                        }
                        _ => return None,
                    }
                }
            }
        }
        Some(())
    }

    fn simple(&mut self, line: &str) -> Option<()> {
        if let Some(what) = argument(line, "print") {
            self.printed = Some(match self.worth(what)? {
                Held::Number(number) => number.to_string(),
                Held::List(list) => format!("{list:?}"),
            });
            return Some(());
        }
        if let Some((name, call)) = line.split_once(".append") {
            let item = self.number(argument(call, "")?)?;
            let Held::List(list) = self.held.get_mut(name)? else { return None };
            list.push(item);
            return Some(());
        }
        let (name, what) = line.split_once(" = ")?;
        let worth = self.worth(what)?;
        self.held.insert(name.to_owned(), worth);
        Some(())
    }

    fn items(&self, over: &str) -> Option<Vec<i64>> {
        match argument(over, "range") {
            Some(end) => Some((0..self.number(end)?).collect()),
            None => match self.worth(over)? {
                Held::List(list) => Some(list),
                Held::Number(_) => None,
            },
        }
    }

    fn holds(&self, text: &str) -> Option<bool> {
        let [left, sign, right] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
        let order = self.number(left)?.cmp(&self.number(right)?);
        Some(match sign {
            "<" => order.is_lt(),
            ">" => order.is_gt(),
            "<=" => order.is_le(),
            ">=" => order.is_ge(),
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            _ => return None,
        })
    }

    fn number(&self, text: &str) -> Option<i64> {
        match self.worth(text)? {
            Held::Number(number) => Some(number),
            Held::List(_) => None,
        }
    }

    fn worth(&self, text: &str) -> Option<Held> {
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inner.split(", ").map(|item| item.parse().ok()).collect::<Option<_>>().map(Held::List);
        }
        if let [left, sign, right] = text.split(' ').collect::<Vec<_>>()[..] {
            let (a, b) = (self.number(left)?, self.number(right)?);
            return Some(Held::Number(match sign {
                "+" => a.checked_add(b)?,
                "-" => a.checked_sub(b)?,
                "*" => a.checked_mul(b)?,
                _ => return None,
            }));
        }
        if let Ok(number) = text.parse() {
            return Some(Held::Number(number));
        }
        if let Some(known) = self.held.get(text) {
            return Some(known.clone());
        }
        let list = |name: &str| match self.held.get(name) {
            Some(Held::List(list)) => Some(list.clone()),
            _ => None,
        };
        if let Some(name) = argument(text, "len") {
            return i64::try_from(list(name)?.len()).ok().map(Held::Number);
        }
        if let Some(name) = argument(text, "sum") {
            return Some(Held::Number(list(name)?.iter().sum()));
        }
        let (name, place) = text.strip_suffix(']')?.split_once('[')?;
        list(name)?.get(usize::try_from(self.number(place)?).ok()?).copied().map(Held::Number)
    }
}

/// What stands between the brackets after `call`.
fn argument<'a>(text: &'a str, call: &str) -> Option<&'a str> {
    text.strip_prefix(call)?.strip_prefix('(')?.strip_suffix(')')
}
