//! Broken JSON configs.

use crate::{Case, Parser};

const TEXT: &str = r#""model_type":"llama4_text","attention_bias":false,"attention_chunk_size":16,"attn_scale":0.1,"attn_temperature_tuning":true,"bos_token_id":1,"eos_token_id":[2,3],"pad_token_id":0,"floor_scale":8,"head_dim":16,"hidden_act":"silu","hidden_size":64,"interleave_moe_layer_step":2,"intermediate_size":48,"intermediate_size_mlp":80,"max_position_embeddings":4096,"no_rope_layer_interval":4,"num_attention_heads":4,"num_experts_per_tok":1,"num_hidden_layers":4,"num_key_value_heads":2,"num_local_experts":4,"rms_norm_eps":1e-05,"rope_theta":500000.0,"use_qk_norm":true,"vocab_size":256"#;
const LISTS: &str = r#","layer_types":["chunked_attention","chunked_attention","chunked_attention","full_attention"],"moe_layers":[1,3],"no_rope_layers":[1,1,1,0]"#;
const ROPE: &str = r#","rope_scaling":{"factor":16.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32,"rope_type":"llama3"}"#;
const VISION: &str = r#""hidden_act":"gelu","hidden_size":32,"image_size":56,"intermediate_size":128,"norm_eps":1e-05,"num_attention_heads":2,"num_channels":3,"num_hidden_layers":3,"patch_size":14,"pixel_shuffle_ratio":0.5,"projector_input_dim":40,"projector_output_dim":40,"rope_theta":10000,"vision_output_dim":40"#;
const LLAMA: &str = r#"{"model_type":"llama","attention_bias":false,"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu","hidden_size":64,"intermediate_size":96,"max_position_embeddings":128,"mlp_bias":false,"num_attention_heads":4,"num_hidden_layers":2,"num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_theta":10000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","vocab_size":256}"#;

/// Wrong values for a size, a flag, a number above 0 and a text.
const NOT_SIZES: [&str; 14] = [
    "0",
    "-1",
    "1.5",
    "1e300",
    "1e999",
    "NaN",
    "Infinity",
    "\"8\"",
    "true",
    "[8]",
    "{}",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];
pub const NOT_FLAGS: [&str; 5] = ["\"true\"", "1", "[]", "{}", "NaN"];
const NOT_POSITIVE: [&str; 9] = ["0", "-1.0", "1e999", "1e300", "NaN", "\"1\"", "true", "[1]", "{}"];
const NOT_TEXTS: [&str; 5] = ["5", "true", "[]", "{}", "\"no such thing\""];

fn top() -> String {
    format!(
        r#"{{"model_type":"llama4","boi_token_index":250,"eoi_token_index":251,"image_token_index":252,"tie_word_embeddings":false,"torch_dtype":"float32","text_config":{{{TEXT}{LISTS}{ROPE}}},"vision_config":{{{VISION}}}}}"#
    )
}

pub fn sound_config() -> Case {
    Case::new(Parser::Config, "sound", top())
}

