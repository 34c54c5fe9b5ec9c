//! Images and clips in one prompt, in any order.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};
use cpu::{Cpu, CpuOptions};
use engine::media::audio::{Clip, ClipConfig, Sound, decode};
use engine::media::{Extent, Grid, Media, Tiles};
use engine::sampling::SamplingParams;
use engine::service::{Job, Parts, Task, spawn};
use engine::{Engine, Known, Limits, Request, Sequence};
use it::Toy;
use it::hearing::{Vectors, difference, folders};
use it::serving::{CONTEXT, Outcome, Served, Tokens, job, options, prompt, tokenizer};
use it::speaking;
use llama::{Batch, Input, PageRun, Row};
use serde_json::{Value, json};
use tensor::{Device, KvFormat, PAGE_LEN, Reference};
use tokenizer::{AudioIds, ImageIds, Piece, SpecialTokens, Tokenizer};

/// A toy that sees and hears, and how it takes clips.
fn parts(n_threads: usize) -> Result<(Parts<Cpu>, ClipConfig)> {
    parts_with(n_threads, &json!({}), &json!({}))
}

/// With these keys in its `audio_config` and in its preprocessor's file.
fn parts_with(n_threads: usize, encoder: &Value, features: &Value) -> Result<(Parts<Cpu>, ClipConfig)> {
    let folder = tempfile::tempdir()?;
    speaking::write(folder.path())?;
    speaking::add_ears_with(folder.path(), encoder, features)?;
    let ranks = std::fs::read(folder.path().join("tokenizer.model"))?;
    let tokenizer = Tokenizer::from_ranks("tokenizer.model", &ranks, SpecialTokens::llama4())?;
    let (mut parts, config) = parts_of(cpu(n_threads), folder.path(), tokenizer)?;
    parts.image_ids = ImageIds::of(&parts.tokenizer);
    Ok((parts, config))
}

fn cpu(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: NonZeroUsize::new(n_threads), ..Default::default() })
}

/// The model in `folder`, without the tokens around its images, and how it takes clips.
fn parts_of<D: Device>(dev: D, folder: &Path, tokenizer: Tokenizer) -> Result<(Parts<D>, ClipConfig)> {
    let checkpoint = formats::Checkpoint::open(folder)?;
    let audio = checkpoint.config.audio.as_ref().context("ears")?;
    let (own, ids) = (checkpoint.audio_preprocessor.context("a preprocessor")?, audio.tokens);
    let config = ClipConfig::of(&own, audio, &Limits::default())?;
    let Toy { dev, model, .. } = Toy::load(dev, folder)?;
    let audio_ids = Some(AudioIds { start: ids.start, audio: ids.audio, end: ids.end });
    Ok((Parts { dev, model, tokenizer: tokenizer.into(), image_ids: None, audio_ids }, config))
}

fn image(parts: &Parts<Cpu>, seed: usize, grid: Grid) -> Result<Media> {
    let tile = parts.model.vision.as_ref().context("a vision tower")?.tile();
    let n = grid.n_tiles() * 3 * tile * tile;
    let pixels = (0..n).map(|i| ((i * 37 + seed) % 255) as f32 / 127.5 - 1.0).collect();
    Ok(Media::Image(Tiles { pixels, grid }.into()))
}

fn sound(config: &ClipConfig, seconds: f32, pitch: f32) -> Result<Sound> {
    let samples = (0..(seconds * 16_000.0) as usize).map(|i| 0.4 * (i as f32 * pitch).sin());
    Ok(config.sound(&Clip::new(samples.collect()).context("samples")?))
}

