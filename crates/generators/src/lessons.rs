//! Conversations of several questions about one picture or one clip: what the tasks ask one by one, taught together, since
//! looking and listening cost more than asking. They are to learn from; what was learnt is measured by the tasks.

use std::collections::HashSet;

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::asked::{self, worded};
use crate::choose::one_of;
use crate::pictures::Options;
use crate::pictures::describe::{self, description, named, place};
use crate::pictures::printed;
use crate::pictures::scene::{COLOURS, PLACES, SHAPES, SIZES, Scene, Shape, Thing, index_of};
use crate::pictures::shapes::{self, COLOUR_WORDINGS, SHAPE_WORDINGS};
use crate::sounds::said::{self, COUNT, NTH, TRANSCRIBE, row, spelled, spoken};
use crate::sounds::words::WORDS;
use crate::{Draw, Generator, Part, Sample, Split};

/// All of them, with pictures as `options` says.
pub fn with(options: Options) -> Vec<Box<dyn Generator>> {
    vec![Box::new(AboutAPicture { side: options.side }), Box::new(AboutAPage(options)), Box::new(AboutAClip)]
}

/// A question and its answer.
type Asked = (String, String);

/// Questions in a conversation: so many at least, so many at most.
const QUESTIONS: [usize; 2] = [3, 6];

/// How often a question is looked for that has not been asked.
const TRIES: usize = 40;

/// Different questions of `kinds` kinds, of those that `ask` finds. No two of a kind have the same answer: that would be
/// copied from above, not looked for. For the same reason the last kind, which asks for everything, comes last.
fn several(draw: &mut Draw, kinds: usize, ask: impl Fn(usize, &mut Draw) -> Option<Asked>) -> Vec<Asked> {
    let n = draw.random_range(QUESTIONS[0]..=QUESTIONS[1]);
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for _ in 0..TRIES {
        let kind = draw.random_range(0..kinds);
        if let Some(asked) = ask(kind, draw).filter(|(_, answer)| known.insert((kind, answer.clone()))) {
            all.push((kind + 1 == kinds, asked));
        }
        if all.len() == n {
            break;
        }
    }
    all.sort_by_key(|(is_last, _)| *is_last);
    all.into_iter().map(|(_, asked)| asked).collect()
}

/// Coloured shapes, and questions about all of them.
struct AboutAPicture {
    side: usize,
}

/// Asks something about a scene, where it can be asked.
type Ask = fn(&Scene, &mut Draw) -> Option<Asked>;

const ASKS: [Ask; 11] =
    [colour, shape, size, count, count_colour, count_shape, whereabouts, relation, presence, content, everything];

/// Things in a scene at most.
const MOST: usize = 5;

/// Shapes that are easily taken for each other: the only ones in a third of the pictures.
const ALIKE: [Shape; 2] = [Shape::Circle, Shape::Hexagon];

/// How many times as long as the shorter side the longer one is at most, in the half of the pictures that are not square.
const LONGEST: f64 = 2.0;

impl Generator for AboutAPicture {
    fn name(&self) -> &'static str {
        "about_a_picture"
    }

    fn sample(&self, _split: Split, draw: &mut Draw) -> Sample {
        let n = draw.random_range(1..=MOST);
        let are_alike = draw.random_bool(1.0 / 3.0);
        let scene = Scene::around(draw, &[], n, |thing| !are_alike || ALIKE.contains(&SHAPES[thing.shape].0));
        let longer = if draw.random_bool(0.5) { draw.random_range(1.0..LONGEST) } else { 1.0 };
        let longer = (self.side as f64 * longer) as usize;
        let size = if draw.random_bool(0.7) { [longer, self.side] } else { [self.side, longer] };
        let image = scene.image_of(size, draw);
        let asked = several(draw, ASKS.len(), |kind, draw| ASKS[kind](&scene, draw));
        asked::talk(draw, self.name(), vec![Part::Image(image)], asked)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

/// A thing that is the only one to have what `of` says.
fn lone<'a>(scene: &'a Scene, draw: &mut Draw, of: fn(&Thing) -> usize) -> Option<&'a Thing> {
    let is_lone = |thing: &&Thing| scene.things.iter().filter(|other| of(other) == of(thing)).count() == 1;
    scene.things.iter().filter(is_lone).collect::<Vec<_>>().choose(draw).copied()
}

fn colour(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let it = lone(scene, draw, |thing| thing.shape)?;
    Some((worded(draw, COLOUR_WORDINGS, it.shape_name()), it.colour_name().into()))
}

fn shape(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let it = lone(scene, draw, |thing| thing.colour)?;
    Some((worded(draw, SHAPE_WORDINGS, it.colour_name()), it.shape_name().into()))
}

fn size(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let it = lone(scene, draw, |thing| thing.shape)?;
    Some((worded(draw, shapes::SIZE_WORDINGS, it.shape_name()), SIZES[it.size].into()))
}

fn whereabouts(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let it = lone(scene, draw, |thing| thing.shape)?;
    Some((worded(draw, shapes::PLACE_WORDINGS, it.shape_name()), PLACES[it.cell].into()))
}

fn count(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    Some((worded(draw, shapes::COUNT_WORDINGS, ""), scene.things.len().to_string()))
}

fn count_colour(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let seen = one_of(draw, &scene.things).colour;
    let colour = if draw.random_bool(0.75) { seen } else { index_of(draw, &COLOURS) };
    let n = scene.things.iter().filter(|thing| thing.colour == colour).count();
    Some((worded(draw, shapes::COUNT_COLOUR_WORDINGS, COLOURS[colour].0), n.to_string()))
}

