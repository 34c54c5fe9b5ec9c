//! What must hold for every task with pictures, sounds or speech.

use std::collections::{HashMap, HashSet};

use generators::pictures::Options;
use generators::sounds::Speaker;
use generators::{Draw, Generator, Part, Sample, Split, lessons, pictures, sounds, speech};
use rand::SeedableRng;

/// Samples of each split and task that are looked at.
const SAMPLES: u64 = 200;

/// All tasks that can be had on this machine; those of a synthesiser that runs as a program with fewer samples.
fn tasks() -> Vec<(Box<dyn Generator>, u64)> {
    let ours = pictures::all().into_iter().chain(sounds::all()).map(|task| (task, SAMPLES));
    if let Err(why) = speech::Flite::find() {
        println!("speech was not tested: {why}");
    }
    ours.chain(speech::all().into_iter().map(|task| (task, 8))).collect()
}

fn texts(sample: &Sample, turn: usize) -> String {
    let parts = sample.turns[turn].content.iter();
    parts
        .filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
        .collect::<Vec<_>>()
        .join(" ")
}

fn each(check: impl Fn(&dyn Generator, Split, u64, &Sample)) -> usize {
    let mut n = 0;
    for (task, samples) in tasks() {
        for split in [Split::Train, Split::HeldOut] {
            for index in 0..samples {
                check(task.as_ref(), split, index, &task.at(split, index));
                n += 1;
            }
        }
    }
    n
}

#[test]
fn a_sample_is_a_function_of_its_number_and_its_own_answer_is_the_right_one() {
    let n = each(|task, split, index, sample| {
        assert!(*sample == task.at(split, index), "{} {split:?} {index} differs the second time", task.name());
        assert_eq!(sample.task, task.name());
        assert_eq!(sample.turns.len(), 2);
        let answer = texts(sample, 1);
        assert!(!answer.is_empty() && task.is_correct(sample, &answer), "{} {index}: {answer}", task.name());
        for wrong in ["", "nothing of that kind", &format!("{answer} {answer} {answer}"), &format!("not {answer}")] {
            assert!(!task.is_correct(sample, wrong), "{} {index}: {wrong:?} passes for {answer:?}", task.name());
        }
    });
    println!("{n} samples");
    assert!(n >= 12 * 400);
}

#[test]
fn an_answer_that_belongs_to_another_sample_is_wrong_unless_it_is_the_same() {
    let mut n = 0;
    for (task, samples) in tasks() {
        let all: Vec<_> = (0..samples).map(|index| task.at(Split::Train, index)).collect();
        for pair in all.windows(2) {
            let (own, other) = (texts(&pair[0], 1), texts(&pair[1], 1));
            let reads_cases = ["printed", "letter", "line_of_letters", "grid_of_letters"].contains(&task.name());
            let is_same = own == other || !reads_cases && own.to_lowercase() == other.to_lowercase();
            assert_eq!(task.is_correct(&pair[0], &other), is_same, "{}: {own:?} and {other:?}", task.name());
            n += usize::from(!is_same);
        }
    }
    println!("{n} wrong answers were refused");
    assert!(n > 1000);
}

#[test]
fn a_long_line_is_printed_on_a_strip() {
    let tasks = tasks();
    let (task, _) = tasks.iter().find(|(task, _)| task.name() == "line_of_letters").expect("a task");
    let mut widths = std::collections::BTreeSet::new();
    for index in 0..200 {
        let sample = task.at(Split::Train, index);
        let n_letters = texts(&sample, 1).split(' ').count();
        let image = sample.turns[0].content.iter().find_map(|part| match part {
            Part::Image(image) => Some(image),
            _ => None,
        });
        let width = image.expect("a picture").width;
        assert_eq!(width, 112 * n_letters.div_ceil(4).min(3), "{n_letters} letters");
        widths.insert(width);
    }
    assert_eq!(widths.len(), 3);
}

