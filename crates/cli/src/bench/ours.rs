//! This engine under measurement.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cpu::{Cpu, ExpertStats, Roofs};
use engine::media::audio::{Clip, ClipConfig, RATE_HZ};
use engine::{Content, Engine, Known, STEP_ROWS, Sequence};
use formats::config::{AudioConfig, ModelConfig, VisionConfig};
use llama::{Footprint, Site};
use tensor::{Device, KvFormat};

use super::{CLIP_SECONDS, Ids, Test};

/// How long steps that do not count come before those that do. The other engine has about as many, which make its
/// buffers: caches are the last run's, and a processor that was idle is slow at first.
const WARMING: Duration = Duration::from_millis(10);

/// A loaded model and what its steps cost.
pub struct Ours {
    engine: Engine<Cpu>,
    footprint: Footprint,
    /// Multiply-adds of one tile.
    tile_products: usize,
    /// Multiply-adds of one clip, and how the model takes it.
    clip_products: usize,
    clips: Option<ClipConfig>,
    n_vocab: u32,
}

/// A share of a roof.
pub struct Share {
    /// Which roof.
    pub roof: &'static str,
    /// The share, 1 for the roof itself.
    pub share: f64,
}

impl Ours {
    /// A model of `config` whose weights cost `footprint`; `clips` if it takes audio.
    pub fn new(engine: Engine<Cpu>, footprint: Footprint, config: &ModelConfig, clips: Option<ClipConfig>) -> Self {
        let n_vocab = u32::try_from(engine.model().decoder.vocab_size()).unwrap_or(u32::MAX);
        let text_width = config.text.hidden_size;
        let tile_products = config.vision.as_ref().map_or(0, |vision| tile_products(vision, text_width));
        let clip_products = config.audio.as_ref().map_or(0, |audio| clip_products(audio, text_width));
        Self { engine, footprint, tile_products, clip_products, clips, n_vocab }
    }

    /// How many token ids there are.
    pub fn n_vocab(&self) -> u32 {
        self.n_vocab
    }

    /// A sequence of `depth` tokens, computed.
    fn sequence(&mut self, depth: usize, ids: &mut Ids) -> Result<Sequence<<Cpu as Device>::Tensor>> {
        let mut sequence = Sequence::default();
        if depth > 0 {
            self.extend(&mut sequence, depth, ids)?;
            self.engine.prefill(&mut sequence, &mut |_, _| {})?;
        }
        Ok(sequence)
    }

    /// Makes `n` more tokens known.
    fn extend(&mut self, sequence: &mut Sequence<<Cpu as Device>::Tensor>, n: usize, ids: &mut Ids) -> Result<()> {
        if sequence.is_empty() {
            let known = ids.take(n).map(Known::Token).collect();
            self.engine.set(sequence, Content { known, media: Vec::new() })?;
        } else {
            for id in ids.take(n) {
                sequence.push(id);
            }
        }
        Ok(())
    }

    /// What the cache of experts has done, if there is one.
    pub fn expert_stats(&self) -> Option<ExpertStats> {
        self.engine.device().expert_stats()
    }

