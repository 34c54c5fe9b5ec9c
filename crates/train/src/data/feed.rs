//! Steps of packed sequences, from a mixture.

use std::collections::{BTreeSet, VecDeque};
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use generators::Split;
use serde::{Deserialize, Serialize};

use super::encode::{Encoded, Encoder, Unit};
use super::mixture::{Ingredient, Mixture, MixtureSettings, MixtureState, Source};
use super::pack::pack;
use super::{DataError, Place};
use crate::{Media, Sequence};

/// Bytes of pixels and log-mel columns that wait to be packed at most, about.
const MEDIA_BYTES: usize = 256 << 20;
/// The part of a window's room that is left over, so that what is read fits its steps: a last step of a few rows would
/// change the weights as much as a whole one.
const SLACK: usize = 64;
/// Rows in a sequence that may come to nothing before that is an error.
const FRUITLESS_ROWS: usize = 10_000;

/// How steps are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedSettings {
    /// Positions of a step at most.
    pub rows: usize,
    /// Positions of a sequence at most: documents are cut there. At most [`rows`](Self::rows).
    pub cut: usize,
    /// Steps that are packed together. More waste less, and wait longer.
    pub window: usize,
}

/// What one step learns from. Each sequence counts its positions from 0 and sees nothing but itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// Documents and conversations.
    pub sequences: Vec<Sequence>,
    /// Two answers to one prompt each, the better one first.
    pub pairs: Vec<[Sequence; 2]>,
}

impl Step {
    /// What `units` are.
    fn of(units: impl IntoIterator<Item = Unit>) -> Self {
        let mut step = Self::default();
        for unit in units {
            match unit {
                Unit::One(sequence) => step.sequences.push(sequence),
                Unit::Pair { chosen, rejected } => step.pairs.push([chosen, rejected]),
            }
        }
        step
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty() && self.pairs.is_empty()
    }

    /// Positions.
    pub fn n_rows(&self) -> usize {
        self.sequences.iter().chain(self.pairs.iter().flatten()).map(Sequence::len).sum()
    }
}

/// What was given so far, since the feed was made or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Given {
    /// Steps.
    pub steps: u64,
    /// Positions in them.
    pub rows: u64,
    /// Positions that there would have been room for.
    pub room: u64,
    /// Positions of rows that were read and do not fit: the ends of long conversations, and long pairs.
    pub left_out: u64,
}

impl Given {
    /// The share of room that nothing stands in, from 0 to 1.
    pub fn waste(&self) -> f64 {
        match self.room {
            0 => 0.0,
            room => (room - self.rows.min(room)) as f64 / room as f64,
        }
    }
}

/// Where a feed stands: where the mixture was when the steps in hand were begun, and how many of them are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedState {
    window: MixtureState,
    given: usize,
}

/// An endless row of steps: a window of them is read, encoded and packed, then given one by one while a thread makes the
/// next one.
pub struct Feed {
    settings: FeedSettings,
    maker: Option<Maker>,
    ahead: Option<JoinHandle<(Maker, Result<Window, DataError>)>>,
    window: Window,
    n_given: usize,
    given: Given,
}

/// What makes windows.
struct Maker {
    mixture: Mixture,
    encoder: Encoder,
    settings: FeedSettings,
    /// Where the mixture was before a row that did not fit the last window, and the row.
    put_back: Option<(MixtureState, Place, Encoded)>,
}

/// Steps that were packed together.
struct Window {
    /// Where the mixture was when it was begun.
    begin: MixtureState,
    steps: VecDeque<Step>,
    n_left_out: usize,
}

impl Feed {
    /// A feed from where `mixture` stands.
    ///
    /// # Errors
    /// [`DataError::Settings`] if a setting is 0, or a sequence may be longer than a step.
    pub fn new(mixture: Mixture, encoder: Encoder, settings: FeedSettings) -> Result<Self, DataError> {
        let FeedSettings { rows, cut, window } = settings;
        if cut == 0 || window == 0 || cut > rows {
            let why = format!(
                "steps of {rows} rows in windows of {window}, sequences of {cut}: none may be 0, \
                               and a sequence has to fit a step"
            );
            return Err(DataError::Settings(why));
        }
        let window = Window { begin: mixture.state(), steps: VecDeque::new(), n_left_out: 0 };
        let maker = Some(Maker { mixture, encoder, settings, put_back: None });
        Ok(Self { settings, maker, ahead: None, window, n_given: 0, given: Given::default() })
    }

    /// The next step.
    ///
    /// # Errors
    /// [`DataError`] if a source can not be read or a row not be used.
    pub fn next_step(&mut self) -> Result<Step, DataError> {
        if self.window.steps.is_empty() {
            self.fill()?;
            self.make_ahead();
        }
        let step = self.window.steps.pop_front().unwrap_or_default();
        self.n_given += 1;
        self.given.steps += 1;
        self.given.rows += step.n_rows() as u64;
        self.given.room += self.settings.rows as u64;
        Ok(step)
    }

    /// What was given so far.
    pub fn given(&self) -> Given {
        self.given
    }

    /// Where it stands.
    pub fn state(&self) -> FeedState {
        FeedState { window: self.window.begin.clone(), given: self.n_given }
    }

