//! People in a row, known from comparisons.
//!
//! Held out are the people with their order.

use rand::RngExt;

use crate::{
    Draw,
    answers::choice,
    choose::{once_in, one_of, some_of},
    task::{Solution, Task},
    wording::{ask, readings},
    words::NAMES,
};

/// How people are compared: more, less, most, least.
const SCALES: &[[&str; 4]] = &[
    ["taller", "shorter", "tallest", "shortest"],
    ["older", "younger", "oldest", "youngest"],
    ["faster", "slower", "fastest", "slowest"],
    ["richer", "poorer", "richest", "poorest"],
    ["stronger", "weaker", "strongest", "weakest"],
    ["heavier", "lighter", "heaviest", "lightest"],
    ["happier", "sadder", "happiest", "saddest"],
];

const WORDINGS: &[&str] = &[
    "{c}. Who is the {m}?",
    "{c}. Who is {m}?",
    "We know this: {c}. Which of them is the {m}?",
    "{c}. Name the {m} person.",
    "Read carefully: {c}. Who of them is the {m}?",
    "{c}. Find the {m} of them.",
];

/// People from the one who is most to the one who is least, and who is asked for.
pub(crate) struct Problem {
    people: Vec<&'static str>,
    scale: usize,
    /// Place of a pair of neighbours in the row, and whether it is told from its lesser one.
    told: Vec<(usize, bool)>,
    asked: usize,
}

/// See [the module](self).
pub(crate) struct Ordering;

impl Task for Ordering {
    type Problem = Problem;
    const NAME: &'static str = "ordering";
    /// Three, four or five people, all equally often.
    const CHANCE: f64 = (1.0 / 3.0 + 1.0 / 4.0 + 1.0 / 5.0) / 3.0;

    fn problem(&self, draw: &mut Draw) -> Problem {
        let n = draw.random_range(3..=5);
        let people = some_of(draw, NAMES, n);
        let pairs: Vec<usize> = (0..n - 1).collect();
        let told = some_of(draw, &pairs, n - 1).into_iter().map(|pair| (pair, once_in(draw, 2))).collect();
        let asked = *one_of(draw, &[0, 0, 1, n - 2, n - 1, n - 1]);
        Problem { people, scale: draw.random_range(0..SCALES.len()), told, asked }
    }

    fn key(&self, problem: &Problem) -> String {
        problem.people.join(" ")
    }

    fn question(&self, problem: &Problem, draw: &mut Draw) -> String {
        let clues = problem.clues().join(". ");
        ask(draw, WORDINGS, &[('c', &clues), ('m', &problem.place())])
    }

    fn solve(&self, problem: &Problem) -> Solution {
        let mut lines = Vec::new();
        let pairs: Vec<String> = problem
            .told
            .iter()
            .map(|(pair, _)| format!("{} > {}", problem.people[*pair], problem.people[*pair + 1]))
            .collect();
        lines.push(pairs.join(", "));
        lines.push(problem.people.join(" > "));
        let answer = problem.people[problem.asked].to_owned();
        lines.push(format!("{}: {answer}", problem.place()));
        Solution { thinking: lines.join("\n"), answer }
    }

    fn accepts(&self, question: &str, answer: &str) -> bool {
        readings(WORDINGS, question).any(|slots| {
            let asked = slots.text('c').zip(slots.text('m')).and_then(|(clues, place)| found(clues, place));
            asked.is_some_and(|(truth, people)| choice(answer, &people) == Some(&truth))
        })
    }

    fn options(&self, question: &str) -> Vec<String> {
        let mut all = readings(WORDINGS, question);
        all.find_map(|slots| Some(found(slots.text('c')?, slots.text('m')?)?.1)).unwrap_or_default()
    }
}

impl Problem {
    fn clues(&self) -> Vec<String> {
        let [more, less, ..] = SCALES[self.scale];
        let clue = |(pair, is_from_less): &(usize, bool)| {
            let (high, low) = (self.people[*pair], self.people[*pair + 1]);
            if *is_from_less { format!("{low} is {less} than {high}") } else { format!("{high} is {more} than {low}") }
        };
        self.told.iter().map(clue).collect()
    }

    /// The place that is asked for: `tallest`, `second tallest`.
    fn place(&self) -> String {
        let [_, _, most, least] = SCALES[self.scale];
        let last = self.people.len() - 1;
        match self.asked {
            0 => most.to_owned(),
            1 => format!("second {most}"),
            asked if asked == last => least.to_owned(),
            _ => format!("second {least}"),
        }
    }
}

/// Who is at `place`, and all people: each person's place is the number of those that clues put above them, directly or
/// through others.
fn found(clues: &str, place: &str) -> Option<(String, Vec<String>)> {
    let (rank, superlative) = place.strip_prefix("second ").map_or((0, place), |rest| (1, rest));
    let scale = SCALES.iter().find(|scale| scale[2..].contains(&superlative))?;
    let mut above: Vec<(&str, &str)> = Vec::new();
    for clue in clues.split(". ") {
        let (left, right) = clue.split_once(" is ")?;
        let (word, right) = right.split_once(" than ")?;
        above.push(if word == scale[0] { (left, right) } else { (right, left) });
    }
    let mut people: Vec<&str> = above.iter().flat_map(|(high, low)| [*high, *low]).collect();
    people.sort_unstable();
    people.dedup();
    // the closure of "above": one round for each person is enough
    for _ in 0..people.len() {
        let more: Vec<(&str, &str)> = above
            .iter()
            .flat_map(|(high, middle)| {
                above.iter().filter(move |(other, _)| other == middle).map(move |(_, low)| (*high, *low))
            })
            .collect();
        above.extend(more);
        above.sort_unstable();
        above.dedup();
    }
    let is_least = superlative == scale[3];
    let n_before =
        |person: &str| above.iter().filter(|(high, low)| person == if is_least { *high } else { *low }).count();
    let asked = people.iter().find(|person| n_before(person) == rank)?;
    Some(((*asked).to_owned(), people.iter().map(|person| (*person).to_owned()).collect()))
}