/// A sound config with three lists for `n` layers.
pub fn of_n_layers(n: usize) -> Vec<u8> {
    let list = |entry: &str| format!("[{}]", vec![entry; n].join(","));
    let (types, ones, zeros) = (list("\"full_attention\""), list("1"), list("0"));
    let lists = format!(r#","layer_types":{types},"no_rope_layers":{ones},"moe_layers":{zeros}"#);
    let text = TEXT.replace("\"num_hidden_layers\":4", &format!("\"num_hidden_layers\":{n}"));
    format!("{{{text}{lists}{ROPE}}}").into()
}

/// `json` with the value of the `nth` occurrence of `key` replaced.
pub fn replaced(json: &str, key: &str, nth: usize, new: &str) -> String {
    let pattern = format!("\"{key}\":");
    let (at, _) = json.match_indices(&pattern).nth(nth).unwrap_or_else(|| panic!("{key}"));
    let begin = at + pattern.len();
    let rest = &json[begin..];
    let mut depth = 0i32;
    let len = rest.find(|c| {
        depth += i32::from(matches!(c, '[' | '{')) - i32::from(matches!(c, ']' | '}'));
        depth < 0 || (depth == 0 && c == ',')
    });
    format!("{}{new}{}", &json[..begin], &rest[len.unwrap()..])
}

pub fn broken_configs() -> Vec<Case> {
    let mut cases = Vec::new();
    let json = top();
    let mut add = |what: String, json: String| cases.push(Case::new(Parser::Config, what, json));
    for (keys, values, nth) in [
        (&SIZES[..], &NOT_SIZES[..], 0),
        (&VISION_SIZES, &NOT_SIZES, 0),
        (&["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"], &NOT_SIZES, 1),
        (&["boi_token_index", "eoi_token_index", "image_token_index"], &NOT_SIZES[1..], 0),
        (&["bos_token_id", "eos_token_id"], &NOT_SIZES[1..9], 0),
        (&["attention_bias", "use_qk_norm", "tie_word_embeddings"], &NOT_FLAGS, 0),
        (&["rms_norm_eps", "rope_theta", "floor_scale", "factor", "low_freq_factor"], &NOT_POSITIVE, 0),
        (&["high_freq_factor", "pixel_shuffle_ratio", "norm_eps"], &NOT_POSITIVE, 0),
        (&["attn_scale"], &NOT_POSITIVE[2..], 0),
        (&["attn_temperature_tuning"], &["\"on\"", "[]", "{}", "1e999"], 0),
        (&["hidden_act", "rope_type"], &NOT_TEXTS, 0),
        (&["hidden_act"], &NOT_TEXTS, 1),
        (&["model_type"], &NOT_TEXTS, 0),
        (&["torch_dtype"], &NOT_TEXTS[..4], 0),
        (&["text_config", "vision_config", "rope_scaling"], &["5", "true", "[]", "\"x\""], 0),
        (&["layer_types", "moe_layers", "no_rope_layers"], &["5", "true", "{}", "\"x\"", "[{}]", "[null]", "[-1]"], 0),
    ] {
        for key in keys {
            for value in values {
                add(format!("{key} is {value}"), replaced(&json, key, nth, value));
            }
        }
    }
    for (key, value) in CONTRADICTIONS {
        add(format!("{key} is {value} against the rest"), replaced(&json, key, 0, value));
    }
    for key in ["model_type", "text_config"] {
        add(format!("no {key}"), json.replacen(&format!("\"{key}\""), "\"x\"", 1));
    }
    for key in ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"] {
        add(format!("no {key}"), json.replacen(&format!("\"{key}\""), "\"x\"", 1));
        add(format!("{key} is null"), replaced(&json, key, 0, "null"));
    }
    for key in ["rope_theta", "head_dim", "vocab_size", "model_type"] {
        add(format!("{key} twice"), json.replacen(&format!("\"{key}\":"), &format!("\"{key}\":1,\"{key}\":"), 1));
    }
    for (key, value) in LLAMA_CONTRADICTIONS {
        add(format!("llama: {key} is {value}"), replaced(LLAMA, key, 0, value));
    }
    for (key, value) in LLAMA_ADDITIONS {
        add(format!("llama: with {key} {value}"), LLAMA.replacen('{', &format!("{{\"{key}\":{value},"), 1));
    }
    for len in (0..json.len()).step_by(7) {
        add(format!("cut at {len}"), json[..len].into());
    }
    add_shapes(Parser::Config, "rope_scaling", &mut add);
    add("three lists of a million".into(), replaced(&json, "moe_layers", 0, &format!("[{}1]", "1,".repeat(1_000_000))));
    add(
        "a million objects".into(),
        replaced(&json, "moe_layers", 0, &format!("[{}1]", "{\"factor\":1},".repeat(100_000))),
    );
    cases
}

const SIZES: [&str; 15] = [
    "attention_chunk_size",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "intermediate_size_mlp",
    "max_position_embeddings",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_local_experts",
    "vocab_size",
    "original_max_position_embeddings",
    "num_channels",
    "patch_size",
];
const VISION_SIZES: [&str; 4] = ["image_size", "projector_input_dim", "projector_output_dim", "vision_output_dim"];

