//! Clips that are computed while they are being said.

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use cpu::{Cpu, CpuOptions};
use engine::Limits;
use engine::media::Media;
use engine::media::audio::{Clip, ClipConfig, Sound};
use engine::service::{Event, Handle, Job, Options, Parts, Task, spawn};
use it::Toy;
use it::serving::{Outcome, Served, job, options, prompt, tokenizer};
use it::speaking;
use serde_json::{Value, json};
use tokenizer::{AudioIds, Piece};

/// Frames of a block: 0.4 seconds, of chunks of two seconds.
const BLOCK: usize = 20;
/// Samples of a block.
const BLOCK_SAMPLES: usize = 2 * BLOCK * 160;

/// A toy whose frames see their own block and those before it, and whose features do not depend on what is still to be said.
fn parts(padding_mode: &str) -> Result<(Parts<Cpu>, ClipConfig)> {
    let (encoder, features) =
        (json!({"attention_block": BLOCK}), json!({"log_mel_max": 1.5, "padding_mode": padding_mode}));
    parts_with(&encoder, &features, &Limits::default())
}

fn parts_with(encoder: &Value, features: &Value, limits: &Limits) -> Result<(Parts<Cpu>, ClipConfig)> {
    let folder = tempfile::tempdir()?;
    speaking::write(folder.path())?;
    speaking::add_ears_with(folder.path(), encoder, features)?;
    let checkpoint = formats::Checkpoint::open(folder.path())?;
    let audio = checkpoint.config.audio.as_ref().context("ears")?;
    let own = checkpoint.audio_preprocessor.context("a preprocessor")?;
    let config = ClipConfig::of(&own, audio, limits)?;
    let ids = AudioIds { start: audio.tokens.start, audio: audio.tokens.audio, end: audio.tokens.end };
    let dev = Cpu::new(CpuOptions { threads: NonZeroUsize::new(1), ..Default::default() });
    let Toy { dev, model, .. } = Toy::load(dev, folder.path())?;
    let tokenizer = tokenizer()?.into();
    Ok((Parts { dev, model, tokenizer, image_ids: None, audio_ids: Some(ids) }, config))
}

fn start(padding_mode: &str, options: Options) -> Result<(Served, ClipConfig)> {
    let (parts, config) = parts(padding_mode)?;
    let (handle, thread) = spawn(parts, options)?;
    Ok((Served { handle, thread }, config))
}

fn samples(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| 0.3 * (i as f32 * 0.2).sin() * ((i + 900 * seed) as f32 * 0.0007).cos()).collect()
}

fn with(sound: Sound, rest: Vec<u32>, max_tokens: usize) -> Job {
    let mut job = job(Vec::new(), max_tokens);
    job.pieces = vec![Piece::Ids(prompt(1, 3)), Piece::Media(0), Piece::Ids(rest)];
    job.media = vec![Media::Audio(sound)];
    job
}

/// Computes what is certain of a clip and answers nothing.
fn ahead(handle: &Handle, begun: Sound) -> Result<Outcome> {
    let mut job = with(begun, Vec::new(), 0);
    job.pieces.pop();
    Ok(Outcome::of(handle.submit(job)?))
}

/// The mean of all rows' final states, which every row of the clip moves.
fn embedding(handle: &Handle, sound: Sound) -> Result<Vec<u32>> {
    let mut job = with(sound, prompt(2, 5), 0);
    job.task = Task::Embed;
    let outcome = Outcome::of(handle.submit(job)?);
    outcome.usage()?;
    let found = outcome.others.into_iter().find_map(|event| match event {
        Event::Embedding(values) => Some(values.into_iter().map(f32::to_bits).collect()),
        _ => None,
    });
    found.context("an embedding")
}

/// Frames that the encoder computed, after so many jobs.
fn n_frames(served: &Served, n_jobs: u64) -> Result<usize> {
    served.until(|stats| stats.n_ended[0] == n_jobs)?;
    Ok(served.handle.stats().0.n_frames as usize)
}

fn offline(config: &ClipConfig, samples: &[f32]) -> Result<Sound> {
    Ok(config.sound(&Clip::new(samples.to_vec()).context("samples")?))
}

#[test]
fn at_the_end_of_a_clip_no_more_than_its_last_block_is_left() -> Result<()> {
    let (served, config) = start("valid", options(2))?;
    let all = samples(2 * 32_000 + 3 * BLOCK_SAMPLES + 1000, 0);
    let mut listener = config.listen(&Limits::default());
    let (mut n_jobs, mut n_ahead) = (0, 0);
    for piece in all.chunks(700) {
        listener.push(piece)?;
        if listener.n_certain() > n_ahead {
            assert_eq!(listener.n_certain(), n_ahead + 1, "block by block");
            n_ahead = listener.n_certain();
            ahead(&served.handle, listener.begun().context("a block")?)?.usage()?;
            n_jobs += 1;
            // Each block once, whatever was said before it.
            assert_eq!(n_frames(&served, n_jobs)?, n_ahead * BLOCK);
        }
    }
    assert_eq!(n_jobs, 2 * 5 + 3);
    let whole = listener.commit()?;
    let n_all: usize = whole.chunks().map(|chunk| chunk.n_frames()).sum();
    let answer = Outcome::of(served.handle.submit(with(whole, prompt(2, 5), 6))?);
    let n_left = n_frames(&served, n_jobs + 1)? - n_ahead * BLOCK;
    // 1000 samples are seven columns.
    assert_eq!((n_left, n_all), (4, n_ahead * BLOCK + 4));
    assert!(n_left <= BLOCK);
    // 69 positions were computed ahead: four full pages.
    assert_eq!(answer.usage()?.n_cached, 64);
    served.end()?;

    let (fresh, config) = start("valid", options(2))?;
    let alone = Outcome::of(fresh.handle.submit(with(offline(&config, &all)?, prompt(2, 5), 6))?);
    assert_eq!((n_frames(&fresh, 1)?, alone.usage()?.n_cached, &alone.answers), (n_all, 0, &answer.answers));
    println!("{n_left} of {n_all} frames were left at the end, {n_jobs} blocks came before");
    fresh.end()
}

