//! Words that questions are made of.

use rand::RngExt;

use crate::{Draw, choose::one_of};

/// First names.
#[rustfmt::skip]
pub(crate) const NAMES: &[&str] = &[
    "Ada", "Amir", "Anna", "Ben", "Bea", "Carl", "Clara", "Dan", "Dora", "Eli", "Emma", "Finn", "Fatima", "Gina", "Gus",
    "Hana", "Hugo", "Ida", "Ivan", "Jack", "Jana", "Kim", "Kofi", "Lena", "Leo", "Lucy", "Mara", "Max", "Mia", "Nina",
    "Noah", "Olga", "Omar", "Paul", "Pia", "Quinn", "Rita", "Rosa", "Sam", "Sara", "Tara", "Tim", "Uma", "Vera", "Viktor",
    "Wang", "Will", "Yara", "Yuki", "Zoe",
];

/// Things to count.
#[rustfmt::skip]
pub(crate) const THINGS: &[&str] = &[
    "apples", "books", "coins", "stamps", "marbles", "pencils", "cards", "shells", "stones", "eggs", "cookies", "candles",
    "buttons", "oranges", "tickets", "beads", "flowers", "nuts", "plates", "balls", "boxes", "bottles", "photos", "stickers",
    "leaves", "chairs", "lamps", "keys", "toys", "cups",
];

/// Common words for puzzles about letters.
#[rustfmt::skip]
pub(crate) const WORDS: &[&str] = &[
    "able", "above", "acorn", "after", "again", "album", "amber", "angle", "animal", "answer", "apple", "apron", "arrow",
    "autumn", "baker", "ball", "banana", "barrel", "basket", "beach", "bear", "berry", "better", "bird", "blanket", "blue",
    "boat", "book", "bottle", "bread", "bridge", "bright", "brother", "bubble", "bucket", "butter", "button", "cabin", "cake",
    "candle", "carpet", "carrot", "castle", "cattle", "cherry", "chess", "circle", "clock", "cloud", "coffee", "cookie",
    "copper", "corner", "cotton", "cradle", "crown", "daisy", "dancer", "deep", "desert", "dinner", "doctor", "dollar",
    "donkey", "door", "dragon", "dream", "drum", "eagle", "early", "earth", "echo", "eleven", "engine", "evening", "eye",
    "fabric", "falcon", "family", "farmer", "feather", "fence", "fiddle", "field", "finger", "flag", "flower", "forest",
    "fox", "friend", "frog", "garden", "garlic", "gentle", "giant", "ginger", "glass", "goose", "grape", "grass", "green",
    "hammer", "happy", "harbor", "harvest", "heart", "hello", "hill", "honey", "horse", "house", "hungry", "ice", "igloo",
    "insect", "island", "ivory", "jacket", "jelly", "jewel", "jungle", "kettle", "kitchen", "kitten", "ladder", "lake",
    "lantern", "lemon", "letter", "level", "light", "lily", "lion", "little", "lizard", "magnet", "mango", "map", "marble",
    "market", "meadow", "melon", "middle", "milk", "mirror", "moment", "money", "monkey", "moon", "morning", "mother",
    "mountain", "mouse", "muffin", "museum", "music", "narrow", "needle", "nest", "night", "noodle", "noon", "north", "number",
    "ocean", "olive", "onion", "orange", "orchid", "otter", "oven", "owl", "paddle", "painter", "palace", "paper", "parrot",
    "peach", "pebble", "pencil", "pepper", "piano", "picnic", "pillow", "planet", "plum", "pocket", "pond", "pony", "potato",
    "powder", "pumpkin", "puppet", "purple", "puzzle", "queen", "quick", "quiet", "rabbit", "radar", "radio", "rain",
    "ribbon", "river", "robin", "rocket", "root", "rose", "rotor", "saddle", "sailor", "salad", "salt", "sand", "school",
    "season", "seed", "shadow", "sheep", "shell", "silver", "sister", "sleep", "snow", "soap", "soccer", "spider", "spoon",
    "spring", "square", "squirrel", "star", "stone", "storm", "street", "sugar", "summer", "sun", "swallow", "sweet", "table",
    "teacher", "tent", "thunder", "tiger", "timber", "tomato", "tooth", "tower", "train", "tree", "trumpet", "tulip", "tunnel",
    "turtle", "umbrella", "uncle", "valley", "velvet", "village", "violin", "wagon", "walnut", "water", "wheel", "whisper",
    "window", "winter", "wood", "yellow", "zebra", "zipper",
];

const ONSETS: &[&str] = &[
    "b", "bl", "br", "d", "dr", "f", "fl", "g", "gl", "gr", "h", "k", "kr", "l", "m", "n", "p", "pl", "r", "s", "sn",
    "t", "tr", "v", "w", "z",
];
const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ee", "oo", "ai"];
const ENDS: &[&str] = &["b", "d", "f", "g", "k", "l", "m", "n", "nk", "p", "r", "rk", "t", "x"];

/// A word that there is not, in lower case: `blork`.
pub(crate) fn invented(draw: &mut Draw) -> String {
    let mut word = String::new();
    for _ in 0..draw.random_range(1..=2) {
        word.push_str(one_of::<&str>(draw, ONSETS));
        word.push_str(one_of::<&str>(draw, VOWELS));
    }
    word.push_str(one_of::<&str>(draw, ENDS));
    word
}

/// `n` different words that there are not, none of which begins with another.
pub(crate) fn several_invented(draw: &mut Draw, n: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    while words.len() < n {
        let word = invented(draw);
        if words.iter().all(|other| !other.starts_with(&word) && !word.starts_with(other.as_str())) {
            words.push(word);
        }
    }
    words
}

/// Numbers or words between commas.
pub(crate) fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The text with its first letter large.
pub(crate) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `1st`, `2nd`, `3rd`, `4th` …
pub(crate) fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}
