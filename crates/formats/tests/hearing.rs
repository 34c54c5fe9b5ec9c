//! Configs of models that hear, and of their preprocessors.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation of a test is a panic

use std::num::NonZeroUsize;
use std::path::Path;

use formats::FormatError;
use formats::config::{
    AudioActivation, AudioConfig, AudioPreprocessorConfig, AudioPreset, AudioTokens, ModelConfig, PadTo, PaddingMode,
};

fn parse(json: &str) -> Result<ModelConfig, FormatError> {
    ModelConfig::parse(Path::new("config.json"), json.as_bytes())
}

const TEXT: &str = r#""vocab_size": 202048, "hidden_size": 64"#;

/// Llama 4 with these keys in `audio_config`, in `audio_projector_config` and at the top.
fn llama4(encoder: &str, projector: &str, top: &str) -> Result<Option<AudioConfig>, FormatError> {
    let json = format!(
        r#"{{"model_type": "llama4", "text_config": {{{TEXT}}}, "audio_config": {{{encoder}}},
            "audio_projector_config": {{{projector}}} {top}}}"#
    );
    parse(&json).map(|config| config.audio)
}

#[test]
fn a_checkpoint_without_an_audio_config_does_not_hear() {
    let config = parse(&format!(r#"{{"model_type": "llama4", "text_config": {{{TEXT}}}, "boa_token_index": 1}}"#));
    assert_eq!(config.unwrap().audio, None);
}

#[test]
fn published_defaults_are_those_of_the_specification() {
    let json = format!(r#"{{"model_type": "llama4", "text_config": {{{TEXT}}}, "audio_config": {{}}}}"#);
    for audio in [llama4("", "", "").unwrap().unwrap(), parse(&json).unwrap().audio.unwrap()] {
        let encoder = &audio.encoder;
        assert_eq!((encoder.n_mels, encoder.hidden_size, encoder.intermediate_size), (128, 1280, 5120));
        assert_eq!((encoder.n_layers, encoder.n_heads, encoder.n_frames, encoder.block), (32, 20, 1500, None));
        assert_eq!(encoder.chunk_columns(), 3000);
        let projector = &audio.projector;
        assert_eq!((projector.stack, projector.hidden_size, projector.activation), (4, 64, AudioActivation::Gelu));
        assert!(!projector.bias && !projector.ln_pre && !projector.ln_mid && !projector.ln_post);
        assert_eq!(audio.tokens, AudioTokens { start: Some(201_144), audio: 201_145, end: Some(201_146) });
        assert_eq!((audio.preset, audio.preset.name()), (AudioPreset::Llama4Audio, "llama4-audio"));
        let settings = AudioPreprocessorConfig::of(&audio);
        assert_eq!((settings.pad_to, settings.padding_mode), (PadTo::Chunk, PaddingMode::Valid));
    }
}

#[test]
fn both_spellings_are_read_and_have_to_agree() {
    let old = r#""d_model": 32, "encoder_ffn_dim": 96, "encoder_layers": 3, "encoder_attention_heads": 4"#;
    let new = r#""hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4"#;
    let read = llama4(old, "", "").unwrap();
    assert_eq!(read, llama4(new, "", "").unwrap());
    assert_eq!(read, llama4(&format!("{old}, {new}"), "", "").unwrap());
    for (encoder, field) in [
        (r#""hidden_size": 32, "d_model": 64"#, "audio_config.d_model"),
        (r#""intermediate_size": 1, "encoder_ffn_dim": 2"#, "audio_config.encoder_ffn_dim"),
        (r#""num_hidden_layers": 1, "encoder_layers": 2"#, "audio_config.encoder_layers"),
        (r#""num_attention_heads": 1, "encoder_attention_heads": 2"#, "audio_config.encoder_attention_heads"),
    ] {
        assert_eq!(llama4(encoder, "", "").unwrap_err().field(), Some(field));
    }
}

#[test]
fn what_contradicts_itself_is_refused_by_file_and_field() {
    for (encoder, projector, top, field) in [
        (r#""scale_embedding": true"#, "", "", "audio_config.scale_embedding"),
        (r#""num_key_value_heads": 5"#, "", "", "audio_config.num_key_value_heads"),
        (r#""hidden_size": 30, "num_attention_heads": 4"#, "", "", "audio_config.hidden_size"),
        (r#""attention_block": 7"#, "", "", "audio_config.attention_block"),
        (r#""attention_block": 0"#, "", "", "audio_config.attention_block"),
        (r#""attention_block": 50"#, "", "", "audio_config.attention_block"),
        (r#""activation_function": "relu""#, "", "", "audio_config.activation_function"),
        (r#""model_type": "wavlm""#, "", "", "audio_config.model_type"),
        (r#""max_source_positions": 0"#, "", "", "audio_config.max_source_positions"),
        (r#""num_mel_bins": -1"#, "", "", "audio_config.num_mel_bins"),
        ("", r#""hidden_act": "relu""#, "", "audio_projector_config.hidden_act"),
        ("", r#""hidden_act": "swiglu", "hidden_size": 7"#, "", "audio_projector_config.hidden_size"),
        ("", r#""stack_factor": 0"#, "", "audio_projector_config.stack_factor"),
        ("", r#""norm_eps": 0"#, "", "audio_projector_config.norm_eps"),
        ("", r#""bias": 1"#, "", "audio_projector_config.bias"),
        ("", "", r#", "boa_token_index": 202048"#, "boa_token_index"),
        ("", "", r#", "boa_token_index": 201145"#, "audio_token_index"),
    ] {
        let error = llama4(encoder, projector, top).unwrap_err();
        assert_eq!((error.field(), error.file()), (Some(field), Path::new("config.json")), "{error}");
    }
    let block = llama4(r#""attention_block": 100, "num_key_value_heads": 20"#, "", "").unwrap().unwrap().encoder.block;
    assert_eq!(block, NonZeroUsize::new(100));
    // A token of images can not be one of audio.
    let both = format!(
        r#"{{"model_type": "llama4", "text_config": {{{TEXT}}}, "vision_config": {{}}, "audio_config": {{}},
            "boi_token_index": 201144}}"#
    );
    assert!(parse(&both).is_err());
}

#[test]
fn voxtral_and_ultravox_are_known_by_their_configs() {
    let text = r#""text_config": {"model_type": "llama", "vocab_size": 32, "hidden_size": 48, "head_dim": 12}"#;
    let encoder = r#""hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4"#;
    let json = format!(
        r#"{{"model_type": "voxtral", {text}, "audio_config": {{{encoder}}}, "audio_token_id": 24,
            "projector_hidden_act": "gelu"}}"#
    );
    let audio = parse(&json).unwrap().audio.unwrap();
    assert_eq!((audio.preset, audio.projector.stack, audio.projector.hidden_size), (AudioPreset::Voxtral, 4, 48));
    assert_eq!(audio.tokens, AudioTokens { start: None, audio: 24, end: None });
    assert_eq!(AudioPreprocessorConfig::of(&audio).padding_mode, PaddingMode::Chunk);
    for (from, to, field) in [
        (r#", "audio_token_id": 24"#, "", "audio_token_id"),
        ("128", "130", "audio_config.intermediate_size"),
        (r#""gelu""#, r#""silu""#, "projector_hidden_act"),
        (r#""llama""#, r#""qwen2""#, "text_config.model_type"),
        (r#""llama""#, r#""mistral", "sliding_window": 4096"#, "text_config.sliding_window"),
    ] {
        assert_eq!(parse(&json.replace(from, to)).unwrap_err().field(), Some(field));
    }
    for (mid, preset) in [("true", AudioPreset::Ultravox05), ("false", AudioPreset::Ultravox04)] {
        let json = format!(
            r#"{{"model_type": "ultravox", {text}, "audio_config": {{{encoder}}}, "projector_ln_mid": {mid},
                "hidden_size": 64, "stack_factor": 8, "projector_act": "swiglu", "audio_token_index": 7}}"#
        );
        let audio = parse(&json).unwrap().audio.unwrap();
        let projector = &audio.projector;
        assert_eq!((audio.preset, projector.stack, projector.inner_size()), (preset, 8, 32));
        assert_eq!((projector.ln_pre, projector.ln_mid, projector.ln_post), (true, mid == "true", mid == "false"));
        assert_eq!(AudioPreprocessorConfig::of(&audio).pad_to, PadTo::Hop);
    }
}

#[test]
fn ultravoxs_processor_says_how_clips_are_filled_up_and_has_to_fit_the_model() {
    let text = r#""text_config": {"model_type": "llama", "vocab_size": 32, "hidden_size": 48, "head_dim": 12}"#;
    let json = format!(
        r#"{{"model_type": "ultravox", {text}, "audio_config": {{"hidden_size": 32, "num_attention_heads": 4}},
            "hidden_size": 64, "stack_factor": 8, "projector_ln_mid": true, "audio_token_index": 7}}"#
    );
    let audio = parse(&json).unwrap().audio.unwrap();
    let own = AudioPreprocessorConfig::of(&audio);
    let read = |json: &str| own.with_processor(Path::new("processor_config.json"), json.as_bytes(), &audio);
    let published = r#"{"audio_context_size": 3000, "audio_padding": "longest", "audio_placeholder": "<|audio|>",
        "encoder_ds_factor": 2, "processor_class": "UltravoxProcessor", "stack_factor": 8}"#;
    assert_eq!((read(published).unwrap(), own.pad_to), (own, PadTo::Hop));
    assert_eq!(read("{}").unwrap(), own);
    assert_eq!(read(&published.replace("longest", "max_length")).unwrap().pad_to, PadTo::Chunk);
    for (from, to) in [("\"encoder_ds_factor\": 2", "\"encoder_ds_factor\": 320"), ("3000", "null")] {
        assert_eq!(read(&published.replace(from, to)).unwrap(), own, "{to}");
    }
    for (from, to, field) in [
        ("\"stack_factor\": 8", "\"stack_factor\": 4", "stack_factor"),
        ("\"encoder_ds_factor\": 2", "\"encoder_ds_factor\": 4", "encoder_ds_factor"),
        ("3000", "1500", "audio_context_size"),
        ("longest", "left", "audio_padding"),
        ("\"longest\"", "1", "audio_padding"),
    ] {
        assert_eq!(read(&published.replace(from, to)).unwrap_err().field(), Some(field));
    }
}

#[test]
fn preprocessors_have_to_fit_the_encoder() {
    let audio = llama4("", "", "").unwrap().unwrap();
    let parse = |json: &str| {
        AudioPreprocessorConfig::parse(Path::new("p.json"), json.as_bytes(), AudioPreprocessorConfig::of(&audio))
    };
    let whisper = r#"{"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "chunk_length": 30,
        "sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "padding_value": 0.0, "dither": 0.0, "nb_max_frames": 3000}"#;
    assert_eq!(parse(whisper).unwrap(), Some(AudioPreprocessorConfig::of(&audio)));
    assert_eq!(parse(r#"{"image_processor_type": "Llama4ImageProcessorFast"}"#).unwrap(), None);
    // As transformers 5 writes it, of Voxtral and of Ultravox.
    for within in [r#"{"feature_extractor": @}"#, r#"{"audio_processor": {"feature_extractor": @}}"#] {
        let json = within.replace('@', &whisper.replace("}", r#", "log_mel_max": 1.5}"#));
        assert_eq!(parse(&json).unwrap().unwrap().log_mel_max, Some(1.5), "{json}");
    }
    let more = whisper.replace("}", r#", "log_mel_max": 1.5, "pad_to": "hop", "padding_mode": "chunk"}"#);
    let settings = parse(&more).unwrap().unwrap();
    let got = (settings.log_mel_max, settings.pad_to, settings.padding_mode);
    assert_eq!(got, (Some(1.5), PadTo::Hop, PaddingMode::Chunk));
    for (from, to, field) in [
        (r#""feature_size": 128"#, r#""feature_size": 80"#, "feature_size"),
        (r#""chunk_length": 30"#, r#""chunk_length": 29"#, "chunk_length"),
        ("16000", "8000", "sampling_rate"),
        ("400", "512", "n_fft"),
        ("160,", "161,", "hop_length"),
        (r#""dither": 0.0"#, r#""dither": 0.1"#, "dither"),
        (r#""dither": 0.0"#, r#""pad_to": "second""#, "pad_to"),
        (r#""dither": 0.0"#, r#""padding_mode": 1"#, "padding_mode"),
    ] {
        assert_eq!(parse(&whisper.replace(from, to)).unwrap_err().field(), Some(field));
    }
}