/// A clip, a large image, a small one and a clip of two chunks, with text around them; `pitch` is the last clip's.
fn scene(parts: &Parts<Cpu>, config: &ClipConfig, pitch: f32) -> Result<Job> {
    let mut job = job(Vec::new(), 12);
    job.pieces = vec![
        Piece::Ids(prompt(1, 3)),
        Piece::Media(0),
        Piece::Ids(prompt(2, 2)),
        Piece::Media(1),
        Piece::Media(2),
        Piece::Media(3),
        Piece::Ids(prompt(3, 9)),
    ];
    job.media = vec![
        Media::Audio(sound(config, 0.9, 0.11)?),
        image(parts, 5, Grid { rows: 1, cols: 2 })?,
        image(parts, 6, Grid { rows: 1, cols: 1 })?,
        Media::Audio(sound(config, 2.5, pitch)?),
    ];
    Ok(job)
}

#[test]
fn rows_stand_where_the_prompt_says_and_answers_do_not_depend_on_how_they_came() -> Result<()> {
    let (parts, config) = parts(1)?;
    let job = scene(&parts, &config, 0.3)?;
    let (vision, audio) = (parts.model.vision.as_ref().context("eyes")?, parts.model.audio.as_ref().context("ears")?);
    let encoded = job.media.iter().map(|media| {
        let encoded = match media {
            Media::Image(tiles) => engine::encode_image(&parts.dev, vision, tiles)?,
            Media::Audio(sound) => engine::encode_sound(&parts.dev, audio, sound)?,
        };
        Ok((encoded, media.extent()))
    });
    let encoded = encoded.collect::<Result<Vec<_>>>()?;
    let content = engine::content(&job.pieces, &encoded, &parts.layout())?;

    // Every row of every medium, in order, with its own tokens around it and nothing between chunks.
    let (images, ids) = (parts.image_ids.context("image tokens")?, parts.audio_ids.context("audio tokens")?);
    let rows = |media: usize, n: usize| (0..n).map(move |row| Known::Media { media, row });
    let token = |id: u32| std::iter::once(Known::Token(id));
    let text = |seed, n| prompt(seed, n).into_iter().map(Known::Token);
    let of_tile = vision.tokens_per_tile();
    let (start, end) = (ids.start.context("a start")?, ids.end.context("an end")?);
    let mut want: Vec<Known> = text(1, 3).chain(token(start)).chain(rows(0, 12)).chain(token(end)).collect();
    want.extend(text(2, 2).chain(token(images.start)).chain(rows(1, of_tile)).chain(token(images.tile_x)));
    let of_large = |from: usize| (from..from + of_tile).map(|row| Known::Media { media: 1, row });
    want.extend(of_large(of_tile).chain(token(images.tile_y)).chain(token(images.image)).chain(of_large(2 * of_tile)));
    want.extend(token(images.end).chain(token(images.start)).chain(token(images.image)).chain(rows(2, of_tile)));
    // 25 of the first chunk, then half a second: 25 frames, 7 rows.
    want.extend(token(images.end).chain(token(start)).chain(rows(3, 25 + 7)).chain(token(end)).chain(text(3, 9)));
    assert_eq!(content.known, want);
    assert_eq!(parts.layout().n_positions(&job.pieces, &job.media), want.len());
    let n_audio = parts.layout().n_audio(&job.pieces, &job.media);
    assert_eq!(n_audio, 12 + 32 + 4);

    let tokenizer = parts.tokenizer.clone();
    let mut engine = Engine::new(parts.dev, parts.model, CONTEXT, KvFormat::Q8)?;
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let request = Request { max_tokens: Some(12), sampling, forbidden: ids.all().collect(), ..Request::default() };
    let (mut sequence, mut alone) = (Sequence::default(), Tokens::new());
    engine.generate(&mut sequence, content, &request, &tokenizer, &mut |event| {
        if let engine::Event::Token { id, logprob, .. } = event {
            alone.push((id, logprob.to_bits()));
        }
        ControlFlow::Continue(())
    })?;

    let mut options = options(4);
    options.prompt_rows = 7;
    for n_threads in [1, 2] {
        let (parts, config) = self::parts(n_threads)?;
        let again = scene(&parts, &config, 0.3)?;
        let other = scene(&parts, &config, 0.31)?;
        let (handle, thread) = spawn(parts, options.clone())?;
        let served = Served { handle, thread };
        let first = Outcome::of(served.handle.submit(job.clone())?);
        assert_eq!((&first.answers[0], first.usage()?.n_cached), (&alone, 0), "{n_threads} threads");
        assert_eq!((first.usage()?.n_prompt, first.usage()?.n_audio), (want.len(), n_audio));
        // Equal samples are found again, and fork for several answers.
        let mut several = again;
        if let Task::Generate { n_samples, .. } = &mut several.task {
            *n_samples = 3;
        }
        let several = Outcome::of(served.handle.submit(several)?);
        assert!(several.answers.iter().all(|answer| *answer == alone) && several.answers.len() == 3);
        assert!(several.usage()?.n_cached >= 16, "{:?}", several.usage()?);
        // Equal ids with other sound are another prompt, from the block with its first row on.
        let heard = Outcome::of(served.handle.submit(other)?);
        let begin = want.len() - 9 - 1 - 32;
        assert!(heard.usage()?.n_cached <= begin, "{:?}", heard.usage()?);
        assert_ne!(heard.answers[0], alone);
        served.end()?;
    }
    println!("{} positions, {n_audio} of audio, equal in an engine alone and two services", want.len());
    Ok(())
}

