use std::cell::Cell;

use anyhow::{Context, Result};
use proptest::prelude::*;
use tokenizer::{
    ChatFormat, ChatTemplate, Ending, Llama4Chat, Message, Part, Role, Specials, ToolCall, encode_segments,
};

use super::{tokenizer, trained};

#[test]
fn a_trained_tokenizer_is_of_its_size_and_has_every_named_control_token_behind_its_own_in_llama_4s_order() -> Result<()>
{
    let (trained, tokenizer) = (trained()?, tokenizer()?);
    assert_eq!((trained.n_tokens, tokenizer.vocab_size()), (512, 512));
    let names = [
        "begin_of_text",
        "end_of_text",
        "fim_prefix",
        "fim_middle",
        "fim_suffix",
        "header_start",
        "header_end",
        "eom",
        "eot",
        "step",
        "python_start",
        "python_end",
        "finetune_right_pad",
        "image_start",
        "image_end",
        "tile_x_separator",
        "tile_y_separator",
        "image",
        "patch",
        "reasoning_thinking_start",
        "reasoning_thinking_end",
        "audio_start",
        "audio",
        "audio_end",
    ];
    for (id, name) in (512 - names.len() as u32..).zip(names) {
        assert_eq!(tokenizer.control(&format!("<|{name}|>")), Some(id), "{name}");
    }
    assert_eq!(tokenizer.controls().count(), names.len());
    assert_eq!(tokenizer.bos(), tokenizer.control("<|begin_of_text|>"));
    assert_eq!(tokenizer.eos(), tokenizer.control("<|end_of_text|>"));
    assert_eq!(tokenizer.eot(), tokenizer.control("<|eot|>"));
    Ok(())
}

#[test]
fn training_again_gives_the_same_files() -> Result<()> {
    assert!(trained()? == trained()?);
    Ok(())
}

/// Mutation: merges learnt from digits in threes.
#[test]
fn numbers_are_digits() -> Result<()> {
    let tokenizer = tokenizer()?;
    for number in ["7", "12", "2024", "1000000"] {
        assert_eq!(tokenizer.encode(number).len(), number.len(), "{number}");
    }
    Ok(())
}

#[test]
fn any_text_comes_back_and_has_no_control_token() -> Result<()> {
    let tokenizer = tokenizer()?;
    proptest!(ProptestConfig::with_cases(200), |(text in "(\\PC|\\s|<\\|eot\\|>|日本|🙂){0,40}")| {
        let ids = tokenizer.encode(&text);
        prop_assert!(ids.iter().all(|id| !tokenizer.is_control(*id)));
        prop_assert_eq!(tokenizer.decode(&ids, Specials::Keep), text);
    });
    Ok(())
}

/// Conversations with and without a system's message, thoughts, calls and results.
fn conversation() -> impl Strategy<Value = Vec<Message>> {
    let text = "[a-zA-Z \n\"<|>é🙂]{0,12}";
    let user = (text, any::<bool>()).prop_map(|(text, has_image)| {
        let image = has_image.then_some(Part::Image);
        Message::new(Role::User, image.into_iter().chain([Part::Text(text)]).collect())
    });
    let assistant = (text, proptest::option::of(text), any::<bool>()).prop_map(|(text, thoughts, calls)| {
        let arguments = serde_json::json!({"a": text, "b": [1, null]});
        let call = calls.then(|| ToolCall { id: None, name: "f".into(), arguments });
        let answer = Message::text(Role::Assistant, text);
        Message { reasoning: thoughts, tool_calls: call.into_iter().collect(), ..answer }
    });
    let result = text.prop_map(|text| Message::text(Role::Tool, text));
    let system = proptest::option::of(text.prop_map(|text| Message::text(Role::System, text)));
    let rounds = proptest::collection::vec((user, assistant, proptest::option::of(result)), 1..4);
    (system, rounds).prop_map(|(system, rounds)| {
        let rounds = rounds.into_iter().flat_map(|(user, assistant, result)| [Some(user), Some(assistant), result]);
        system.into_iter().chain(rounds.flatten()).collect()
    })
}

#[test]
fn the_written_template_says_what_the_code_says() -> Result<()> {
    let tokenizer = tokenizer()?;
    let marker = |name: &str| tokenizer.control(name).map(|id| vec![id]).context("a marker");
    let chat = Llama4Chat::new(&tokenizer)?
        .with_markers(marker("<|reasoning_thinking_start|>")?, marker("<|reasoning_thinking_end|>")?);
    let code = ChatFormat::Llama4(chat);
    let source = tokenizer.chat_template().context("a template in the config")?;
    let template = ChatFormat::Template(Box::new(ChatTemplate::new(source, &tokenizer)?));
    let tools = [serde_json::json!({"type": "function", "function": {"name": "f", "description": "é"}})];
    let n_compared = Cell::new(0);
    proptest!(ProptestConfig::with_cases(200), |(messages in conversation(), has_tools in any::<bool>())| {
        let tools = has_tools.then_some(tools.as_slice());
        for ending in [Ending::Message, Ending::Answer(None)] {
            let text = |format: &ChatFormat| {
                let pieces = encode_segments(&tokenizer, &format.render(&messages, tools, ending).expect("a prompt"));
                let spelled = pieces.iter().map(|piece| match piece {
                    tokenizer::Piece::Ids(ids) => tokenizer.decode(ids, Specials::Keep),
                    tokenizer::Piece::Media(n) => format!("[media {n}]"),
                });
                spelled.collect::<String>()
            };
            prop_assert_eq!(text(&template), text(&code));
            n_compared.set(n_compared.get() + 1);
        }
    });
    println!("{} prompts", n_compared.get());
    Ok(())
}
