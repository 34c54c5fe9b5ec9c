//! The loss of a step, and its gradients.
//!
//! Letters as in [`tensor`]: T rows in this step, D model width, E experts, V vocabulary.

use std::collections::BTreeMap;
use std::ops::Range;

use llama::{AudioChunk, Batch, Input, Model, PageRun, Passage, Probe, Row, Site};
use tensor::{Adjoint, Device, KvFormat, PAGE_LEN, Targets};

use crate::router::{Router, RouterLoss};
use crate::teacher::Lesson;
use crate::{Distillation, Mark, Media, Sequence, Tape, Teacher, TrainError, Var};

/// What a step's loss is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// The factor of the loss that keeps experts equally busy; see [`RouterLoss`].
    pub balance: f32,
    /// The factor of the loss that keeps router logits small.
    pub router_z: f32,
    /// Rows of logits that are held at a time: their memory is this many times V.
    pub logit_rows: usize,
    /// What is kept for the way back.
    pub memory: Memory,
}

/// What of a layer is kept for its adjoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Every result.
    KeepAll,
    /// What layers pass on and what attention gathers; the rest is computed a second time.
    Recompute,
}

impl Default for Objective {
    fn default() -> Self {
        Self { balance: 0.01, router_z: 0.001, logit_rows: 256, memory: Memory::KeepAll }
    }
}

/// What a step lost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Losses {
    /// The weighted sum of the cross-entropies, in nats; divided by the weights' sum, the mean.
    pub entropy: f64,
    /// The sum of the weights.
    pub weight: f64,
    /// The weighted sum of the divergences from a teacher, in nats, where there is one.
    pub divergence: f64,
    /// Of each layer with experts, its router's.
    pub routers: Vec<RouterLoss>,
    /// Rows that went through the model.
    pub n_rows: usize,
    /// Pairs of which the better answer is the likelier one, measured against the reference.
    pub preferred: u64,
}

impl Objective {
    /// Runs `sequences` forward and backward and adds the gradients of
    /// Σ weight · cross-entropy / `total_weight` + share · (balance · Σ over layers + router_z · Σ over layers) to those of
    /// `tape`. The `share` is these sequences' part of a step that is computed in several pieces, 1 for a step in one.
    ///
    /// # Errors
    /// [`TrainError::Sequence`] if a sequence does not fit the model; [`TrainError::Model`] or [`TrainError::Op`] if a
    /// token or a shape does not.
    pub fn accumulate<D: Adjoint>(
        &self,
        tape: &Tape<D>,
        model: &Model<Tape<D>>,
        sequences: &[Sequence],
        of_step: (f64, f32),
    ) -> Result<Losses, TrainError> {
        self.accumulate_from(None, (tape, model), sequences, of_step)
    }