/// Values that are sound by themselves.
const CONTRADICTIONS: [(&str, &str); 34] = [
    ("num_key_value_heads", "3"),
    ("head_dim", "15"),
    ("num_attention_heads", "5"),
    ("num_hidden_layers", "5"),
    ("num_hidden_layers", "1025"),
    ("num_hidden_layers", "3"),
    ("vocab_size", "2"),
    ("vocab_size", "200"),
    ("vocab_size", "16777217"),
    ("num_local_experts", "5000"),
    ("num_experts_per_tok", "5"),
    ("bos_token_id", "256"),
    ("eos_token_id", "[2,256]"),
    ("eos_token_id", "[2,\"3\"]"),
    ("pad_token_id", "-2"),
    ("pad_token_id", "\"0\""),
    ("image_token_index", "256"),
    ("layer_types", "[]"),
    ("layer_types", "[\"full_attention\"]"),
    ("layer_types", "[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]"),
    ("moe_layers", "[4]"),
    ("moe_layers", "[18446744073709551615]"),
    ("no_rope_layers", "[1,1,1]"),
    ("no_rope_layers", "[1,1,1,2]"),
    ("high_freq_factor", "0.5"),
    ("rope_type", "\"yarn\""),
    ("rope_scaling", "{\"rope_type\":\"linear\"}"),
    ("rope_scaling", "{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}"),
    ("rope_scaling", "{\"full_attention\":{\"rope_theta\":1}}"),
    ("image_size", "57"),
    ("image_size", "70"),
    ("patch_size", "13"),
    ("pixel_shuffle_ratio", "0.3"),
    ("vision_config", "{\"hidden_size\":32}"),
];
const LLAMA_CONTRADICTIONS: [(&str, &str); 14] = [
    ("num_attention_heads", "5"),
    ("num_attention_heads", "64"),
    ("num_attention_heads", "128"),
    ("num_key_value_heads", "3"),
    ("num_key_value_heads", "0"),
    ("hidden_size", "0"),
    ("intermediate_size", "0"),
    ("vocab_size", "2"),
    ("hidden_act", "\"gelu\""),
    ("mlp_bias", "1"),
    ("rms_norm_eps", "0"),
    ("eos_token_id", "256"),
    ("bos_token_id", "-1"),
    ("max_position_embeddings", "0"),
];
const LLAMA_ADDITIONS: [(&str, &str); 8] = [
    ("head_dim", "0"),
    ("head_dim", "7"),
    ("rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}"),
    ("rope_scaling", "{\"type\":\"linear\",\"factor\":0}"),
    ("rope_scaling", "{\"type\":5}"),
    ("partial_rotary_factor", "0.25"),
    ("rope_parameters", "{\"rope_type\":\"longrope\"}"),
    ("rope_parameters", "[]"),
];