fn count_shape(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let seen = one_of(draw, &scene.things).shape;
    let shape = if draw.random_bool(0.75) { seen } else { index_of(draw, &SHAPES) };
    let n = scene.things.iter().filter(|thing| thing.shape == shape).count();
    Some((worded(draw, shapes::COUNT_SHAPE_WORDINGS, SHAPES[shape].2), n.to_string()))
}

/// Of two things in one line.
fn relation(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let (it, other) = (lone(scene, draw, |thing| thing.shape)?, lone(scene, draw, |thing| thing.shape)?);
    let [(row, column), (other_row, other_column)] = [it, other].map(|thing| (thing.cell / 3, thing.cell % 3));
    let side = match (row.cmp(&other_row), column.cmp(&other_column)) {
        (std::cmp::Ordering::Equal, std::cmp::Ordering::Less) => "left",
        (std::cmp::Ordering::Equal, std::cmp::Ordering::Greater) => "right",
        (std::cmp::Ordering::Less, std::cmp::Ordering::Equal) => "above",
        (std::cmp::Ordering::Greater, std::cmp::Ordering::Equal) => "below",
        _ => return None,
    };
    let question = worded(draw, shapes::RELATION_WORDINGS, it.shape_name()).replace('+', other.shape_name());
    Some((question, side.into()))
}

fn presence(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let (it, other) = (*one_of(draw, &scene.things), *one_of(draw, &scene.things));
    // The colour of one with the shape of another, which may be there too.
    let (shape, colour) = if draw.random_bool(0.5) { (it.shape, it.colour) } else { (it.shape, other.colour) };
    let colour = if draw.random_bool(0.25) { index_of(draw, &COLOURS) } else { colour };
    let is_there = scene.things.iter().any(|thing| (thing.shape, thing.colour) == (shape, colour));
    let name = format!("{} {}", COLOURS[colour].0, SHAPES[shape].1);
    let question = worded(draw, shapes::PRESENCE_WORDINGS, &name).replace(" a orange", " an orange");
    Some((question, if is_there { "yes" } else { "no" }.into()))
}

/// What one place holds.
fn content(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let full = one_of(draw, &scene.things).cell;
    let cell = if draw.random_bool(0.75) { full } else { index_of(draw, &PLACES) };
    let there = scene.things.iter().find(|thing| thing.cell == cell);
    let question = worded(draw, &["What is *?", "What do you see *?", "Name what is *."], &place(cell));
    Some((question, there.map_or_else(|| "nothing".into(), named)))
}

fn everything(scene: &Scene, draw: &mut Draw) -> Option<Asked> {
    let question = *one_of(draw, describe::WORDINGS);
    (scene.things.len() <= describe::MOST).then(|| (question.into(), description(scene)))
}

/// One or two printed lines, and questions about their characters.
struct AboutAPage(Options);

impl Generator for AboutAPage {
    fn name(&self) -> &'static str {
        "about_a_page"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let lines = printed::text(draw);
        let image = printed::page(&self.0, split, &lines, draw);
        // A kind for each place, then their number, then all of them.
        let asked = several(draw, NTH.len() + 2, |kind, draw| characters(&lines, kind, draw));
        asked::talk(draw, self.name(), vec![Part::Image(image)], asked)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::expected(sample).trim() == answer.trim()
    }

    fn chance(&self) -> f64 {
        0.0
    }
}

/// A question of one of the kinds of [`AboutAPage`], where it can be asked.
fn characters(lines: &[String], kind: usize, draw: &mut Draw) -> Option<Asked> {
    let nth = draw.random_range(0..lines.len());
    let of = if lines.len() == 1 { "the text".to_owned() } else { format!("the {} line", NTH[nth]) };
    let line = &lines[nth];
    let characters: Vec<String> = line.chars().filter(|character| *character != ' ').map(String::from).collect();
    match kind.checked_sub(NTH.len()) {
        None => {
            let character = if kind + 1 == NTH.len() { characters.last() } else { characters.get(kind) };
            let wordings = ["Which is the * character of +?", "What is the * character of +?"];
            character.map(|it| (worded(draw, &wordings, NTH[kind]).replace('+', &of), it.clone()))
        }
        Some(0) => {
            let wordings = ["How many characters are there in *?", "Count the characters of *."];
            Some((worded(draw, &wordings, &of), characters.len().to_string()))
        }
        // Either letter by letter or as it is written: the one could be put together from the other.
        Some(_) if draw.random_bool(0.5) => Some((format!("Spell {of}."), characters.join(" "))),
        Some(_) if lines.len() > 1 => Some((format!("Read {of}."), line.clone())),
        Some(_) => Some(((*one_of(draw, printed::WORDINGS)).into(), line.clone())),
    }
}

/// Words in a synthetic voice, and questions about all of them.
struct AboutAClip;

impl Generator for AboutAClip {
    fn name(&self) -> &'static str {
        "about_a_clip"
    }

    fn sample(&self, split: Split, draw: &mut Draw) -> Sample {
        let n = draw.random_range(1..=5);
        let words = row(split, n, draw);
        let sound = spoken(split, &words, draw);
        // A kind for each place, then their number, then all of them.
        let asked = several(draw, NTH.len() + 2, |kind, draw| match kind.checked_sub(NTH.len()) {
            None => {
                let word = if kind + 1 == NTH.len() { words.last() } else { words.get(kind) };
                word.map(|word| (said::which(draw, kind), WORDS[*word].0.into()))
            }
            Some(0) => Some(((*one_of(draw, COUNT)).into(), n.to_string())),
            Some(_) => Some(((*one_of(draw, TRANSCRIBE)).into(), spelled(&words))),
        });
        asked::talk(draw, self.name(), vec![Part::Sound(sound)], asked)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        0.0
    }
}
