//! What the tasks with worked answers share.

use rand::RngExt;

use crate::{Draw, Generator, Role, Sample, Split, Turn, choose::once_in};

/// An answer and the way to it.
pub(crate) struct Solution {
    /// Steps, a line each, each certain given those above it; the last line says the answer.
    pub(crate) thinking: String,
    /// The answer, without more.
    pub(crate) answer: String,
}

/// A task whose questions have a way to their answers. Each one is a [`Generator`].
pub(crate) trait Task: Send + Sync {
    /// What a question is about.
    type Problem;
    /// The generator's name.
    const NAME: &'static str;
    /// The generator's chance.
    const CHANCE: f64 = 0.0;

    /// Draws a problem and its difficulty.
    fn problem(&self, draw: &mut Draw) -> Self::Problem;

    /// What the problem is about, however it is worded: equal for problems that have the same answer for the same reason.
    fn key(&self, problem: &Self::Problem) -> String;

    /// Whether the problem may be asked in `split`.
    fn belongs(&self, problem: &Self::Problem, split: Split) -> bool {
        Split::of(&self.key(problem)) == split
    }

    /// Puts the problem into words.
    fn question(&self, problem: &Self::Problem, draw: &mut Draw) -> String;

    /// Works it out as a model should.
    fn solve(&self, problem: &Self::Problem) -> Solution;

    /// Whether `answer` answers `question`, found out from its text and by other means than [`solve`](Self::solve).
    fn accepts(&self, question: &str, answer: &str) -> bool;

    /// The answers that `question` asks to choose among; none where they are open.
    fn options(&self, _question: &str) -> Vec<String> {
        Vec::new()
    }
}

impl<T: Task> Generator for T {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let mut turns = Vec::new();
        if once_in(draw, 10) {
            let earlier = allowed(self, split, draw);
            turns.push(Turn::text(Role::User, self.question(&earlier, draw)));
            turns.push(Turn::text(Role::Assistant, self.solve(&earlier).answer));
        }
        let problem = allowed(self, split, draw);
        turns.push(Turn::text(Role::User, self.question(&problem, draw)));
        let solution = self.solve(&problem);
        let answer = Turn::text(Role::Assistant, solution.answer);
        turns.push(if draw.random_bool(0.7) { answer.with_thinking(solution.thinking) } else { answer });
        Sample { task: T::NAME, turns }
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        self.accepts(&sample.question(), answer)
    }

    fn chance(&self) -> f64 {
        T::CHANCE
    }

    fn choices(&self, sample: &Sample) -> Vec<String> {
        self.options(&sample.question())
    }
}

/// Draws problems until one belongs to `split`: seven of eight do in training, one of eight is held out.
fn allowed<T: Task>(task: &T, split: Split, draw: &mut Draw) -> T::Problem {
    loop {
        let problem = task.problem(draw);
        if task.belongs(&problem, split) {
            return problem;
        }
    }
}
