//! Broken LoRA adapters: their configs, and their folders.

use std::path::Path;

use formats::{DType, NewTensor, safetensors};
use tensor::Format;

use crate::configs::{NOT_FLAGS, add_shapes, replaced};
use crate::{Case, Parser};

const CONFIG: &str = r#"{"peft_type":"LORA","r":2,"lora_alpha":4,"use_rslora":false,"bias":"none","use_dora":false,"modules_to_save":null,"target_modules":["q_proj"],"target_parameters":["experts.down_proj"],"init_lora_weights":true,"rank_pattern":{"v_proj":3},"alpha_pattern":{"v_proj":6}}"#;
const F32: DType = DType::Weight(Format::F32);

/// Breaks the sound folder at the path.
pub type Break = Box<dyn Fn(&Path)>;

pub fn sound_config() -> Case {
    Case::new(Parser::Lora, "sound", CONFIG)
}

pub fn broken_configs() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: String, json: String| cases.push(Case::new(Parser::Lora, what, json));
    let many: Vec<String> = (0..5000).map(|i| format!("\"m{i}\":1")).collect();
    let many = format!("{{{}}}", many.join(","));
    let wordy: Vec<String> = (0..10).map(|i| format!("\"{}{i}\":1", "m".repeat(60 << 10))).collect();
    let wordy = format!("{{{}}}", wordy.join(","));
    for (keys, values) in [
        (
            &["r"][..],
            &["0", "-1", "1.5", "1e999", "\"2\"", "true", "[2]", "{}", "null", "65537", "18446744073709551616"][..],
        ),
        (&["lora_alpha"], &["1e999", "1e300", "\"4\"", "true", "[4]", "{}", "null"]),
        (&["peft_type"], &["\"IA3\"", "\"lora\"", "\"\"", "5", "null", "[]"]),
        (&["use_rslora"], &NOT_FLAGS),
        (&["bias"], &["\"all\"", "\"lora_only\"", "5", "true", "[]"]),
        (&["use_dora", "modules_to_save"], &["true", "1", "\"x\"", "[\"lm_head\"]", "{}", "{\"a\":1}"]),
        (
            &["target_parameters"],
            &[
                "true",
                "1",
                "\"down_proj\"",
                "{}",
                "[1]",
                "[[\"down_proj\"]]",
                "[\"lm_head.weight\"]",
                "[\"xdown_proj\"]",
            ],
        ),
        (&["init_lora_weights"], &["\"pissa\"", "\"PiSSA_niter_16\"", "\"olora\"", "\"loftq\"", "\"corda\""]),
        (&["rank_pattern"], &["{\"a\":0}", "{\"a\":1.5}", "{\"a\":-2}", "{\"a\":65537}", "{\"a\":1e300}"]),
        (
            &["rank_pattern", "alpha_pattern"],
            &[
                "5",
                "[]",
                "\"x\"",
                "{\"a\":\"1\"}",
                "{\"a\":null}",
                "{\"a\":1e999}",
                "{\"a\":[1]}",
                "{\".*q\":1}",
                &many,
                &wordy,
            ],
        ),
    ] {
        for key in keys {
            for value in values {
                add(format!("{key} is {value:.60}"), replaced(CONFIG, key, 0, value));
            }
        }
    }
    for len in (0..CONFIG.len()).step_by(5) {
        add(format!("cut at {len}"), CONFIG[..len].into());
    }
    add_shapes(Parser::Lora, "r", &mut add);
    cases
}

/// The module's two halves, of the shapes given.
fn weights(folder: &Path, halves: &[(&str, DType, &[usize])]) {
    let bytes = [0u8; 4096];
    let tensors: Vec<NewTensor<'_>> = halves
        .iter()
        .map(|(name, dtype, shape)| {
            let bytes = &bytes[..dtype.size_bytes(shape).unwrap()];
            NewTensor { name, dtype: *dtype, shape, bytes }
        })
        .collect();
    safetensors::write(&folder.join("adapter_model.safetensors"), &tensors).unwrap();
}

const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

const EXPERTS_A: &str = "base_model.model.model.layers.0.feed_forward.experts.lora_A.weight";
const EXPERTS_B: &str = "base_model.model.model.layers.0.feed_forward.experts.lora_B.weight";

