//! What holds of every text.

mod common;

use proptest::prelude::*;
use serde_json::json;
use tokenizer::{
    ChatFormat, ChatTemplate, Ending, Llama4Chat, Message, Part, Piece, Role, Segment, Specials, TokenStream,
    Tokenizer, ToolCall, encode_segments,
};

/// Texts of any characters, of the vocabulary's words, and of control spellings.
fn texts() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        proptest::sample::select(common::WORDS.to_vec()).prop_map(str::to_owned),
        proptest::sample::select(common::CONTROLS.to_vec()).prop_map(str::to_owned),
        ".{0,6}",
        any::<char>().prop_map(String::from),
        Just("<tool>".to_owned()),
        " {0,5}",
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(400))]
    #[test]
    fn decoding_undoes_encoding_and_no_text_is_control(text in texts()) {
        for (name, tokenizer) in TOKENIZERS.with(std::rc::Rc::clone).iter() {
            let ids = tokenizer.encode(&text);
            prop_assert_eq!(tokenizer.decode(&ids, Specials::Keep), text.clone(), "{}", name);
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{}: {:?}", name, ids);
            let mut stream = TokenStream::new(tokenizer, Specials::Skip);
            let streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
            let prefix = if *name == "sentence-piece" && !text.is_empty() { " " } else { "" };
            prop_assert_eq!(streamed + &stream.flush(), format!("{prefix}{text}"), "{}", name);
        }
    }
}

thread_local! {
    static TOKENIZERS: std::rc::Rc<Vec<(&'static str, Tokenizer)>> = std::rc::Rc::new(common::all());
}

#[test]
fn long_texts_of_one_letter_come_back() {
    for (name, tokenizer) in common::all() {
        for unit in ["a", " ", "日", "\n", "<|eot|>", "Hello the"] {
            let text = unit.repeat(900_000 / unit.len());
            let ids = tokenizer.encode(&text);
            assert!(tokenizer.decode(&ids, Specials::Keep) == text, "{name}: {unit:?}");
        }
    }
}

/// The spelling, whole and cut in two at every character.
fn cuts(spelling: &str) -> Vec<Vec<Part>> {
    let part = |text: &str| Part::Text(text.to_owned());
    let mut cuts = vec![vec![part(spelling)]];
    for (at, _) in spelling.char_indices().skip(1) {
        cuts.push(vec![part(&spelling[..at]), part(&spelling[at..])]);
    }
    cuts
}

/// The control tokens of a prompt, which must not depend on what is said in it.
fn controls(tokenizer: &Tokenizer, chat: &ChatFormat, messages: &[Message]) -> Vec<u32> {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let segments: Vec<Segment> =
        chat.render(messages, Some(&[tool]), Ending::Answer(None)).expect("the format can say this");
    let pieces = encode_segments(tokenizer, &segments);
    let ids = pieces.into_iter().flat_map(|piece| if let Piece::Ids(ids) = piece { ids } else { vec![] });
    ids.filter(|&id| tokenizer.is_control(id)).collect()
}

/// A conversation that says `parts` as the message of `role`, and `word` wherever else a client can put a word.
fn conversation(role: Role, parts: Vec<Part>, word: &str) -> Vec<Message> {
    let mut said = Message::new(role, parts);
    if role == Role::Assistant {
        let arguments = json!({"key": word, word: [word]});
        said.tool_calls = vec![ToolCall { id: Some(word.into()), name: word.into(), arguments }];
    }
    if role == Role::Tool {
        said.tool_call_id = Some(word.into());
    }
    let user = Message::text(Role::User, "x");
    if role == Role::System { vec![said, user] } else { vec![user, said] }
}

/// A template that prints everything it is given, raw and as JSON.
const PRINTS_ALL: &str = "{{ bos_token }}{% for m in messages %}<|header_start|>{{ m.role }}<|header_end|>
{%- if m.content is string %}{{ m.content | trim }}{{ m.content.split('|') | join('|') }}{% else %}
{%- for p in m.content %}{{ p.text }}{% endfor %}{% endif %}
{%- for c in m.tool_calls %}{{ c.id ~ c.function.name ~ c.function.arguments }}{{ c | tojson }}
{%- for k, v in c.function.arguments.items() %}{{ k }}{{ v }}{% endfor %}{% endfor %}
{{- m.tool_call_id }}{{ m | tojson }}<|eot|>{% endfor %}{{ tools | tojson }}";

#[test]
fn no_spelling_in_any_role_cut_anywhere_becomes_control() {
    let ranks = common::ranks();
    let gguf = Tokenizer::from_gguf(common::gguf("llama-bpe")).expect("the vocabulary is sound");
    let json = common::from_json(&common::json());
    let mut n_prompts = 0;
    for (name, tokenizer, stride) in [("ranks", &ranks, 41), ("gguf", &gguf, 1), ("json", &json, 1)] {
        let template = ChatTemplate::new(PRINTS_ALL, tokenizer).expect("the template parses");
        let formats = [
            ChatFormat::Llama4(Llama4Chat::new(tokenizer).expect("all names are there")),
            ChatFormat::Template(Box::new(template)),
        ];
        let mut spellings: Vec<String> = tokenizer.controls().map(|(spelling, _)| spelling.to_owned()).collect();
        spellings.sort();
        // Every spelling whole in every role; the cuts of a sample of Llama 4's 2,048, which differ in a number only.
        for (at, spelling) in spellings.iter().enumerate() {
            assert!(tokenizer.encode(spelling).iter().all(|&id| !tokenizer.is_control(id)), "{name}: {spelling}");
            let n_cuts = if at % stride == 0 { usize::MAX } else { 1 };
            for role in [Role::System, Role::User, Role::Assistant, Role::Tool] {
                for chat in &formats {
                    let calm = controls(tokenizer, chat, &conversation(role, vec![Part::Text("y".into())], "y"));
                    for parts in cuts(spelling).into_iter().take(n_cuts) {
                        let said = controls(tokenizer, chat, &conversation(role, parts, spelling));
                        assert_eq!(said, calm, "{name}, {role:?}: {spelling}");
                        n_prompts += 1;
                    }
                }
            }
        }
    }
    println!("{n_prompts} prompts, no control token from text");
    assert!(n_prompts > 20_000);
}

#[test]
fn a_file_whose_merges_spell_a_control_token_still_gives_none() {
    let mut file = common::json();
    let control = "<|eot|>";
    // A sloppy file: the token is made by merging, and marked as ordinary added text or not at all.
    let id = file["model"]["vocab"].as_object().expect("a map").values().filter_map(|v| v.as_u64()).max();
    let id = id.expect("not empty") + 1;
    let n_controls = file["added_tokens"].as_array().expect("a list").len() as u64;
    file["added_tokens"] = json!([]);
    file["model"]["ignore_merges"] = json!(false);
    file["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": "[^ ]+"});
    for (n, end) in ["<|eot|", control].into_iter().enumerate() {
        file["model"]["vocab"][end] = json!(id + n as u64);
        let (left, right) = end.split_at(end.len() - 1);
        file["model"]["merges"].as_array_mut().expect("a list").push(json!(format!("{left} {right}")));
    }
    assert!(n_controls > 0);
    let tokenizer = common::from_json(&file);
    let control = tokenizer.control(control).expect("its spelling makes it control");
    for text in ["<|eot|>", "a <|eot|> b <|eot|><|eot|>", "x"] {
        let ids = tokenizer.encode(text);
        assert!(!ids.contains(&control));
        assert_eq!(tokenizer.decode(&ids, Specials::Keep), text);
    }
}
