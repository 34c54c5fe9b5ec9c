//! Speech of a synthesiser that is installed. Without it these tasks are not in the list, and [`Flite::find`] says why.

use std::sync::Arc;

use crate::sounds::room::record;
use crate::{Draw, Generator, Part, Sample, Sound, Split, asked, tasks};

mod about;
mod flite;
mod read;

pub use flite::{Absent, Flite, Manner};

/// Every task with speech, pictures beside it 112 pixels wide; none where there is no synthesiser.
pub fn all() -> Vec<Box<dyn Generator>> {
    Flite::find().map(|flite| with(flite, 112)).unwrap_or_default()
}

/// The same with a synthesiser that was found, and pictures `side` pixels wide and high.
pub fn with(flite: Flite, side: usize) -> Vec<Box<dyn Generator>> {
    let voice = Arc::new(Voice(flite));
    let read = |text| Box::new(read::ReadOut { voice: voice.clone(), text });
    let mut generators: Vec<Box<dyn Generator>> = vec![
        Box::new(about::AskedAloud { voice: voice.clone(), side }),
        Box::new(about::CaptionedAloud { voice: voice.clone(), side }),
        read(read::Text::Digits),
        read(read::Text::Number),
        Box::new(read::SpokenQuestion { voice: voice.clone() }),
        read(read::Text::Words),
    ];
    for inner in tasks::all() {
        if let Some((_, name)) = SPOKEN.iter().find(|(task, _)| *task == inner.name()) {
            generators.push(Box::new(about::Spoken { voice: voice.clone(), name, inner }));
        }
    }
    generators
}

/// Text tasks whose questions can be said as they are written, and what they are called then.
const SPOKEN: [(&str, &str); 2] = [("calendar", "spoken_calendar"), ("units", "spoken_units")];

/// The synthesiser in a room.
struct Voice(Flite);

impl Voice {
    /// A recording of `text` by a voice of `split`; `None` if the synthesiser fails.
    fn say(&self, text: &str, split: Split, draw: &mut Draw) -> Option<Sound> {
        let manner = self.0.manner(split, draw);
        let clip = self.0.say(text, &manner).ok()?;
        Some(record(&clip, split, draw))
    }
}

/// What a task makes where the synthesiser failed: a clip without anything in it, and an answer that says so.
fn silence(task: &'static str, draw: &mut Draw) -> Sample {
    let sound = record(&[0.0; 8000], Split::Train, draw);
    asked::sample(draw, task, vec![Part::Sound(sound)], "What do you hear?", "nothing")
}