    /// [`accumulate`](Self::accumulate), where a part of the loss is the divergence from what `teacher` says:
    /// (1 − [`share`](crate::Distillation::share)) · cross-entropy + share · τ² · KL(teacher ‖ model).
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate).
    pub fn accumulate_from<D: Adjoint>(
        &self,
        teacher: Option<&Teacher<D>>,
        (tape, model): (&Tape<D>, &Model<Tape<D>>),
        sequences: &[Sequence],
        (total_weight, share): (f64, f32),
    ) -> Result<Losses, TrainError> {
        let start = tape.mark();
        let watch = &mut Watch::new(self, model, start, share);
        let (x, n_rows) = forward(tape, model, sequences, watch)?;
        let mut losses = Losses { n_rows, ..Losses::default() };
        watch.seed(tape, &mut losses)?;
        let scored: Vec<Scored> = scored(sequences).collect();
        let wanted: Vec<usize> = scored.iter().map(|scored| scored.row).collect();
        if !wanted.is_empty() {
            let lesson = match teacher {
                Some(teacher) => Some((teacher.lesson(sequences, &wanted)?, teacher.how())),
                None => None,
            };
            let hidden = model.decoder.hidden(tape, &x, &wanted)?;
            for (i, scored) in scored.chunks(self.logit_rows.max(1)).enumerate() {
                self.entropy((tape, model), (&hidden, i), (scored, lesson.as_ref()), total_weight, &mut losses)?;
            }
        }
        tape.rewind(start)?;
        Ok(losses)
    }

    /// The loss of some rows of `hidden`, piece `piece` of them, and its way back to `hidden`.
    fn entropy<D: Adjoint>(
        &self,
        (tape, model): (&Tape<D>, &Model<Tape<D>>),
        (hidden, piece): (&Var, usize),
        (scored, lesson): (&[Scored], Option<&(Lesson<'_, D>, Distillation)>),
        total_weight: f64,
        losses: &mut Losses,
    ) -> Result<(), TrainError> {
        let mark = tape.mark();
        let first = piece * self.logit_rows.max(1);
        let rows: Vec<usize> = (first..first + scored.len()).collect();
        let logits = model.decoder.logits(tape, &tape.rows(hidden, &rows)?)?;
        let mut gradient = losses.add(tape, &logits, scored, total_weight)?;
        if let Some((lesson, how)) = lesson {
            let dev = tape.inner();
            gradient = dev.scale_rows(&gradient, &vec![1.0 - how.share; rows.len()])?;
            let scale = f64::from(how.share * how.temperature * how.temperature) / total_weight;
            let weights: Vec<f32> = scored.iter().map(|row| (f64::from(row.weight) * scale) as f32).collect();
            let (values, taught) = (tape.value(&logits)?, lesson.logits(&rows)?);
            let (divergences, pull) = dev.divergence(&values, &taught, how.temperature, &weights)?;
            losses.divergence += divergences.iter().zip(scored).map(|(d, row)| d * f64::from(row.weight)).sum::<f64>();
            gradient = dev.add(&gradient, &pull)?;
        }
        tape.seed(&logits, gradient)?;
        Ok(tape.rewind(mark)?)
    }
}

/// The cross-entropies of `sequences` alone, without gradients.
///
/// # Errors
/// As [`Objective::accumulate`].
pub fn evaluate<D: Adjoint>(
    tape: &Tape<D>,
    model: &Model<Tape<D>>,
    sequences: &[Sequence],
    logit_rows: usize,
) -> Result<Losses, TrainError> {
    let start = tape.mark();
    let (x, n_rows) = forward(tape, model, sequences, &mut Passing(start))?;
    let mut losses = Losses { n_rows, ..Losses::default() };
    let scored: Vec<Scored> = scored(sequences).collect();
    for scored in scored.chunks(logit_rows.max(1)) {
        let mark = tape.mark();
        let wanted: Vec<usize> = scored.iter().map(|scored| scored.row).collect();
        let logits = model.decoder.logits(tape, &model.decoder.hidden(tape, &x, &wanted)?)?;
        losses.add(tape, &logits, scored, 1.0)?;
        tape.discard(mark);
    }
    tape.discard(start);
    Ok(losses)
}

impl Losses {
    /// Adds the cross-entropies of the rows of `logits`; returns the gradient of their weighted sum over `total_weight`.
    fn add<D: Adjoint>(
        &mut self,
        tape: &Tape<D>,
        logits: &Var,
        scored: &[Scored],
        total_weight: f64,
    ) -> Result<D::Tensor, TrainError> {
        let weights = scored.iter().map(|scored| (f64::from(scored.weight) / total_weight) as f32);
        let (entropies, gradient) = Scored::cross_entropy(tape, logits, scored, &weights.collect::<Vec<_>>())?;
        for (entropy, scored) in entropies.iter().zip(scored) {
            self.entropy += entropy * f64::from(scored.weight);
            self.weight += f64::from(scored.weight);
        }
        Ok(gradient)
    }

    /// Adds what another piece of the step lost.
    pub fn merge(&mut self, other: &Self) {
        self.entropy += other.entropy;
        self.weight += other.weight;
        self.divergence += other.divergence;
        self.n_rows += other.n_rows;
        self.preferred += other.preferred;
        match self.routers.is_empty() {
            true => self.routers = other.routers.clone(),
            false => self.routers.iter_mut().zip(&other.routers).for_each(|(sum, other)| sum.merge(other)),
        }
    }

    /// The mean cross-entropy, in nats a token; of pairs, the mean loss of one.
    pub fn mean(&self) -> f64 {
        self.entropy / self.weight
    }
}

/// A row whose next token counts.
pub(crate) struct Scored {
    pub(crate) row: usize,
    /// The sequence that it is of.
    pub(crate) sequence: usize,
    target: u32,
    pub(crate) weight: f32,
}

impl Scored {
    /// The cross-entropy of each row of `logits`, and the gradient of their sum with `weights`.
    pub(crate) fn cross_entropy<D: Adjoint>(
        tape: &Tape<D>,
        logits: &Var,
        scored: &[Self],
        weights: &[f32],
    ) -> Result<(Vec<f64>, D::Tensor), TrainError> {
        let tokens: Vec<u32> = scored.iter().map(|scored| scored.target).collect();
        Ok(tape.inner().cross_entropy(&tape.value(logits)?, Targets { tokens: &tokens, weights })?)
    }
}

/// The rows of `sequences` that count.
pub(crate) fn scored(sequences: &[Sequence]) -> impl Iterator<Item = Scored> {
    let of_sequence = |(i, sequence): (usize, &'_ Sequence)| {
        let rows = sequence.targets.iter().copied().zip(sequence.weights.iter().copied());
        rows.map(move |(target, weight)| (i, target, weight)).collect::<Vec<_>>()
    };
    let rows = sequences.iter().enumerate().flat_map(of_sequence).enumerate();
    let scored = rows.map(|(row, (sequence, target, weight))| Scored { row, sequence, target, weight });
    scored.filter(|scored| scored.weight != 0.0)
}

/// The residual stream of all sequences after the last layer, `[T, D]`, and T.
pub(crate) fn forward<D: Adjoint>(
    tape: &Tape<D>,
    model: &Model<Tape<D>>,
    sequences: &[Sequence],
    watch: &mut impl Probe<Tape<D>>,
) -> Result<(Var, usize), TrainError> {
    sequences.iter().try_for_each(check)?;
    let encoded = Encoded::new(tape, model, sequences, watch)?;
    let pages = |sequence: &Sequence| sequence.len().div_ceil(PAGE_LEN);
    let n_pages = sequences.iter().map(pages).sum();
    let ids: Vec<u32> = (0..n_pages as u32).collect();
    let mut rows = Vec::new();
    let mut page = 0;
    for (sequence, places) in sequences.iter().zip(&encoded.places) {
        let run = PageRun { pages: &ids[page..page + pages(sequence)], first_position: 0 };
        page += pages(sequence);
        rows.extend(sequence.inputs.iter().enumerate().map(|(position, input)| {
            let input = match *input {
                Input::Feature { features, row } => {
                    // What is not there, another one's rows among it, is refused where rows are looked up.
                    let place = places.get(features).and_then(|(tower, rows)| Some((*tower, rows.clone().nth(row)?)));
                    let (features, row) = place.unwrap_or((usize::MAX, row));
                    Input::Feature { features, row }
                }
                token => token,
            };
            Row { input, position, global: run, chunked: run, wants_logits: false }
        }));
    }
    let mut cache = model.decoder.cache(tape, n_pages, n_pages, KvFormat::F32)?;
    let features: Vec<&Var> = encoded.features.iter().collect();
    let batch = Batch { rows: &rows, features: &features };
    Ok((model.decoder.layers(tape, &mut cache, &batch, watch)?, rows.len()))
}

fn check(sequence: &Sequence) -> Result<(), TrainError> {
    let (n_inputs, n_targets, n_weights) = (sequence.len(), sequence.targets.len(), sequence.weights.len());
    if n_targets != n_inputs || n_weights != n_inputs {
        let why = format!("{n_inputs} positions, {n_targets} targets, {n_weights} weights");
        return Err(TrainError::Sequence { why });
    }
    Ok(())
}

/// What the towers make of the media of sequences, all of a kind at once.
struct Encoded {
    /// Rows of pictures, rows of sounds.
    features: Vec<Var>,
    /// Of each sequence's media: which of `features`, and its rows there.
    places: Vec<Vec<(usize, Range<usize>)>>,
}

impl Encoded {
    fn new<D: Adjoint>(
        tape: &Tape<D>,
        model: &Model<Tape<D>>,
        sequences: &[Sequence],
        watch: &mut impl Probe<Tape<D>>,
    ) -> Result<Self, TrainError> {
        let lacks =
            |what: &str| TrainError::Sequence { why: format!("it has {what}, and the model has no tower for it") };
        let (mut pixels, mut sounds) = (Vec::new(), Vec::new());
        // Rows of pictures and of sounds so far.
        let mut n_rows = [0; 2];
        let mut places = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let mut of_sequence = Vec::with_capacity(sequence.media.len());
            for media in &sequence.media {
                let (kind, n) = match media {
                    Media::Image(tiles) => {
                        let vision = model.vision.as_ref().ok_or_else(|| lacks("a picture"))?;
                        let tile = 3 * vision.tile() * vision.tile();
                        if tiles.is_empty() || !tiles.len().is_multiple_of(tile) {
                            let why = format!("{} pixel values are no tiles of {tile}", tiles.len());
                            return Err(TrainError::Sequence { why });
                        }
                        pixels.extend_from_slice(tiles);
                        (0, tiles.len() / tile * vision.tokens_per_tile())
                    }
                    Media::Sound(chunks) => {
                        let audio = model.audio.as_ref().ok_or_else(|| lacks("a sound"))?;
                        let (n_mels, n_columns) = (audio.encoder().n_mels(), audio.encoder().chunk_columns());
                        sounds.extend(
                            chunks.iter().map(|chunk| (by_bin(&chunk.columns, n_mels, n_columns), chunk.valid)),
                        );
                        (1, chunks.iter().map(|chunk| audio.rows(chunk.valid)).sum())
                    }
                };
                of_sequence.push((kind, n_rows[kind]..n_rows[kind] + n));
                n_rows[kind] += n;
            }
            places.push(of_sequence);
        }
        let mut features = Vec::new();
        if let Some(vision) = model.vision.as_ref().filter(|_| !pixels.is_empty()) {
            features.push(vision.forward(tape, &pixels, watch)?);
        } else {
            // Sounds are the first kind then.
            places.iter_mut().flatten().for_each(|place| place.0 = 0);
        }
        if let Some(audio) = model.audio.as_ref().filter(|_| !sounds.is_empty()) {
            let chunks = sounds.iter().map(|(mel_mc, valid)| AudioChunk { mel_mc, valid: *valid });
            features.push(audio.forward(tape, &chunks.collect::<Vec<_>>(), watch)?);
        }
        Ok(Self { features, places })
    }
}