#[test]
fn pictures_and_clips_have_the_size_that_they_say_and_something_in_them() {
    let n = each(|task, _, index, sample| {
        let media = sample.turns[0].content.iter().filter(|part| !matches!(part, Part::Text(_)));
        let mut kinds = 0;
        for part in media {
            kinds += 1;
            match part {
                Part::Image(image) => {
                    let size = (image.width, image.height);
                    // A longer line is a strip.
                    let reads_lines = ["printed", "line_of_letters"].contains(&task.name());
                    let widths = 1..=if reads_lines { 3 } else { 1 };
                    assert!(widths.into_iter().any(|n| n * 112 == image.width), "{}: {size:?}", task.name());
                    let heights = if image.width == 112 { 112..=112 } else { 67..=112 };
                    assert!(heights.contains(&image.height), "{}: {size:?}", task.name());
                    assert_eq!(image.rgb.len(), 3 * image.width * image.height);
                    let (darkest, lightest) = (image.rgb.iter().min(), image.rgb.iter().max());
                    let is_full = texts(sample, 1) == "0" || darkest < lightest;
                    assert!(is_full, "{} {index} is empty", task.name());
                }
                Part::Sound(sound) => {
                    let seconds = sound.samples.len() as f32 / sound.rate_hz as f32;
                    assert_eq!(sound.rate_hz, 16_000);
                    assert!((0.2..12.0).contains(&seconds), "{} {index}: {seconds} s", task.name());
                    assert!(sound.samples.iter().all(|sample| sample.abs() <= 1.0));
                    let loudest = sound.samples.iter().fold(0.0f32, |loudest, sample| loudest.max(sample.abs()));
                    assert!(loudest > 0.02, "{} {index} is silent: {loudest}", task.name());
                }
                Part::Text(_) => {}
            }
        }
        assert!((1..=2).contains(&kinds), "{} {index} has {kinds} media", task.name());
    });
    println!("{n} samples");
}

/// What is counted is what is described; what stands somewhere is part of the description.
#[test]
fn lessons_ask_several_different_questions_and_their_answers_agree() {
    let (mut n_questions, mut n_samples, mut n_agreements) = (0, 0, 0);
    for task in lessons::with(Options::default()) {
        for (split, index) in [Split::Train, Split::HeldOut].into_iter().flat_map(|s| (0..SAMPLES).map(move |i| (s, i)))
        {
            let sample = task.at(split, index);
            assert!(sample == task.at(split, index), "{} {index} differs the second time", task.name());
            let asked: Vec<(String, String)> =
                (0..sample.turns.len() / 2).map(|i| (texts(&sample, 2 * i), texts(&sample, 2 * i + 1))).collect();
            assert!((2..=6).contains(&asked.len()) && sample.turns.len() == 2 * asked.len(), "{index}: {asked:?}");
            let media = |turn: usize| sample.turns[turn].content.iter().any(|part| !matches!(part, Part::Text(_)));
            assert!(media(0) && (1..sample.turns.len()).all(|turn| !media(turn)), "{} {index}", task.name());
            let questions: HashSet<&String> = asked.iter().map(|(question, _)| question).collect();
            assert_eq!(questions.len(), asked.len(), "{asked:?}");
            assert!(task.is_correct(&sample, &sample.answer()) && !task.is_correct(&sample, "nothing of that kind"));
            if let Some(described) = sample.answer().strip_suffix('.') {
                for (question, answer) in &asked {
                    if question.contains("shapes") && !question.contains('*') && answer.len() == 1 {
                        let n = answer.parse::<usize>().unwrap_or(99);
                        assert!(n <= described.split(", ").count(), "{asked:?}");
                        n_agreements += 1;
                    }
                    if answer.starts_with("a ") && !answer.ends_with('.') {
                        assert!(described.contains(answer.as_str()), "{asked:?}");
                        n_agreements += 1;
                    }
                }
            }
            let whole = sample.answer().replace(' ', "");
            if task.name() == "about_a_page" && !asked[asked.len() - 1].0.contains("character") {
                for (question, answer) in asked.iter().filter(|(question, _)| question.contains("of the text")) {
                    let holds = match question {
                        question if question.contains("first") => whole.starts_with(answer),
                        question if question.contains("last") => whole.ends_with(answer),
                        question if question.contains("Count") => whole.chars().count().to_string() == *answer,
                        _ => whole.contains(answer),
                    };
                    assert!(holds, "{asked:?}");
                    n_agreements += 1;
                }
            }
            n_questions += asked.len();
            n_samples += 1;
        }
    }
    println!("{n_questions} questions about {n_samples} pictures and clips, {n_agreements} agreements");
    assert!(n_questions > 3 * n_samples && n_agreements > 40);
}

