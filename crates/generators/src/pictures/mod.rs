//! Pictures that are drawn, with questions whose answers are in them: coloured shapes, printed text, charts, clocks.

use std::sync::Arc;

use crate::Generator;

mod bars;
pub(crate) mod canvas;
mod chart;
mod clock;
mod close_up;
pub(crate) mod describe;
mod font;
mod grid;
mod icons;
mod letter;
mod lines;
mod pen;
pub(crate) mod printed;
pub(crate) mod scene;
pub(crate) mod shapes;
pub(crate) mod words;

pub use font::Fonts;
pub use icons::Icons;

/// How pictures are drawn.
pub struct Options {
    /// Width and height in pixels, but of strips with a long line. Print and marks grow with it.
    pub side: usize,
    /// Typefaces.
    pub fonts: Fonts,
}

impl Default for Options {
    fn default() -> Self {
        Self { side: 112, fonts: Fonts::default() }
    }
}

/// Every task with pictures that needs nothing from outside, 112 pixels wide.
pub fn all() -> Vec<Box<dyn Generator>> {
    with(Options::default(), None)
}

/// The same with other options, and with pictures of a folder if there are any.
pub fn with(options: Options, icons: Option<Icons>) -> Vec<Box<dyn Generator>> {
    let options = Arc::new(options);
    let mut all: Vec<Box<dyn Generator>> = vec![
        Box::new(bars::Bars(options.clone())),
        Box::new(clock::Clock(options.clone())),
        Box::new(close_up::CloseUp(options.clone())),
        Box::new(describe::Describe(options.clone())),
        Box::new(grid::GridOfLetters(options.clone())),
        Box::new(grid::GridOfShapes(options.clone())),
        Box::new(letter::Letter(options.clone())),
        Box::new(letter::LineOfLetters(options.clone())),
        Box::new(lines::Lines(options.clone())),
        Box::new(printed::Printed(options.clone())),
        Box::new(shapes::Shapes(options.clone())),
    ];
    if let Some(icons) = icons.and_then(|icons| icons::NameIt::new(options, icons)) {
        all.push(Box::new(icons));
    }
    all
}
