//! Thoughts through a whole engine: what is counted, what is written, and that both are tokens like all others.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use engine::constraint::{Compiler, Language};
use engine::sampling::SamplingParams;
use engine::service::{Channel, Event, Job, Options, Task, Token};
use engine::thinking::{Ask, Markers, Reasoning, Thinking};
use engine::{Content, Engine, Known, Limits, Request, Sequence};
use it::serving::{CONTEXT, Served, job, options, parts, prompt, tokenizer};
use tensor::KvFormat;
use tokenizer::Piece;

const MESSAGE: &str = "Enough.";

fn reasoning() -> Result<Reasoning> {
    let tokenizer = tokenizer()?;
    let one = |name: &str| tokenizer.control(name).map(|id| vec![id]).context("a control token");
    let markers = Markers {
        start: one("<|reasoning_thinking_start|>")?,
        end: one("<|reasoning_thinking_end|>")?,
        implicit_end: one("<|python_start|>")?,
        budget_message: tokenizer.encode(MESSAGE),
        extend_message: Vec::new(),
        end_tokens: one("<|eot|>")?,
    };
    Ok(Reasoning { markers: Arc::new(markers), is_on: true, prefill_start: true, efforts: Default::default() })
}

fn thinking(budget: usize) -> Result<Box<Thinking>> {
    let ask = Ask { budget: Some(budget), ..Ask::default() };
    Ok(Box::new(reasoning()?.thinking(&ask, CONTEXT, usize::MAX)))
}

/// `ids` and an open block.
fn opened(seed: usize, n: usize) -> Result<Vec<u32>> {
    let mut pieces = vec![Piece::Ids(prompt(seed, n))];
    reasoning()?.open(&Ask::default(), &mut pieces);
    match pieces.pop() {
        Some(Piece::Ids(ids)) => Ok(ids),
        other => bail!("{other:?}"),
    }
}

fn thoughtful(seed: usize, budget: usize, max_tokens: usize) -> Result<Job> {
    let mut job = job(opened(seed, 20)?, max_tokens);
    if let Task::Generate { thinking: own, sampling, .. } = &mut job.task {
        *own = Some(thinking(budget)?);
        (sampling.temperature, sampling.seed) = (0.8, seed as u64);
    }
    Ok(job)
}

/// One answer, and the tokens of thoughts that were counted.
struct Answer {
    tokens: Vec<Token>,
    n_reasoning: usize,
    tail: (String, Channel),
}

impl Answer {
    fn of(served: &Served, job: Job) -> Result<Self> {
        let mut events = served.handle.submit(job)?;
        let mut answer = Self { tokens: Vec::new(), n_reasoning: 0, tail: (String::new(), Channel::Content) };
        while let Some(event) = events.wait() {
            match event {
                Event::Token { token, .. } => answer.tokens.push(token),
                Event::SampleFinished { tail, channel, .. } => answer.tail = (tail, channel),
                Event::Finished(usage) => answer.n_reasoning = usage.n_reasoning,
                Event::Failed(failure) => return Err(failure.into()),
                _ => {}
            }
        }
        Ok(answer)
    }

    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// The tokens of the block that the answer begins with.
    fn thought(&self) -> Vec<u32> {
        let tokens = self.tokens.iter().take_while(|token| token.channel == Channel::Reasoning);
        tokens.map(|token| token.id).collect()
    }

    fn text(&self, channel: Channel) -> String {
        let texts = self.tokens.iter().map(|token| (token.text.as_str(), token.channel));
        let texts = texts.chain([(self.tail.0.as_str(), self.tail.1)]);
        texts.filter(|(_, own)| *own == channel).map(|(text, _)| text).collect()
    }
}

fn with(change: impl FnOnce(&mut Options)) -> Result<Served> {
    let mut options = options(4);
    change(&mut options);
    Served::start(2, options)
}

#[test]
fn a_budget_ends_thoughts_and_what_follows_is_what_the_model_says_after_them() -> Result<()> {
    let served = with(|_| {})?;
    let n_written = MESSAGE.len() + 1;
    let mut n_cut = 0;
    for (seed, budget) in [(1, 0), (2, 1), (3, 2), (4, 7), (5, 16), (6, 33)] {
        let answer = Answer::of(&served, thoughtful(seed, budget, 90)?)?;
        let n_thoughts = answer.tokens.iter().take_while(|token| token.channel == Channel::Reasoning).count();
        let n_forced = answer.tokens.iter().filter(|token| token.is_forced).count();
        if n_forced == 0 {
            // The model ended its thoughts by itself.
            continue;
        }
        n_cut += 1;
        let sampled = n_thoughts - n_forced;
        assert_eq!(n_forced, if budget == 0 { 1 } else { n_written }, "{budget}");
        assert!((budget..=budget + 3).contains(&sampled), "{sampled} of {budget}");
        assert_eq!(answer.n_reasoning, n_thoughts);
        assert!(budget == 0 || answer.text(Channel::Reasoning).ends_with(MESSAGE));
        // The same tokens as a prompt: what follows has the same bits, so what was written went through the model.
        let mut ids = opened(seed, 20)?;
        ids.extend(answer.tokens.iter().take(n_thoughts).map(|token| token.id));
        let mut after = job(ids, 90 - n_thoughts);
        if let Task::Generate { sampling, .. } = &mut after.task {
            (sampling.temperature, sampling.seed) = (0.8, seed as u64);
        }
        let bits = |tokens: &[Token]| -> Vec<(u32, u32)> {
            tokens.iter().map(|token| (token.id, token.logprob.to_bits())).collect()
        };
        assert_eq!(bits(&answer.tokens[n_thoughts..]), bits(&Answer::of(&served, after)?.tokens), "{budget}");
    }
    assert!(n_cut >= 4, "{n_cut} budgets ran out");
    served.end()
}

