//! How large a token's state is after every layer: `cargo run --release -p examples --bin layers -- FOLDER "Hello"`
//!
//! Any intermediate tensor can be looked at in this way, on any device; here on the one that defines all results.

use anyhow::Result;
use llama::{Batch, Input, Model, PageRun, Row, Site};
use tensor::{Device, KvFormat, PAGE_LEN, Reference};

fn main() -> Result<()> {
    let checkpoint = examples::checkpoint()?;
    let tokenizer = examples::tokenizer(&checkpoint)?;
    let model = Model::load(&Reference, &checkpoint, &mut |_| {})?;

    let ids = tokenizer.encode(&examples::argument(2, "the text")?);
    let n_pages = ids.len().div_ceil(PAGE_LEN);
    let mut cache = model.decoder.cache(&Reference, n_pages, n_pages, KvFormat::F32)?;
    let pages: Vec<u32> = (0..u32::try_from(n_pages)?).collect();
    let run = PageRun { pages: &pages, first_position: 0 };
    let row = |(position, id): (usize, &u32)| Row {
        input: Input::Token(*id),
        position,
        global: run,
        chunked: run,
        wants_logits: false,
    };
    let rows: Vec<Row<'_>> = ids.iter().enumerate().map(row).collect();
    let mut probe = |dev: &Reference, site: Site, x: &<Reference as Device>::Tensor| {
        let name = site.to_string();
        if name.ends_with(".out") {
            let [n_rows, width] = dev.shape(x);
            let values = dev.download(x);
            let last = &values[(n_rows - 1) * width..];
            println!("{name:14} {:10.4}", last.iter().map(|v| v * v).sum::<f32>().sqrt());
        }
    };
    model.decoder.forward(&Reference, &mut cache, &Batch { rows: &rows, features: &[] }, &mut probe)?;
    Ok(())
}
