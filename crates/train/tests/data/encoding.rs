use std::num::NonZero;
use std::path::Path;

use anyhow::{Context, Result};
use engine::media::audio::{AudioShape, ClipConfig, MelSettings, PadTo, PaddingMode};
use engine::media::{TileConfig, TileSettings};
use engine::{Layout, Limits};
use llama::Input;
use tokenizer::{AudioIds, ChatFormat, ChatTemplate, ImageIds, Message, Role};
use train::data::{Conversation, Encoder, Row, Senses, Turns, Unit, Weighting};
use train::{Media, Sequence};

use super::{Thinks, encoder, file, prose, rows, tokenizer};

/// Everything in a sequence, and what of it is learnt; `·` for a row of an image or a clip.
fn spelled(encoder: &Encoder, sequence: &Sequence) -> (String, String) {
    let mut all = Vec::new();
    let spell = |id: u32| encoder.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
    for input in &sequence.inputs {
        match input {
            Input::Token(id) => all.extend(spell(*id)),
            Input::Feature { .. } => all.extend("·".bytes()),
        }
    }
    all.extend(spell(sequence.targets.last().copied().unwrap_or(0)));
    for (i, target) in sequence.targets.iter().enumerate() {
        match sequence.inputs.get(i + 1) {
            Some(Input::Token(id)) => assert_eq!(id, target),
            Some(Input::Feature { .. }) => assert_eq!(sequence.weights[i], 0.0),
            None => {}
        }
    }
    let learnt = sequence.targets.iter().zip(&sequence.weights).filter(|(_, weight)| **weight > 0.0);
    let learnt: Vec<u8> = learnt.flat_map(|(id, _)| spell(*id)).collect();
    (String::from_utf8_lossy(&all).into_owned(), String::from_utf8_lossy(&learnt).into_owned())
}

fn sequences(encoder: &Encoder, row: &Row, cut: usize) -> Result<Vec<Sequence>> {
    let encoded = encoder.encode(row, cut).map_err(anyhow::Error::msg)?;
    let one = |unit| if let Unit::One(sequence) = unit { Ok(sequence) } else { anyhow::bail!("a pair") };
    encoded.units.into_iter().map(one).collect()
}

fn talk() -> Row {
    let thinking = |thoughts: &str, text: &str| Message {
        reasoning: Some(thoughts.into()),
        ..Message::text(Role::Assistant, text)
    };
    let messages = vec![
        Message::text(Role::System, "Be brief."),
        Message::text(Role::User, "One?"),
        thinking("Hm.", "1"),
        Message::text(Role::User, "<|eot|>Two?"),
        Message::text(Role::Assistant, "2"),
    ];
    Row::Conversation(Conversation { messages, ..Conversation::default() })
}

fn turn(role: &str, text: &str) -> String {
    format!("<|header_start|>{role}<|header_end|>\n\n{text}<|eot|>")
}

#[test]
fn a_model_without_markers_learns_all_turns_from_one_sequence_and_no_thoughts() -> Result<()> {
    let encoder = encoder(Senses::default(), Thinks::No)?;
    let all = sequences(&encoder, &talk(), 1000)?;
    let [sequence] = all.as_slice() else { anyhow::bail!("{} sequences", all.len()) };
    let front = format!("<|begin_of_text|>{}{}", turn("system", "Be brief."), turn("user", "One?"));
    let text = [front, turn("assistant", "1"), turn("user", "<|eot|>Two?"), turn("assistant", "2")].concat();
    assert_eq!(spelled(&encoder, sequence), (text, "1<|eot|>2<|eot|>".into()));
    Ok(())
}

