//! What a service can be asked for, over a model.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result};
use cpu::Cpu;
use engine::media::{Extent, Grid, Media, Tiles};
use engine::sampling::SamplingParams;
use engine::service::{Event, Failure, Finish, Job, Stop, SubmitError, Task};
use engine::{Content, Engine, Known, Request, Sequence};
use it::serving::{CONTEXT, Outcome, Served, Tokens, job, options, parts, prompt, tokenizer};
use tensor::{Device, KvFormat};
use tokenizer::Piece;

fn ends(job: &mut Job, change: impl FnOnce(&mut Stop)) {
    if let Task::Generate { stop, .. } = &mut job.task {
        change(stop);
    }
}

/// What the engine alone answers: ids and the bits of their log-probabilities.
fn alone(engine: &mut Engine<Cpu>, content: Content<<Cpu as Device>::Tensor>, request: &Request) -> Result<Tokens> {
    let (mut sequence, mut answer) = (Sequence::default(), Vec::new());
    engine.generate(&mut sequence, content, request, &tokenizer()?, &mut |event| {
        if let engine::Event::Token { id, logprob, .. } = event {
            answer.push((id, logprob.to_bits()));
        }
        ControlFlow::Continue(())
    })?;
    engine.release(sequence);
    Ok(answer)
}

fn content<T>(ids: &[u32]) -> Content<T> {
    Content { known: ids.iter().copied().map(Known::Token).collect(), media: Vec::new() }
}

fn request(max_tokens: usize, temperature: f32) -> Request {
    let sampling = SamplingParams { temperature, seed: 9, ..SamplingParams::default() };
    Request { max_tokens: Some(max_tokens), sampling, ..Request::default() }
}

#[test]
fn a_service_answers_what_the_engine_alone_answers() -> Result<()> {
    let parts = parts(1)?;
    let mut engine = Engine::new(parts.dev, parts.model, CONTEXT, KvFormat::Q8)?;
    let served = Served::start(1, options(4))?;
    for (seed, n) in [(1, 1), (2, 15), (3, 16), (4, 17), (5, 40), (6, 100)] {
        let ids = prompt(seed, n);
        let want = alone(&mut engine, content(&ids), &request(30, 0.0))?;
        let got = Outcome::of(served.handle.submit(job(ids, 30))?);
        assert_eq!(got.answers, [want], "{n}");
        assert!(matches!(got.others.first(), Some(Event::Started { .. })), "{got:?}");
        assert_eq!((got.usage()?.n_prompt, got.usage()?.n_completion), (n, 30));
    }
    served.end()
}

/// A fork shares what is computed: n answers cost one prompt, and each is what it would be alone. Mutation: `own` in the
/// scheduler that does nothing.
#[test]
fn forks_share_one_prompt_and_each_is_what_it_is_alone() -> Result<()> {
    let parts = parts(1)?;
    let mut engine = Engine::new(parts.dev, parts.model, CONTEXT, KvFormat::Q8)?;
    let served = Served::start(2, options(8))?;
    for n in [5, 16, 41, 97] {
        let before = served.handle.stats().0.n_positions[0];
        let mut forked = job(prompt(n, n), 20);
        if let Task::Generate { sampling, n_samples, .. } = &mut forked.task {
            (sampling.temperature, sampling.seed, *n_samples) = (1.0, 9, 5);
        }
        let got = Outcome::of(served.handle.submit(forked)?);
        let n_computed = served.handle.stats().0.n_positions[0] - before;
        let distinct: BTreeSet<_> = got.answers.iter().collect();
        assert_eq!((got.answers.len(), distinct.len(), got.usage()?.n_completion), (5, 5, 100), "{n}");
        // The page where they part is computed again by all but one.
        assert!(n_computed <= (n + 4 * (n % 16)) as u64, "{n_computed} positions for a prompt of {n}");
        for (sample, answer) in (0u32..).zip(&got.answers) {
            let mut request = request(20, 1.0);
            request.sampling.sample = sample;
            assert_eq!(*answer, alone(&mut engine, content(&prompt(n, n)), &request)?, "{n}, answer {sample}");
        }
    }
    served.end()
}

