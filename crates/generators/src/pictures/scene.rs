//! A few coloured shapes on a grid of three by three.

use rand::RngExt;
use rand::seq::SliceRandom;
use tiny_skia::{Path, PathBuilder, Transform};

use super::canvas::{Canvas, Rgb, background_for, jittered};
use crate::choose::one_of;
use crate::{Draw, Image};

/// What a thing looks like from its edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Diamond,
    Hexagon,
    Cross,
    Heart,
    Ring,
    Crescent,
}

/// Names, plurals and what is drawn.
pub(crate) const SHAPES: [(Shape, &str, &str); 10] = [
    (Shape::Circle, "circle", "circles"),
    (Shape::Square, "square", "squares"),
    (Shape::Triangle, "triangle", "triangles"),
    (Shape::Star, "star", "stars"),
    (Shape::Diamond, "diamond", "diamonds"),
    (Shape::Hexagon, "hexagon", "hexagons"),
    (Shape::Cross, "cross", "crosses"),
    (Shape::Heart, "heart", "hearts"),
    (Shape::Ring, "ring", "rings"),
    (Shape::Crescent, "crescent", "crescents"),
];

/// Names and values of colours.
pub(crate) const COLOURS: [(&str, Rgb); 9] = [
    ("red", [214, 32, 36]),
    ("green", [32, 160, 60]),
    ("blue", [36, 72, 214]),
    ("yellow", [244, 218, 40]),
    ("orange", [246, 134, 22]),
    ("purple", [128, 40, 164]),
    ("brown", [112, 66, 32]),
    ("black", [18, 18, 20]),
    ("white", [246, 246, 246]),
];

/// Names of the cells, row by row.
pub(crate) const PLACES: [&str; 9] =
    ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"];

/// Names of the sizes.
pub(crate) const SIZES: [&str; 2] = ["small", "large"];

/// One shape in the picture: indices into [`SHAPES`], [`COLOURS`], [`SIZES`] and [`PLACES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thing {
    pub(crate) shape: usize,
    pub(crate) colour: usize,
    pub(crate) size: usize,
    pub(crate) cell: usize,
}

impl Thing {
    pub(crate) fn any(draw: &mut Draw) -> Self {
        Self {
            shape: draw.random_range(0..SHAPES.len()),
            colour: draw.random_range(0..COLOURS.len()),
            size: draw.random_range(0..SIZES.len()),
            cell: draw.random_range(0..PLACES.len()),
        }
    }

    pub(crate) fn shape_name(&self) -> &'static str {
        SHAPES[self.shape].1
    }

    pub(crate) fn colour_name(&self) -> &'static str {
        COLOURS[self.colour].0
    }
}

/// What a picture shows; no two things are in one cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scene {
    pub(crate) things: Vec<Thing>,
}

impl Scene {
    /// `first` and `n` more things that `fit`, in cells that are free. There must be things that fit.
    pub(crate) fn around(draw: &mut Draw, first: &[Thing], n: usize, fit: impl Fn(&Thing) -> bool) -> Self {
        let mut things = first.to_vec();
        let mut free: Vec<usize> =
            (0..PLACES.len()).filter(|cell| first.iter().all(|thing| thing.cell != *cell)).collect();
        free.shuffle(draw);
        for cell in free.into_iter().take(n) {
            let mut candidates = std::iter::repeat_with(|| Thing { cell, ..Thing::any(draw) });
            things.extend(candidates.find(|thing| fit(thing)));
        }
        Self { things }
    }

    /// Draws it `side` pixels wide and high.
    pub(crate) fn image(&self, side: usize, draw: &mut Draw) -> Image {
        self.image_of([side; 2], draw)
    }

    /// Draws it so wide and so high; things are as large as the shorter side has them.
    pub(crate) fn image_of(&self, size: [usize; 2], draw: &mut Draw) -> Image {
        let colours: Vec<_> = self.things.iter().map(|thing| jittered(draw, COLOURS[thing.colour].1, 9)).collect();
        let mut canvas = Canvas::of(size, background_for(draw, &colours, 170.0));
        let cell = size.map(|length| length as f32 / 3.0);
        let least = cell[0].min(cell[1]);
        for (thing, &colour) in self.things.iter().zip(&colours) {
            let radius = least * [0.25, 0.44][thing.size] * draw.random_range(0.94..1.06);
            let stray = if thing.size == 0 { 0.12 } else { 0.05 };
            let mut at = |index: usize, cell: f32| (index as f32 + 0.5 + draw.random_range(-stray..stray)) * cell;
            let at = (at(thing.cell % 3, cell[0]), at(thing.cell / 3, cell[1]));
            paint(&mut canvas, thing.shape, (at, radius), colour, draw);
        }
        canvas.into_image(draw)
    }
}

