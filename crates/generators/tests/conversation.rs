//! Conversation: right, reproducible, held out, and not the same answer to all.

use std::collections::HashSet;

use generators::conversation::{Sentences, with};
use generators::{Generator, Split};

/// Prose in paragraphs of three sentences, with what is no sentence between them.
fn prose() -> String {
    let (who, what) = (["The old miller", "A young sailor", "My sister", "The gardener"], ["found", "painted", "sold"]);
    let things = ["a wooden boat", "the broken clock", "some yellow flowers", "her only lantern", "a heavy anchor"];
    let when = ["before the rain began", "on the last day of summer", "while everybody was asleep"];
    let mut text = String::from("CHAPTER 1\n\n");
    for (i, thing) in things.iter().cycle().take(120).enumerate() {
        let (who, what, when) = (who[i % 4], what[i / 4 % 3], when[i / 12 % 3]);
        text += &format!("{who} {what} {thing} {when}. ");
        text += if i % 3 == 2 { "“No,” said Mr. Brown—and left.\n\n" } else { "" };
    }
    text
}

fn tasks() -> Vec<Box<dyn Generator>> {
    let sentences = Sentences::of(&prose());
    assert_eq!(sentences.len(), 120, "what is no sentence is left out");
    with(sentences.into())
}

#[test]
fn every_conversation_accepts_its_own_answer_and_refuses_others() {
    let mut n = 0;
    for task in tasks() {
        for split in [Split::Train, Split::HeldOut] {
            for index in 0..1000 {
                let sample = task.at(split, index);
                let (name, question, answer) = (task.name(), sample.question(), sample.answer());
                assert_eq!(sample, task.at(split, index));
                assert_eq!(sample.task, name);
                assert!(task.is_correct(&sample, &answer), "{name}: {question}\n{answer}");
                for wrong in ["", "blah", "The answer is a qwx."] {
                    assert!(!task.is_correct(&sample, wrong), "{name} takes {wrong}: {question}");
                }
                n += 1;
            }
        }
    }
    println!("{n} samples");
    assert_eq!(n, 5 * 2000);
}

#[test]
fn an_answer_to_another_instruction_or_fact_is_refused() {
    let mut n = 0;
    for task in tasks().into_iter().filter(|task| ["facts", "instructions"].contains(&task.name())) {
        for index in 0..1000 {
            let (one, other) = (task.at(Split::Train, index), task.at(Split::Train, index + 1));
            if task.is_correct(&one, &other.answer()) {
                n += 1;
            }
        }
    }
    println!("{n} of 2000 answers fit another question too");
    assert!(n < 100);
}

#[test]
fn no_question_of_training_is_held_out_and_answers_vary() {
    for task in tasks() {
        let seen =
            |split, n| (0..n).map(|index| task.at(split, index).question().to_lowercase()).collect::<HashSet<_>>();
        let (train, held_out) = (seen(Split::Train, 5000), seen(Split::HeldOut, 1000));
        println!("{}: {} and {} questions", task.name(), train.len(), held_out.len());
        assert_eq!(train.intersection(&held_out).next(), None, "{}", task.name());
        assert!(train.len() > 200 && held_out.len() > 25, "{}", task.name());
        let answers: HashSet<_> = (0..1000).map(|index| task.at(Split::Train, index).answer()).collect();
        assert!(answers.len() >= 15, "{}: {} answers", task.name(), answers.len());
    }
}