#[test]
fn a_model_that_thinks_learns_each_turn_behind_the_prompt_that_a_server_writes() -> Result<()> {
    let encoder = encoder(Senses::default(), Thinks::Yes)?;
    let all = sequences(&encoder, &talk(), 1000)?;
    let [first, second] = all.as_slice() else { anyhow::bail!("{} sequences", all.len()) };
    let block = |thoughts: &str| format!("<|reasoning_thinking_start|>{thoughts}<|reasoning_thinking_end|>");
    let front = format!("<|begin_of_text|>{}{}", turn("system", "Be brief."), turn("user", "One?"));
    let one = block("Hm.") + "1";
    assert_eq!(spelled(&encoder, first), (front.clone() + &turn("assistant", &one), one + "<|eot|>"));
    // The thoughts of the earlier turn are forgotten; the empty block is there and not learnt.
    let text = [front, turn("assistant", "1"), turn("user", "<|eot|>Two?"), turn("assistant", &(block("") + "2"))];
    assert_eq!(spelled(&encoder, second), (text.concat(), "2<|eot|>".into()));
    Ok(())
}

#[test]
fn turns_together_are_one_sequence_with_an_empty_block_before_each_unless_there_are_thoughts() -> Result<()> {
    let encoder = Encoder { turns: Turns::Together, ..encoder(Senses::default(), Thinks::Yes)? };
    assert_eq!(sequences(&encoder, &talk(), 1000)?.len(), 2);
    let Row::Conversation(mut conversation) = talk() else { anyhow::bail!("a conversation") };
    conversation.messages.iter_mut().for_each(|message| message.reasoning = None);
    let all = sequences(&encoder, &Row::Conversation(conversation), 1000)?;
    let [sequence] = all.as_slice() else { anyhow::bail!("{} sequences", all.len()) };
    let block = "<|reasoning_thinking_start|><|reasoning_thinking_end|>";
    let front = format!("<|begin_of_text|>{}{}", turn("system", "Be brief."), turn("user", "One?"));
    let first = turn("assistant", &format!("{block}1"));
    let text = [front, first, turn("user", "<|eot|>Two?"), turn("assistant", &format!("{block}2"))].concat();
    assert_eq!(spelled(&encoder, sequence), (text, "1<|eot|>2<|eot|>".into()));
    Ok(())
}

#[test]
fn answers_count_as_their_length_its_root_or_all_the_same() -> Result<()> {
    let talk = [("One?", "1"), ("And then?", "one two three four five six seven")]
        .map(|(question, answer)| [Message::text(Role::User, question), Message::text(Role::Assistant, answer)]);
    let messages = talk.concat();
    let row = Row::Conversation(Conversation { messages, ..Conversation::default() });
    for (weighting, of) in
        [(Weighting::Token, (|n| n) as fn(f32) -> f32), (Weighting::Square, f32::sqrt), (Weighting::Sample, |_| 1.0)]
    {
        let encoder = Encoder { weighting, ..encoder(Senses::default(), Thinks::No)? };
        let all = sequences(&encoder, &row, 1000)?;
        let sequence = all.first().context("a sequence")?;
        let runs = sequence.weights.split(|weight| *weight == 0.0).filter(|run| !run.is_empty());
        let runs: Vec<(usize, f32)> = runs.map(|run| (run.len(), run.iter().sum())).collect();
        assert!(runs.len() == 2 && runs[1].0 > runs[0].0, "{runs:?}");
        for (n, sum) in runs {
            assert!((sum - of(n as f32)).abs() < 1e-5, "{weighting:?}: {n} tokens count {sum}");
        }
    }
    Ok(())
}

#[test]
fn what_a_server_would_write_is_the_front_of_what_is_learnt() -> Result<()> {
    use engine::thinking::{Ask, Markers, Reasoning};
    let encoder = encoder(Senses::default(), Thinks::Yes)?;
    let own = encoder.markers.clone().context("markers")?;
    let markers = Markers {
        start: own.start,
        end: own.end,
        implicit_end: Vec::new(),
        budget_message: Vec::new(),
        extend_message: Vec::new(),
        end_tokens: Vec::new(),
    };
    let reasoning =
        Reasoning { markers: markers.into(), is_on: true, prefill_start: true, efforts: Default::default() };
    let Row::Conversation(conversation) = talk() else { anyhow::bail!("a conversation") };
    let all = sequences(&encoder, &talk(), 1000)?;
    for (sequence, n_known, ask) in [(&all[0], 2, Ask::default()), (&all[1], 4, Ask::off())] {
        let mut known = conversation.messages[..n_known].to_vec();
        tokenizer::forget_thoughts(&mut known);
        let format = encoder.format.as_ref().context("a format")?;
        let segments = format.render(&known, None, tokenizer::Ending::Answer(None))?;
        let mut pieces = tokenizer::encode_segments(&encoder.tokenizer, &segments);
        reasoning.open(&ask, &mut pieces);
        let [tokenizer::Piece::Ids(prompt)] = pieces.as_slice() else { anyhow::bail!("{pieces:?}") };
        let ids: Vec<Input> = prompt.iter().map(|id| Input::Token(*id)).collect();
        assert!(sequence.inputs.starts_with(&ids), "{ask:?}");
    }
    Ok(())
}

