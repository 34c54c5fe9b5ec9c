//! What a child knows.

use super::{allowed, talk};
use crate::answers::words;
use crate::choose::{once_in, one_of};
use crate::wording::{ask, fill, readings};
use crate::words::capitalised;
use crate::{Draw, Generator, Sample, Split};

/// Questions about `{a}`, answers with `{b}`, and the pairs.
type Relation = (&'static [&'static str], &'static [&'static str], &'static [(&'static str, &'static str)]);

#[rustfmt::skip]
const RELATIONS: &[Relation] = &[
    (&["What is the opposite of {a}?", "Say the opposite of {a}.", "Which word means the opposite of {a}?", "Give the opposite: {a}"],
     &["{b}", "{b}", "The opposite of {a} is {b}.", "That is {b}."],
     &[("hot", "cold"), ("cold", "hot"), ("big", "small"), ("small", "big"), ("up", "down"), ("down", "up"), ("fast", "slow"), ("slow", "fast"),
       ("old", "young"), ("wet", "dry"), ("dry", "wet"), ("open", "closed"), ("full", "empty"), ("empty", "full"), ("day", "night"), ("night", "day"),
       ("good", "bad"), ("bad", "good"), ("happy", "sad"), ("sad", "happy"), ("left", "right"), ("early", "late"), ("late", "early"), ("loud", "quiet"),
       ("quiet", "loud"), ("strong", "weak"), ("weak", "strong"), ("rich", "poor"), ("poor", "rich"), ("hard", "soft"), ("soft", "hard"), ("long", "short"),
       ("thick", "thin"), ("thin", "thick"), ("clean", "dirty"), ("dirty", "clean"), ("near", "far"), ("far", "near"), ("high", "low"), ("low", "high"),
       ("true", "false"), ("false", "true"), ("first", "last"), ("last", "first"), ("black", "white"), ("white", "black"), ("yes", "no"), ("heavy", "light"),
       ("inside", "outside"), ("before", "after"), ("always", "never"), ("begin", "end"), ("win", "lose"), ("buy", "sell"), ("push", "pull"), ("sweet", "sour")]),
    (&["What sound does a {a} make?", "What does a {a} say?", "Which sound does a {a} make?"],
     &["{b}", "A {a} says {b}.", "It says {b}."],
     &[("cat", "meow"), ("dog", "woof"), ("cow", "moo"), ("sheep", "baa"), ("duck", "quack"), ("pig", "oink"), ("horse", "neigh"), ("lion", "roar"),
       ("bee", "buzz"), ("snake", "hiss"), ("frog", "ribbit"), ("wolf", "howl"), ("mouse", "squeak"), ("chick", "cheep")]),
    (&["How many legs does a {a} have?", "How many legs has a {a}?", "Count the legs of a {a}."],
     &["{b}", "A {a} has {b} legs.", "It has {b} legs."],
     &[("dog", "4"), ("cat", "4"), ("spider", "8"), ("bee", "6"), ("bird", "2"), ("horse", "4"), ("cow", "4"), ("fish", "0"), ("snake", "0"), ("beetle", "6"),
       ("duck", "2"), ("frog", "4"), ("hen", "2"), ("butterfly", "6"), ("fly", "6"), ("lion", "4"), ("mouse", "4"), ("worm", "0"), ("table", "4")]),
    (&["What is the capital of {a}?", "Name the capital of {a}.", "Which city is the capital of {a}?"],
     &["{b}", "The capital of {a} is {b}.", "It is {b}."],
     &[("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"), ("China", "Beijing"), ("Japan", "Tokyo"), ("India", "New Delhi"),
       ("Russia", "Moscow"), ("Canada", "Ottawa"), ("Australia", "Canberra"), ("Egypt", "Cairo"), ("Kenya", "Nairobi"), ("Greece", "Athens"), ("Peru", "Lima"),
       ("Poland", "Warsaw"), ("Sweden", "Stockholm"), ("Norway", "Oslo"), ("Portugal", "Lisbon"), ("Cuba", "Havana"), ("Ireland", "Dublin"), ("Austria", "Vienna"),
       ("Turkey", "Ankara"), ("Brazil", "Brasilia"), ("Thailand", "Bangkok"), ("Finland", "Helsinki"), ("Hungary", "Budapest"), ("Argentina", "Buenos Aires")]),
    (&["What colour is {a}?", "Which colour does {a} have?", "Tell me the colour of {a}."],
     &["{b}", "It is {b}.", "{b}, most of the time."],
     &[("grass", "green"), ("snow", "white"), ("a lemon", "yellow"), ("a ripe tomato", "red"), ("the sky on a clear day", "blue"), ("coal", "black"),
       ("a carrot", "orange"), ("milk", "white"), ("blood", "red"), ("a banana", "yellow"), ("chocolate", "brown"), ("a frog", "green"), ("a crow", "black"),
       ("an elephant", "grey"), ("a strawberry", "red"), ("a pumpkin", "orange"), ("salt", "white"), ("a plum", "purple"), ("a polar bear", "white")]),
    (&["Which day comes after {a}?", "What day is the day after {a}?", "{a} is today. What day is tomorrow?"],
     &["{b}", "{b} comes after {a}.", "It is {b}."],
     &[("Monday", "Tuesday"), ("Tuesday", "Wednesday"), ("Wednesday", "Thursday"), ("Thursday", "Friday"), ("Friday", "Saturday"), ("Saturday", "Sunday"), ("Sunday", "Monday")]),
    (&["Which month comes after {a}?", "What month follows {a}?", "Name the month after {a}."],
     &["{b}", "{b} comes after {a}.", "It is {b}."],
     &[("January", "February"), ("February", "March"), ("March", "April"), ("April", "May"), ("May", "June"), ("June", "July"), ("July", "August"),
       ("August", "September"), ("September", "October"), ("October", "November"), ("November", "December"), ("December", "January")]),
    (&["How many {a}?", "Do you know how many {a}?", "Tell me how many {a}."],
     &["{b}", "There are {b}.", "{b} of them."],
     &[("days are in a week", "7"), ("months are in a year", "12"), ("hours are in a day", "24"), ("minutes are in an hour", "60"), ("seconds are in a minute", "60"),
       ("seasons are in a year", "4"), ("sides are on a triangle", "3"), ("sides are on a square", "4"), ("fingers are on a hand", "5"), ("centimetres are in a metre", "100"),
       ("metres are in a kilometre", "1000"), ("letters are in the English alphabet", "26"), ("grams are in a kilogram", "1000"), ("wheels are on a bicycle", "2"),
       ("wheels are on a car", "4"), ("items are in a dozen", "12"), ("years are in a century", "100"), ("strings are on a violin", "4")]),
    (&["What kind of thing is {a}?", "What is {a}?", "Say in one word what {a} is."],
     &["{b}", "It is a kind of {b}.", "{b}, I would say."],
     &[("a dog", "animal"), ("a cat", "animal"), ("a horse", "animal"), ("an apple", "fruit"), ("a pear", "fruit"), ("a banana", "fruit"), ("a rose", "flower"),
       ("a tulip", "flower"), ("an oak", "tree"), ("a pine", "tree"), ("a hammer", "tool"), ("a saw", "tool"), ("a piano", "instrument"), ("a violin", "instrument"),
       ("a chair", "furniture"), ("a table", "furniture"), ("a shirt", "clothing"), ("a coat", "clothing"), ("a carrot", "vegetable"), ("an onion", "vegetable"),
       ("a bus", "vehicle"), ("a car", "vehicle"), ("a salmon", "fish"), ("an eagle", "bird"), ("an owl", "bird"), ("an ant", "insect"), ("a bee", "insect")]),
    (&["Where does a {a} live?", "What is the home of a {a}?", "In what does a {a} live?"],
     &["In a {b}.", "A {a} lives in a {b}.", "{b}"],
     &[("bird", "nest"), ("bee", "hive"), ("dog", "kennel"), ("fox", "den"), ("spider", "web"), ("pig", "sty"), ("horse", "stable"), ("king", "castle"), ("rabbit", "burrow")]),
    (&["What is the plural of {a}?", "Make {a} plural.", "Write the plural: {a}", "One {a}, two …?"],
     &["{b}", "The plural of {a} is {b}.", "It is {b}."],
     &[("cat", "cats"), ("box", "boxes"), ("child", "children"), ("mouse", "mice"), ("foot", "feet"), ("tooth", "teeth"), ("baby", "babies"), ("leaf", "leaves"),
       ("man", "men"), ("woman", "women"), ("dish", "dishes"), ("knife", "knives"), ("book", "books"), ("city", "cities"), ("goose", "geese"), ("bus", "buses"),
       ("tree", "trees"), ("glass", "glasses"), ("wolf", "wolves"), ("party", "parties")]),
];