/// Paints a shape of a `radius` in a place, turned a little.
pub(crate) fn paint(
    canvas: &mut Canvas,
    shape: usize,
    ((x, y), radius): ((f32, f32), f32),
    colour: Rgb,
    draw: &mut Draw,
) {
    let turn = draw.random_range(-9.0..9.0);
    let place = Transform::from_scale(radius, radius).post_rotate(turn).post_translate(x, y);
    if let Some(path) = outline(SHAPES[shape].0) {
        canvas.fill(&path, place, colour);
    }
}

/// Things for which `same` holds are `n` in number, `others` are around them, all in cells of their own.
pub(crate) fn counted(draw: &mut Draw, n: usize, others: usize, same: impl Fn(&Thing) -> bool) -> Scene {
    let wanted = Scene::around(draw, &[], n, &same);
    Scene::around(draw, &wanted.things, others, |thing| !same(thing))
}

/// One of the sizes, shapes and so on, as an index.
pub(crate) fn index_of<T>(draw: &mut Draw, table: &[T]) -> usize {
    draw.random_range(0..table.len())
}

/// A number of things beside the one asked for.
pub(crate) fn company(draw: &mut Draw) -> usize {
    *one_of(draw, &[0, 1, 2, 2, 3, 3, 4])
}

/// The shape around (0, 0), within a radius of 1.
pub(super) fn outline(shape: Shape) -> Option<Path> {
    let mut path = PathBuilder::new();
    match shape {
        Shape::Circle => path.push_circle(0.0, 0.0, 0.92),
        Shape::Square => corners(&mut path, 4, 45.0, &[1.08]),
        Shape::Triangle => corners(&mut path, 3, -90.0, &[1.08]),
        Shape::Star => corners(&mut path, 10, -90.0, &[1.08, 0.43]),
        Shape::Diamond => polygon(&mut path, &[(0.0, -1.08), (0.7, 0.0), (0.0, 1.08), (-0.7, 0.0)]),
        Shape::Hexagon => corners(&mut path, 6, 0.0, &[1.0]),
        Shape::Cross => {
            let (a, b) = (0.33, 0.95);
            let corner = [
                (-a, -b),
                (a, -b),
                (a, -a),
                (b, -a),
                (b, a),
                (a, a),
                (a, b),
                (-a, b),
                (-a, a),
                (-b, a),
                (-b, -a),
                (-a, -a),
            ];
            polygon(&mut path, &corner);
        }
        Shape::Heart => {
            path.move_to(0.0, 0.95);
            path.cubic_to(-1.5, 0.0, -0.85, -1.35, 0.0, -0.45);
            path.cubic_to(0.85, -1.35, 1.5, 0.0, 0.0, 0.95);
            path.close();
        }
        Shape::Ring => {
            path.push_circle(0.0, 0.0, 0.95);
            let hole = PathBuilder::from_circle(0.0, 0.0, 0.52)?.transform(Transform::from_scale(-1.0, 1.0))?;
            path.push_path(&hole);
        }
        Shape::Crescent => {
            path.move_to(0.35, -0.95);
            path.cubic_to(-1.25, -1.1, -1.25, 1.1, 0.35, 0.95);
            path.cubic_to(-0.4, 0.55, -0.4, -0.55, 0.35, -0.95);
            path.close();
        }
    }
    path.finish()
}

/// `n` corners, `radii` in turn, the first at `degrees` from the right.
fn corners(path: &mut PathBuilder, n: usize, degrees: f32, radii: &[f32]) {
    let points: Vec<_> = (0..n)
        .map(|i| {
            let (sin, cos) = (degrees.to_radians() + i as f32 * std::f32::consts::TAU / n as f32).sin_cos();
            let radius = radii[i % radii.len()];
            (radius * cos, radius * sin)
        })
        .collect();
    polygon(path, &points);
}

fn polygon(path: &mut PathBuilder, points: &[(f32, f32)]) {
    for (i, &(x, y)) in points.iter().enumerate() {
        if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    path.close();
}