    /// Seconds of one tile through the vision tower, its adapter and the projector.
    fn tile(&self) -> Result<f64> {
        let vision = self.engine.model().vision.as_ref().context("this model takes no images")?;
        let n_values = 3 * vision.tile() * vision.tile();
        let pixels: Vec<f32> = Ids::new(256).take(n_values).map(|byte| byte as f32 / 127.5 - 1.0).collect();
        let began = Instant::now();
        vision.forward(self.engine.device(), &pixels, &mut |_: &Cpu, _: Site, _: &<Cpu as Device>::Tensor| {})?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Seconds of a clip through features, the audio encoder and its projector.
    fn clip(&self) -> Result<f64> {
        let (tower, config) =
            self.engine.model().audio.as_ref().zip(self.clips.as_ref()).context("this model takes no audio")?;
        let n_samples = (CLIP_SECONDS * RATE_HZ) as usize;
        let clip = Clip::new(Ids::new(1 << 16).take(n_samples).map(|id| id as f32 / 32768.0 - 1.0).collect());
        let clip = clip.context("samples")?;
        let began = Instant::now();
        engine::encode_sound(self.engine.device(), tower, &config.sound(&clip))?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// The device.
    pub fn device(&self) -> &Cpu {
        self.engine.device()
    }

    /// How keys and values are stored.
    pub fn kv(&self) -> KvFormat {
        self.engine.kv()
    }

    /// Bytes of the buffers that steps have needed so far.
    pub fn work_bytes(&self) -> usize {
        self.engine.device().work_bytes()
    }

    /// What the machine allows, measured now.
    pub fn roofs(&self, budget: Duration) -> Roofs {
        self.engine.device().roofs(budget)
    }

    /// The share of the roof that binds: for one row that is reading the weights, for many multiplying.
    pub fn share(&mut self, test: Test, seconds: f64, roofs: &Roofs) -> Result<Share> {
        Ok(match test {
            Test::Prefill { tokens, .. } => {
                let (products, quantised) = self.footprint.products(tokens, 1);
                let roof_s = 2.0 * (quantised as f64 / roofs.int8 + (products - quantised) as f64 / roofs.f32);
                let roof = if 2 * quantised > products { "int8" } else { "f32" };
                Share { roof, share: roof_s / seconds }
            }
            // Towers are stored in 16 bits, which are multiplied as f32.
            Test::Tile { .. } => Share { roof: "f32", share: 2.0 * self.tile_products as f64 / roofs.f32 / seconds },
            Test::Clip { .. } => Share { roof: "f32", share: 2.0 * self.clip_products as f64 / roofs.f32 / seconds },
            Test::Decode { tokens, batch, depth } => {
                let n_chosen = self.n_chosen(batch)?;
                let cache = batch * (depth + tokens / 2) * self.engine.position_bytes();
                let bytes = tokens as f64 * (self.footprint.step_bytes(n_chosen, batch) + cache) as f64;
                let (products, quantised) = self.footprint.products(batch * tokens, batch * tokens);
                let memory_s = bytes / roofs.memory;
                let int8_s = 2.0 * (quantised as f64 / roofs.int8 + (products - quantised) as f64 / roofs.f32);
                match memory_s >= int8_s {
                    true => Share { roof: "memory", share: memory_s / seconds },
                    false => Share { roof: "int8", share: int8_s / seconds },
                }
            }
        })
    }

    /// Experts that a step of `batch` rows reads, counted over all layers: by the routing of one such step.
    fn n_chosen(&mut self, batch: usize) -> Result<usize> {
        if self.footprint.routed.is_empty() {
            return Ok(0);
        }
        let top_k: Vec<(usize, usize)> = self.footprint.routed.iter().map(|r| (r.layer, r.top_k)).collect();
        let mut ids = Ids::new(self.n_vocab);
        let mut sequences = Vec::new();
        for _ in 0..batch {
            let mut sequence = Sequence::default();
            self.extend(&mut sequence, 1, &mut ids)?;
            sequences.push(sequence);
        }
        let mut chosen = BTreeSet::new();
        let mut probe = |dev: &Cpu, site: Site, logits: &<Cpu as Device>::Tensor| {
            if let Site::Router(layer) = site
                && let Some((_, top_k)) = top_k.iter().find(|(at, _)| *at == layer)
                && let Ok(routing) = dev.route(logits, *top_k)
            {
                chosen.extend(dev.choices(&routing).iter().map(|choice| (layer, choice.expert)));
            }
        };
        let mut refs: Vec<&mut Sequence<_>> = sequences.iter_mut().collect();
        self.engine.step_seen(&mut refs, 1, &mut probe)?;
        for sequence in sequences {
            self.engine.release(sequence);
        }
        Ok(chosen.len())
    }
}

/// Multiply-adds of one tile: maps and attention.
fn tile_products(config: &VisionConfig, text_width: usize) -> usize {
    let (width, n_patches, n_rows) = (config.hidden_size, config.grid().pow(2), config.grid().pow(2) + 1);
    let patches = n_patches * config.n_channels * config.patch_size.pow(2) * width;
    let row = 4 * width * width + 2 * width * config.intermediate_size + 2 * n_rows * width;
    let joined = width * config.joined_patches().pow(2) * config.projector_input_dim
        + config.projector_input_dim * config.projector_output_dim
        + config.vision_output_dim * text_width;
    patches + config.n_layers * n_rows * row + config.tokens_per_tile() * joined
}

/// Multiply-adds of a clip in the audio encoder, attention included, and the projector.
fn clip_products(config: &AudioConfig, text_width: usize) -> usize {
    let (encoder, projector) = (&config.encoder, &config.projector);
    let (width, n_frames) = (encoder.hidden_size, CLIP_SECONDS as usize * 50);
    let stem = n_frames * 3 * (2 * encoder.n_mels * width + width * width);
    let seen = n_frames.min(encoder.n_frames);
    let frame = 4 * width * width + 2 * width * encoder.intermediate_size + 2 * seen * width;
    let row = projector.stack * width * projector.hidden_size + projector.inner_size() * text_width;
    stem + encoder.n_layers * n_frames * frame + n_frames.div_ceil(projector.stack) * row
}

impl super::Engine for Ours {
    fn warm(&mut self, test: Test) -> Result<()> {
        let mut ids = Ids::new(self.n_vocab);
        match test {
            Test::Prefill { tokens, depth: 0 } => {
                let sequence = self.sequence(tokens, &mut ids)?;
                self.engine.release(sequence);
            }
            Test::Decode { .. } => {
                let began = Instant::now();
                while began.elapsed() < WARMING {
                    let sequence = self.sequence(1, &mut ids)?;
                    self.engine.release(sequence);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn run(&mut self, test: Test) -> Result<f64> {
        let mut ids = Ids::new(self.n_vocab);
        match test {
            Test::Tile { .. } => self.tile(),
            Test::Clip { .. } => self.clip(),
            Test::Prefill { tokens, depth } => {
                let mut sequence = self.sequence(depth, &mut ids)?;
                self.extend(&mut sequence, tokens, &mut ids)?;
                let began = Instant::now();
                self.engine.prefill(&mut sequence, &mut |_, _| {})?;
                let seconds = began.elapsed().as_secs_f64();
                self.engine.release(sequence);
                Ok(seconds)
            }
            Test::Decode { tokens, depth, batch } => {
                let mut sequences = Vec::new();
                for _ in 0..batch {
                    sequences.push(self.sequence(depth, &mut ids)?);
                }
                let mut seconds = 0.0;
                for _ in 0..tokens {
                    for sequence in &mut sequences {
                        self.extend(sequence, 1, &mut ids)?;
                    }
                    let mut refs: Vec<&mut Sequence<_>> = sequences.iter_mut().collect();
                    let began = Instant::now();
                    self.engine.step(&mut refs, STEP_ROWS)?;
                    seconds += began.elapsed().as_secs_f64();
                }
                for sequence in sequences {
                    self.engine.release(sequence);
                }
                Ok(seconds)
            }
        }
    }
}
