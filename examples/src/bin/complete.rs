//! Continues a text, streaming: `cargo run --release -p examples --bin complete -- FOLDER "Once upon a time"`

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::Result;
use engine::sampling::SamplingParams;
use engine::{Content, Event, Known, Request, Sequence};

fn main() -> Result<()> {
    let checkpoint = examples::checkpoint()?;
    let tokenizer = examples::tokenizer(&checkpoint)?;
    let mut engine = examples::engine(&checkpoint, 512)?;

    let ids = tokenizer.bos().into_iter().chain(tokenizer.encode(&examples::argument(2, "the text")?));
    let prompt = Content { known: ids.map(Known::Token).collect(), media: Vec::new() };
    let request = Request {
        sampling: SamplingParams { temperature: 0.8, top_p: 0.95, seed: 1, ..SamplingParams::default() },
        max_tokens: Some(64),
        end_tokens: checkpoint.config.text.eos.clone(),
        ..Request::default()
    };
    let mut sequence = Sequence::default();
    let finished = engine.generate(&mut sequence, prompt, &request, &tokenizer, &mut |event| {
        if let Event::Token { text, .. } | Event::Tail { text, .. } = event {
            print!("{text}");
            // A closed output is no reason to go on.
            if std::io::stdout().flush().is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    println!();
    eprintln!("{} tokens, {:?}", finished.n_completion, finished.reason);
    Ok(())
}
