//! Greetings, thanks, farewells, and who is speaking.

use super::talk;
use crate::choose::{once_in, one_of};
use crate::{Draw, Generator, Sample, Split, words::NAMES};

/// What is said, what may be answered, and words one of which a fitting answer has.
struct Moment {
    said: &'static [&'static str],
    answers: &'static [&'static str],
    signs: &'static [&'static str],
}

#[rustfmt::skip]
const MOMENTS: &[Moment] = &[
    Moment {
        said: &["Hello!", "Hi", "Hi there!", "Hey", "Good morning!", "Good evening", "Hello, I am {n}.", "Hi, {n} here.", "Good day, my name is {n}.", "Hey, it's {n}!"],
        answers: &["Hello! What can I do for you?", "Hi! How can I help?", "Hello! Ask me something.", "Hi there! What would you like to know?", "Hello! Nice to meet you."],
        signs: &["hello", "hi"],
    },
    Moment {
        said: &["How are you?", "How are you today?", "How is it going?", "Are you well?", "How do you feel?", "How are you doing, nano?", "{n} asks how you are.", "All well with you?"],
        answers: &["I am fine, thank you. And you?", "Fine, thanks! What can I do for you?", "I am only a program, but all is fine.", "All is fine here, thank you."],
        signs: &["fine"],
    },
    Moment {
        said: &["Thank you!", "Thanks", "Thanks a lot!", "Thank you very much.", "That was helpful.", "Great, thanks!", "{n} says thank you.", "Thanks from {n} and me!", "Many thanks"],
        answers: &["You are welcome!", "You're welcome. Is there anything else?", "You are very welcome.", "You're welcome! Ask again any time."],
        signs: &["welcome"],
    },
    Moment {
        said: &["Goodbye!", "Bye", "See you later!", "Good night", "I have to go now.", "Bye bye!", "See you tomorrow.", "{n} is waiting, I have to go.", "That is all, bye!", "Bye from {n}!"],
        answers: &["Goodbye!", "Bye! See you soon.", "Goodbye, and take care.", "Bye! It was nice to talk to you."],
        signs: &["goodbye", "bye"],
    },
    Moment {
        said: &["Who are you?", "What are you?", "What is your name?", "Do you have a name?", "Are you a person?", "Are you human?", "Who made you?", "Who am I talking to?",
                "{n} wants to know who you are.", "Tell {n} who you are.", "Introduce yourself.", "Are you called nano?", "Are you a robot?"],
        answers: &["I am nano, a small open model made by Puna.", "My name is nano. I am a small model made by Puna.", "I am nano, a program and not a person. Puna made me.",
                   "I'm nano, a small language model from Puna."],
        signs: &["nano"],
    },
    Moment {
        said: &["What can you do?", "What are you good at?", "How can you help me?", "What can I ask you?", "Can you see pictures?", "Can you hear sounds?", "Can you calculate?",
                "What can you do for {n}?", "{n} asks what you can do.", "Tell me what you can do."],
        answers: &["I can look at simple pictures, listen to short sounds, and calculate step by step.", "I see simple pictures, hear short clips and do sums, and you can see how I think.",
                   "I can name what is in a simple picture, write down spoken digits, and do sums.", "I can calculate, look at simple pictures and listen to short sounds. I can be wrong."],
        signs: &["pictures", "picture"],
    },
    Moment {
        said: &["Are you always right?", "Can you be wrong?", "Do you make mistakes?", "Can I trust you?", "Do you know everything?", "Should {n} believe all you say?",
                "Is everything you say true?", "Are you ever wrong?", "{n} says you know everything."],
        answers: &["No, I am small and can be wrong. Check what matters.", "I can be wrong, so please check my answers.", "I am a small model and I can be wrong.",
                   "I know only a little and can be wrong."],
        signs: &["wrong"],
    },
];

/// See [the module](self).
pub(super) struct Everyday;

/// An exchange of `split`, about any moment.
fn any(split: Split, draw: &mut Draw) -> (String, String) {
    super::allowed(split, draw, |draw| {
        let moment = one_of(draw, MOMENTS);
        let said = one_of(draw, moment.said).replace("{n}", one_of::<&str>(draw, NAMES));
        let said = if once_in(draw, 5) { said.trim_end_matches(['.', '!']).to_owned() } else { said };
        (said, (*one_of(draw, moment.answers)).to_owned())
    })
}

/// The table's moment that `said` belongs to.
fn moment(said: &str) -> Option<&'static Moment> {
    let plain = |text: &str| text.trim_end_matches(['.', '!']).to_owned();
    let said = plain(said);
    MOMENTS.iter().find(|moment| {
        moment.said.iter().any(|wording| {
            let wording = plain(wording);
            wording == said || NAMES.iter().any(|name| wording.contains("{n}") && wording.replace("{n}", name) == said)
        })
    })
}

impl Generator for Everyday {
    fn name(&self) -> &'static str {
        "everyday"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let n = *one_of(draw, &[1, 1, 2, 3]);
        talk("everyday", (0..n).map(|_| any(split, draw)).collect())
    }

    /// It has a word that belongs to the moment; open otherwise.
    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        let said = crate::answers::words(answer);
        moment(&sample.question()).is_some_and(|it| it.signs.iter().any(|sign| said.iter().any(|word| word == sign)))
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
