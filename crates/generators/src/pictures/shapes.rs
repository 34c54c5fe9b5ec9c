//! Questions about coloured shapes: colour, shape, size, number, place, relation, presence.

use std::sync::Arc;

use rand::RngExt;

use super::Options;
use super::scene::{COLOURS, PLACES, SHAPES, SIZES, Scene, Thing, company, counted, index_of};
use crate::asked::{self, worded};
use crate::{Draw, Generator, Part, Sample, Split};

/// The task.
pub(super) struct Shapes(pub(super) Arc<Options>);

/// A scene, a question about it, the answer.
pub(crate) type Asked = (Scene, String, String);

type Ask = fn(&mut Draw) -> Asked;

/// Kinds of questions, and among how many equally likely answers a blind guess chooses.
const KINDS: [(Ask, usize); 9] = [
    (colour, COLOURS.len()),
    (shape, SHAPES.len()),
    (size, SIZES.len()),
    (count, 6),
    (count_colour, 5),
    (count_shape, 5),
    (place, PLACES.len()),
    (relation, 4),
    (presence, 2),
];

/// Questions for the colour of the `*`, which is a shape.
pub(crate) const COLOUR_WORDINGS: &[&str] = &[
    "What colour is the *?",
    "Which colour does the * have?",
    "Name the colour of the *.",
    "The *: what colour is it?",
];

/// For the shape of what is `*`, which is a colour.
pub(crate) const SHAPE_WORDINGS: &[&str] =
    &["What shape is *?", "Which shape is *?", "What is the * thing?", "Name the * shape."];

/// For the size of the `*`.
pub(crate) const SIZE_WORDINGS: &[&str] =
    &["Is the * small or large?", "What size is the *, small or large?", "Is the * large or small?"];

/// For the number of all shapes.
pub(crate) const COUNT_WORDINGS: &[&str] = &[
    "How many shapes are there?",
    "How many shapes do you see?",
    "Count the shapes.",
    "What is the number of shapes?",
];

/// For the number of the shapes of a colour.
pub(crate) const COUNT_COLOUR_WORDINGS: &[&str] =
    &["How many shapes are *?", "How many * shapes are there?", "Count the * shapes."];

/// For the number of those of a shape, in the plural.
pub(crate) const COUNT_SHAPE_WORDINGS: &[&str] = &["How many * are there?", "How many * do you see?", "Count the *."];

/// For the place of the `*`.
pub(crate) const PLACE_WORDINGS: &[&str] = &[
    "Where is the *?",
    "Where in the picture is the *?",
    "In which part of the picture is the *?",
    "Find the *: where is it?",
];

/// For the side of the `+` on which the `*` is.
pub(crate) const RELATION_WORDINGS: &[&str] = &[
    "Is the * left of, right of, above or below the +?",
    "Where is the *, seen from the +: left, right, above or below?",
    "On which side of the + is the *: left, right, above or below?",
];

/// For whether there is a `*`, which is a colour and a shape.
pub(crate) const PRESENCE_WORDINGS: &[&str] = &["Is there a *?", "Do you see a *?", "Does the picture show a *?"];

impl Generator for Shapes {
    fn name(&self) -> &'static str {
        "shapes"
    }

    fn sample(&self, _split: Split, draw: &mut Draw) -> Sample {
        let (scene, question, answer) = any_question(draw);
        let image = scene.image(self.0.side, draw);
        asked::sample(draw, self.name(), vec![Part::Image(image)], question, answer)
    }

    fn is_correct(&self, sample: &Sample, answer: &str) -> bool {
        asked::is_same(asked::expected(sample), answer)
    }

    fn chance(&self) -> f64 {
        chance()
    }
}

/// A question of any kind.
pub(crate) fn any_question(draw: &mut Draw) -> Asked {
    let kind = index_of(draw, &KINDS);
    KINDS[kind].0(draw)
}

/// The share of [`any_question`] that a blind guess answers.
pub(crate) fn chance() -> f64 {
    KINDS.iter().map(|(_, answers)| 1.0 / *answers as f64).sum::<f64>() / KINDS.len() as f64
}