/// The best that can be done without looking: what was the answer most often in other samples with the same question, or
/// with the same question but for names; and, for "a or b", the first that is named.
#[test]
fn a_blind_guess_is_as_good_as_chance_says_and_no_better() {
    const N: u64 = 2000;
    for task in sounds::all().iter().chain(&pictures::with(pictures::Options { side: 8, ..Default::default() }, None)) {
        if task.chance() == 0.0 {
            continue;
        }
        // clips need no making: the question is asked of fewer where they are long
        let n = if task.name().contains("word") || task.name() == "transcribe" { 600 } else { N };
        let samples: Vec<_> =
            (0..2 * n).map(|index| task.at(Split::Train, index)).map(|s| (texts(&s, 0), texts(&s, 1))).collect();
        let (seen, asked) = samples.split_at(n as usize);
        let mut counts: HashMap<String, HashMap<&str, usize>> = HashMap::new();
        for (question, answer) in seen {
            for key in [question.clone(), masked(question)] {
                *counts.entry(key).or_default().entry(answer).or_default() += 1;
            }
        }
        let most = |key: &str| {
            let answers = counts.get(key)?;
            (answers.values().sum::<usize>() >= 20)
                .then(|| answers.iter().max_by_key(|(answer, n)| (**n, **answer)))
                .flatten()
                .map(|(answer, _)| *answer)
        };
        let right = asked.iter().filter(|(question, answer)| {
            let (first, _) = options(question).unwrap_or_default();
            let guess =
                if first.is_empty() { most(question).or_else(|| most(&masked(question))).unwrap_or("") } else { first };
            guess == answer
        });
        let (share, chance) = (right.count() as f64 / n as f64, task.chance());
        // five standard deviations: ten tasks, so a good seed is not needed
        let bound = 5.0 * (chance * (1.0 - chance) / n as f64).sqrt();
        println!("{}: a blind guess is right in {share:.3}, chance {chance:.3} ± {bound:.3}", task.name());
        assert!((share - chance).abs() <= bound, "{}", task.name());
    }
}

/// Words that stand next to each other in transcriptions of `split`.
fn pairs(split: Split, transcribe: &dyn Generator) -> HashSet<(String, String)> {
    let rows = (0..400).map(|index| texts(&transcribe.at(split, index), 1));
    let words = |row: String| row.split(' ').map(str::to_owned).collect::<Vec<_>>();
    rows.map(words)
        .flat_map(|row| row.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect::<Vec<_>>())
        .collect()
}

#[test]
fn what_is_held_out_is_not_in_training() {
    let all = sounds::all();
    let transcribe = all.iter().find(|task| task.name() == "transcribe").expect("a task to transcribe");
    let (train, held_out) = (pairs(Split::Train, transcribe.as_ref()), pairs(Split::HeldOut, transcribe.as_ref()));
    println!("{} pairs of words in training, {} held out", train.len(), held_out.len());
    assert!(train.len() > 300 && held_out.len() > 100 && train.is_disjoint(&held_out));

    let fonts = pictures::Fonts::default();
    let names = |split| fonts.names(split).into_iter().collect::<HashSet<_>>();
    println!("{:?} and {:?}", names(Split::Train), names(Split::HeldOut));
    assert!(names(Split::Train).len() > 5 && names(Split::HeldOut).len() > 1);
    assert!(names(Split::Train).is_disjoint(&names(Split::HeldOut)));

    let mut draw = Draw::seed_from_u64(5);
    for _ in 0..500 {
        let (train, held_out) = (Speaker::of(Split::Train, &mut draw), Speaker::of(Split::HeldOut, &mut draw));
        assert!((90.0..260.0).contains(&train.pitch_hz));
        assert!(!(142.5..172.5).contains(&train.pitch_hz) && (145.0..170.0).contains(&held_out.pitch_hz));
        assert!(!(0.991..1.069).contains(&train.shift) && (1.0..1.06).contains(&held_out.shift));
    }
    match speech::Flite::find() {
        Ok(flite) => {
            let mut voices = |split| (0..50).map(|_| flite.manner(split, &mut draw).voice).collect::<HashSet<_>>();
            let (train, held_out) = (voices(Split::Train), voices(Split::HeldOut));
            println!("{train:?} and {held_out:?}");
            assert!(train.is_disjoint(&held_out));
        }
        Err(why) => println!("voices were not tested: {why}"),
    }
}

/// "…, a or b?"
fn options(question: &str) -> Option<(&str, &str)> {
    let (first, second) = question.trim_end_matches('?').split_once(" or ")?;
    let second = second.trim_end_matches(" heard first");
    let first = first.rsplit_once(", ").map(|(_, first)| first).or_else(|| first.strip_prefix("Is "))?;
    let is_choice =
        question.contains("comes first") || question.contains("heard first") || question.contains("is the first");
    is_choice.then_some((first, second))
}

/// The question without names of colours, shapes, bars and numbers.
fn masked(question: &str) -> String {
    const NAMES: [&str; 31] = [
        "red",
        "green",
        "blue",
        "yellow",
        "orange",
        "purple",
        "brown",
        "black",
        "white",
        "circle",
        "square",
        "triangle",
        "star",
        "diamond",
        "hexagon",
        "cross",
        "heart",
        "ring",
        "crescent",
        "circles",
        "squares",
        "triangles",
        "stars",
        "diamonds",
        "hexagons",
        "crosses",
        "hearts",
        "rings",
        "crescents",
        "a",
        "an",
    ];
    let word = |word: &str| {
        let plain = word.trim_matches([',', '?', '.', ':']);
        let is_name = NAMES.contains(&plain.to_lowercase().as_str()) || plain.len() == 1;
        if is_name { "*".to_owned() } else { word.to_owned() }
    };
    question.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