    /// Goes to where `state` was taken; the rows in hand then are read and packed again.
    ///
    /// # Errors
    /// As [`Mixture::resume`] and [`next_step`](Self::next_step); [`DataError::Settings`] if the steps in hand are fewer
    /// than were given.
    pub fn resume(&mut self, state: &FeedState) -> Result<(), DataError> {
        self.stop_ahead();
        if let Some(maker) = &mut self.maker {
            maker.mixture.resume(&state.window)?;
            maker.put_back = None;
        }
        self.window = Window { begin: state.window.clone(), steps: VecDeque::new(), n_left_out: 0 };
        self.n_given = 0;
        if state.given > 0 {
            self.fill()?;
            if state.given > self.window.steps.len() {
                let why = "the saved state is of steps of another size; give what it was made with, or begin anew";
                return Err(DataError::Settings(why.into()));
            }
            self.window.steps.drain(..state.given);
            self.n_given = state.given;
        }
        self.given = Given::default();
        Ok(())
    }

    /// Takes the next window, which may be made already.
    fn fill(&mut self) -> Result<(), DataError> {
        let made = self.stop_ahead();
        if let Some(window) = made.or_else(|| self.maker.as_mut().map(Maker::window)) {
            self.window = window?;
            self.n_given = 0;
            self.given.left_out += self.window.n_left_out as u64;
        }
        Ok(())
    }

    /// Lets a thread make the next window.
    fn make_ahead(&mut self) {
        let Some(mut maker) = self.maker.take() else { return };
        self.ahead = Some(thread::spawn(move || {
            let window = maker.window();
            (maker, window)
        }));
    }

    /// Waits for what is made ahead, and takes it.
    fn stop_ahead(&mut self) -> Option<Result<Window, DataError>> {
        let (maker, window) = self.ahead.take()?.join().unwrap_or_else(|panic| resume_unwind(panic));
        self.maker = Some(maker);
        Some(window)
    }
}

impl Maker {
    /// Reads, encodes and packs the next window.
    fn window(&mut self) -> Result<Window, DataError> {
        let FeedSettings { rows, cut, window } = self.settings;
        let room = rows.saturating_mul(window);
        let wanted = room - room / SLACK;
        let mut begin = None;
        let mut units: Vec<Unit> = Vec::new();
        let (mut n_rows, mut n_media_bytes, mut n_left_out, mut n_fruitless) = (0usize, 0, 0, 0);
        while n_rows < wanted && n_media_bytes < MEDIA_BYTES {
            let (before, place, encoded) = match self.put_back.take() {
                Some(row) => row,
                None => self.next_row(cut)?,
            };
            let n = encoded.units.iter().map(Unit::n_rows).sum::<usize>();
            if !units.is_empty() && n_rows + n > wanted {
                self.put_back = Some((before, place, encoded));
                break;
            }
            begin.get_or_insert(before);
            n_left_out += encoded.n_left_out;
            n_fruitless = if encoded.units.is_empty() { n_fruitless + 1 } else { 0 };
            if n_fruitless == FRUITLESS_ROWS {
                let why = format!("nothing of {FRUITLESS_ROWS} rows up to here fits {cut} positions");
                return Err(DataError::row(&place, why));
            }
            n_rows += n;
            n_media_bytes += encoded.units.iter().map(media_bytes).sum::<usize>();
            units.extend(encoded.units);
        }
        let lens: Vec<usize> = units.iter().map(Unit::n_rows).collect();
        let mut units: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
        let bins = pack(&lens, rows).into_iter();
        let steps = bins.map(|bin| Step::of(bin.into_iter().filter_map(|i| units[i].take()))).collect();
        Ok(Window { begin: begin.unwrap_or_else(|| self.mixture.state()), steps, n_left_out })
    }

    /// The mixture's next row as the model reads it, and where the mixture was before it.
    fn next_row(&mut self, cut: usize) -> Result<(MixtureState, Place, Encoded), DataError> {
        let before = self.mixture.state();
        let (place, row) = self.mixture.next_row()?;
        let encoded = self.encoder.encode(&row, cut).map_err(|why| DataError::row(&place, why))?;
        Ok((before, place, encoded))
    }
}

/// Up to `n` sequences and pairs of `source` that are held out, of at most `cut` positions; none of a file that holds out
/// nothing.
///
/// # Errors
/// As [`Mixture::new`] and [`Mixture::next_row`]; [`DataError::Row`] for a row that can not be used.
pub fn held_out(
    source: Source,
    (seed, share): (u64, f64),
    encoder: &Encoder,
    cut: usize,
    n: usize,
) -> Result<Step, DataError> {
    if matches!(source, Source::File(_)) && share == 0.0 {
        return Ok(Step::default());
    }
    let settings = MixtureSettings { seed, split: Split::HeldOut, held_out: share, ..MixtureSettings::default() };
    let ends = matches!(source, Source::File(_));
    let mut mixture = Mixture::new(vec![Ingredient { source, weight: 1.0 }], settings)?;
    let (mut units, mut seen) = (Vec::new(), BTreeSet::new());
    // Rows may come to nothing, or to many sequences.
    for _ in 0..n {
        let (place, row) = match mixture.next_row() {
            Err(DataError::Nothing { .. }) => break,
            row => row?,
        };
        // A file that is read again has no more to say.
        if ends && !seen.insert(place.clone()) {
            break;
        }
        let encoded = encoder.encode(&row, cut).map_err(|why| DataError::row(&place, why))?;
        units.extend(encoded.units);
        if units.len() >= n {
            break;
        }
    }
    units.truncate(n);
    Ok(Step::of(units))
}

fn media_bytes(unit: &Unit) -> usize {
    let values = |media: &Media| match media {
        Media::Image(pixels) => pixels.len(),
        Media::Sound(chunks) => chunks.iter().map(|chunk| chunk.columns.len()).sum(),
    };
    let of = |sequence: &Sequence| sequence.media.iter().map(values).sum::<usize>() * size_of::<f32>();
    match unit {
        Unit::One(sequence) => of(sequence),
        Unit::Pair { chosen, rejected } => of(chosen) + of(rejected),
    }
}
