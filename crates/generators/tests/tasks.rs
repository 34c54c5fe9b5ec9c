//! Tasks with worked answers: right, reproducible, told apart from wrong answers, and held out.

use std::collections::HashSet;

use anyhow::{Context, Result};
use generators::{Generator, Part, Sample, Split, all};

/// Generators whose samples think: the tasks made of text alone.
fn tasks() -> Vec<Box<dyn Generator>> {
    let is_text =
        |sample: &Sample| sample.turns.iter().flat_map(|turn| &turn.content).all(|part| matches!(part, Part::Text(_)));
    let thinks = |task: &dyn Generator| (0..20).any(|index| thinking(&task.at(Split::Train, index)).is_some());
    all().into_iter().filter(|task| is_text(&task.at(Split::Train, 0)) && thinks(task.as_ref())).collect()
}

fn thinking(sample: &Sample) -> Option<&str> {
    sample.turns.last()?.thinking.as_deref()
}

/// An answer that is wrong, and close: another choice, the last number and one, or the items in another order.
fn spoilt(task: &dyn Generator, sample: &Sample) -> Option<String> {
    let answer = sample.answer();
    let choices = task.choices(sample);
    if !choices.is_empty() {
        return choices.into_iter().find(|choice| *choice != answer);
    }
    if let Some(end) = answer.rfind(|letter: char| letter.is_ascii_digit()) {
        let begin = answer[..end].rfind(|letter: char| !letter.is_ascii_digit()).map_or(0, |at| at + 1);
        let number: u64 = answer[begin..=end].parse().ok()?;
        return Some(format!("{}{}{}", &answer[..begin], number + 1, &answer[end + 1..]));
    }
    Some(match answer.split_once(", ") {
        Some((first, rest)) => format!("{rest}, {first}"),
        None => format!("{answer}z"),
    })
}

#[test]
fn every_task_answers_its_own_questions_and_no_wrong_answer_passes() -> Result<()> {
    let mut n_checked = 0;
    for task in tasks() {
        let mut n_thinking = 0;
        for split in [Split::Train, Split::HeldOut] {
            for index in 0..1000 {
                let sample = task.at(split, index);
                let (name, question, answer) = (task.name(), sample.question(), sample.answer());
                assert_eq!(sample, task.at(split, index), "{name} {index} differs the second time");
                assert_eq!(sample.task, name);
                assert!(task.is_correct(&sample, &answer), "{name}: {question}\n{answer}");
                let wrong = spoilt(task.as_ref(), &sample).context("a wrong answer")?;
                assert!(!task.is_correct(&sample, &wrong), "{name} takes {wrong} for {answer}: {question}");
                assert!(!task.is_correct(&sample, ""), "{name} takes nothing for {answer}: {question}");
                if let Some(thinking) = thinking(&sample) {
                    let last = thinking.lines().last().unwrap_or_default();
                    let says_answer = last.contains(&answer) || task.is_correct(&sample, last);
                    assert!(says_answer, "{name}: {thinking}\ndoes not end in {answer}");
                    n_thinking += 1;
                }
                n_checked += 1;
            }
        }
        assert!((1200..1600).contains(&n_thinking), "{}: {n_thinking} of 2000 think, where 7 of 10 shall", task.name());
    }
    println!("{n_checked} samples checked");
    assert!(n_checked >= 20_000);
    Ok(())
}

#[test]
fn no_question_of_training_is_held_out() {
    let mut n_compared = 0;
    for task in tasks() {
        let questions = |split, n| -> HashSet<String> {
            (0..n).map(|index| task.at(split, index).question().to_lowercase()).collect()
        };
        let train = questions(Split::Train, 10_000);
        let held_out = questions(Split::HeldOut, 2_000);
        assert_eq!(train.intersection(&held_out).next(), None, "{} asks it in both splits", task.name());
        assert!(held_out.len() > 300, "{} has only {} questions held out", task.name(), held_out.len());
        n_compared += train.len() * held_out.len();
    }
    println!("{n_compared} pairs of questions compared");
    assert!(n_compared > 0);
}

#[test]
fn chance_is_what_a_blind_guess_reaches() {
    for task in tasks() {
        let n = 3000;
        let n_right = (0..n)
            .map(|index| task.at(Split::HeldOut, index))
            .zip(0_usize..)
            .filter(|(sample, turn)| {
                let choices = task.choices(sample);
                // 7919 is prime, so the guesses go through the choices in no step with anything
                !choices.is_empty() && task.is_correct(sample, &choices[turn * 7919 / 13 % choices.len()])
            })
            .count();
        let (chance, reached) = (task.chance(), n_right as f64 / n as f64);
        // four standard deviations of a share of n
        let tolerance = 4.0 * (chance * (1.0 - chance) / n as f64).sqrt();
        println!("{}: {reached:.3} reached, {chance:.3} said", task.name());
        assert!((reached - chance).abs() <= tolerance, "{}: {reached} is not {chance} ± {tolerance}", task.name());
    }
}

/// Sums, products and the like, worked out again by the processor from the text of the question.
#[test]
fn answers_to_plain_sums_are_those_of_the_processor() -> Result<()> {
    let task = all().into_iter().find(|task| task.name() == "arithmetic").context("arithmetic")?;
    let mut n_checked = 0;
    for index in 0..3000 {
        let sample = task.at(Split::Train, index);
        let question = sample.question();
        let words: Vec<&str> = question.trim_end_matches(['?', '.']).split(' ').collect();
        let Some(place) = words.iter().position(|word| ["+", "*", "plus", "times"].contains(word)) else { continue };
        let number = |at: Option<usize>| at.and_then(|at| words.get(at)).and_then(|word| word.parse::<i64>().ok());
        let numbers = words.iter().filter(|word| word.contains(|letter: char| letter.is_ascii_digit())).count();
        let (Some(a), Some(b), 2) = (number(place.checked_sub(1)), number(Some(place + 1)), numbers) else { continue };
        let truth = if ["+", "plus"].contains(&words[place]) { a + b } else { a * b };
        assert_eq!(sample.answer(), truth.to_string(), "{question}");
        n_checked += 1;
    }
    println!("{n_checked} sums checked");
    assert!(n_checked > 300);
    Ok(())
}