#[test]
fn of_a_chain_of_calls_every_turn_is_learnt_with_the_thoughts_after_the_question() -> Result<()> {
    let encoder = encoder(Senses::default(), Thinks::Yes)?;
    let folder = tempfile::tempdir()?;
    let line = r#"{"messages": [{"role": "user", "content": "f?"}, {"role": "assistant", "reasoning": "Call.",
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."}]}"#;
    let row = rows(&file(folder.path(), "a.jsonl", line.replace('\n', "").as_bytes())?).remove(0);
    let all = sequences(&encoder, &row.map_err(anyhow::Error::msg)?, 1000)?;
    let learnt: Vec<String> = all.iter().map(|sequence| spelled(&encoder, sequence).1).collect();
    let call = "<|python_start|><|python_end|>{\"name\": \"f\", \"parameters\": {}}<|eot|>";
    let thoughts = "<|reasoning_thinking_start|>Call.<|reasoning_thinking_end|>";
    assert_eq!(learnt, [format!("{thoughts}{call}"), "It is 3.<|eot|>".into()]);
    assert!(spelled(&encoder, &all[1]).0.contains(thoughts));
    Ok(())
}

#[test]
fn a_document_is_its_beginning_its_text_and_its_end_whatever_pieces_it_is_cut_into() -> Result<()> {
    let encoder = encoder(Senses::default(), Thinks::No)?;
    let text = prose()?;
    let row = Row::Document(text.clone());
    let whole = sequences(&encoder, &row, usize::MAX)?.remove(0);
    let (all, learnt) = spelled(&encoder, &whole);
    assert_eq!(all, format!("<|begin_of_text|>{text}<|end_of_text|>"));
    assert_eq!(learnt, format!("{text}<|end_of_text|>"));
    for cut in [1, 7, 100, whole.len() - 1, whole.len(), whole.len() + 1] {
        let pieces = sequences(&encoder, &row, cut)?;
        assert!(pieces.iter().all(|piece| (1..=cut).contains(&piece.len())), "{cut}");
        assert!(pieces.iter().flat_map(|piece| &piece.inputs).eq(&whole.inputs), "{cut}");
        assert!(pieces.iter().flat_map(|piece| &piece.targets).eq(&whole.targets), "{cut}");
    }
    Ok(())
}

#[test]
fn of_a_long_conversation_the_front_stays_if_anything_in_it_is_learnt() -> Result<()> {
    let encoder = encoder(Senses::default(), Thinks::No)?;
    let whole = sequences(&encoder, &talk(), 1000)?.remove(0);
    let first = whole.weights.iter().position(|weight| *weight > 0.0).context("something learnt")?;
    let encoded = encoder.encode(&talk(), first + 1).map_err(anyhow::Error::msg)?;
    let [Unit::One(front)] = encoded.units.as_slice() else { anyhow::bail!("{encoded:?}") };
    assert!(front.inputs == whole.inputs[..=first] && encoded.n_left_out == whole.len() - first - 1);
    let encoded = encoder.encode(&talk(), first).map_err(anyhow::Error::msg)?;
    assert_eq!((encoded.units.len(), encoded.n_left_out), (0, whole.len() - first));
    Ok(())
}

