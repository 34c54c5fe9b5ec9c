//! Asks Llama 4 about a picture: `cargo run --release -p examples --bin chat -- FOLDER "What is this?" cat.jpg`

use std::ops::ControlFlow;

use anyhow::{Context, Result};
use engine::media::{Extent, TileConfig, TileSettings, decode, preprocess};
use engine::{Event, Layout, Limits, Request, Sequence, content, encode_image};
use tokenizer::{ChatFormat, Ending, ImageIds, Llama4Chat, Message, Part, Role, encode_segments};

fn main() -> Result<()> {
    let checkpoint = examples::checkpoint()?;
    let tokenizer = examples::tokenizer(&checkpoint)?;
    let mut engine = examples::engine(&checkpoint, 4096)?;
    let question = examples::argument(2, "the question")?;
    let bytes = std::fs::read(examples::argument(3, "the picture")?)?;

    // The picture becomes tiles of the vision tower's size, the tiles become rows of features.
    let limits = Limits::default();
    let tower = checkpoint.config.vision.as_ref().context("the model has no vision tower")?;
    let settings = TileSettings {
        tile: u32::try_from(tower.image_size)?,
        patch: u32::try_from(tower.patch_size)?,
        ..TileSettings::default()
    };
    let config = TileConfig::parse(settings, &limits)?;
    let tiles = preprocess(&decode(&bytes, &limits)?, &config);
    let vision = engine.model().vision.as_ref().context("the model has no vision tower")?;
    let image = (encode_image(engine.device(), vision, &tiles)?, Extent::Image(tiles.grid));

    // The conversation becomes ids, with a placeholder for each row.
    let format = ChatFormat::Llama4(Llama4Chat::new(&tokenizer)?);
    let messages = [Message::new(Role::User, vec![Part::Image, Part::Text(question)])];
    let pieces = encode_segments(&tokenizer, &format.render(&messages, None, Ending::Answer(None))?);
    let ids = ImageIds::of(&tokenizer).map(|ids| (ids, config.tokens_per_tile()));
    let prompt = content(&pieces, &[image], &Layout { image: ids, audio: None })?;

    let end_tokens = checkpoint.config.text.eos.clone();
    let request = Request { max_tokens: Some(32), end_tokens, ..Request::default() };
    engine.generate(&mut Sequence::default(), prompt, &request, &tokenizer, &mut |event| {
        if let Event::Token { text, .. } | Event::Tail { text, .. } = event {
            print!("{text}");
        }
        ControlFlow::Continue(())
    })?;
    println!();
    Ok(())
}
