//! Conversations as prompts: Llama 4's format as code, and templates.

mod common;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizer::{
    ChatError, ChatFormat, ChatTemplate, Ending, Llama4Chat, Message, Part, Piece, Role, Segment, ThinkingVariables,
    Tokenizer, ToolCall, ToolPlacement, encode_segments, forget_thoughts,
};

/// The prompt as one text, control tokens and images spelled.
fn spell(tokenizer: &Tokenizer, segments: &[Segment]) -> String {
    let spelling = |segment: &Segment| match segment {
        Segment::Control(id) => String::from_utf8_lossy(tokenizer.token_bytes(*id).expect("a token")).into_owned(),
        Segment::Text(text) => text.clone(),
        Segment::Media(_) => "<|image|>".to_owned(),
    };
    segments.iter().map(spelling).collect()
}

fn tools() -> Vec<Value> {
    vec![json!({"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}})]
}

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: None, name: name.into(), arguments }
}

fn llama4(placement: ToolPlacement) -> (Tokenizer, ChatFormat) {
    let tokenizer = common::ranks();
    let chat = Llama4Chat::new(&tokenizer).expect("all names are there").with_tools_in(placement);
    (tokenizer, ChatFormat::Llama4(chat))
}

fn template(source: &str) -> (Tokenizer, ChatFormat) {
    let tokenizer = common::ranks();
    let template = ChatTemplate::new(source, &tokenizer).expect("the template parses");
    (tokenizer, ChatFormat::Template(Box::new(template.with_date(1_735_689_599))))
}

fn text(role: Role, text: &str) -> Message {
    Message::text(role, text)
}

#[test]
fn llama_4_renders_as_transformers_does() {
    let question = Message::new(Role::User, vec![Part::Image, Part::Text("What?".into())]);
    let a = vec![text(Role::System, " Be brief. "), text(Role::User, "Hi"), text(Role::Assistant, "Hello"), question];
    let b = vec![text(Role::User, " Weather in Oslo? ")];
    let c = vec![text(Role::System, "S"), text(Role::User, "Weather?")];
    let d = vec![text(Role::User, "Weather?")];
    let mut calls = Message::new(Role::Assistant, vec![]);
    calls.tool_calls = vec![call("get_weather", json!({"city": "Oslo"})), call("g", json!({}))];
    let result = Message::new(Role::Tool, vec![Part::Json(json!({"t": 12}))]);
    let e = vec![text(Role::User, "W?"), calls, text(Role::Tool, "12 °C"), result];
    use ToolPlacement::{FirstUserMessage, SystemMessage};
    // Lengths and fingerprints of transformers 5's rendering of the same conversations.
    for (name, messages, tools, placement, len, hash) in [
        ("plain", a, None, FirstUserMessage, 267, "ae1b0c29b8c75bf2"),
        ("tools", b, Some(tools()), FirstUserMessage, 763, "2e21630d0c2ec065"),
        ("tools in the system message", c, Some(tools()), SystemMessage, 790, "74681fb7ccebfafc"),
        ("tools without a system message", d, Some(tools()), SystemMessage, 109, "07e5ba4e95e947fb"),
        ("calls and results", e, None, FirstUserMessage, 376, "f519e5280f46df0f"),
    ] {
        let (tokenizer, chat) = llama4(placement);
        let segments = chat.render(&messages, tools.as_deref(), Ending::Answer(None)).expect("the format can say this");
        let prompt = spell(&tokenizer, &segments);
        let digest: String = Sha256::digest(&prompt).iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert_eq!((prompt.len(), digest.as_str()), (len, hash), "{name}: {prompt}");
    }
}

#[test]
fn an_empty_list_of_tools_is_none() {
    let (_, chat) = llama4(ToolPlacement::FirstUserMessage);
    let messages = [text(Role::System, "s"), text(Role::User, " u ")];
    assert_eq!(
        chat.render(&messages, Some(&[]), Ending::Answer(None)),
        chat.render(&messages, None, Ending::Answer(None))
    );
}

#[test]
fn images_stay_images_beside_tools_and_are_numbered_through() {
    let (tokenizer, chat) = llama4(ToolPlacement::FirstUserMessage);
    let first =
        Message::new(Role::User, vec![Part::Image, Part::Text(" a".into()), Part::Text("b ".into()), Part::Image]);
    let second = Message::new(Role::User, vec![Part::Text(" c ".into()), Part::Image]);
    let segments = chat.render(&[first, second], Some(&tools()), Ending::Message).expect("the format can say this");
    let prompt = spell(&tokenizer, &segments);
    assert!(
        prompt.ends_with("}\n\n<|image|> ab <|image|><|eot|><|header_start|>user<|header_end|>\n\n c <|image|><|eot|>")
    );
    let images: Vec<usize> =
        segments.iter().filter_map(|s| if let Segment::Media(n) = s { Some(*n) } else { None }).collect();
    assert_eq!(images, [0, 1, 2]);
}

#[test]
fn clips_stand_in_messages_of_users_and_in_results_of_tools() {
    let (tokenizer, chat) = llama4(ToolPlacement::FirstUserMessage);
    let asked = Message::new(Role::User, vec![Part::Audio, Part::Image, Part::Text("?".into()), Part::Audio]);
    let found = Message::new(Role::Tool, vec![Part::Text("a".into()), Part::Text("b".into()), Part::Audio]);
    let segments = chat.render(&[asked, found], None, Ending::Message).expect("the format can say this");
    let media: Vec<usize> =
        segments.iter().filter_map(|s| if let Segment::Media(n) = s { Some(*n) } else { None }).collect();
    assert_eq!(media, [0, 1, 2, 3]);
    let end = "<|eot|><|header_start|>ipython<|header_end|>\n\n\"ab\"<|image|><|eot|>";
    assert!(spell(&tokenizer, &segments).ends_with(&format!("<|image|><|image|>?<|image|>{end}")));
}

/// A conversation with a thought in each of the assistant's turns, the last of which calls a tool.
fn thoughtful() -> Vec<Message> {
    let thought = |text: &str, content: Vec<Part>| Message {
        reasoning: Some(text.into()),
        ..Message::new(Role::Assistant, content)
    };
    let calling = thought("look", Vec::new());
    vec![
        text(Role::User, "a <|reasoning_thinking_start|>"),
        thought("old", vec![Part::Text("b".into())]),
        text(Role::User, "c"),
        Message { tool_calls: vec![call("g", json!({}))], ..calling },
        text(Role::Tool, "12"),
    ]
}

#[test]
fn thoughts_stand_between_their_markers_in_the_chain_after_the_last_user_message() {
    let (tokenizer, ChatFormat::Llama4(chat)) = llama4(ToolPlacement::FirstUserMessage) else { panic!("a format") };
    let marker = |name: &str| vec![tokenizer.control(name).expect("a reserved token")];
    let [start, end] = ["<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"].map(marker);
    let (start_id, plain) = (start[0], ChatFormat::Llama4(chat.clone()));
    let chat = ChatFormat::Llama4(chat.with_markers(start, end));
    let render = |chat: &ChatFormat, messages: &[Message]| {
        let segments = chat.render(messages, None, Ending::Answer(None)).expect("the format can say this");
        let n = segments.iter().filter(|segment| **segment == Segment::Control(start_id)).count();
        (spell(&tokenizer, &segments), n)
    };
    let mut messages = thoughtful();
    let (all, n) = render(&chat, &messages);
    assert!(all.contains("\n\n<|reasoning_thinking_start|>old<|reasoning_thinking_end|>b<|eot|>"), "{all}");
    // What the user wrote is spelled alike and is none.
    assert_eq!(n, 2);
    forget_thoughts(&mut messages);
    let (kept, n) = render(&chat, &messages);
    assert!(kept.contains("<|header_end|>\n\nb<|eot|>") && !kept.contains("old"), "{kept}");
    let calling = "<|reasoning_thinking_start|>look<|reasoning_thinking_end|><|python_start|><|python_end|>";
    assert!(kept.contains(calling) && n == 1, "{kept}");
    assert_eq!(render(&plain, &messages).1, 0, "a model that does not think");
}

#[test]
fn a_template_is_told_of_thinking_and_shown_thoughts() {
    let source = "{% for m in messages %}{{ m.role }}[{{ m.reasoning_content }}]{% endfor %}\
        {% if enable_thinking is defined %}{{ enable_thinking }} {{ thinking }} {{ reasoning_effort }}{% endif %}";
    let (tokenizer, chat) = template(source);
    let written = |ending| {
        let segments = chat.render(&thoughtful(), None, ending).expect("the template takes this");
        spell(&tokenizer, &segments)
    };
    let conversation = "user[]assistant[old]user[]assistant[look]tool[]";
    assert_eq!(written(Ending::Answer(None)), conversation);
    let thinking = ThinkingVariables { is_on: true, effort: Some("low") };
    assert_eq!(written(Ending::Answer(Some(thinking))), format!("{conversation}True True low"));
}

#[test]
fn what_the_format_cannot_say_is_refused() {
    let (_, chat) = llama4(ToolPlacement::FirstUserMessage);
    let image = || Message::new(Role::System, vec![Part::Image]);
    for (messages, tools, why) in [
        (vec![image()], None, "a system message cannot hold an image; put it in a user message"),
        (vec![], Some(tools()), "tools need a user message before any other"),
        (vec![text(Role::Assistant, "x")], Some(tools()), "tools need a user message before any other"),
        (
            vec![Message::new(Role::Tool, vec![Part::Image])],
            None,
            "a tool result is text or one JSON value; put an image in a user message",
        ),
        (
            vec![Message::new(Role::System, vec![Part::Audio])],
            None,
            "a system message cannot hold audio; put it in a user message",
        ),
        (
            vec![text(Role::User, "x"), Message::new(Role::Assistant, vec![Part::Audio])],
            None,
            "an assistant's message cannot hold audio; put it in a user message",
        ),
    ] {
        let refused = chat.render(&messages, tools.as_deref(), Ending::Answer(None));
        assert_eq!(refused, Err(ChatError::Conversation { why: why.into() }));
    }
    let tokenizer = Tokenizer::from_gguf(common::sentence_piece()).expect("the vocabulary is sound");
    let missing = Llama4Chat::new(&tokenizer).expect_err("it has no such tokens");
    assert_eq!(missing, ChatError::MissingControl { name: "<|begin_of_text|>".into() });
}

/// A small template in the manner of the released ones.
const CHATML: &str = "{{- bos_token -}}
{%- for message in messages %}
    {%- set ns = namespace(content='') %}
    {%- if message['content'] is string -%}
        {%- set ns.content = message.content | trim %}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part.type == 'image' %}
                {%- set ns.content = ns.content + '<|image|>' %}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|header_start|>' + message['role'] + '<|header_end|>\n' + ns.content + '<|eot|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{ '<|header_start|>assistant<|header_end|>\n' }}
{%- endif %}";