#[test]
fn guesses_pieces_and_forks_change_no_thought() -> Result<()> {
    let plain = with(|options| options.draft_rows = 0)?;
    let guessing = with(|options| options.prompt_rows = 3)?;
    for seed in 1..6 {
        let alone = Answer::of(&plain, thoughtful(seed, 12, 60)?)?;
        assert_eq!(alone.ids(), Answer::of(&guessing, thoughtful(seed, 12, 60)?)?.ids(), "{seed}");
        let mut forked = thoughtful(seed, 12, 60)?;
        if let Task::Generate { n_samples, .. } = &mut forked.task {
            *n_samples = 3;
        }
        let mut events = guessing.handle.submit(forked)?;
        let mut samples = vec![Vec::new(); 3];
        while let Some(event) = events.wait() {
            if let Event::Token { sample, token } = event {
                samples[sample as usize].push(token);
            }
        }
        let first: Vec<u32> = samples[0].iter().map(|token| token.id).collect();
        assert_eq!(first, alone.ids());
        for tokens in &samples {
            let n = tokens.iter().filter(|token| token.channel == Channel::Reasoning && !token.is_forced).count();
            assert!(n <= 12 + 3, "{n} tokens of a budget of 12");
        }
    }
    plain.end()?;
    guessing.end()
}

#[test]
fn stop_texts_and_constraints_begin_with_the_answer() -> Result<()> {
    let served = with(|_| {})?;
    let free = Answer::of(&served, thoughtful(3, 24, 60)?)?;
    let thoughts = free.text(Channel::Reasoning);
    let inside = thoughts.chars().next().context("a thought")?.to_string();
    let mut stopped = thoughtful(3, 24, 60)?;
    if let Task::Generate { stop, .. } = &mut stopped.task {
        stop.texts = vec![inside.clone()];
    }
    let stopped = Answer::of(&served, stopped)?;
    assert_eq!(stopped.text(Channel::Reasoning), thoughts);
    assert!(!stopped.text(Channel::Content).contains(&inside));

    let tokenizer = tokenizer()?;
    let ends = reasoning()?.markers.end_tokens.clone();
    let n_vocab = u32::try_from(served.handle.about().n_vocab)?;
    let compiler = Compiler::new(&tokenizer, usize::try_from(n_vocab)?.try_into()?, &ends, &Limits::default())?;
    // A token that ends thoughts by beginning an answer is masked where the answer is bound, which moves the draws.
    let answer = |is_bound: bool| -> Result<Answer> {
        let mut job = thoughtful(3, 24, 60)?;
        if let Task::Generate { constraint, thinking: Some(thinking), .. } = &mut job.task {
            *constraint = is_bound.then(|| compiler.compile(&Language::Regex("[0-9]{5}".into()))).transpose()?;
            thinking.markers = Arc::new(Markers { implicit_end: Vec::new(), ..reasoning()?.markers.as_ref().clone() });
        }
        Answer::of(&served, job)
    };
    let (bound, free) = (answer(true)?, answer(false)?);
    assert_eq!(bound.thought(), free.thought());
    let said = bound.text(Channel::Content);
    assert!(said.len() == 5 && said.bytes().all(|byte| byte.is_ascii_digit()), "{said:?}");
    served.end()
}

#[test]
fn an_engine_alone_thinks_what_its_service_thinks() -> Result<()> {
    let parts = parts(1)?;
    let mut engine = Engine::new(parts.dev, parts.model, CONTEXT, KvFormat::Q8)?;
    let served = with(|_| {})?;
    for seed in 1..5 {
        let known = opened(seed, 20)?.into_iter().map(Known::Token).collect();
        let sampling = SamplingParams { temperature: 0.8, seed: seed as u64, ..SamplingParams::default() };
        let request = Request { sampling, max_tokens: Some(60), thinking: Some(thinking(12)?), ..Request::default() };
        let (mut sequence, mut shown) = (Sequence::default(), Vec::new());
        let content = Content { known, media: Vec::new() };
        let finished = engine.generate(&mut sequence, content, &request, &tokenizer()?, &mut |event| {
            if let engine::Event::Token { id, channel, text, .. } = event {
                shown.push((id, channel, text.to_owned()));
            }
            ControlFlow::Continue(())
        })?;
        engine.release(sequence);
        let answer = Answer::of(&served, thoughtful(seed, 12, 60)?)?;
        let want: Vec<_> = answer.tokens.iter().map(|token| (token.id, token.channel, token.text.clone())).collect();
        assert_eq!((shown, finished.n_reasoning), (want, answer.n_reasoning), "{seed}");
    }
    served.end()
}
