//! People who always tell the truth or always lie.
//!
//! Held out are the people in their order. The first statement always settles something, and each next one is about
//! somebody who is known, so that the way needs no guessing; the checker tries all combinations.

use rand::RngExt;

use crate::{
    Draw,
    answers::{last_number, yes_or_no},
    choose::{once_in, some_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::NAMES,
};

const TRUTHFUL: &[&str] = &[
    "Each person always tells the truth or always lies. {c} Does {n} tell the truth?",
    "On an island everybody either always lies or never does. {c} Is {n} truthful?",
    "Some people here only lie, the others only say what is true. {c} Does {n} speak the truth?",
    "{c} Everyone here is either a liar or a truth teller. Is {n} a truth teller?",
    "Knights tell the truth and knaves lie. {c} Is {n} a knight?",
];

const LIARS: &[&str] = &[
    "Each person always tells the truth or always lies. {c} Does {n} lie?",
    "Some people here only lie, the others only say what is true. {c} Is {n} lying?",
    "{c} Everyone here is either a liar or a truth teller. Is {n} a liar?",
    "Knights tell the truth and knaves lie. {c} Is {n} a knave?",
];

const HOW_MANY: &[&str] = &[
    "Each person always tells the truth or always lies. {c} How many of them lie?",
    "{c} Everyone here is either a liar or a truth teller. How many liars are there?",
    "Knights tell the truth and knaves lie. {c} How many of them are knaves?",
];

/// What one says of another, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statement {
    Liar(usize),
    Truthful(usize),
    BothLie(usize),
    OneLies(usize),
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Truthful(usize),
    Liar(usize),
    Count,
}

/// People and what each of them says.
pub(crate) struct Problem {
    people: Vec<&'static str>,
    statements: Vec<Statement>,
    asked: Asked,
}

/// See [the module](self).
pub(crate) struct TruthTellers;

impl Task for TruthTellers {
    type Problem = Problem;
    const NAME: &'static str = "truth_tellers";
    /// Four of five questions are answered by yes or no, the others by a number from 0 to that of the people, two or three.
    const CHANCE: f64 = 4.0 / 5.0 / 2.0 + 1.0 / 5.0 * (1.0 / 3.0 + 1.0 / 4.0) / 2.0;

    fn problem(&self, draw: &mut Draw) -> Problem {
        let n = draw.random_range(2..=3);
        let people = some_of(draw, NAMES, n);
        let first = if once_in(draw, 2) { Statement::BothLie(1) } else { Statement::OneLies(1) };
        let mut statements = vec![first];
        if n == 3 {
            // of the first two always one lies, so the second can say that of the first; the third can say anything
            statements.push(Statement::Liar(0));
            let subject = draw.random_range(0..2);
            let is_liar = draw.random_bool(0.5);
            statements.push(if is_liar { Statement::Liar(subject) } else { Statement::Truthful(subject) });
        }
        let person = draw.random_range(0..n);
        let asked = match draw.random_range(0..5) {
            0 | 1 => Asked::Truthful(person),
            2 | 3 => Asked::Liar(person),
            _ => Asked::Count,
        };
        Problem { people, statements, asked }
    }

    fn key(&self, problem: &Problem) -> String {
        problem.people.join(" ")
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let clues: Vec<String> =
            (0..problem.statements.len()).map(|person| format!("{}.", problem.said(person))).collect();
        let (wordings, person) = match problem.asked {
            Asked::Truthful(person) => (TRUTHFUL, person),
            Asked::Liar(person) => (LIARS, person),
            Asked::Count => (HOW_MANY, 0),
        };
        ask(draw, wordings, &[('c', &clues.join(" ")), ('n', problem.people[person])])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let [first, second] = [problem.people[0], problem.people[1]];
        let mut kinds = kinds_of(problem.statements[0]);
        let mut lines = if kinds[0] {
            vec![
                format!("if {first} lies, then it is true that one of them lies, but liars say nothing true"),
                format!("so {first} tells the truth"),
                format!("so one of them lies: {second} lies"),
            ]
        } else {
            vec![
                format!("if {first} tells the truth, then both lie, but then {first} lies"),
                format!("so {first} lies"),
                format!("so not both lie: {second} tells the truth"),
            ]
        };
        if let [_, _, last] = problem.statements[..] {
            let (subject, says_liar) = match last {
                Statement::Liar(subject) => (subject, true),
                Statement::Truthful(subject) | Statement::BothLie(subject) | Statement::OneLies(subject) => {
                    (subject, false)
                }
            };
            let is_true = kinds[subject] != says_liar;
            kinds.push(is_true);
            let (name, known) = (problem.people[2], problem.people[subject]);
            let does = |is_truthful: bool| if is_truthful { "tells the truth" } else { "lies" };
            lines.push(format!("{name} says that {known} {}", does(!says_liar)));
            lines.push(format!("{known} {}, so {name} {}", does(kinds[subject]), does(is_true)));
        }
        let yes_no = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
        let answer = match problem.asked {
            Asked::Truthful(person) => yes_no(kinds[person]),
            Asked::Liar(person) => yes_no(!kinds[person]),
            Asked::Count => kinds.iter().filter(|is_truthful| !**is_truthful).count().to_string(),
        };
        lines.push(answer.clone());
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        let truthful = |wordings: &[&str]| {
            readings(wordings, question).find_map(|slots| {
                let (people, kinds) = only_solution(slots.text('c')?)?;
                let person = people.iter().position(|name| Some(name.as_str()) == slots.text('n'))?;
                Some(kinds[person])
            })
        };
        if let Some(is_truthful) = truthful(TRUTHFUL) {
            return yes_or_no(answer) == Some(is_truthful);
        }
        if let Some(is_truthful) = truthful(LIARS) {
            return yes_or_no(answer) == Some(!is_truthful);
        }
        let kinds = readings(HOW_MANY, question).find_map(|slots| Some(only_solution(slots.text('c')?)?.1));
        kinds.is_some_and(|kinds| {
            let n_liars = kinds.iter().filter(|is_truthful| !**is_truthful).count();
            last_number(answer) == i64::try_from(n_liars).ok()
        })
    }

