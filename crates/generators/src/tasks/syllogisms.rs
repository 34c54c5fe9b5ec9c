//! What follows from two statements about classes of things.
//!
//! Held out are the classes; half of them are invented, so that nothing is known of them. The checker goes through all
//! worlds of three classes, and asks whether the conclusion holds wherever both statements do.

use rand::RngExt;

use crate::{
    Draw,
    answers::yes_or_no,
    choose::{once_in, some_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::{capitalised, several_invented},
};

const WORDINGS: &[&str] = &[
    "{p}. {q}. Does it follow that {r}?",
    "{p}. {q}. Can we conclude that {r}?",
    "{p} and {t}. Is it certain that {r}?",
    "If {s} and {t}, must it be true that {r}?",
    "Suppose that {s} and that {t}. Does this mean that {r}?",
    "Premises: {p}. {q}. Conclusion: {r}. Is the conclusion valid?",
    "{p}. {q}. Is it then always so that {r}?",
    "Given that {s} and {t}, is it sure that {r}?",
];

#[rustfmt::skip]
const CLASSES: &[&str] = &[
    "cats", "dogs", "birds", "pilots", "singers", "farmers", "poets", "bakers", "dancers", "swimmers", "teachers", "robots",
    "kings", "sailors", "painters", "runners", "doctors", "cooks", "wizards", "tigers", "elephants", "musicians", "hunters",
    "climbers", "clowns", "judges",
];

/// A statement about two classes, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    All(usize, usize),
    None(usize, usize),
    Some(usize, usize),
    SomeNot(usize, usize),
}

/// Two statements and a conclusion about classes a, b, c (places 0, 1, 2), whether it follows, and why: `a`, `b`, `c`
/// stand for the classes.
#[rustfmt::skip]
const FORMS: &[([Claim; 3], bool, &str)] = &[
    ([Claim::All(0, 1), Claim::All(1, 2), Claim::All(0, 2)], true, "all {a} are {b}, and those are {c}"),
    ([Claim::All(0, 1), Claim::None(1, 2), Claim::None(0, 2)], true, "all {a} are {b}, and none of those are {c}"),
    ([Claim::Some(0, 1), Claim::All(1, 2), Claim::Some(0, 2)], true, "the {a} that are {b} are {c} too"),
    ([Claim::Some(0, 1), Claim::None(1, 2), Claim::SomeNot(0, 2)], true, "the {a} that are {b} are no {c}"),
    ([Claim::All(0, 1), Claim::None(2, 1), Claim::None(2, 0)], true, "all {a} are {b}, and {c} are none of those"),
    ([Claim::All(0, 1), Claim::Some(0, 2), Claim::Some(1, 2)], true, "the {a} that are {c} are {b} too"),
    ([Claim::All(0, 1), Claim::All(1, 2), Claim::All(2, 0)], false, "there may be {c} that are no {a}"),
    ([Claim::All(0, 1), Claim::All(2, 1), Claim::All(0, 2)], false, "{a} and {c} may be different {b}"),
    ([Claim::All(0, 1), Claim::Some(1, 2), Claim::Some(0, 2)], false, "the {b} that are {c} may be no {a}"),
    ([Claim::Some(0, 1), Claim::Some(1, 2), Claim::Some(0, 2)], false, "the {b} that are {a} may be others than those that are {c}"),
    ([Claim::All(0, 1), Claim::None(0, 2), Claim::None(1, 2)], false, "there may be {b} that are {c} but no {a}"),
    ([Claim::None(0, 1), Claim::None(1, 2), Claim::None(0, 2)], false, "{a} may be {c} without being {b}"),
];

/// A form, the names of its classes, and whether its second statement comes first.
pub(crate) struct Problem {
    form: usize,
    classes: Vec<String>,
    is_swapped: bool,
}

/// See [the module](self).
pub(crate) struct Syllogisms;

impl Task for Syllogisms {
    type Problem = Problem;
    const NAME: &'static str = "syllogisms";
    const CHANCE: f64 = 0.5;

    fn problem(&self, draw: &mut Draw) -> Problem {
        let classes = if once_in(draw, 2) {
            several_invented(draw, 3).into_iter().map(|word| format!("{word}s")).collect()
        } else {
            some_of(draw, CLASSES, 3).into_iter().map(str::to_owned).collect()
        };
        Problem { form: draw.random_range(0..FORMS.len()), classes, is_swapped: once_in(draw, 2) }
    }

