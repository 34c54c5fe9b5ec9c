//! The 64 words of the synthetic voices: short English words, each a fixed row of two to four phones.

use crate::Split;

/// How one phone sounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phone {
    /// Centres of the three formants at its beginning, Hz.
    pub(crate) from: [f32; 3],
    /// At its end.
    pub(crate) to: [f32; 3],
    /// Strength of the pulse.
    pub(crate) voice: f32,
    /// Strength of the noise.
    pub(crate) noise: f32,
    /// Centre of the band of noise, Hz.
    pub(crate) noise_hz: f32,
    /// Its width.
    pub(crate) noise_width_hz: f32,
    /// Part of its time during which no air comes out.
    pub(crate) closure: f32,
    /// Factor on its duration.
    pub(crate) length: f32,
}

/// Spellings and phones; no two have the same phones.
#[rustfmt::skip]
pub(crate) const WORDS: [(&str, &str); 64] = [
    ("zero", "z i r O"), ("one", "w a n"), ("two", "t u"), ("three", "T r i"), ("four", "f o r"), ("five", "f Y v"),
    ("six", "s I k s"), ("seven", "s e v n"), ("eight", "A t"), ("nine", "n Y n"), ("ten", "t e n"),
    ("red", "r e d"), ("green", "g r i n"), ("blue", "b l u"), ("yellow", "y e l O"), ("purple", "p R p l"),
    ("brown", "b r W n"), ("black", "b l & k"), ("white", "w Y t"),
    ("circle", "s R k l"), ("star", "s t a r"), ("heart", "h a r t"), ("cross", "k r o s"), ("ring", "r I N"),
    ("up", "a p"), ("down", "d W n"), ("left", "l e f t"), ("right", "r Y t"), ("yes", "y e s"), ("no", "n O"),
    ("hello", "h e l O"), ("stop", "s t o p"), ("home", "h O m"), ("fire", "f Y r"), ("lake", "l A k"), ("rain", "r A n"),
    ("snow", "s n O"), ("sun", "s a n"), ("moon", "m u n"), ("sea", "s i"), ("hill", "h I l"), ("leaf", "l i f"),
    ("bird", "b R d"), ("fish", "f I S"), ("cat", "k & t"), ("dog", "d o g"), ("cow", "k W"), ("bee", "b i"),
    ("mouse", "m W s"), ("horse", "h o r s"), ("goat", "g O t"), ("milk", "m I l k"), ("cake", "k A k"), ("bean", "b i n"),
    ("ship", "S I p"), ("boat", "b O t"), ("shoe", "S u"), ("hat", "h & t"), ("key", "k i"), ("door", "d o r"),
    ("game", "g A m"), ("vase", "v a z"), ("zoo", "z u"), ("month", "m a n T"),
];

/// Where `spelling` stands in [`WORDS`].
pub(crate) fn index_of(spelling: &str) -> Option<usize> {
    WORDS.iter().position(|(word, _)| *word == spelling)
}

/// Whether `second` right after `first` comes in `split`: held out are eight words after every word.
pub(crate) fn is_pair_of(split: Split, first: usize, second: usize) -> bool {
    let is_held_out = (first * 5 + second * 3).is_multiple_of(8);
    is_held_out == (split == Split::HeldOut)
}

/// The phone that a letter of [`WORDS`] stands for.
///
/// Formants of vowels after Peterson and Barney (Journal of the Acoustical Society of America 24, 1952), men; the rest is
/// chosen by ear. What is unknown is a neutral vowel.
pub(crate) fn phone(letter: &str) -> Phone {
    match letter {
        "i" => vowel([270.0, 2290.0, 3010.0]),
        "I" => vowel([390.0, 1990.0, 2550.0]),
        "e" => vowel([530.0, 1840.0, 2480.0]),
        "&" => vowel([660.0, 1720.0, 2410.0]),
        "a" => vowel([730.0, 1090.0, 2440.0]),
        "o" => vowel([570.0, 840.0, 2410.0]),
        "u" => vowel([300.0, 870.0, 2240.0]),
        "R" => vowel([490.0, 1350.0, 1690.0]),
        "A" => Phone { to: [300.0, 2250.0, 2900.0], length: 1.5, ..vowel([480.0, 1900.0, 2550.0]) },
        "Y" => Phone { to: [350.0, 2150.0, 2700.0], length: 1.5, ..vowel([740.0, 1180.0, 2500.0]) },
        "O" => Phone { to: [330.0, 800.0, 2300.0], length: 1.5, ..vowel([520.0, 950.0, 2400.0]) },
        "W" => Phone { to: [350.0, 850.0, 2300.0], length: 1.5, ..vowel([740.0, 1300.0, 2450.0]) },
        "m" => murmur([250.0, 1000.0, 2200.0], 0.5),
        "n" => murmur([250.0, 1500.0, 2500.0], 0.5),
        "N" => murmur([250.0, 2050.0, 2700.0], 0.5),
        "l" => murmur([360.0, 1050.0, 2900.0], 0.7),
        "r" => murmur([330.0, 1150.0, 1550.0], 0.7),
        "w" => murmur([290.0, 620.0, 2150.0], 0.7),
        "y" => murmur([250.0, 2250.0, 3000.0], 0.7),
        "b" => Phone { length: 0.7, ..murmur([200.0, 800.0, 2200.0], 0.25) },
        "d" => Phone {
            noise: 0.15,
            noise_hz: 4000.0,
            noise_width_hz: 2000.0,
            closure: 0.7,
            length: 0.7,
            ..murmur([200.0, 1700.0, 2600.0], 0.25)
        },
        "g" => Phone {
            noise: 0.15,
            noise_hz: 2200.0,
            noise_width_hz: 1000.0,
            closure: 0.7,
            length: 0.7,
            ..murmur([200.0, 2300.0, 2500.0], 0.25)
        },
        "v" => Phone { noise: 0.06, noise_hz: 5500.0, noise_width_hz: 4000.0, ..murmur([240.0, 1100.0, 2300.0], 0.4) },
        "z" => Phone { noise: 0.25, noise_hz: 6000.0, noise_width_hz: 1600.0, ..murmur([240.0, 1700.0, 2600.0], 0.35) },
        "s" => hiss(6000.0, 1600.0, 0.45),
        "S" => hiss(2900.0, 1100.0, 0.5),
        "f" => hiss(5000.0, 5000.0, 0.14),
        "T" => hiss(7000.0, 3500.0, 0.09),
        "h" => hiss(1300.0, 1800.0, 0.16),
        "p" => Phone { closure: 0.6, ..hiss(800.0, 900.0, 0.5) },
        "t" => Phone { closure: 0.6, ..hiss(4500.0, 2000.0, 0.6) },
        "k" => Phone { closure: 0.6, ..hiss(1900.0, 700.0, 0.6) },
        _ => vowel([500.0, 1500.0, 2500.0]),
    }
}

fn vowel(formants_hz: [f32; 3]) -> Phone {
    Phone { length: 1.2, ..murmur(formants_hz, 1.0) }
}

/// Voiced and softer than a vowel.
fn murmur(formants_hz: [f32; 3], voice: f32) -> Phone {
    Phone {
        from: formants_hz,
        to: formants_hz,
        voice,
        noise: 0.0,
        noise_hz: 2000.0,
        noise_width_hz: 1000.0,
        closure: 0.0,
        length: 1.0,
    }
}

/// Noise alone.
fn hiss(noise_hz: f32, noise_width_hz: f32, noise: f32) -> Phone {
    Phone { noise, noise_hz, noise_width_hz, ..murmur([450.0, 1500.0, 2500.0], 0.0) }
}
