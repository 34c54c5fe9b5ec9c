//! The likeliest next tokens of a text: `cargo run --release -p examples --bin next_tokens -- FOLDER "The sky is"`

use anyhow::Result;
use engine::{Content, Known, Sequence};

fn main() -> Result<()> {
    let checkpoint = examples::checkpoint()?;
    let tokenizer = examples::tokenizer(&checkpoint)?;
    let mut engine = examples::engine(&checkpoint, 512)?;

    let ids = tokenizer.bos().into_iter().chain(tokenizer.encode(&examples::argument(2, "the text")?));
    let mut sequence = Sequence::default();
    engine.set(&mut sequence, Content { known: ids.map(Known::Token).collect(), media: Vec::new() })?;
    let logits = engine.prefill(&mut sequence, &mut |_, _| {})?;
    engine.release(sequence);

    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let mut order: Vec<u32> = (0..).take(logits.len()).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    for id in order.into_iter().take(10) {
        let probability = (logits[id as usize] - largest).exp() / total;
        let text = tokenizer.token_bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        println!("{:6.2} %  {id:6}  {:?}", 100.0 * probability, text.unwrap_or_default());
    }
    Ok(())
}
