//! Several texts in one batch, greedily: `cargo run --release -p examples --bin batch -- FOLDER "One" "Two" "Three"`
//!
//! Each step computes one new row of every text. What a text becomes does not depend on its company.

use anyhow::Result;
use engine::{Content, Known, Sequence};

const N_TOKENS: usize = 16;

fn main() -> Result<()> {
    let checkpoint = examples::checkpoint()?;
    let tokenizer = examples::tokenizer(&checkpoint)?;
    let mut engine = examples::engine(&checkpoint, 2048)?;

    let prompts: Vec<String> = std::env::args().skip(2).collect();
    let mut ids: Vec<Vec<u32>> =
        prompts.iter().map(|text| tokenizer.bos().into_iter().chain(tokenizer.encode(text)).collect()).collect();
    let mut sequences: Vec<Sequence<_>> = prompts.iter().map(|_| Sequence::default()).collect();
    let n_longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    for _ in 0..N_TOKENS {
        for (sequence, ids) in sequences.iter_mut().zip(&ids) {
            // What a sequence has computed already stays.
            let known = ids.iter().copied().map(Known::Token).collect();
            engine.set(sequence, Content { known, media: Vec::new() })?;
        }
        let mut together: Vec<&mut Sequence<_>> = sequences.iter_mut().collect();
        let logits = engine.step(&mut together, n_longest)?;
        for (ids, logits) in ids.iter_mut().zip(logits.into_iter().flatten()) {
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            ids.extend(best.and_then(|id| u32::try_from(id).ok()));
        }
    }
    for ids in ids {
        println!("{:?}", tokenizer.decode(&ids, tokenizer::Specials::Skip));
    }
    sequences.into_iter().for_each(|sequence| engine.release(sequence));
    Ok(())
}
