//! Rows of several sources in the order in which they are learnt: a function of a seed and a number.

use std::path::PathBuf;
use std::sync::Arc;

use generators::{Generator, Split};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::row::Row;
use super::source::{Columns, Rows};
use super::{DataError, Place};

/// Rows that are shuffled together, unless their bytes come to [`BLOCK_BYTES`] first.
const BLOCK_ROWS: usize = 1024;
/// Bytes of rows that are shuffled together, about.
const BLOCK_BYTES: usize = 32 << 20;

/// A source, and how often it comes.
pub struct Ingredient {
    /// Where rows come from.
    pub source: Source,
    /// Its share, in the unit of the other weights.
    pub weight: f64,
}

/// Where rows come from.
pub enum Source {
    /// A file, read again and again.
    File(PathBuf),
    /// A generator, which never ends.
    Generator(Box<dyn Generator>),
}

impl Source {
    /// As it is named in errors and commands.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Generator(generator) => format!("generator:{}", generator.name()),
        }
    }
}

/// Which rows a mixture gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixtureSettings {
    /// Decides every choice.
    pub seed: u64,
    /// Which of [`n_shards`](Self::n_shards), from 0. All shards together are the mixture of one.
    pub shard: u64,
    /// How many share the rows.
    pub n_shards: u64,
    /// For training, or held out to measure.
    pub split: Split,
    /// The share of files' rows that are held out, chosen by their content: equal rows are on one side, in whatever order
    /// and file they stand.
    pub held_out: f64,
}

impl Default for MixtureSettings {
    fn default() -> Self {
        Self { seed: 0, shard: 0, n_shards: 1, split: Split::Train, held_out: 0.0 }
    }
}

/// Where a mixture stands. What was made with other sources, weights or settings does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixtureState {
    fingerprint: u64,
    /// Choices so far, those of other shards included.
    drawn: u64,
    positions: Vec<Position>,
}

/// Where a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Position {
    /// How often a file was read to its end.
    epoch: u64,
    /// Rows of the file before the block that is shuffled, or the number of the generator's first sample.
    begin: u64,
    /// Rows taken of the block, or samples taken of the generator.
    taken: u64,
}

/// Whether a row of this [hash](Row::hash) is held out.
pub fn is_held_out(hash: u64, share: f64) -> bool {
    // The upper 53 bits, as a number from 0 to below 1.
    ((hash >> 11) as f64) * (-53f64).exp2() < share
}

/// Rows of weighted sources.
///
/// Choice k falls on a source by a random number that is a function of the seed and k. A file's rows come in blocks, each
/// in an order that is a function of the seed, the source, the epoch and the block; a generator's begin at a number that is
/// a function of the seed and the source. Holds one block of each file.
pub struct Mixture {
    settings: MixtureSettings,
    fingerprint: u64,
    drawn: u64,
    weights: Vec<f64>,
    cursors: Vec<Cursor>,
}

enum Cursor {
    File(Box<FileCursor>),
    /// Samples from number `first` on.
    Generator {
        generator: Box<dyn Generator>,
        name: Arc<str>,
        first: u64,
        taken: u64,
    },
}

impl Mixture {
    /// A mixture from its beginning.
    ///
    /// # Errors
    /// [`DataError::Settings`] if there is no source, a weight is not a number above 0, or settings are out of range.
    pub fn new(ingredients: Vec<Ingredient>, settings: MixtureSettings) -> Result<Self, DataError> {
        let refuse = |why: String| Err(DataError::Settings(why));
        if ingredients.is_empty() {
            return refuse("a mixture needs at least one source".into());
        }
        if settings.shard >= settings.n_shards {
            return refuse(format!("there is no shard {} of {}; they count from 0", settings.shard, settings.n_shards));
        }
        if !(0.0..1.0).contains(&settings.held_out) {
            return refuse(format!("{} can not be held out; give a share from 0 to below 1", settings.held_out));
        }
        for Ingredient { source, weight } in &ingredients {
            if !(weight.is_finite() && *weight > 0.0) {
                return refuse(format!("the weight of {} is {weight}; give a number above 0", source.name()));
            }
        }
        let fingerprint = fingerprint(&ingredients, &settings);
        let weights = ingredients.iter().map(|ingredient| ingredient.weight).collect();
        let cursors = ingredients.into_iter().enumerate().map(|(number, ingredient)| match ingredient.source {
            Source::File(path) => Cursor::File(Box::new(FileCursor::new(path, settings, number as u64))),
            Source::Generator(generator) => {
                let name = format!("generator:{}", generator.name()).into();
                // Another seed learns from other samples, or each stage and each run would repeat the first ones. What is held
                // out stays the same, so that runs can be compared.
                let first = match settings.split {
                    Split::Train => random(settings.seed, number as u64, u64::MAX).next_u64() >> 1,
                    Split::HeldOut => 0,
                };
                Cursor::Generator { generator, name, first, taken: 0 }
            }
        });
        Ok(Self { settings, fingerprint, drawn: 0, weights, cursors: cursors.collect() })
    }

    /// The next row of this shard.
    ///
    /// # Errors
    /// [`DataError`] if a file can not be read or one of its rows is wrong. Whoever goes on after that does so from a
    /// state before it.
    pub fn next_row(&mut self) -> Result<(Place, Row), DataError> {
        loop {
            let drawn = self.drawn;
            self.drawn += 1;
            let is_ours = drawn % self.settings.n_shards == self.settings.shard;
            let chosen = choose(&self.weights, uniform(self.settings.seed, drawn));
            match &mut self.cursors[chosen] {
                Cursor::File(file) => {
                    let row = file.next_row()?;
                    if is_ours {
                        return Ok(row);
                    }
                }
                Cursor::Generator { generator, name, first, taken } => {
                    let index = *first + *taken;
                    *taken += 1;
                    if is_ours {
                        let sample = generator.at(self.settings.split, index);
                        return Ok((Place { source: Arc::clone(name), row: index }, sample.into()));
                    }
                }
            }
        }
    }