/// Experts that a row goes to, by layer.
fn top_k<D: Adjoint>(model: &Model<Tape<D>>) -> BTreeMap<usize, usize> {
    let mut by_layer = BTreeMap::new();
    model.decoder.visit(&mut |passage, _| {
        if let Passage::Routed { layer, top_k } = passage {
            by_layer.insert(layer, top_k);
        }
    });
    by_layer
}

/// Columns of `n_mels` bins, `[_, M]`, bin by bin: `[M, C]`. Columns that are not there are not read.
fn by_bin(columns: &[f32], n_mels: usize, n_columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; n_mels * n_columns];
    for (t, column) in columns.chunks_exact(n_mels.max(1)).take(n_columns).enumerate() {
        for (bin, value) in column.iter().enumerate() {
            values[bin * n_columns + t] = *value;
        }
    }
    values
}

/// Sees what passes: routers are measured, and layers that are done are forgotten.
pub(crate) struct Watch {
    memory: Memory,
    factors: [f32; 2],
    /// Experts that a row goes to, by layer.
    top_k: BTreeMap<usize, usize>,
    from: Mark,
    routers: Vec<RouterLoss>,
    /// Router logits with the gradient of their layer's losses.
    seeds: Vec<(Var, Vec<f32>)>,
}

impl Watch {
    /// Watches what passes on the tape from `from` on, of sequences that are `share` of a step.
    pub(crate) fn new<D: Adjoint>(objective: &Objective, model: &Model<Tape<D>>, from: Mark, share: f32) -> Self {
        let factors = [share * objective.balance, share * objective.router_z];
        let (routers, seeds) = (Vec::new(), Vec::new());
        Self { memory: objective.memory, factors, top_k: top_k(model), from, routers, seeds }
    }