#[test]
fn log_probabilities_of_prompt_and_answer_are_those_of_the_logits() -> Result<()> {
    let parts = parts(1)?;
    let mut engine = Engine::new(parts.dev, parts.model, CONTEXT, KvFormat::Q8)?;
    let mut logits_after = |ids: &[u32]| -> Result<Vec<f32>> {
        let mut sequence = Sequence::default();
        engine.set(&mut sequence, content(ids))?;
        let logits = engine.prefill(&mut sequence, &mut |_, _| {})?;
        engine.release(sequence);
        Ok(logits)
    };
    let log_softmax = |logits: &[f32], id: usize| {
        let total: f64 = logits.iter().map(|v| f64::from(*v).exp()).sum();
        f64::from(logits[id]) - total.ln()
    };
    let mut options = options(2);
    options.prompt_rows = 7;
    let served = Served::start(1, options)?;
    let ids = prompt(3, 38);
    // Twice: the second time all but the last page would come from the prefix cache.
    for _ in 0..2 {
        let mut scored = job(ids.clone(), 1);
        scored.prompt_logprobs = Some(5);
        let got = Outcome::of(served.handle.submit(scored)?);
        let entries = got.others.iter().find_map(|event| match event {
            Event::PromptLogprobs(entries) => Some(entries),
            _ => None,
        });
        let entries = entries.context("log-probabilities of the prompt")?;
        assert_eq!((entries.len(), entries[0].is_none(), got.usage()?.n_cached), (38, true, 0));
        for at in 1..38 {
            let logits = logits_after(&ids[..at])?;
            let (chosen, alternatives) = entries[at].as_ref().context("an entry")?;
            let chosen = chosen.context("the token")?;
            let want = log_softmax(&logits, ids[at] as usize);
            assert_eq!(chosen.id, ids[at]);
            // Weights are within 3 units in the last place, their sum's logarithm within 4e-7; the rest is rounding.
            assert!((f64::from(chosen.logprob) - want).abs() < 4e-7 + 1e-7 * want.abs(), "{at}: {chosen:?} {want}");
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let likeliest: Vec<usize> = alternatives.iter().map(|a| a.id as usize).collect();
            assert_eq!(likeliest, order[..5], "{at}");
        }
        let logits = logits_after(&ids)?;
        let (id, bits) = got.answers[0][0];
        let want = log_softmax(&logits, id as usize);
        assert!((f64::from(f32::from_bits(bits)) - want).abs() < 4e-7 + 1e-7 * want.abs());
    }
    served.end()
}