/// What a session computes of a question while it is being said is found again when it is answered.
#[test]
fn the_full_chunks_of_a_clip_that_grows_are_computed_once() -> Result<()> {
    let (parts, config) = parts(1)?;
    // The loudest comes first: features are held against the clip's own maximum.
    let loudness = |i: usize| if i < 16_000 { 0.4 } else { 0.2 };
    let samples: Vec<f32> = (0..70_000).map(|i| loudness(i) * (i as f32 * 0.2).sin()).collect();
    let clip = |n: usize| Clip::new(samples[..n].to_vec()).context("samples");
    let of = |sound: Sound, rest: Vec<u32>, max_tokens: usize| {
        let mut job = job(Vec::new(), max_tokens);
        job.pieces = vec![Piece::Ids(prompt(1, 3)), Piece::Media(0), Piece::Ids(rest)];
        job.media = vec![Media::Audio(sound)];
        job
    };
    let begun = |n: usize| -> Result<Option<Sound>> {
        let mut listener = config.listen(&Limits::default());
        listener.push(&samples[..n])?;
        Ok(listener.begun())
    };
    // The window of the chunk's last column ends 200 samples after its middle.
    assert!(begun(199 * 160 + 199)?.is_none() && begun(199 * 160 + 200)?.is_some());
    let begun = begun(40_000)?.context("a full chunk")?;
    let whole = config.sound(&clip(70_000)?);
    assert_eq!((begun.n_rows(), whole.n_rows()), (25, 25 + 25 + 5));
    let mut ahead = of(begun, Vec::new(), 0);
    ahead.pieces.pop();
    let (handle, thread) = spawn(parts, options(2))?;
    let served = Served { handle, thread };
    let first = Outcome::of(served.handle.submit(ahead)?);
    assert_eq!((first.usage()?.n_prompt, first.usage()?.n_completion), (3 + 1 + 25, 0));
    let answer = Outcome::of(served.handle.submit(of(whole.clone(), prompt(2, 5), 6))?);
    assert_eq!(answer.usage()?.n_cached, 16, "the full pages of what came before");
    // As if nothing had been computed ahead.
    let (handle, thread) = spawn(self::parts(1)?.0, options(2))?;
    let fresh = Served { handle, thread };
    let alone = Outcome::of(fresh.handle.submit(of(whole, prompt(2, 5), 6))?);
    assert_eq!((alone.usage()?.n_cached, &alone.answers), (0, &answer.answers));
    served.end()?;
    fresh.end()
}