    /// Puts the gradients of routers' losses on the tape, and the losses into `losses`.
    pub(crate) fn seed<D: Adjoint>(&mut self, tape: &Tape<D>, losses: &mut Losses) -> Result<(), TrainError> {
        losses.routers = std::mem::take(&mut self.routers);
        for (logits, gradient) in std::mem::take(&mut self.seeds) {
            tape.seed(&logits, tape.inner().upload(&gradient, tape.shape(&logits)[1])?)?;
        }
        Ok(())
    }
}

/// Lets layers be forgotten as they pass, since the mark: nothing goes back.
pub(crate) struct Passing(pub(crate) Mark);

impl<D: Adjoint> Probe<Tape<D>> for Passing {
    fn see(&mut self, tape: &Tape<D>, site: Site, x: &Var) {
        match site {
            Site::Layer(_) | Site::VisionLayer(_) | Site::AudioLayer(_) => {
                tape.forget(self.0, x);
                self.0 = tape.mark();
            }
            Site::Embeds | Site::VisionPreNorm | Site::AudioEmbeds => self.0 = tape.mark(),
            _ => {}
        }
    }

    fn looks(&self) -> bool {
        false
    }
}

impl<D: Adjoint> Probe<Tape<D>> for Watch {
    fn see(&mut self, tape: &Tape<D>, site: Site, x: &Var) {
        match site {
            Site::Router(layer) => {
                let [_, n_experts] = tape.shape(x);
                let top_k = self.top_k.get(&layer).copied().unwrap_or(1);
                let (loss, gradient) = Router { layer, n_experts, top_k }.measure(&tape.download(x), self.factors);
                self.routers.push(loss);
                self.seeds.push((*x, gradient));
            }
            Site::Layer(_) | Site::VisionLayer(_) | Site::AudioLayer(_) => {
                if self.memory == Memory::Recompute {
                    tape.forget(self.from, x);
                }
                self.from = tape.mark();
            }
            Site::Embeds | Site::VisionPreNorm | Site::AudioEmbeds => self.from = tape.mark(),
            _ => {}
        }
    }

    fn looks(&self) -> bool {
        false
    }
}