/// Numbers from `first` to `last`, the same ones each time.
struct Draw(u32);

impl Draw {
    fn from(&mut self, first: usize, last: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        first + (self.0 >> 8) as usize % (last - first + 1)
    }
}

#[test]
fn however_a_clip_is_split_its_rows_are_those_of_the_whole() -> Result<()> {
    let (mut n_clips, mut n_jobs) = (0, 0);
    for mode in ["valid", "chunk"] {
        let (reference, config) = start(mode, options(2))?;
        let (served, _) = start(mode, options(2))?;
        let mut draw = Draw(7);
        // Around the ends of blocks and chunks a sample more or less decides what is left.
        let edges = [1, 200, 201, BLOCK_SAMPLES, BLOCK_SAMPLES + 200, 32_000, 32_200, 32_000 + BLOCK_SAMPLES];
        let edges = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]).filter(|n| *n > 0);
        for n in edges.chain([1234, 40_000, 66_000]) {
            let all = samples(n, n_clips);
            let mut listener = config.listen(&Limits::default());
            let (mut rest, mut n_ahead, asks_every) = (&all[..], 0, draw.from(1, 3));
            for i in 0.. {
                let (piece, later) = rest.split_at(rest.len().min(draw.from(1, 9000)));
                listener.push(piece)?;
                rest = later;
                // Sometimes several blocks are certain before anything is computed.
                if i % asks_every == 0 && listener.n_certain() > n_ahead {
                    n_ahead = listener.n_certain();
                    ahead(&served.handle, listener.begun().context("what is certain")?)?.usage()?;
                    n_jobs += 1;
                }
                if rest.is_empty() {
                    break;
                }
            }
            let (heard, whole) = (listener.commit()?, offline(&config, &all)?);
            assert_eq!((heard.keys(), heard.n_rows()), (whole.keys(), whole.n_rows()), "{mode}, {n} samples");
            assert_eq!(heard.n_rows() as u64, config.cost(n as u64).tokens, "{mode}, {n} samples");
            assert_eq!(
                embedding(&served.handle, heard)?,
                embedding(&reference.handle, whole)?,
                "{mode}, {n} samples, computed ahead at every {asks_every}. piece"
            );
            n_clips += 1;
        }
        served.end()?;
        reference.end()?;
    }
    println!("{n_clips} clips, {n_jobs} jobs computed ahead");
    assert!(n_jobs > 50);
    Ok(())
}

#[test]
fn an_encoder_with_too_large_a_state_or_without_blocks_goes_chunk_by_chunk() -> Result<()> {
    let (blocks, fixed) = (json!({"attention_block": BLOCK}), json!({"log_mel_max": 1.5}));
    // Two layers of 16 numbers, keys and values, for 100 frames.
    let state_bytes = 2 * 100 * 2 * 16 * 4;
    let small = |audio_state_bytes| Limits { audio_state_bytes, ..Limits::default() };
    for (encoder, features, limits, n_certain) in [
        (&blocks, &fixed, small(state_bytes), 7),
        (&blocks, &fixed, small(state_bytes - 1), 1),
        (&json!({}), &fixed, Limits::default(), 1),
        (&blocks, &json!({}), Limits::default(), 1),
    ] {
        let (parts, config) = parts_with(encoder, features, &limits)?;
        let all = samples(32_000 + 2 * BLOCK_SAMPLES + 500, 3);
        let mut listener = config.listen(&limits);
        listener.push(&all)?;
        assert_eq!(listener.n_certain(), n_certain, "{encoder} {features}");
        let (handle, thread) = spawn(parts, options(1))?;
        let served = Served { handle, thread };
        let begun = listener.begun().context("a chunk")?;
        let n_begun: usize = begun.chunks().map(|chunk| chunk.n_frames()).sum();
        assert_eq!(n_begun, if n_certain == 7 { 7 * BLOCK } else { 100 });
        ahead(&served.handle, begun)?.usage()?;
        assert_eq!(n_frames(&served, 1)?, n_begun);
        let whole = offline(&config, &all)?;
        let answer = Outcome::of(served.handle.submit(with(whole.clone(), prompt(2, 5), 3))?);
        answer.usage()?;
        let n_all: usize = whole.chunks().map(|chunk| chunk.n_frames()).sum();
        // What was certain is not computed again.
        assert_eq!((n_frames(&served, 2)?, n_all), (n_all, 142));
        served.end()?;
    }
    Ok(())
}