/// Files of the wrong outline, whatever the keys; `key` is a known one.
pub fn add_shapes(parser: Parser, key: &str, add: &mut dyn FnMut(String, String)) {
    let whole =
        ["", " ", "[]", "5", "null", "\"a\"", "{", "{}x", "{}{}", "{\"a\"}", "{\"a\":}", "\u{feff}{}", "{'a':1}"];
    for json in whole {
        add(format!("{parser:?}: {json}"), json.into());
    }
    for (open, n) in [("[", 200), ("[", 100_000), ("{\"size\":", 100_000)] {
        add(format!("{n} times {open}"), format!("{{\"{key}\":{}", open.repeat(n)));
    }
    add("closed lists in lists".into(), format!("{{\"{key}\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000)));
    add("a string of 1 MiB".into(), format!("{{\"{key}\":\"{}\"}}", "x".repeat(1 << 20)));
    add("a string of 1 MiB of escapes".into(), format!("{{\"{key}\":\"{}\"}}", "\\n".repeat(1 << 19)));
    add("a key of 1 MiB".into(), format!("{{\"{}\":1}}", "k".repeat(1 << 20)));
    add("strings of 60 KiB".into(), format!("{{\"{key}\":[\"{0}\",\"{0}\"]}}", "x".repeat(60 << 10)));
    add("a string cut in an escape".into(), format!("{{\"{key}\":\"\\u12"));
    add("half of a surrogate pair".into(), format!("{{\"{key}\":\"\\ud800\"}}"));
}

pub fn sound_generation() -> Case {
    let json = r#"{"do_sample":true,"temperature":0.6,"top_p":0.9,"top_k":50,"repetition_penalty":1.1,"bos_token_id":1,"eos_token_id":[2],"pad_token_id":0}"#;
    Case::new(Parser::Generation, "sound", json)
}

pub fn broken_generations() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, json: String| cases.push(Case::new(Parser::Generation, what, json));
    let json = String::from_utf8(sound_generation().bytes).unwrap();
    for (keys, values) in [
        (&["do_sample"][..], &NOT_FLAGS[..]),
        (&["temperature"], &NOT_POSITIVE[1..]),
        (&["repetition_penalty"], &NOT_POSITIVE),
        (&["top_p"], &NOT_POSITIVE),
        (&["top_p"], &["1.01", "2"]),
        (&["top_k", "bos_token_id", "eos_token_id", "pad_token_id"], &NOT_SIZES[1..9]),
        (&["bos_token_id", "eos_token_id", "pad_token_id"], &["4294967296", "18446744073709551616"]),
        (&["eos_token_id"], &["[2,-1]", "[[2]]", "[null]"]),
    ] {
        for key in keys {
            for value in values {
                add(format!("{key} is {value}"), replaced(&json, key, 0, value));
            }
        }
    }
    for len in (0..json.len()).step_by(5) {
        add(format!("cut at {len}"), json[..len].into());
    }
    add_shapes(Parser::Generation, "top_k", &mut add);
    cases
}

pub fn sound_reasoning() -> Case {
    let json = r#"{"start":"<a>","end":"</a>","default":"auto","prefill_start":true,"implicit_end":["<b>"],"budget_message":"m","extend_message":"w","efforts":{"none":0,"low":7,"max":-1}}"#;
    Case::new(Parser::Reasoning, "sound", json)
}

pub fn broken_reasonings() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, json: String| cases.push(Case::new(Parser::Reasoning, what, json));
    let json = String::from_utf8(sound_reasoning().bytes).unwrap();
    let long = |n: usize| format!("\"{}\"", "x".repeat(n));
    let (marker, message) = (long(257), long(4097));
    let many = format!("[{}]", vec!["\"x\""; 17].join(","));
    for (keys, values) in [
        (&["start", "end", "default", "budget_message", "extend_message"][..], &NOT_TEXTS[..4]),
        (&["start", "end"], &["\"\"", &marker]),
        (&["start"], &["\"</a>\""]),
        (&["default"], &["\"no such thing\""]),
        (&["prefill_start"], &NOT_FLAGS),
        (&["implicit_end"], &["5", "{}", "[5]", "[null]", &many]),
        (&["budget_message", "extend_message"], &[&message]),
        (&["efforts"], &["5", "[]", "\"x\""]),
        (&["low", "max"], &["-2", "1.5", "1e999", "\"1\"", "true", "[1]", "{}"]),
    ] {
        for key in keys {
            for value in values {
                add(format!("{key} is {value}"), replaced(&json, key, 0, value));
            }
        }
    }
    for len in (0..json.len()).step_by(5) {
        add(format!("cut at {len}"), json[..len].into());
    }
    add_shapes(Parser::Reasoning, "start", &mut add);
    cases
}

pub fn sound_preprocessor() -> Case {
    let json = r#"{"image_processor":{"size":{"height":56,"width":56},"max_patches":16,"resize_to_max_canvas":false,"rescale_factor":0.0039,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":2,"do_resize":true,"do_rescale":true,"do_normalize":true},"patch_size":14,"pixel_shuffle_ratio":0.5}"#;
    Case::new(Parser::Preprocessor, "sound", json)
}

pub fn broken_preprocessors() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, json: String| cases.push(Case::new(Parser::Preprocessor, what, json));
    let json = String::from_utf8(sound_preprocessor().bytes).unwrap();
    let not_colours = ["5", "[]", "[0.5,0.5]", "[1,1,1,1]", "[1,1,\"1\"]", "[1,1,1e999]", "{}", "\"x\""];
    for (keys, values) in [
        (&["height", "width", "max_patches", "patch_size"][..], &NOT_SIZES[..]),
        (&["height"], &["55", "16385"]),
        (&["max_patches"], &["257"]),
        (&["resize_to_max_canvas", "do_resize", "do_rescale", "do_normalize"], &NOT_FLAGS),
        (&["do_resize", "do_rescale", "do_normalize"], &["false"]),
        (&["rescale_factor", "pixel_shuffle_ratio"], &NOT_POSITIVE),
        (&["pixel_shuffle_ratio"], &["1.5"]),
        (&["image_mean", "image_std"], &not_colours),
        (&["image_std"], &["[1,0,1]"]),
        (&["resample"], &["0", "3", "\"bilinear\"", "[]"]),
        (&["size", "image_processor"], &["5", "[]", "\"x\"", "true"]),
    ] {
        for key in keys {
            for value in values {
                add(format!("{key} is {value}"), replaced(&json, key, 0, value));
            }
        }
    }
    for len in (0..json.len()).step_by(5) {
        add(format!("cut at {len}"), json[..len].into());
    }
    add_shapes(Parser::Preprocessor, "size", &mut add);
    cases
}