    /// Where it stands.
    pub fn state(&self) -> MixtureState {
        let position = |cursor: &Cursor| match cursor {
            Cursor::File(file) => file.position,
            Cursor::Generator { first, taken, .. } => Position { epoch: 0, begin: *first, taken: *taken },
        };
        let positions = self.cursors.iter().map(position).collect();
        MixtureState { fingerprint: self.fingerprint, drawn: self.drawn, positions }
    }

    /// Goes to where `state` was taken.
    ///
    /// # Errors
    /// [`DataError::Settings`] if it is of another mixture; [`DataError`] if a file can not be read as far as that.
    pub fn resume(&mut self, state: &MixtureState) -> Result<(), DataError> {
        if state.fingerprint != self.fingerprint || state.positions.len() != self.cursors.len() {
            let why = "the saved state is of other sources, weights, seed or shards, or a file has changed; \
                       give what it was made with, or begin anew";
            return Err(DataError::Settings(why.into()));
        }
        self.drawn = state.drawn;
        for (cursor, position) in self.cursors.iter_mut().zip(&state.positions) {
            match cursor {
                Cursor::File(file) => file.seek(*position)?,
                Cursor::Generator { first, taken, .. } => (*first, *taken) = (position.begin, position.taken),
            }
        }
        Ok(())
    }
}

/// Identifies sources and settings. A file counts by its name and length.
fn fingerprint(ingredients: &[Ingredient], settings: &MixtureSettings) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(format!("{settings:?}"));
    for Ingredient { source, weight } in ingredients {
        let len = match source {
            Source::File(path) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
            Source::Generator(_) => 0,
        };
        hasher.update(format!("{} {len} {}\n", source.name(), weight.to_bits()));
    }
    let digest: [u8; 32] = hasher.finalize().into();
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The generator of a seed for one purpose.
fn random(seed: u64, purpose: u64, number: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, value) in key.chunks_exact_mut(8).zip([seed, purpose, number]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Number `index` of a row of random numbers from 0 to below 1.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut random = random(seed, u64::MAX, 0);
    random.set_word_pos(u128::from(index) * 2);
    ((random.next_u64() >> 11) as f64) * (-53f64).exp2()
}

/// The entry of `weights` that `share` of their sum, from 0 to below 1, falls on.
fn choose(weights: &[f64], share: f64) -> usize {
    let mut left = share * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        if left < *weight {
            return i;
        }
        left -= weight;
    }
    weights.len() - 1
}

/// A file that is read again and again.
struct FileCursor {
    path: PathBuf,
    settings: MixtureSettings,
    number: u64,
    position: Position,
    rows: Option<Rows>,
    /// Rows of the file in the block, those of the other split included.
    n_block: u64,
    block: Vec<Option<(Place, Row)>>,
}

impl FileCursor {
    fn new(path: PathBuf, settings: MixtureSettings, number: u64) -> Self {
        Self { path, settings, number, position: Position::default(), rows: None, n_block: 0, block: Vec::new() }
    }

    fn next_row(&mut self) -> Result<(Place, Row), DataError> {
        let mut n_empty_epochs = 0;
        loop {
            let taken = usize::try_from(self.position.taken).unwrap_or(usize::MAX);
            if let Some(row) = self.block.get_mut(taken).and_then(Option::take) {
                self.position.taken += 1;
                return Ok(row);
            }
            self.position.begin += self.n_block;
            self.position.taken = 0;
            self.load()?;
            if self.n_block == 0 {
                n_empty_epochs += 1;
                if n_empty_epochs == 2 {
                    let split = if self.settings.split == Split::Train { "for training" } else { "held out" };
                    return Err(DataError::Nothing { file: self.path.display().to_string().into(), split });
                }
                self.position = Position { epoch: self.position.epoch + 1, ..Position::default() };
                self.rows = None;
            } else if !self.block.is_empty() {
                n_empty_epochs = 0;
            }
        }
    }

    fn seek(&mut self, position: Position) -> Result<(), DataError> {
        self.position = position;
        let mut rows = Rows::open(&self.path, Columns::OfSamples)?;
        for _ in 0..position.begin {
            match rows.next() {
                Some(row) => drop(row?),
                None => {
                    let why = format!("{} has become shorter; begin anew", self.path.display());
                    return Err(DataError::Settings(why));
                }
            }
        }
        self.rows = Some(rows);
        (self.n_block, self.block) = (0, Vec::new());
        if position.begin > 0 || position.taken > 0 {
            self.load()?;
        }
        Ok(())
    }

    /// Reads the block at the position and shuffles it.
    fn load(&mut self) -> Result<(), DataError> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => none.insert(Rows::open(&self.path, Columns::OfSamples)?),
        };
        self.n_block = 0;
        self.block.clear();
        let mut n_bytes = 0;
        for raw in rows.by_ref() {
            let raw = raw?;
            self.n_block += 1;
            n_bytes += raw.size_bytes();
            let row = raw.parse()?;
            if is_held_out(row.hash(), self.settings.held_out) == (self.settings.split == Split::HeldOut) {
                self.block.push(Some((raw.place, row)));
            }
            if self.n_block == BLOCK_ROWS as u64 || n_bytes >= BLOCK_BYTES {
                break;
            }
        }
        let mut random = random(self.settings.seed, self.number, self.position.epoch);
        random.set_stream(self.position.begin);
        for i in (1..self.block.len()).rev() {
            // The remainder prefers small numbers by one in 2^54 at most.
            self.block.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
        }
        Ok(())
    }
}