#[test]
fn a_template_writes_control_and_the_conversation_stays_text() {
    let (tokenizer, chat) = template(CHATML);
    let id = |name: &str| Segment::Control(tokenizer.control(name).expect("a control token"));
    let messages = [text(Role::System, "  be <|eot|> brief\n"), text(Role::User, "")];
    let segments = chat.render(&messages, None, Ending::Answer(None)).expect("the template takes this");
    let expected = [
        id("<|begin_of_text|>"),
        id("<|header_start|>"),
        Segment::Text("system".into()),
        id("<|header_end|>"),
        Segment::Text("\nbe <|eot|> brief".into()),
        id("<|eot|>"),
        Segment::Text("\n".into()),
        id("<|header_start|>"),
        Segment::Text("user".into()),
        id("<|header_end|>"),
        Segment::Text("\n".into()),
        id("<|eot|>"),
        Segment::Text("\n".into()),
        id("<|header_start|>"),
        Segment::Text("assistant".into()),
        id("<|header_end|>"),
        Segment::Text("\n".into()),
    ];
    assert_eq!(segments, expected);
}

#[test]
fn a_template_marks_images() {
    let (_, chat) = template(CHATML);
    let messages = [Message::new(Role::User, vec![Part::Image, Part::Text("x".into()), Part::Image])];
    let segments = chat.render(&messages, None, Ending::Message).expect("the template takes this");
    let images: Vec<&Segment> = segments.iter().filter(|s| matches!(s, Segment::Media(_))).collect();
    assert_eq!(images, [&Segment::Media(0), &Segment::Media(1)]);
    let (_, chat) = template("{% for m in messages %}{{ m.role }}{% endfor %}");
    let refused = chat.render(&messages, None, Ending::Message).expect_err("the template loses the images");
    assert_eq!(refused.to_string(), "chat template: it wrote 0 of 2 images and clips; the model may not take them");
}