/// Mutation: `wanted` that leaves one row out.
#[test]
fn an_embedding_is_the_normalised_mean_of_final_hidden_states() -> Result<()> {
    let toy = it::Toy::load(tensor::Reference, &it::serving::folder()?)?;
    let mut bits = Vec::new();
    for piece in [1, 7, 64] {
        let mut options = options(2);
        // As the reference run stores keys and values: then both have the same hidden states to the bit.
        (options.prompt_rows, options.kv) = (piece, KvFormat::F32);
        let served = Served::start(1, options)?;
        let ids = prompt(8, 45);
        let seen = toy.run(&ids, None, usize::MAX)?;
        let hidden = &seen["final_norm"];
        let width = hidden.len() / ids.len();
        let mut want = vec![0.0f64; width];
        hidden.chunks_exact(width).for_each(|row| want.iter_mut().zip(row).for_each(|(w, v)| *w += f64::from(*v)));
        let len = want.iter().map(|v| v * v).sum::<f64>().sqrt();
        let got = Outcome::of(served.handle.submit(Job { task: Task::Embed, ..job(ids.clone(), 0) })?);
        let embedding = got.others.iter().find_map(|event| match event {
            Event::Embedding(values) => Some(values.clone()),
            _ => None,
        });
        let embedding = embedding.context("an embedding")?;
        assert_eq!((embedding.len(), served.handle.about().width, got.usage()?.n_completion), (width, width, 0));
        for (got, want) in embedding.iter().zip(&want) {
            // Components are at most 1, so rounding to f32 is off by half of 2⁻²³ at most.
            assert!((f64::from(*got) - want / len).abs() < 6e-8, "{got} {}", want / len);
        }
        bits.push(embedding.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        served.end()?;
    }
    assert_eq!((&bits[1], &bits[2]), (&bits[0], &bits[0]));
    Ok(())
}

#[test]
fn stop_texts_end_tokens_and_no_tokens_at_all_end_an_answer() -> Result<()> {
    let served = Served::start(1, options(2))?;
    let whole = Outcome::of(served.handle.submit(job(prompt(4, 20), 24))?);
    let text = &whole.texts[0];
    let finish = |outcome: &Outcome| {
        outcome.others.iter().find_map(|event| match event {
            Event::SampleFinished { finish, .. } => Some(finish.clone()),
            _ => None,
        })
    };
    assert_eq!(finish(&whole), Some(Finish::Length));
    // Two characters from the middle of the text.
    let stop: String = text.chars().skip(6).take(2).collect();
    let mut stopped = job(prompt(4, 20), 24);
    ends(&mut stopped, |stop_at| stop_at.texts = vec!["never".into(), stop.clone()]);
    let stopped = Outcome::of(served.handle.submit(stopped)?);
    let want = text.split(&stop).next().context("text before")?;
    assert_eq!((stopped.texts[0].as_str(), finish(&stopped)), (want, Some(Finish::StopText(stop))));
    let end = whole.answers[0][9].0;
    let n_before = whole.answers[0].iter().position(|(id, _)| *id == end).context("a place")?;
    let mut ended = job(prompt(4, 20), 24);
    ends(&mut ended, |stop_at| stop_at.tokens = vec![end]);
    let ended = Outcome::of(served.handle.submit(ended)?);
    assert_eq!((finish(&ended), ended.usage()?.n_completion), (Some(Finish::EndToken(end)), n_before + 1));
    assert_eq!(ended.answers.first().map_or(0, Vec::len), n_before);
    let nothing = Outcome::of(served.handle.submit(job(prompt(4, 20), 0))?);
    assert_eq!((finish(&nothing), nothing.usage()?.n_completion), (Some(Finish::Length), 0));
    served.end()
}

#[test]
fn images_are_encoded_once_and_their_rows_are_shared() -> Result<()> {
    let parts = parts(1)?;
    let vision = parts.model.vision.as_ref().context("a vision tower")?;
    let (n_values, grid) = (3 * vision.tile() * vision.tile(), Grid { rows: 1, cols: 2 });
    let pixels = |seed: usize| (0..3 * n_values).map(|i| ((i * 37 + seed) % 255) as f32 / 127.5 - 1.0).collect();
    let tiles = |seed| Tiles { pixels: pixels(seed), grid };
    let show = |seed: usize, ids: Vec<u32>| {
        let mut job = job(Vec::new(), 12);
        job.pieces = vec![Piece::Ids(prompt(1, 3)), Piece::Media(0), Piece::Ids(ids)];
        job.media = vec![Media::Image(tiles(seed).into())];
        job
    };
    // What the engine alone makes of it.
    let image = engine::encode_image(&parts.dev, vision, &tiles(5))?;
    let pieces = show(5, prompt(2, 9)).pieces;
    let content = engine::content(&pieces, &[(image, Extent::Image(grid))], &parts.layout())?;
    let n_prompt = content.known.len();
    let mut engine = Engine::new(parts.dev, parts.model, CONTEXT, KvFormat::Q8)?;
    let want = alone(&mut engine, content, &request(12, 0.0))?;
    let mut options = options(4);
    options.prompt_rows = 7;
    let served = Served::start(1, options)?;
    let first = Outcome::of(served.handle.submit(show(5, prompt(2, 9)))?);
    assert_eq!((&first.answers[0], first.usage()?.n_prompt, first.usage()?.n_cached), (&want, n_prompt, 0));
    assert!(n_prompt > 16);
    assert_eq!(first.usage()?.n_stored, n_prompt / 16 * 16);
    let again = Outcome::of(served.handle.submit(show(5, prompt(2, 9)))?);
    assert_eq!(again.answers, first.answers);
    assert_eq!((again.usage()?.n_cached, again.usage()?.n_stored), (16, n_prompt / 16 * 16 - 16));
    // Other pixels in the same place are another prompt.
    let other = Outcome::of(served.handle.submit(show(6, prompt(2, 9)))?);
    assert_eq!(other.usage()?.n_cached, 0);
    assert_ne!(other.answers, first.answers);
    served.end()
}

#[test]
fn what_can_not_be_is_refused_and_says_why() -> Result<()> {
    let mut options = options(1);
    options.admission.jobs = 3;
    options.admission.jobs_per_key = 2;
    let served = Served::start(1, options)?;
    let too_long = served.handle.submit(job(prompt(1, 200), CONTEXT - 199)).map(|_| ());
    assert_eq!(too_long, Err(SubmitError::TooLong { prompt: 200, answer: CONTEXT - 199, context: CONTEXT }));
    let outside = Outcome::of(served.handle.submit(job(vec![1_000_000], 4))?);
    assert!(matches!(outside.last.as_slice(), [Event::Failed(Failure::Prompt(why))] if why.contains("outside")));
    let empty = Outcome::of(served.handle.submit(job(Vec::new(), 4))?);
    assert!(matches!(empty.last.as_slice(), [Event::Failed(Failure::Prompt(why))] if why.contains("no tokens")));
    served.until(|_| served.handle.n_jobs() == 0)?;
    let first = served.handle.submit(job(prompt(1, 100), 150))?;
    let second = served.handle.submit(job(prompt(2, 100), 150))?;
    assert_eq!(served.handle.submit(job(prompt(3, 9), 9)).map(|_| ()), Err(SubmitError::KeyBusy { limit: 2 }));
    let mut other = job(prompt(3, 9), 9);
    other.owner.key = 1;
    let third = served.handle.submit(other.clone())?;
    other.owner.key = 2;
    assert_eq!(served.handle.submit(other).map(|_| ()), Err(SubmitError::Busy { waiting: 3 }));
    for events in [first, second, third] {
        Outcome::of(events).usage()?;
    }
    served.until(|_| served.handle.n_jobs() == 0)?;
    let mut late = job(prompt(1, 100), 100);
    late.deadline = Duration::ZERO;
    assert_eq!(Outcome::of(served.handle.submit(late)?).last, [Event::Failed(Failure::Deadline)]);
    served.end()
}