/// See [the module](self).
pub(super) struct Facts;

fn any(draw: &mut Draw) -> (String, String) {
    let (asked, said, pairs) = one_of(draw, RELATIONS);
    let (a, b) = *one_of(draw, pairs);
    let question = ask(draw, asked, &[('a', a)]);
    let answer = fill(one_of::<&str>(draw, said), &[('a', a), ('b', b)]);
    (question, capitalised(&answer))
}

impl Generator for Facts {
    fn name(&self) -> &'static str {
        "facts"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let n = if once_in(draw, 4) { 2 } else { 1 };
        talk("facts", (0..n).map(|_| allowed(split, draw, any)).collect())
    }

    /// The fact is said, and no other of its kind but for what the question names.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        let question = sample.question();
        let said = format!(" {} ", words(answer).join(" "));
        let says = |word: &str| said.contains(&format!(" {} ", word.to_lowercase()));
        RELATIONS.iter().any(|(asked, _, pairs)| {
            readings(asked, &question).any(|slots| {
                let about = slots.text('a').unwrap_or_default().to_lowercase();
                let Some((_, truth)) = pairs.iter().find(|(a, _)| a.to_lowercase() == about) else { return false };
                let denies = ["not", "never", "no"].iter().any(|word| word != truth && says(word));
                let others = pairs.iter().map(|(_, b)| *b).filter(|b| b != truth && b.to_lowercase() != about);
                says(truth) && !denies && others.into_iter().all(|other| !says(other))
            })
        })
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