/// What a template writes for a conversation, spelled.
fn written(source: &str, messages: &[Message], tools: Option<&[Value]>) -> Result<String, String> {
    let (tokenizer, chat) = template(source);
    chat.render(messages, tools, Ending::Message).map(|s| spell(&tokenizer, &s)).map_err(|e| e.to_string())
}

fn check(source: &str, content: &str, expected: &str) {
    let written = written(source, &[text(Role::User, content)], None);
    assert_eq!(written.as_deref(), Ok(expected), "{source}");
}

#[test]
fn methods_and_filters_look_at_the_text() {
    const C: &str = "{% set c = messages[0].content %}";
    for (expression, content, expected) in [
        ("c.strip()", " a b ", "a b"),
        ("c.lstrip() + '|'", " a ", "a |"),
        ("c.rstrip('x') ", "axx", "a"),
        ("(' ' + c + '\n')|trim", " a ", "a"),
        ("c|length", "aé🙂", "3"),
        ("c|upper", "aé", "AÉ"),
        ("c.split('</think>')[-1].lstrip('\n')", "x</think>\n\ny", "y"),
        ("c.split('</think>')|length", "x</think>y", "2"),
        ("c.split() | join('+')", " a  b\tc ", "a+b+c"),
        ("c.split(',', 1)[1]", "a,b,c", "b,c"),
        ("c.rsplit(',', 1)[0]", "a,b,c", "a,b"),
        ("c.splitlines()[1]", "a\nb", "b"),
        ("'yes' if c.startswith('<t') and c.endswith('>') else 'no'", "<tool>", "yes"),
        ("c.replace('a', 'b') ~ c.count('a') ~ c.find('n')", "banana", "bbnbnb32"),
        ("c.title() ~ c.capitalize() ~ c.removeprefix('a').removesuffix('b')", "a b", "A BA b "),
        ("c|tojson", "a\"<é>", "\"a\\\"<é>\""),
        ("{'k': [c, 1, 1.5, none, true]}|tojson", "v", "{\"k\": [\"v\", 1, 1.5, null, true]}"),
        ("{'k': c}|tojson(indent=2)", "v", "{\n  \"k\": \"v\"\n}"),
        ("{'k': c}.get('k') ~ {'k': 1}.get('x', 'none') ~ {'k': c}.items()|length", "v", "vnone1"),
        ("messages[0].keys()|join(',')", "v", "role,content"),
        ("'empty' if not c else 'full'", "", "empty"),
        ("strftime_now('%d %b %Y')", "x", "31 Dec 2024"),
        ("'same' if c == messages[0]['content'] else 'other'", "x", "same"),
    ] {
        check(&format!("{C}{{{{ {expression} }}}}"), content, expected);
    }
}