#[test]
fn both_of_a_pair_are_learnt_behind_the_same_prompt() -> Result<()> {
    for thinks in [Thinks::Yes, Thinks::No] {
        let encoder = encoder(Senses::default(), thinks)?;
        let folder = tempfile::tempdir()?;
        let line = br#"{"prompt": "Why?", "chosen": "So.", "rejected": "No, never."}"#;
        let row = rows(&file(folder.path(), "a.jsonl", line)?).remove(0).map_err(anyhow::Error::msg)?;
        let encoded = encoder.encode(&row, 1000).map_err(anyhow::Error::msg)?;
        let [Unit::Pair { chosen, rejected }] = encoded.units.as_slice() else { anyhow::bail!("{encoded:?}") };
        assert_eq!(spelled(&encoder, chosen).1, "So.<|eot|>");
        assert_eq!(spelled(&encoder, rejected).1, "No, never.<|eot|>");
        let n_same = chosen.inputs.iter().zip(&rejected.inputs).take_while(|(a, b)| a == b).count();
        assert_eq!(chosen.weights.iter().position(|weight| *weight > 0.0), Some(n_same - 1));
        let n_rows = chosen.len() + rejected.len();
        let encoded = encoder.encode(&row, n_rows - 1).map_err(anyhow::Error::msg)?;
        assert_eq!((encoded.units.len(), encoded.n_left_out), (0, n_rows));
    }
    Ok(())
}

#[test]
fn a_template_that_runs_on_into_the_answer_is_parted_where_the_prompt_ends() -> Result<()> {
    let source = "{% for m in messages %}<|step|>{{ m.role }}\n{{ m.content }}<|eom|>\n{% endfor %}\
                  {% if add_generation_prompt %}<|step|>assistant\n{% endif %}";
    let tokenizer = tokenizer()?;
    let template = ChatTemplate::new(source, &tokenizer)?;
    let format = Some(ChatFormat::Template(Box::new(template)));
    let encoder = Encoder::new(tokenizer, format);
    let all = sequences(&encoder, &talk(), 1000)?;
    let learnt: Vec<String> = all.iter().map(|sequence| spelled(&encoder, sequence).1).collect();
    assert_eq!(learnt, ["1<|eom|>", "2<|eom|>"]);
    Ok(())
}

/// Small senses: a tile is a row, a chunk of a second is 13.
fn senses() -> Result<Senses> {
    let limits = Limits::default();
    let settings = TileSettings { tile: 28, patch: 14, max_tiles: 4, ..TileSettings::default() };
    let tiles = TileConfig::parse(settings, &limits)?;
    let mel = MelSettings { n_mels: 80, chunk_frames: 100, log_mel_max: None, pad_to: PadTo::Chunk };
    let count = |n| NonZero::new(n).context("not 0");
    let shape = AudioShape { chunk_frames: count(100)?, stack: count(4)?, padding: PaddingMode::Valid, block: None };
    let clips = ClipConfig::parse(mel, shape, &limits)?;
    let tokenizer = tokenizer()?;
    let image = ImageIds::of(&tokenizer).context("tokens of images")?;
    let control = |name: &str| tokenizer.control(name);
    let audio = AudioIds {
        start: control("<|audio_start|>"),
        audio: control("<|audio|>").context("a token")?,
        end: control("<|audio_end|>"),
    };
    let layout = Layout { image: Some((image, tiles.tokens_per_tile())), audio: Some(audio) };
    Ok(Senses { layout, tiles: Some(tiles), clips: Some(clips) })
}

fn shown(pixels: usize, samples: usize) -> Row {
    use generators::{Image, Part, Role, Sample, Sound, Turn};
    let image = Image { width: 2 * pixels, height: pixels, rgb: vec![90; 6 * pixels * pixels] };
    let sound = Sound { rate_hz: 8000, samples: vec![0.5; samples] };
    let content = vec![Part::Image(image), Part::Text("and ".into()), Part::Sound(sound), Part::Text("?".into())];
    let question = Turn { role: Role::User, content, thinking: None };
    let answer = Turn::text(Role::Assistant, "No.").with_thinking("Hm.");
    let again = Turn { content: question.content.clone(), ..Turn::text(Role::User, "") };
    let turns = vec![question, answer.clone(), again, answer];
    Sample { task: "test", turns }.into()
}