/// An adapter of one map.
pub fn sound(folder: &Path) {
    std::fs::write(folder.join("adapter_config.json"), CONFIG).unwrap();
    weights(folder, &[(A, F32, &[2, 8]), (B, F32, &[6, 2])]);
}

pub fn broken() -> Vec<(&'static str, Break)> {
    let with =
        |halves: &'static [(&str, DType, &[usize])]| -> Break { Box::new(move |folder| weights(folder, halves)) };
    let file = |name: &'static str, text: &'static str| -> Break {
        Box::new(move |folder| std::fs::write(folder.join(name), text).unwrap())
    };
    vec![
        ("no config", Box::new(|f| std::fs::remove_file(f.join("adapter_config.json")).unwrap())),
        ("no weights", Box::new(|f| std::fs::remove_file(f.join("adapter_model.safetensors")).unwrap())),
        (
            "pickled weights",
            Box::new(|f| {
                std::fs::rename(f.join("adapter_model.safetensors"), f.join("adapter_model.bin")).unwrap();
            }),
        ),
        ("nothing", Box::new(|f| std::fs::remove_dir_all(f).unwrap())),
        ("empty weights", file("adapter_model.safetensors", "")),
        (
            "a header that claims more than the file",
            file("adapter_model.safetensors", "\u{7f}\u{7f}\u{7f}\u{7f}\0\0\0\0{}"),
        ),
        ("a config of another kind", file("adapter_config.json", "{\"peft_type\":\"PREFIX_TUNING\"}")),
        ("a long config", Box::new(|f| std::fs::write(f.join("adapter_config.json"), " ".repeat(2 << 20)).unwrap())),
        ("no tensors", with(&[])),
        ("A alone", with(&[(A, F32, &[2, 8])])),
        ("B alone", with(&[(B, F32, &[6, 2])])),
        ("another rank", with(&[(A, F32, &[3, 8]), (B, F32, &[6, 3])])),
        ("two ranks", with(&[(A, F32, &[2, 8]), (B, F32, &[6, 3])])),
        ("halves the wrong way", with(&[(A, F32, &[8, 2]), (B, F32, &[2, 6])])),
        ("experts of another rank", with(&[(EXPERTS_A, F32, &[7, 8]), (EXPERTS_B, F32, &[6, 7])])),
        ("halves of other numbers of experts", with(&[(EXPERTS_A, F32, &[6, 8]), (EXPERTS_B, F32, &[6, 4])])),
        ("fewer experts than one", with(&[(EXPERTS_A, F32, &[1, 8]), (EXPERTS_B, F32, &[6, 1])])),
        ("a vector", with(&[(A, F32, &[16]), (B, F32, &[6, 2])])),
        ("three axes", with(&[(A, F32, &[2, 4, 2]), (B, F32, &[6, 2])])),
        ("no inputs", with(&[(A, F32, &[2, 0]), (B, F32, &[6, 2])])),
        ("no outputs", with(&[(A, F32, &[2, 8]), (B, F32, &[0, 2])])),
        ("integers", with(&[(A, DType::I32, &[2, 8]), (B, F32, &[6, 2])])),
        ("f64", with(&[(A, F32, &[2, 8]), (B, DType::F64, &[6, 2])])),
        ("a name without the root", with(&[("model.layers.0.self_attn.q_proj.lora_A.weight", F32, &[2, 8])])),
        ("a name without a module", with(&[("base_model.model.lora_A.weight", F32, &[2, 8])])),
        ("an embedding's half", with(&[("base_model.model.model.embed_tokens.lora_embedding_A", F32, &[2, 8])])),
        (
            "DoRA's magnitudes",
            with(&[
                (A, F32, &[2, 8]),
                (B, F32, &[6, 2]),
                ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", F32, &[6]),
            ]),
        ),
        (
            "a bias",
            with(&[
                (A, F32, &[2, 8]),
                (B, F32, &[6, 2]),
                ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", F32, &[6]),
            ]),
        ),
        (
            "a saved module",
            with(&[(A, F32, &[2, 8]), (B, F32, &[6, 2]), ("base_model.model.lm_head.weight", F32, &[4, 8])]),
        ),
    ]
}