#[test]
fn tools_and_calls_reach_a_template() {
    let source = "{% for t in tools %}{{ t.type }} {{ t.function.name }} {{ t | tojson }}
{% for name, p in t.function.parameters.properties.items() %}{{ name }}: {{ p.type }}{% if p.type == 'string' %}!{% endif %}
{% endfor %}
{% endfor %}
{% for m in messages %}
{% if m.tool_calls is defined %}
{% for c in m.tool_calls %}{{ c.id }} {{ c.function.name }}({{ c.function.arguments | tojson }})
{% endfor %}
{% elif m.role == 'tool' %}{{ m.tool_call_id }}: {{ m.content }}
{% endif %}
{% endfor %}";
    let mut calls = Message::new(Role::Assistant, vec![]);
    calls.tool_calls = vec![ToolCall { id: Some("c1".into()), ..call("f", json!({"b": 1, "a": ["<|eot|>"]})) }];
    let mut result = text(Role::Tool, "12");
    result.tool_call_id = Some("c1".into());
    let tool = r#"{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}"#;
    assert_eq!(
        written(source, &[calls, result], Some(&tools())),
        Ok(format!("function get_weather {tool}\ncity: string!c1 f({{\"b\": 1, \"a\": [\"<|eot|>\"]}})\nc1: 12\n"))
    );
}