#[test]
fn what_a_model_does_not_take_is_refused_before_it_is_computed() -> Result<()> {
    let (parts, config) = parts(1)?;
    let clip = Media::Audio(sound(&config, 0.2, 0.1)?);
    let encoded = [(
        engine::encode_sound(&parts.dev, parts.model.audio.as_ref().context("ears")?, &sound(&config, 0.2, 0.1)?)?,
        clip.extent(),
    )];
    let deaf = engine::Layout { audio: None, ..parts.layout() };
    let refused = engine::content(&[Piece::Media(0)], &encoded, &deaf).err().context("no audio")?;
    assert!(refused.to_string().contains("does not take audio"), "{refused}");
    let missing = engine::content(&[Piece::Media(1)], &encoded, &parts.layout()).err().context("no such clip")?;
    assert!(missing.to_string().contains("which is not there"), "{missing}");
    assert!(matches!(clip.extent(), Extent::Audio { n_rows: 3, is_open: false }));
    Ok(())
}

/// Absolute, of rows up to 1.9: sums of 64 products of them, each rounded by 2⁻²⁴ of its size, in the last of some ten maps.
const ROWS_TOLERANCE: f32 = 2e-6;

/// Absolute, of logits up to 4.3: the golden's decoder is float64, and transformers' in f32 comes to 3.0e-6 of it; rows that
/// differ by 1e-6 of their size, as random as rounding, move it by 9e-6, and may differ by twice that. Two rows that have
/// changed places move it by 1.7.
const LOGITS_TOLERANCE: f32 = 2e-5;

/// The prompt of the vectors as the pieces and media that it was made from.
fn mixed<D: Device>(vectors: &Vectors, parts: &Parts<D>, config: &ClipConfig) -> Result<(Vec<Piece>, Vec<Media>)> {
    let (images, clips) = (parts.image_ids.context("image tokens")?, parts.audio_ids.context("audio tokens")?);
    let (mut pieces, mut text, mut is_inside, mut kinds) = (Vec::new(), Vec::new(), false, Vec::new());
    for id in vectors.ids("input_ids")? {
        if id == images.start || Some(id) == clips.start {
            pieces.extend([Piece::Ids(std::mem::take(&mut text)), Piece::Media(kinds.len())]);
            kinds.push(id == images.start);
            is_inside = true;
        } else if id == images.end || Some(id) == clips.end {
            is_inside = false;
        } else if !is_inside {
            text.push(id);
        }
    }
    pieces.push(Piece::Ids(text));
    let tile = parts.model.vision.as_ref().context("eyes")?.tile();
    let (grids, mut pixels) = (vectors.ids("grids")?, vectors.values("pixel_values")?.into_iter());
    let (mut grids, mut clips) = (grids.chunks_exact(2), 0..);
    let media = kinds.into_iter().map(|is_image| {
        if is_image {
            let [rows, cols] = *grids.next().context("a grid")? else { anyhow::bail!("a grid of two numbers") };
            let grid = Grid { rows: rows as usize, cols: cols as usize };
            let pixels = pixels.by_ref().take(grid.n_tiles() * 3 * tile * tile).collect();
            return Ok(Media::Image(Tiles { pixels, grid }.into()));
        }
        let file = folders().swap_remove(0).join(format!("clip{}.wav", clips.next().context("a clip")?));
        let clip = decode(&std::fs::read(file)?, None, &Limits::default(), &|| false)?;
        Ok(Media::Audio(config.sound(&clip)))
    });
    let media = media.collect::<Result<Vec<_>>>()?;
    assert!(grids.next().is_none() && pixels.next().is_none());
    Ok((pieces, media))
}

/// Logits of every row of `content`.
fn logits<D: Device>(parts: &Parts<D>, content: &engine::Content<D::Tensor>) -> Result<Vec<f32>> {
    let (dev, decoder, n) = (&parts.dev, &parts.model.decoder, content.known.len());
    let pages: Vec<u32> = (0..n.div_ceil(PAGE_LEN) as u32).collect();
    let mut cache = decoder.cache(dev, pages.len(), pages.len(), KvFormat::F32)?;
    let run = PageRun { pages: &pages, first_position: 0 };
    let row = |(position, known): (usize, &Known)| {
        let input = match *known {
            Known::Token(id) => Input::Token(id),
            Known::Media { media, row } => Input::Feature { features: media, row },
        };
        Row { input, position, global: run, chunked: run, wants_logits: true }
    };
    let rows: Vec<Row<'_>> = content.known.iter().enumerate().map(row).collect();
    let features: Vec<&D::Tensor> = content.media.iter().map(|media| &media.features).collect();
    let batch = Batch { rows: &rows, features: &features };
    Ok(dev.download(&decoder.forward(dev, &mut cache, &batch, &mut ())?.context("logits")?))
}