    fn key(&self, problem: &Problem) -> String {
        let mut classes = problem.classes.clone();
        classes.sort_unstable();
        classes.join(" ")
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let [first, second, conclusion] = FORMS[problem.form].0.map(|claim| claim.told(&problem.classes));
        let (first, second) = if problem.is_swapped { (second, first) } else { (first, second) };
        let (large_first, large_second) = (capitalised(&first), capitalised(&second));
        let values =
            [('p', large_first.as_str()), ('q', &large_second), ('r', &conclusion), ('t', &second), ('s', &first)];
        ask(draw, WORDINGS, &values)
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let (_, follows, why) = FORMS[problem.form];
        let why = ["{a}", "{b}", "{c}"]
            .iter()
            .zip(&problem.classes)
            .fold(why.to_owned(), |why, (name, class)| why.replace(name, class));
        let answer = if follows { "yes" } else { "no" };
        Solution { thinking: format!("{why}\n{answer}"), answer: answer.to_owned() }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        readings(WORDINGS, question).any(|slots| {
            let first = slots.text('p').or(slots.text('s'));
            let second = slots.text('q').or(slots.text('t'));
            let truth = first.zip(second).zip(slots.text('r')).and_then(|((p, q), r)| follows(p, q, r));
            truth.is_some() && yes_or_no(answer) == truth
        })
    }

    fn options(&self, _question: &str) -> Vec<String> {
        vec!["yes".to_owned(), "no".to_owned()]
    }
}

/// Whether `conclusion` holds in every world in which both statements hold: a world says of each of the eight ways to
/// belong to three classes whether there is such a thing. `None` if a text is no statement.
fn follows(first: &str, second: &str, conclusion: &str) -> Option<bool> {
    let mut classes = Vec::new();
    let [first, second, conclusion] = [first, second, conclusion].map(|text| Claim::read(text, &mut classes));
    let (first, second, conclusion) = (first?, second?, conclusion?);
    let is_counterexample = |world: u32| first.holds(world) && second.holds(world) && !conclusion.holds(world);
    (classes.len() == 3).then(|| !(0..256).any(is_counterexample))
}

impl Claim {
    fn told(self, classes: &[String]) -> String {
        match self {
            Self::All(a, b) => format!("all {} are {}", classes[a], classes[b]),
            Self::None(a, b) => format!("no {} are {}", classes[a], classes[b]),
            Self::Some(a, b) => format!("some {} are {}", classes[a], classes[b]),
            Self::SomeNot(a, b) => format!("some {} are not {}", classes[a], classes[b]),
        }
    }

    fn read(text: &str, classes: &mut Vec<String>) -> Option<Self> {
        let text = text.to_lowercase();
        let (subject, predicate) = text.split_once(" are ")?;
        let (quantity, subject) = subject.split_once(' ')?;
        let (predicate, is_not) = predicate.strip_prefix("not ").map_or((predicate, false), |rest| (rest, true));
        let mut place = |class: &str| {
            classes.iter().position(|known| known == class).unwrap_or_else(|| {
                classes.push(class.to_owned());
                classes.len() - 1
            })
        };
        let (a, b) = (place(subject), place(predicate));
        match (quantity, is_not) {
            ("all", false) => Some(Self::All(a, b)),
            ("no", false) => Some(Self::None(a, b)),
            ("some", false) => Some(Self::Some(a, b)),
            ("some", true) => Some(Self::SomeNot(a, b)),
            _ => None,
        }
    }

    /// Whether it holds in `world`: bit `kind` says that there is a thing that belongs to the classes in the bits of `kind`.
    fn holds(self, world: u32) -> bool {
        let (Self::All(a, b) | Self::None(a, b) | Self::Some(a, b) | Self::SomeNot(a, b)) = self;
        let exists = |wants_b: bool| {
            (0..8_u32).any(|kind| world >> kind & 1 == 1 && kind >> a & 1 == 1 && (kind >> b & 1 == 1) == wants_b)
        };
        match self {
            Self::All(..) => !exists(false),
            Self::None(..) => !exists(true),
            Self::Some(..) => exists(true),
            Self::SomeNot(..) => exists(false),
        }
    }
}