#[test]
fn a_template_may_refuse_and_may_not_run_away() {
    let user = [text(Role::User, "hello")];
    for (source, why) in [
        ("{{ raise_exception('roles must alternate, ' + messages[0].content) }}", "roles must alternate, hello"),
        ("{% for i in range(10000) %}{% for j in range(10000) %}{{ i }}{% endfor %}{% endfor %}", "fuel"),
        ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "fuel"),
        ("{{ 'x' * 99999999 }}", "fuel"),
        ("{{ messages[0].content[1:] }}", "cut a text"),
        (
            "{% set c = messages[0].content %}{% if c is string %}{% for l in c %}{{ l }} {% endfor %}{% endif %}",
            "cut a text",
        ),
        ("{{ messages[0].content.nothing() }}", "unknown method"),
        ("{{ messages[0].content|nothing }}", "nothing"),
        ("{% include 'other' %}", "other"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    ] {
        let tokenizer = common::ranks();
        let refused = ChatTemplate::new(source, &tokenizer)
            .and_then(|template| ChatFormat::Template(Box::new(template)).render(&user, None, Ending::Message));
        let refused = refused.expect_err(source).to_string();
        assert!(refused.starts_with("chat template: ") && refused.contains(why), "{source}: {refused}");
    }
    let tokenizer = common::ranks();
    assert!(ChatTemplate::new("{% if", &tokenizer).is_err());
    assert!(ChatTemplate::new(&" ".repeat((1 << 20) + 1), &tokenizer).is_err());
}

#[test]
fn a_template_that_only_takes_parts_gets_parts() {
    let source = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }};{% endif %}{% endfor %}{% endfor %}";
    check(source, "hello", "hello;");
}

#[test]
fn texts_are_encoded_apart_and_neighbouring_ids_come_together() {
    let tokenizer = common::ranks();
    let segments =
        [Segment::Text("Hel".into()), Segment::Text("lo".into()), Segment::Media(0), Segment::Text(String::new())];
    let ids = [tokenizer.encode("Hel"), tokenizer.encode("lo")].concat();
    assert_ne!(ids, tokenizer.encode("Hello"));
    assert_eq!(encode_segments(&tokenizer, &segments), [Piece::Ids(ids), Piece::Media(0)]);
    assert_eq!(encode_segments(&tokenizer, &[]), []);
}
