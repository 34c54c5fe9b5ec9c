//! Images and clips in one prompt, in any order.

use std::num::{NonZero, NonZeroUsize};
use std::ops::ControlFlow;

use anyhow::{Context, Result};
use cpu::{Cpu, CpuOptions};
use engine::media::audio::{AudioShape, Clip, ClipConfig, MelSettings, PaddingMode, Sound};
use engine::media::{Extent, Grid, Media, Tiles};
use engine::sampling::SamplingParams;
use engine::service::{Job, Parts, Task, spawn};
use engine::{Engine, Known, Limits, Request, Sequence};
use it::Toy;
use it::serving::{CONTEXT, Outcome, Served, Tokens, job, options, prompt};
use it::speaking;
use tensor::KvFormat;
use tokenizer::{AudioIds, ImageIds, Piece, SpecialTokens, Tokenizer};

/// A toy that sees and hears, and how it takes clips.
fn parts(n_threads: usize) -> Result<(Parts<Cpu>, ClipConfig)> {
    let folder = tempfile::tempdir()?;
    speaking::write(folder.path())?;
    speaking::add_ears(folder.path())?;
    let checkpoint = formats::Checkpoint::open(folder.path())?;
    let audio = checkpoint.config.audio.as_ref().context("ears")?;
    let (own, ids) = (checkpoint.audio_preprocessor.context("a preprocessor")?, audio.tokens);
    let settings = MelSettings { n_mels: own.n_mels, chunk_frames: own.chunk_columns, ..MelSettings::default() };
    let count = |n: usize| NonZero::new(n as u64).context("a count");
    let shape = AudioShape {
        chunk_frames: count(own.chunk_columns)?,
        stack: count(audio.projector.stack)?,
        padding: PaddingMode::Valid,
    };
    let options = CpuOptions { threads: NonZeroUsize::new(n_threads), isa: None };
    let Toy { dev, model, .. } = Toy::load(Cpu::new(options), folder.path())?;
    let ranks = std::fs::read(folder.path().join("tokenizer.model"))?;
    let tokenizer = Tokenizer::from_ranks("tokenizer.model", &ranks, SpecialTokens::llama4())?;
    let image_ids = ImageIds::of(&tokenizer);
    let audio_ids = Some(AudioIds { start: ids.start, audio: ids.audio, end: ids.end });
    let parts = Parts { dev, model, tokenizer: tokenizer.into(), image_ids, audio_ids };
    Ok((parts, ClipConfig::parse(settings, shape, &Limits::default())?))
}

fn image(parts: &Parts<Cpu>, seed: usize, grid: Grid) -> Result<Media> {
    let tile = parts.model.vision.as_ref().context("a vision tower")?.tile();
    let n = 3 * tile * tile * if grid.n_tiles() > 1 { grid.n_tiles() + 1 } else { 1 };
    let pixels = (0..n).map(|i| ((i * 37 + seed) % 255) as f32 / 127.5 - 1.0).collect();
    Ok(Media::Image(Tiles { pixels, grid }))
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
    assert!(config.open_sound(&clip(32_199)?).is_none(), "the last window of the chunk is not complete");
    let begun = config.open_sound(&clip(40_000)?).context("a full chunk")?;
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