    fn options(&self, question: &str) -> Vec<String> {
        match readings(HOW_MANY, question).find_map(|slots| Some(only_solution(slots.text('c')?)?.1.len())) {
            Some(n) => (0..=n).map(|n| n.to_string()).collect(),
            None => vec!["yes".to_owned(), "no".to_owned()],
        }
    }
}

impl Problem {
    fn said(&self, person: usize) -> String {
        let name = self.people[person];
        match self.statements[person] {
            Statement::Liar(other) => format!("{name} says that {} lies", self.people[other]),
            Statement::Truthful(other) => format!("{name} says that {} tells the truth", self.people[other]),
            Statement::BothLie(other) => format!("{name} says: {} and I both lie", self.people[other]),
            Statement::OneLies(other) => format!("{name} says: at least one of {} and me lies", self.people[other]),
        }
    }
}

/// Who of the first two tells the truth.
fn kinds_of(first: Statement) -> Vec<bool> {
    if matches!(first, Statement::BothLie(_)) { vec![false, true] } else { vec![true, false] }
}

/// The people of `clues` and who of them is truthful, if only one combination agrees with what they say.
fn only_solution(clues: &str) -> Option<(Vec<String>, Vec<bool>)> {
    let clues: Vec<&str> = clues.split('.').map(str::trim).filter(|clue| !clue.is_empty()).collect();
    let mut all: Vec<String> = clues.iter().filter_map(|clue| Some(clue.split_once(" says")?.0.to_owned())).collect();
    let mut read = Vec::new();
    for clue in &clues {
        let (_, text) = clue.split_once(" says")?;
        let (name, kind): (&str, fn(usize) -> Statement) = if let Some(rest) = text.strip_prefix(": at least one of ") {
            (rest.strip_suffix(" and me lies")?, Statement::OneLies)
        } else if let Some(rest) = text.strip_prefix(": ") {
            (rest.strip_suffix(" and I both lie")?, Statement::BothLie)
        } else if let Some(rest) = text.strip_suffix(" tells the truth") {
            (rest.strip_prefix(" that ")?, Statement::Truthful)
        } else {
            (text.strip_suffix(" lies")?.strip_prefix(" that ")?, Statement::Liar)
        };
        // who is talked of may not say anything
        let other = all.iter().position(|known| known == name).unwrap_or_else(|| {
            all.push(name.to_owned());
            all.len() - 1
        });
        read.push(kind(other));
    }
    let is_true = |kinds: &[bool], speaker: usize| match read[speaker] {
        Statement::Liar(other) => !kinds[other],
        Statement::Truthful(other) => kinds[other],
        Statement::BothLie(other) => !kinds[speaker] && !kinds[other],
        Statement::OneLies(other) => !kinds[speaker] || !kinds[other],
    };
    let worlds = (0..1_u32 << all.len()).map(|bits| (0..all.len()).map(|n| bits >> n & 1 == 1).collect::<Vec<bool>>());
    let mut fitting = worlds.filter(|kinds| (0..read.len()).all(|speaker| kinds[speaker] == is_true(kinds, speaker)));
    let only = fitting.next()?;
    fitting.next().is_none().then_some((all, only))
}
