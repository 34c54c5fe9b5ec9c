//! `config.json` of the published models and of odd ones.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation of a test is a panic

use std::num::NonZeroUsize;
use std::path::Path;

use formats::config::{
    Architecture, Ffn, ImageTokens, LayerConfig, ModelConfig, Rope, RopeScaling, Temperature, VisionConfig,
};
use formats::{FormatError, GenerationConfig, PreprocessorConfig, ReasoningConfig};
use tensor::Pairing;

fn parse(json: &str) -> Result<ModelConfig, FormatError> {
    ModelConfig::parse(Path::new("config.json"), json.as_bytes())
}

fn llama4(keys: &str) -> Result<ModelConfig, FormatError> {
    parse(&format!(r#"{{"model_type":"llama4_text"{}{keys}}}"#, if keys.is_empty() { "" } else { "," }))
}

fn llama(keys: &str) -> ModelConfig {
    parse(&format!(r#"{{"model_type":"llama",{keys}}}"#)).unwrap()
}

/// A published model in both generations of key names, its layer plan, and its parameters: total, routed.
const PUBLISHED: [(&str, &str, &str, u64, u64); 3] = [
    (
        include_str!("configs/scout.v4.json"),
        include_str!("configs/scout.v5.json"),
        include_str!("configs/scout.plan.txt"),
        108_641_793_536,
        96_636_764_160,
    ),
    (
        include_str!("configs/maverick.v4.json"),
        include_str!("configs/maverick.v5.json"),
        include_str!("configs/maverick.plan.txt"),
        401_583_781_376,
        386_547_056_640,
    ),
    (
        include_str!("configs/guard.v4.json"),
        include_str!("configs/guard.v5.json"),
        include_str!("configs/guard.plan.txt"),
        12_001_097_216,
        0,
    ),
];

fn print_plan(layers: &[LayerConfig]) -> String {
    let line = |(i, layer): (usize, &LayerConfig)| {
        let rotated = if layer.rotated { "rotated" } else { "unrotated" };
        let sees = layer.chunk.map_or("sees everything".into(), |chunk| format!("chunks of {chunk}"));
        let ffn = match &layer.ffn {
            Ffn::Dense { width } => format!("dense {width}"),
            Ffn::Moe { width, n_experts, top_k, shared_width } => {
                format!("{n_experts} experts of {width}, {top_k} used, shared {shared_width}")
            }
        };
        format!("layer {i:2}: {rotated}, {sees}; {ffn}\n")
    };
    layers.iter().enumerate().map(line).collect()
}

#[test]
fn published_configs_give_their_48_layers() {
    for (v4, v5, plan, ..) in PUBLISHED {
        assert_eq!(print_plan(&parse(v4).unwrap().text.layers), plan);
        assert_eq!(print_plan(&parse(v5).unwrap().text.layers), plan);
    }
}

#[test]
fn published_configs_have_their_published_parameter_counts() {
    for (v4, v5, _, total, routed) in PUBLISHED {
        for json in [v4, v5] {
            let parameters = parse(json).unwrap().parameters();
            assert_eq!((parameters.total, parameters.routed_experts), (total, routed));
            assert_eq!((parameters.vision_tower, parameters.projector), (850_960_896, 20_971_520));
        }
    }
    // Published as about 17.17 B for both; Maverick's routers are wider.
    let active = [PUBLISHED[0].0, PUBLISHED[1].0].map(|json| parse(json).unwrap().parameters().active);
    assert_eq!(active, [17_172_894_720, 17_184_691_200]);
}

#[test]
fn both_generations_of_keys_give_the_same_model() {
    for (v4, v5, ..) in PUBLISHED {
        assert_eq!(parse(v4).unwrap(), parse(v5).unwrap());
    }
}

#[test]
fn scout_has_its_published_numbers() {
    let config = parse(PUBLISHED[0].0).unwrap();
    let text = &config.text;
    assert_eq!(config.architecture, Architecture::Llama4);
    assert_eq!((text.vocab_size, text.hidden_size), (202_048, 5120));
    assert_eq!((text.n_heads, text.n_kv_heads, text.head_len), (40, 8, 128));
    assert_eq!((text.max_positions, text.rms_eps), (10_485_760, 1e-5));
    assert_eq!(
        (text.bos, text.eos.as_slice(), text.pad),
        (Some(200_000), &[200_001, 200_007, 200_008][..], Some(200_018))
    );
    let scaling = RopeScaling::Llama3 { factor: 16.0, low: 1.0, high: 1.0, original: 8192 };
    assert_eq!(text.rope, Rope { theta: 500_000.0, scaling });
    assert_eq!(text.temperature, Some(Temperature { floor_scale: 8192.0, scale: 0.1 }));
    assert!(text.qk_norm && !text.attention_bias && !text.mlp_bias && !config.tie_word_embeddings);
    assert_eq!(text.pairing, Pairing::Interleaved);
    assert_eq!(config.dtype.as_deref(), Some("bfloat16"));
    assert_eq!(config.image_tokens, Some(ImageTokens { image_start: 200_080, image_end: 200_081, patch: 200_092 }));
    let vision = config.vision.unwrap();
    assert_eq!((vision.joined_patches(), vision.grid(), vision.tokens_per_tile()), (2, 24, 144));
    assert_eq!((vision.n_layers, vision.n_heads, vision.rope_theta), (34, 16, 10_000.0));
}

#[test]
fn maverick_has_no_qk_norm_and_guard_no_temperature_to_apply() {
    let maverick = parse(PUBLISHED[1].0).unwrap().text;
    assert!(!maverick.qk_norm);
    assert_eq!(maverick.rope.scaling, RopeScaling::None);
    assert_eq!(maverick.temperature, Some(Temperature { floor_scale: 8192.0, scale: 0.1 }));
    assert_eq!(parse(PUBLISHED[2].0).unwrap().text.temperature, None);
}

#[test]
fn an_empty_llama4_config_has_the_published_defaults() {
    let config = llama4("").unwrap();
    let text = &config.text;
    assert_eq!(config.architecture, Architecture::Llama4Text);
    assert_eq!((text.vocab_size, text.hidden_size, text.max_positions), (202_048, 5120, 131_072));
    assert_eq!((text.n_heads, text.n_kv_heads, text.head_len), (40, 8, 128));
    assert_eq!((text.rms_eps, &text.rope), (1e-5, &Rope { theta: 500_000.0, scaling: RopeScaling::None }));
    assert_eq!((text.bos, text.eos.as_slice(), text.pad), (Some(1), &[2][..], None));
    assert_eq!(text.temperature, Some(Temperature { floor_scale: 8192.0, scale: 0.1 }));
    assert!(text.qk_norm && !text.attention_bias && !config.tie_word_embeddings);
    assert_eq!(print_plan(&text.layers), PUBLISHED[0].2);
    assert_eq!((config.vision, config.image_tokens), (None, None));
}

#[test]
fn no_rope_layers_has_a_1_for_rotated_and_is_derived_when_empty() {
    let rotated = |keys: &str| -> Vec<bool> {
        let config = llama4(&format!(r#""num_hidden_layers":5{keys}"#)).unwrap();
        config.text.layers.iter().map(|layer| layer.rotated).collect()
    };
    let every_fourth = [true, true, true, false, true];
    assert_eq!(rotated(""), every_fourth);
    assert_eq!(rotated(r#","no_rope_layers":[]"#), every_fourth);
    assert_eq!(rotated(r#","no_rope_layers":null"#), every_fourth);
    assert_eq!(rotated(r#","no_rope_layer_interval":2"#), [true, false, true, false, true]);
    assert_eq!(rotated(r#","no_rope_layers":[0,1,0,1,1]"#), [false, true, false, true, true]);
    assert_eq!(rotated(r#","no_rope_layers":[0,1,0,1,1,0,0]"#), [false, true, false, true, true]);
}

#[test]
fn temperature_tuning_is_a_flag_an_integer_or_a_float() {
    let on = |value: &str| llama4(&format!(r#""attn_temperature_tuning":{value}"#)).unwrap().text.temperature.is_some();
    for value in ["true", "4", "4.0", "1", "0.5"] {
        assert!(on(value), "{value}");
    }
    for value in ["false", "0", "0.0", "null"] {
        assert!(!on(value), "{value}");
    }
}

#[test]
fn a_null_chunk_means_none_and_a_missing_one_8192() {
    let chunks = |keys: &str| -> Vec<Option<usize>> {
        let config = llama4(&format!(r#""num_hidden_layers":4{keys}"#)).unwrap();
        config.text.layers.iter().map(|layer| layer.chunk.map(NonZeroUsize::get)).collect()
    };
    assert_eq!(chunks(""), [Some(8192), Some(8192), Some(8192), None]);
    assert_eq!(chunks(r#","attention_chunk_size":16"#), [Some(16), Some(16), Some(16), None]);
    assert_eq!(chunks(r#","attention_chunk_size":null"#), [None; 4]);
    let full = r#","layer_types":["full_attention","full_attention","full_attention","full_attention"]"#;
    assert_eq!(chunks(full), [None; 4]);
    let mixed = r#","layer_types":["full_attention","chunked_attention","full_attention","chunked_attention"]"#;
    assert_eq!(chunks(mixed), [None, Some(8192), None, Some(8192)]);
}

#[test]
fn a_missing_head_length_is_128_and_a_null_one_is_derived() {
    assert_eq!(llama4(r#""hidden_size":640,"num_attention_heads":8"#).unwrap().text.head_len, 128);
    assert_eq!(llama4(r#""hidden_size":640,"num_attention_heads":8,"head_dim":null"#).unwrap().text.head_len, 80);
    assert_eq!(llama4(r#""num_key_value_heads":null"#).unwrap().text.n_kv_heads, 40);
}

#[test]
fn an_explicit_list_of_expert_layers_wins() {
    let experts = |keys: &str| -> Vec<usize> {
        let config = llama4(&format!(r#""num_hidden_layers":6,{keys}"#)).unwrap();
        let layers = config.text.layers.iter().enumerate();
        layers.filter(|(_, layer)| matches!(layer.ffn, Ffn::Moe { .. })).map(|(i, _)| i).collect()
    };
    assert_eq!(experts(r#""interleave_moe_layer_step":2"#), [1, 3, 5]);
    assert_eq!(experts(r#""interleave_moe_layer_step":4"#), [3]);
    assert_eq!(experts(r#""interleave_moe_layer_step":2,"moe_layers":[0,5]"#), [0, 5]);
    assert_eq!(experts(r#""interleave_moe_layer_step":0,"moe_layers":[],"num_local_experts":0"#), [0usize; 0]);
    assert_eq!(experts(r#""interleave_moe_layer_step":9"#), [0usize; 0]);
    let error = llama4(r#""interleave_moe_layer_step":0"#).unwrap_err();
    assert_eq!(error.field(), Some("interleave_moe_layer_step"));
}

#[test]
fn smollm2_parses_to_a_dense_model() {
    let config = llama(
        r#""architectures":["LlamaForCausalLM"],"attention_bias":false,"bos_token_id":1,"eos_token_id":2,
        "hidden_act":"silu","hidden_size":576,"intermediate_size":1536,"is_llama_config":true,
        "max_position_embeddings":8192,"num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,
        "pad_token_id":2,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_interleaved":false,"rope_scaling":null,
        "rope_theta":100000,"tie_word_embeddings":true,"torch_dtype":"bfloat16","vocab_size":49152"#,
    );
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!((config.text.n_heads, config.text.n_kv_heads, config.text.head_len), (9, 3, 64));
    assert_eq!(config.text.rope, Rope { theta: 100_000.0, scaling: RopeScaling::None });
    assert_eq!(config.text.pairing, Pairing::Halves);
    assert!(config.tie_word_embeddings && !config.text.qk_norm && config.text.temperature.is_none());
    let layer = LayerConfig { rotated: true, chunk: None, ffn: Ffn::Dense { width: 1536 } };
    assert_eq!(config.text.layers, vec![layer; 30]);
    assert_eq!(config.parameters().total, 134_515_008);
}

#[test]
fn dense_models_have_their_own_defaults_and_scalings() {
    let config = llama(r#""num_attention_heads":16"#);
    assert_eq!((config.text.n_kv_heads, config.text.head_len, config.text.rms_eps), (16, 256, 1e-6));
    assert_eq!((config.text.rope.theta, config.text.layers.len()), (10_000.0, 32));
    assert!(!config.tie_word_embeddings);
    let llama31 = r#""rope_theta":500000.0,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":8192,"rope_type":"llama3"},"eos_token_id":[128001,128008],
        "bos_token_id":128000,"vocab_size":128256"#;
    let config = llama(llama31);
    let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
    assert_eq!(config.text.rope, Rope { theta: 500_000.0, scaling });
    assert_eq!(config.text.eos, [128_001, 128_008]);
    let linear = llama(r#""rope_scaling":{"type":"linear","factor":2.0},"pad_token_id":-1,"attention_bias":true"#);
    assert_eq!(linear.text.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!((linear.text.pad, linear.text.attention_bias), (None, true));
    // Llama 2 7B, whose count is published as 6,738,415,616.
    assert_eq!(llama(r#""pad_token_id":null"#).parameters().total, 6_738_415_616);
}

#[test]
fn another_model_is_refused_by_name() {
    let error = parse(r#"{"model_type":"mamba2"}"#).unwrap_err();
    assert!(matches!(error, FormatError::Unsupported { .. }));
    assert_eq!(
        error.to_string(),
        "config.json: model_type: \"mamba2\" is not supported; \"llama4\", \"llama4_text\", \"llama\", \"voxtral\" and \"ultravox\" are"
    );
    let error = parse(r#"{"model_type":"llama4"}"#).unwrap_err();
    assert_eq!(error.to_string(), "config.json: text_config is missing");
}

#[test]
fn a_tower_whose_numbers_do_not_fit_is_refused() {
    let tower = |keys: &str| -> Result<VisionConfig, FormatError> {
        let json = format!(
            r#"{{"model_type":"llama4","text_config":{{}},"vision_config":{{"hidden_size":32,"image_size":56,
            "intermediate_size":128,"num_attention_heads":2,"projector_input_dim":40,"projector_output_dim":40,
            "vision_output_dim":40{keys}}}}}"#
        );
        Ok(parse(&json)?.vision.unwrap())
    };
    let fitting = tower("").unwrap();
    assert_eq!((fitting.joined_patches(), fitting.tokens_per_tile(), fitting.n_layers), (2, 4, 34));
    let field = |json: &str| String::from(parse(json).unwrap_err().field().unwrap());
    let wrong =
        |keys: &str| field(&format!(r#"{{"model_type":"llama4","text_config":{{}},"vision_config":{{{keys}}}}}"#));
    // The reference's own defaults contradict each other.
    assert_eq!(wrong(""), "vision_config.intermediate_size");
    assert_eq!(wrong(r#""pixel_shuffle_ratio":0.3"#), "vision_config.pixel_shuffle_ratio");
    assert_eq!(wrong(r#""hidden_act":"relu""#), "vision_config.hidden_act");
    assert_eq!(wrong(r#""hidden_size":1408,"image_size":337"#), "vision_config.image_size");
    assert_eq!(wrong(r#""hidden_size":1408,"image_size":336"#), "vision_config.vision_output_dim");
}

#[test]
fn generation_settings_are_all_optional() {
    let parse = |json: &str| GenerationConfig::parse(Path::new("generation_config.json"), json.as_bytes());
    assert_eq!(parse("{}").unwrap(), GenerationConfig::default());
    let published = parse(
        r#"{"bos_token_id":200000,"do_sample":true,"eos_token_id":[200001,200007,200008],"pad_token_id":200018,
        "temperature":0.6,"top_p":0.9,"transformers_version":"4.51.0.dev0"}"#,
    )
    .unwrap();
    assert_eq!((published.do_sample, published.temperature, published.top_p), (Some(true), Some(0.6), Some(0.9)));
    assert_eq!(published.eos, [200_001, 200_007, 200_008]);
    assert_eq!(parse(r#"{"eos_token_id":2}"#).unwrap().eos, [2]);
    assert_eq!(parse(r#"{"top_p":1.5}"#).unwrap_err().field(), Some("top_p"));
}

#[test]
fn markers_of_thoughts_have_defaults_and_are_written_as_they_were_read() {
    let parse = |json: &str| ReasoningConfig::parse(Path::new("reasoning_config.json"), json.as_bytes());
    assert_eq!(parse("{}").unwrap(), ReasoningConfig::default());
    assert_eq!(parse(r#"{"default":"auto"}"#).unwrap(), ReasoningConfig::default());
    let own = parse(
        r#"{"start":"<think>","end":"</think>","default":"off","prefill_start":false,"implicit_end":[],
        "budget_message":"","extend_message":"Hm","efforts":{"none":0,"low":7,"max":-1,"unknown":{"a":[]}}}"#,
    )
    .unwrap();
    let efforts = [("low".to_owned(), Some(7)), ("max".to_owned(), None)];
    let expected = ReasoningConfig {
        start: "<think>".into(),
        end: "</think>".into(),
        is_on: false,
        prefill_start: false,
        implicit_end: Vec::new(),
        budget_message: String::new(),
        extend_message: "Hm".into(),
        efforts: efforts.into(),
    };
    assert_eq!(own, expected);
    for config in [own, ReasoningConfig::default()] {
        assert_eq!(parse(&config.to_json()).unwrap(), config);
    }
    assert_eq!(parse(r#"{"efforts":{"low":-2}}"#).unwrap_err().field(), Some("efforts.low"));
}

#[test]
fn image_settings_come_from_either_kind_of_file() {
    let parse = |json: &str| PreprocessorConfig::parse(Path::new("preprocessor_config.json"), json.as_bytes());
    assert_eq!(parse("{}").unwrap(), PreprocessorConfig::default());
    let flat = r#"{"size":{"height":56,"width":56},"max_patches":4,"resize_to_max_canvas":true,"image_mean":[0,0.5,1],
        "image_std":[1,1,1],"rescale_factor":0.5,"resample":2,"do_rescale":true}"#;
    let config = parse(flat).unwrap();
    assert_eq!((config.tile, config.max_tiles, config.resize_to_max_canvas), (56, 4, true));
    assert_eq!((config.mean, config.std, config.rescale), ([0.0, 0.5, 1.0], [1.0; 3], 0.5));
    let nested = format!(r#"{{"image_processor":{flat},"patch_size":7,"pixel_shuffle_ratio":0.25}}"#);
    let nested = parse(&nested).unwrap();
    assert_eq!(nested, PreprocessorConfig { patch_size: 7, pixel_shuffle_ratio: 0.25, ..config });
    let tall = parse(r#"{"size":{"height":56,"width":28}}"#).unwrap_err();
    assert!(matches!(tall, FormatError::Unsupported { .. }) && tall.field() == Some("size.width"));
}
