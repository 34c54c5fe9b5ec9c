//! The decoder of Llama 4: `text_config`, or a flat `llama4_text` config.

use std::num::NonZeroUsize;

use super::{
    EXPERTS_LIMIT, FFN_LIMIT, Ffn, HEADS_LIMIT, HIDDEN_LIMIT, Heads, LAYERS_LIMIT, LayerConfig, POSITIONS_LIMIT,
    SpecialTokens, Temperature, TextConfig, VOCAB_LIMIT, check_activation, defaults, derived_head_len, rope,
    special_tokens,
};
use crate::FormatError;
use crate::json::{Node, Section};

/// Reads the decoder; defaults of `Llama4TextConfig` in transformers 5.23.
pub(super) fn parse(section: &Section<'_>) -> Result<TextConfig, FormatError> {
    check_activation(section, "silu")?;
    let vocab_size = section.size("vocab_size", 202_048, VOCAB_LIMIT)?;
    let hidden_size = section.size("hidden_size", 5120, HIDDEN_LIMIT)?;
    let n_heads = section.size("num_attention_heads", 40, HEADS_LIMIT)?;
    let n_kv_heads = match section.is_null("num_key_value_heads") {
        true => n_heads,
        false => section.size("num_key_value_heads", 8, HEADS_LIMIT)?,
    };
    // A missing length is 128 whatever the width; only an explicit null derives it.
    let head_len = match section.is_null("head_dim") {
        true => derived_head_len(hidden_size, n_heads).map_err(|why| section.corrupt("hidden_size", why))?,
        false => section.size("head_dim", 128, HEADS_LIMIT)?,
    };
    let heads = Heads { n_heads, n_kv_heads, head_len }.check(|key, why| section.corrupt(key, why))?;
    let SpecialTokens { bos, eos, pad } = special_tokens(section, vocab_size)?;
    Ok(TextConfig {
        vocab_size,
        hidden_size,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_len: heads.head_len,
        max_positions: section.size("max_position_embeddings", 131_072, POSITIONS_LIMIT)?,
        rms_eps: section.positive("rms_norm_eps", 1e-5)?,
        attention_bias: section.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: false, // the family's code has none, whatever the config says
        rope: rope::parse(section, 500_000.0)?,
        pairing: tensor::Pairing::Interleaved,
        temperature: temperature(section)?,
        qk_norm: section.flag("use_qk_norm")?.unwrap_or(true),
        bos,
        eos,
        pad,
        layers: layers(section)?,
    })
}

/// On unless the config says otherwise: early files write the integer 4, later ones a truth value.
fn temperature(section: &Section<'_>) -> Result<Option<Temperature>, FormatError> {
    let key = "attn_temperature_tuning";
    let on = match section.node(key) {
        None => true,
        Some(Node::Null) => false,
        Some(Node::Bool(on)) => *on,
        Some(_) => section.number(key)? != Some(0.0),
    };
    let floor_scale = section.positive("floor_scale", defaults::FLOOR_SCALE)?;
    let scale = section.number("attn_scale")?.unwrap_or(defaults::ATTN_SCALE);
    Ok(on.then_some(Temperature { floor_scale, scale }))
}

fn layers(section: &Section<'_>) -> Result<Vec<LayerConfig>, FormatError> {
    let n_layers = section.size("num_hidden_layers", 48, LAYERS_LIMIT)?;
    let rotated = rotated(section, n_layers)?;
    let chunks = chunks(section, &rotated)?;
    let ffns = ffns(section, n_layers)?;
    let layers = rotated.into_iter().zip(chunks).zip(ffns);
    Ok(layers.map(|((rotated, chunk), ffn)| LayerConfig { rotated, chunk, ffn }).collect())
}

/// `no_rope_layers` has a 1 for each layer that rotates, against its name. Empty, null and missing derive it.
fn rotated(section: &Section<'_>, n_layers: usize) -> Result<Vec<bool>, FormatError> {
    let key = "no_rope_layers";
    let list = section.counts(key)?.filter(|list| !list.is_empty());
    let Some(list) = list else {
        let interval = section.size("no_rope_layer_interval", defaults::UNROTATED_INTERVAL, usize::MAX)?;
        return Ok((1..=n_layers).map(|nth| !nth.is_multiple_of(interval)).collect());
    };
    // The reference asks for at least as many entries as layers.
    if list.len() < n_layers {
        return Err(section.corrupt(key, format!("has {} entries for {n_layers} layers", list.len())));
    }
    let flag = |entry: &usize| match entry {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(section.corrupt(key, format!("has the entry {other}; 1 is a rotated layer, 0 is not"))),
    };
    list.iter().take(n_layers).map(flag).collect()
}

/// What each layer sees. Without `layer_types` the rotated ones are chunked; a null chunk size chunks none.
fn chunks(section: &Section<'_>, rotated: &[bool]) -> Result<Vec<Option<NonZeroUsize>>, FormatError> {
    let key = "attention_chunk_size";
    let chunk = match section.is_null(key) {
        true => None,
        false => NonZeroUsize::new(section.size(key, defaults::CHUNK, POSITIONS_LIMIT)?),
    };
    let key = "layer_types";
    let Some(types) = section.texts(key)? else {
        return Ok(rotated.iter().map(|rotated| chunk.filter(|_| *rotated)).collect());
    };
    if types.len() != rotated.len() {
        return Err(section.corrupt(key, format!("has {} entries for {} layers", types.len(), rotated.len())));
    }
    let chunk_of = |layer_type: &str| match layer_type {
        "chunked_attention" => Ok(chunk),
        "full_attention" => Ok(None),
        other => {
            let why = format!("\"{other}\" is not supported; \"chunked_attention\" and \"full_attention\" are");
            Err(section.unsupported(key, why))
        }
    };
    types.into_iter().map(chunk_of).collect()
}

/// `moe_layers` lists the layers with experts, `[]` for none; null and missing derive it from the step.
fn ffns(section: &Section<'_>, n_layers: usize) -> Result<Vec<Ffn>, FormatError> {
    let expert_width = section.size("intermediate_size", 8192, FFN_LIMIT)?;
    let dense_width = section.size("intermediate_size_mlp", 16_384, FFN_LIMIT)?;
    let mut ffns = vec![Ffn::Dense { width: dense_width }; n_layers];
    let moe_layers = match section.counts("moe_layers")? {
        Some(list) => list,
        None => {
            let step = section.size("interleave_moe_layer_step", 1, usize::MAX)?;
            (step - 1..n_layers).step_by(step).collect()
        }
    };
    if moe_layers.is_empty() {
        return Ok(ffns);
    }
    let n_experts = section.size("num_local_experts", 16, EXPERTS_LIMIT)?;
    let top_k = section.size("num_experts_per_tok", 1, n_experts)?;
    for layer in moe_layers {
        let ffn = ffns.get_mut(layer);
        let ffn = ffn.ok_or_else(|| section.corrupt("moe_layers", format!("names layer {layer} of {n_layers}")))?;
        *ffn = Ffn::Moe { width: expert_width, n_experts, top_k, shared_width: expert_width };
    }
    Ok(ffns)
}
