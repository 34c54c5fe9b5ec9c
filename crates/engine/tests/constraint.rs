//! Constrained answers: whatever a model would rather say, a finished answer belongs to its language.

use base64::Engine as _;
use engine::Limits;
use engine::constraint::{Compiler, Constraint, ConstraintError, Language};
use engine::tools::{Choice, Part, Recogniser, Tool};
use serde_json::{Value, json};
use tokenizer::{SpecialTokens, Tokenizer};

/// Tokens of several bytes, some of which cross the borders of JSON's own tokens.
const WORDS: [&str; 14] =
    ["{\"", "\":", "\",\"", "\"}", "true", "null", "12", "-1", " the", "日本", "name\": \"", "}]", "\\u00", "]]"];

fn tokenizer() -> Tokenizer {
    let singles = (0..=255u8).map(|byte| vec![byte]);
    let mut tokens: Vec<Vec<u8>> = singles.collect();
    for word in WORDS {
        for len in 2..=word.len() {
            let token = word.as_bytes()[..len].to_vec();
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
    }
    let encode = |token: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(token);
    let file: String = tokens.iter().enumerate().map(|(rank, token)| format!("{} {rank}\n", encode(token))).collect();
    Tokenizer::from_ranks("tokenizer.model", file.as_bytes(), SpecialTokens::new(["<|eot|>", "<|eom|>", "<|other|>"]))
        .expect("the file is sound")
}

struct Bench {
    tokenizer: Tokenizer,
    compiler: Compiler,
    n_vocab: usize,
    ends: [u32; 2],
}

impl Bench {
    fn new() -> Self {
        let tokenizer = tokenizer();
        let ends = ["<|eot|>", "<|eom|>"].map(|name| tokenizer.control(name).expect("a control token"));
        // Models have scores for more ids than their tokenizers know.
        let n_vocab = tokenizer.vocab_size() + 13;
        let limits = Limits::default();
        let compiler = Compiler::new(&tokenizer, n_vocab.try_into().expect("small"), &ends, &limits).expect("an end");
        Self { tokenizer, compiler, n_vocab, ends }
    }

    fn compile(&self, language: &Language) -> Result<Constraint, ConstraintError> {
        self.compiler.compile(language)
    }

    /// An answer of random wishes, `None` if it is not finished after `most` tokens. Wishes lean to the tokens that close
    /// things, or answers would rarely end.
    fn answer(&self, mut constraint: Constraint, rng: &mut Numbers, most: usize) -> Option<String> {
        let mut ids = Vec::new();
        for _ in 0..most {
            let mut logits: Vec<f32> = (0..self.n_vocab).map(|_| (rng.next() >> 40) as f32).collect();
            for id in 0..self.n_vocab {
                let bytes = self.tokenizer.token_bytes(id as u32).unwrap_or_default();
                if bytes.iter().any(|byte| b"\"}],:".contains(byte)) || self.ends.contains(&(id as u32)) {
                    logits[id] *= 4.0;
                }
            }
            constraint.mask(&mut logits).expect("not broken");
            let best = (0..self.n_vocab).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
            assert!(logits[best] > f32::NEG_INFINITY, "nothing may follow {:?}", self.text(&ids));
            let id = best as u32;
            constraint.accept(id).expect("it was allowed");
            if self.ends.contains(&id) {
                assert!(constraint.is_complete());
                return Some(self.text(&ids));
            }
            assert!(!self.tokenizer.is_control(id), "a control token inside of an answer");
            ids.push(id);
            if constraint.is_complete() {
                return Some(self.text(&ids));
            }
        }
        None
    }

    fn text(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().flat_map(|id| self.tokenizer.token_bytes(*id).expect("a token")).copied().collect();
        String::from_utf8(bytes).expect("whole characters")
    }
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

fn rng() -> Numbers {
    Numbers(4)
}

/// Whether a value is as a schema wants it.
type Accepts = fn(&Value) -> bool;

#[test]
fn finished_answers_belong_to_their_schema() {
    let cases: [(Value, Accepts); 9] = [
        (json!({"type": "boolean"}), Value::is_boolean),
        (json!({"type": "integer", "minimum": -3, "maximum": 40}), |v| {
            v.as_i64().is_some_and(|n| (-3..=40).contains(&n))
        }),
        (json!({"enum": ["a", 1, null]}), |v| [json!("a"), json!(1), json!(null)].contains(v)),
        (json!({"type": "string", "maxLength": 5}), |v| v.as_str().is_some_and(|s| s.chars().count() <= 5)),
        (json!({"type": "string", "pattern": "^[ab]{2,4}$"}), |v| {
            v.as_str().is_some_and(|s| (2..=4).contains(&s.len()) && s.bytes().all(|b| b"ab".contains(&b)))
        }),
        (json!({"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3}), |v| {
            v.as_array().is_some_and(|a| (1..=3).contains(&a.len()) && a.iter().all(Value::is_null))
        }),
        (
            json!({"type": "object", "properties": {"x": {"type": "boolean"}, "y": {"const": "k"}},
                "required": ["x"], "additionalProperties": false}),
            |v| {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get("x").is_some_and(Value::is_boolean)
                        && map.iter().all(|(key, v)| key == "x" || key == "y" && *v == json!("k"))
                };
                v.as_object().is_some_and(of)
            },
        ),
        (json!({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 7, "maximum": 7}]}), |v| {
            v.is_null() || *v == json!(7)
        }),
        (
            json!({"$defs": {"leaf": {"type": "boolean"}}, "type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 2}),
            |v| v.as_array().is_some_and(|a| a.len() <= 2 && a.iter().all(Value::is_boolean)),
        ),
    ];
    let (bench, mut rng, mut n_finished) = (Bench::new(), rng(), 0);
    for (schema, accepts) in &cases {
        let constraint = bench.compile(&Language::JsonSchema(schema.to_string())).expect("a sound schema");
        for _ in 0..40 {
            if let Some(text) = bench.answer(constraint.clone(), &mut rng, 200) {
                let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {text:?}: {e}"));
                assert!(accepts(&value), "{schema}: {text:?}");
                n_finished += 1;
            }
        }
    }
    println!("{n_finished} finished answers to {} schemas", cases.len());
    assert!(n_finished > 300, "{n_finished} of 360");
}

#[test]
fn objects_expressions_and_grammars_hold_too() {
    let (bench, mut rng) = (Bench::new(), rng());
    let mut n_finished = [0; 3];
    let object = bench.compile(&Language::JsonObject).expect("objects");
    let date = bench.compile(&Language::Regex("[0-9]{4}-[01][0-9]".into())).expect("an expression");
    let sum = bench.compile(&Language::Grammar("start: N (\"+\" N)*\nN: /[0-9]{1,2}/".into())).expect("a grammar");
    for _ in 0..60 {
        if let Some(text) = bench.answer(object.clone(), &mut rng, 200) {
            assert!(serde_json::from_str::<Value>(&text).is_ok_and(|v| v.is_object()), "{text:?}");
            n_finished[0] += 1;
        }
        if let Some(text) = bench.answer(date.clone(), &mut rng, 20) {
            let is_digit = |at: usize| text.as_bytes()[at].is_ascii_digit();
            assert!(text.len() == 7 && [0, 1, 2, 3, 5, 6].into_iter().all(is_digit) && &text[4..5] == "-", "{text:?}");
            n_finished[1] += 1;
        }
        if let Some(text) = bench.answer(sum.clone(), &mut rng, 40) {
            assert!(text.split('+').all(|n| (1..=2).contains(&n.len()) && n.parse::<u8>().is_ok()), "{text:?}");
            n_finished[2] += 1;
        }
    }
    println!("{n_finished:?} finished answers");
    assert!(n_finished.iter().all(|n| *n >= 20), "{n_finished:?}");
}

#[test]
fn every_end_token_is_allowed_where_an_answer_may_end_and_nowhere_else() {
    let bench = Bench::new();
    let mut constraint = bench.compile(&Language::Regex("a?".into())).expect("an expression");
    let allowed = |constraint: &mut Constraint| -> Vec<u32> {
        let mut logits = vec![0.0; bench.n_vocab];
        constraint.mask(&mut logits).expect("not broken");
        (0..bench.n_vocab as u32).filter(|id| logits[*id as usize] == 0.0).collect()
    };
    let a = u32::from(b'a');
    assert_eq!(allowed(&mut constraint), [&[a][..], &bench.ends].concat());
    let mut other = constraint.clone();
    constraint.accept(a).expect("allowed");
    assert_eq!(allowed(&mut constraint), bench.ends);
    // A copy goes its own way.
    assert_eq!(allowed(&mut other).len(), 3);
    other.accept(bench.ends[1]).expect("allowed");
    assert!(other.is_complete());
    assert!(constraint.accept(a).is_err(), "it was not allowed");
}

#[test]
fn a_keyword_that_is_not_supported_is_named_with_its_place() {
    let bench = Bench::new();
    let pointer_of = |schema: Value| match bench.compile(&Language::JsonSchema(schema.to_string())) {
        Err(ConstraintError::Schema { pointer, why }) => (pointer, why),
        other => panic!("{schema}: {other:?}"),
    };
    for (schema, want, word) in [
        (json!({"type": "object", "properties": {"a/b": {"not": {}}}}), "/properties/a~1b/not", "not"),
        (json!({"anyOf": [{"type": "null"}, {"uniqueItems": true}]}), "/anyOf/1/uniqueItems", "uniqueItems"),
        (json!({"items": {"$ref": "http://example.com/schema"}}), "/items/$ref", "fetched"),
        (json!({"properties": {"x": {"nullable": true}}}), "/properties/x/nullable", "null"),
        (json!({"properties": {"x": 3}}), "/properties/x", "object"),
        (json!({"required": [1]}), "/required", "name"),
        (json!({"$ref": "#/nowhere"}), "", "nowhere"),
        (json!({"type": "strin"}), "", "strin"),
    ] {
        let (pointer, why) = pointer_of(schema.clone());
        assert_eq!(pointer, want, "{schema}: {why}");
        assert!(why.contains(word), "{schema}: {why}");
    }
    // A property may have the name of a keyword.
    assert!(bench.compile(&Language::JsonSchema(json!({"properties": {"not": {"type": "null"}}}).to_string())).is_ok());
}

/// Row H6: an error, or an automaton that a whole answer can be made with.
#[test]
fn hostile_languages_are_refused_or_work() {
    let deep = |n: usize, open: &str, close: &str| format!("{}{{}}{}", open.repeat(n), close.repeat(n));
    let mut languages: Vec<Language> = Vec::new();
    for n in [10, 31, 33, 100, 2_000, 100_000] {
        languages.push(Language::JsonSchema(deep(n, "{\"items\":", "}")));
        languages.push(Language::JsonSchema(deep(n, "{\"anyOf\":[", "]}")));
        languages.push(Language::JsonSchema("[".repeat(n)));
        languages.push(Language::Regex(format!("{}a{}", "(".repeat(n), ")".repeat(n))));
        languages.push(Language::Regex(format!("(a{{{n}}}){{{n}}}")));
        languages.push(Language::Regex("(a|aa)+".repeat(n.min(5_000))));
        languages.push(Language::Grammar(format!("start: {}\"a\"{}", "(".repeat(n), ")".repeat(n))));
        languages.push(Language::Grammar((0..n.min(3_000)).map(|i| format!("r{i}: r{} \"x\"\n", i + 1)).collect()));
        for (keyword, kind) in [
            ("maxItems", "array"),
            ("minItems", "array"),
            ("maxLength", "string"),
            ("minLength", "string"),
            ("maxProperties", "object"),
        ] {
            for most in [n as u64, 1_000_000_000, u64::MAX] {
                languages.push(Language::JsonSchema(json!({"type": kind, keyword: most}).to_string()));
            }
        }
        let names: Vec<String> = (0..n.min(2_000)).map(|i| format!("p{i}")).collect();
        languages.push(Language::JsonSchema(json!({"enum": names}).to_string()));
        languages.push(Language::JsonSchema(json!({"required": names, "type": "object"}).to_string()));
        let all = names.iter().map(|name| json!({"required": [name]})).collect::<Vec<_>>();
        languages.push(Language::JsonSchema(json!({"allOf": all}).to_string()));
        languages.push(Language::JsonSchema(json!({"oneOf": all}).to_string()));
    }
    for regex in [
        "(a+)+$",
        "(.*)*",
        "[^",
        "a{2,1}",
        "(?=a)",
        "\\1",
        "",
        "\u{0}",
        "(?i)é{1000}",
        ".{100000}",
        "a**",
        "[\\p{L}]{500}",
    ] {
        languages.push(Language::Regex(regex.into()));
        languages.push(Language::JsonSchema(json!({"type": "string", "pattern": regex}).to_string()));
    }
    for schema in [
        json!({"$ref": "#"}),
        json!({"anyOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!({"type": "integer", "multipleOf": 0}),
        json!({"type": "number", "minimum": 1e308, "maximum": 1.1e308}),
        json!({"enum": []}),
        json!({"allOf": [{"type": "string"}, {"type": "null"}]}),
        json!(false),
        json!(null),
        json!([]),
        json!({"properties": 5}),
        json!({"items": {"minLength": "x"}}),
    ] {
        languages.push(Language::JsonSchema(schema.to_string()));
    }
    for grammar in [
        "",
        "start",
        "start: start",
        "start: x",
        "start: /[/",
        "%import common.INT\nstart: INT",
        "start: \"a\" | start start",
    ] {
        languages.push(Language::Grammar(grammar.into()));
    }
    let (bench, mut rng) = (Bench::new(), rng());
    let (mut n_refused, mut n_working) = (0, 0);
    for language in &languages {
        match bench.compile(language) {
            Err(e) => {
                assert!(!e.to_string().is_empty() && e.to_string().len() < 2_000, "{e}");
                n_refused += 1;
            }
            Ok(constraint) => {
                // Twenty tokens of it: each has one that may follow, which `answer` asserts.
                bench.answer(constraint, &mut rng, 20);
                n_working += 1;
            }
        }
    }
    println!("{} hostile languages: {n_refused} refused, {n_working} work", languages.len());
    assert!(languages.len() >= 200 && n_refused >= 60 && n_working >= 30);
}

fn tool(name: &str, parameters: Value) -> Tool {
    Tool { name: name.into(), parameters: parameters.to_string(), is_strict: false }
}

/// What the recogniser finds in an answer: its text and its calls.
fn recognised(text: &str) -> (String, Vec<(String, Value)>) {
    let mut recogniser = Recogniser::new(["f", "off"].map(str::to_owned));
    let mut parts = recogniser.push(text);
    parts.extend(recogniser.finish());
    let (mut text, mut calls) = (String::new(), Vec::<(String, String)>::new());
    for part in parts {
        match part {
            Part::Text(more) => text.push_str(&more),
            Part::Call { name, .. } => calls.push((name, String::new())),
            Part::Arguments { index, text } => calls[index].1.push_str(&text),
        }
    }
    let parse = |text: &str| serde_json::from_str(text).expect("arguments are JSON");
    (text, calls.into_iter().map(|(name, arguments)| (name, parse(&arguments))).collect())
}

#[test]
fn calls_are_of_declared_tools_with_arguments_as_declared() {
    let tools = vec![
        tool(
            "f",
            json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false}),
        ),
        tool("off", json!({"properties": {}, "additionalProperties": false})),
    ];
    let (bench, mut rng) = (Bench::new(), rng());
    let mut n_calls = [0; 3];
    for (i, (choice, is_parallel)) in
        [(Choice::Required, false), (Choice::Required, true), (Choice::Auto, false)].into_iter().enumerate()
    {
        let constraint =
            bench.compile(&Language::Calls { tools: tools.clone(), choice, is_parallel }).expect("sound tools");
        for _ in 0..30 {
            let Some(answer) = bench.answer(constraint.clone(), &mut rng, 400) else { continue };
            let (text, calls) = recognised(&answer);
            if choice == Choice::Required {
                assert!(text.is_empty() && !calls.is_empty() && (is_parallel || calls.len() == 1), "{answer:?}");
            }
            for (name, arguments) in calls {
                let wanted = match name.as_str() {
                    "f" => arguments["on"].is_boolean() && arguments.as_object().is_some_and(|map| map.len() == 1),
                    _ => arguments == json!({}),
                };
                assert!(wanted, "{answer:?}");
                n_calls[i] += 1;
            }
        }
    }
    println!("{n_calls:?} calls: one required, several, as the model likes");
    assert!(n_calls[0] >= 20 && n_calls[1] >= 20, "{n_calls:?}");
}

#[test]
fn an_answer_that_need_not_call_is_any_text_that_does_not_begin_like_a_call() {
    let bench = Bench::new();
    let tools = vec![tool(
        "f",
        json!({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"], "additionalProperties": false}),
    )];
    let constraint =
        bench.compile(&Language::Calls { tools, choice: Choice::Auto, is_parallel: true }).expect("a tool");
    // Byte by byte: how far a text gets.
    let reach = |text: &str| {
        let mut constraint = constraint.clone();
        text.bytes()
            .take_while(|byte| {
                let mut logits = vec![0.0; bench.n_vocab];
                constraint.mask(&mut logits).expect("not broken");
                logits[usize::from(*byte)] == 0.0 && constraint.accept(u32::from(*byte)).is_ok()
            })
            .count()
    };
    for text in [
        "Hello {\"name\": 1}",
        "{\"answer\": [1]}",
        "[f(a=None)]",
        "[f(a=null), f(a=None)]",
        "[g(1)]",
        "  [1, 2]",
        "{\"name\": \"f\", \"parameters\": {\"a\":null}}",
        "<function=f>{\"a\": null}</function>",
        "<function=g>",
    ] {
        assert_eq!(reach(text), text.len(), "{text:?}");
    }
    // Up to the last character, which can not be.
    for text in [
        "{\"name\": \"g",
        "{\"name\": \"f\", \"parameters\": {\"b",
        "[f()",
        "[f(b",
        "[f(a=1",
        "[f(a=None,",
        "[f(a=None)] ",
        "<function=f>[",
        "<function=f>{\"a\": null}</function> x",
    ] {
        assert_eq!(reach(text), text.len() - 1, "{text:?}");
    }
}

/// What a model may do after it began a list of calls, to the end.
#[test]
fn calls_in_a_list_are_as_declared() {
    let (bench, mut rng) = (Bench::new(), rng());
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["on", "to"], "$defs": {"city": {"enum": ["LA", "Rome"]}},
        "properties": {
            "on": {"type": "boolean"}, "n": {"type": ["integer", "null"]}, "to": {"$ref": "#/$defs/city"},
            "no-keyword": {"type": "string"}, "list": {"type": "array", "items": {"type": "null"}, "maxItems": 2},
        },
    });
    let is_valid = |arguments: &Value| {
        arguments.as_object().is_some_and(|map| {
            map.iter().all(|(name, value)| match name.as_str() {
                "on" => value.is_boolean(),
                "n" => value.is_number() || value.is_null(),
                "to" => ["LA", "Rome"].iter().any(|city| value == city),
                "list" => value.as_array().is_some_and(|list| list.len() <= 2 && list.iter().all(Value::is_null)),
                _ => false,
            }) && ["on", "to"].iter().all(|name| map.contains_key(*name))
        })
    };
    let required_but_no_keyword = json!({"type": "object", "properties": {"a b": {}}, "required": ["a b"]});
    let tools = vec![tool("f", schema), tool("off", required_but_no_keyword)];
    let language = Language::Calls { tools, choice: Choice::Auto, is_parallel: true };
    let constraint = bench.compile(&language).expect("sound tools");
    let begun = |text: &str| {
        let mut constraint = constraint.clone();
        text.bytes().try_for_each(|byte| constraint.accept(u32::from(byte))).map(|()| constraint)
    };
    assert!(begun("[off(1").is_ok(), "a tool that takes no keywords is not held to any");
    let begun = begun("[f(on=").expect("a call");
    let (mut n_answers, mut n_calls, mut n_optional) = (0, 0, 0);
    for _ in 0..60 {
        let Some(rest) = bench.answer(begun.clone(), &mut rng, 400) else { continue };
        let answer = format!("[f(on={rest}");
        let (text, calls) = recognised(&answer);
        assert_eq!(text, "", "{answer:?}");
        n_answers += 1;
        for (name, arguments) in calls {
            assert!(name == "f" && is_valid(&arguments), "{answer:?}: {arguments}");
            n_calls += 1;
            n_optional += usize::from(arguments.get("n").is_some()) + usize::from(arguments.get("list").is_some());
        }
    }
    println!("{n_answers} lists, {n_calls} calls, {n_optional} arguments that need not be there");
    assert!(n_answers >= 20 && n_calls > n_answers && n_optional >= 10);
}

#[test]
fn a_tool_whose_schema_can_not_be_followed_is_refused_only_where_it_has_to_be() {
    let bench = Bench::new();
    let plain = tool("f", json!({"type": "object", "properties": {"x": {"uniqueItems": true}}}));
    let strict = Tool { is_strict: true, ..plain.clone() };
    let compile = |tool: &Tool, choice| {
        bench.compile(&Language::Calls { tools: vec![tool.clone()], choice, is_parallel: true }).map(|_| ())
    };
    assert_eq!(compile(&plain, Choice::Auto), Ok(()));
    for (tool, choice) in [(&plain, Choice::Required), (&strict, Choice::Auto)] {
        let error = compile(tool, choice).expect_err("it has to be followed");
        assert!(error.to_string().contains("/tools/0/function/parameters/properties/x/uniqueItems"), "{error}");
    }
}