fn colour(draw: &mut Draw) -> Asked {
    let it = Thing::any(draw);
    let n = company(draw);
    let scene = Scene::around(draw, &[it], n, |thing| thing.shape != it.shape);
    (scene, worded(draw, COLOUR_WORDINGS, it.shape_name()), it.colour_name().into())
}

fn shape(draw: &mut Draw) -> Asked {
    let it = Thing::any(draw);
    let n = company(draw);
    let scene = Scene::around(draw, &[it], n, |thing| thing.colour != it.colour);
    (scene, worded(draw, SHAPE_WORDINGS, it.colour_name()), it.shape_name().into())
}

fn size(draw: &mut Draw) -> Asked {
    let it = Thing::any(draw);
    let n = company(draw);
    let scene = Scene::around(draw, &[it], n, |thing| thing.shape != it.shape);
    (scene, worded(draw, SIZE_WORDINGS, it.shape_name()), SIZES[it.size].into())
}

fn count(draw: &mut Draw) -> Asked {
    let n = draw.random_range(1..=6);
    let scene = Scene::around(draw, &[], n, |_| true);
    (scene, worded(draw, COUNT_WORDINGS, ""), n.to_string())
}

fn count_colour(draw: &mut Draw) -> Asked {
    let colour = index_of(draw, &COLOURS);
    let (n, others) = (draw.random_range(0..=4), draw.random_range(1..=3));
    let scene = counted(draw, n, others, |thing| thing.colour == colour);
    (scene, worded(draw, COUNT_COLOUR_WORDINGS, COLOURS[colour].0), n.to_string())
}

fn count_shape(draw: &mut Draw) -> Asked {
    let shape = index_of(draw, &SHAPES);
    let (n, others) = (draw.random_range(0..=4), draw.random_range(1..=3));
    let scene = counted(draw, n, others, |thing| thing.shape == shape);
    (scene, worded(draw, COUNT_SHAPE_WORDINGS, SHAPES[shape].2), n.to_string())
}

fn place(draw: &mut Draw) -> Asked {
    let it = Thing::any(draw);
    let n = company(draw);
    let scene = Scene::around(draw, &[it], n, |thing| thing.shape != it.shape);
    (scene, worded(draw, PLACE_WORDINGS, it.shape_name()), PLACES[it.cell].into())
}

fn relation(draw: &mut Draw) -> Asked {
    let direction = draw.random_range(0..4);
    let line = draw.random_range(0..3);
    let first = draw.random_range(0..2);
    let second = draw.random_range(first + 1..3);
    let (it, other) = if direction % 2 == 0 { (first, second) } else { (second, first) };
    let cell = |along: usize| if direction < 2 { line * 3 + along } else { along * 3 + line };
    let it = Thing { cell: cell(it), ..Thing::any(draw) };
    let other = Thing {
        cell: cell(other),
        shape: (it.shape + draw.random_range(1..SHAPES.len())) % SHAPES.len(),
        ..Thing::any(draw)
    };
    let n = draw.random_range(0..=2);
    let scene = Scene::around(draw, &[it, other], n, |thing| thing.shape != it.shape && thing.shape != other.shape);
    let question = worded(draw, RELATION_WORDINGS, it.shape_name()).replace('+', other.shape_name());
    (scene, question, ["left", "right", "above", "below"][direction].into())
}

/// Where the answer is no, the colour and the shape are there, but apart, in one scene of two.
fn presence(draw: &mut Draw) -> Asked {
    let it = Thing::any(draw);
    let is_there = draw.random_bool(0.5);
    let n = draw.random_range(1..=3);
    let differs = |thing: &Thing| thing.shape != it.shape || thing.colour != it.colour;
    let mut first = vec![it];
    if !is_there {
        first = Scene::around(draw, &[], 1, |thing| thing.colour == it.colour && thing.shape != it.shape).things;
        first.extend(
            Scene::around(draw, &first, 1, |thing| thing.colour != it.colour && thing.shape == it.shape)
                .things
                .into_iter()
                .skip(1),
        );
    }
    let scene = Scene::around(draw, &first, n, differs);
    let name = format!("{} {}", it.colour_name(), it.shape_name());
    let question = worded(draw, PRESENCE_WORDINGS, &name).replace(" a orange", " an orange");
    (scene, question, if is_there { "yes" } else { "no" }.into())
}