#[test]
fn images_and_clips_are_rows_with_the_pixels_and_columns_to_feed() -> Result<()> {
    let encoder = encoder(senses()?, Thinks::Yes)?;
    let all = sequences(&encoder, &shown(28, 8000), 1000)?;
    let image = "<|image_start|>·<|tile_x_separator|>·<|tile_y_separator|><|image|>·<|image_end|>";
    let clip = format!("<|audio_start|>{}<|audio_end|>", "·".repeat(13));
    for (n_turns, sequence) in (1..).zip(&all) {
        let text = spelled(&encoder, sequence).0;
        assert_eq!(text.matches(&format!("{image}and {clip}?<|eot|>")).count(), n_turns, "{text}");
        assert_eq!(sequence.media.len(), 2 * n_turns);
        for (i, medium) in sequence.media.iter().enumerate() {
            let n_rows = sequence
                .inputs
                .iter()
                .filter(|input| matches!(input, Input::Feature { features, .. } if *features == i));
            match medium {
                Media::Image(pixels) => assert_eq!((pixels.len(), n_rows.count()), (3 * 3 * 28 * 28, 3)),
                Media::Sound(chunks) => {
                    assert_eq!((chunks.len(), chunks[0].columns.len(), chunks[0].valid), (1, 80 * 100, 100));
                    assert_eq!(n_rows.count(), 13);
                }
            }
        }
    }
    assert_eq!(all.len(), 2);
    Ok(())
}

#[test]
fn a_picture_in_the_row_and_one_in_a_file_and_one_made_are_the_same() -> Result<()> {
    let encoder = encoder(senses()?, Thinks::No)?;
    let folder = tempfile::tempdir()?;
    let mut png = Vec::new();
    let pixels: Vec<u8> = (0..30 * 40 * 3).map(|i| (i * 31 % 256) as u8).collect();
    let picture = image::RgbImage::from_raw(40, 30, pixels.clone()).context("pixels of its size")?;
    picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)?;
    file(folder.path(), "a.png", &png)?;
    use base64::Engine as _;
    let data = format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(&png));
    let line = |url: &str| {
        let part = serde_json::json!({"type": "image_url", "image_url": {"url": url}});
        serde_json::json!({"messages": [{"role": "user", "content": [part]}, {"role": "assistant", "content": "A"}]})
    };
    let lines = format!("{}\n{}\n{}\n", line("a.png"), line(&data), line("missing.png"));
    let all = rows(&file(folder.path(), "a.jsonl", lines.as_bytes())?);
    let [Ok(beside), Ok(inside), Ok(missing)] = all.as_slice() else { anyhow::bail!("{all:?}") };
    use generators::{Image, Part, Sample, Turn};
    let made = Image { width: 40, height: 30, rgb: pixels };
    let user = Turn { content: vec![Part::Image(made)], ..Turn::text(generators::Role::User, "") };
    let made = Sample { task: "test", turns: vec![user, Turn::text(generators::Role::Assistant, "A")] }.into();
    let beside = sequences(&encoder, beside, 1000)?;
    assert!(beside == sequences(&encoder, inside, 1000)? && beside == sequences(&encoder, &made, 1000)?);
    let why = encoder.encode(missing, 1000).err().context("a file that is not there")?;
    let expected =
        format!("messages[0].content[0].image_url: {}: ", folder.path().join(Path::new("missing.png")).display());
    assert!(why.starts_with(&expected), "{why}");
    Ok(())
}

#[test]
fn what_a_model_does_not_take_is_refused() -> Result<()> {
    let encoder = encoder(Senses::default(), Thinks::No)?;
    let why = encoder.encode(&shown(28, 800), 1000).err().context("an image")?;
    assert_eq!(why, "turn 0: is an image; this model does not take images");
    Ok(())
}