/// Rows, logits and the service's answer against the golden.
fn mixed_agrees<D: Device + 'static>(dev: D, name: &str) -> Result<()> {
    let own = folders().swap_remove(0);
    let vectors = Vectors::open(&own.join("mixed_tiny_golden.safetensors"))?;
    let (mut parts, config) = parts_of(dev, &own.join("mixed_tiny"), tokenizer()?)?;
    // As in scripts/make_toy_llama4.py.
    parts.image_ids = Some(ImageIds { start: 122, end: 123, image: 125, patch: 124, tile_x: 126, tile_y: 127 });
    let (pieces, media) = mixed(&vectors, &parts, &config)?;
    let (vision, audio) = (parts.model.vision.as_ref().context("eyes")?, parts.model.audio.as_ref().context("ears")?);
    let encoded = media.iter().map(|media| {
        let encoded = match media {
            Media::Image(tiles) => engine::encode_image(&parts.dev, vision, tiles)?,
            Media::Audio(sound) => engine::encode_sound(&parts.dev, audio, sound)?,
        };
        Ok((encoded, media.extent()))
    });
    let encoded = encoded.collect::<Result<Vec<_>>>()?;
    for (kind, is_image) in [("image_embeds", true), ("audio_embeds", false)] {
        let own = encoded.iter().zip(&media).filter(|(_, media)| matches!(media, Media::Image(_)) == is_image);
        let rows: Vec<f32> = own.flat_map(|((encoded, _), _)| parts.dev.download(&encoded.features)).collect();
        let largest = difference(&rows, &vectors.values(kind)?).context(kind)?;
        println!("{name}: {kind}: largest difference {largest:.1e} of {} values", rows.len());
        assert!(largest <= ROWS_TOLERANCE, "{name}: {kind} differs by {largest}");
    }

    let content = engine::content(&pieces, &encoded, &parts.layout())?;
    let (images, clips) = (parts.image_ids.context("image tokens")?, parts.audio_ids.context("audio tokens")?);
    let id = |known: &Known| match *known {
        Known::Token(id) => id,
        Known::Media { media: n, .. } if matches!(media[n], Media::Image(_)) => images.patch,
        Known::Media { .. } => clips.audio,
    };
    assert_eq!(content.known.iter().map(id).collect::<Vec<_>>(), vectors.ids("input_ids")?);
    let got = logits(&parts, &content)?;
    let largest = difference(&got, &vectors.values("logits")?).context("logits")?;
    println!("{name}: logits: largest difference {largest:.1e} of {} values", got.len());
    assert!(largest <= LOGITS_TOLERANCE, "{name}: logits differ by {largest}");

    let greedy = vectors.ids("greedy")?;
    let mut asked = job(Vec::new(), greedy.len());
    (asked.pieces, asked.media) = (pieces, media);
    let mut options = options(1);
    options.kv = KvFormat::F32;
    let (handle, thread) = spawn(parts, options)?;
    let served = Served { handle, thread };
    let outcome = Outcome::of(served.handle.submit(asked)?);
    assert_eq!(outcome.answers[0].iter().map(|(id, _)| *id).collect::<Vec<_>>(), greedy, "{name}");
    served.end()
}

#[test]
fn two_clips_and_two_images_agree_with_an_independent_model_from_files_to_logits() -> Result<()> {
    mixed_agrees(Reference, "reference")?;
    mixed_agrees(cpu(2), "cpu")
}
