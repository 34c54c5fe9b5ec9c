//! Dense models of the family: `model_type` "llama".

use super::{
    FFN_LIMIT, Ffn, HEADS_LIMIT, HIDDEN_LIMIT, Heads, LAYERS_LIMIT, LayerConfig, POSITIONS_LIMIT, SpecialTokens,
    TextConfig, VOCAB_LIMIT, check_activation, derived_head_len, rope, special_tokens,
};
use crate::FormatError;
use crate::json::Section;

/// Reads a flat config; defaults of `LlamaConfig` in transformers 5.23, which are those of Llama 2 7B.
pub(super) fn parse(section: &Section<'_>) -> Result<TextConfig, FormatError> {
    check_activation(section, "silu")?;
    let vocab_size = section.size("vocab_size", 32_000, VOCAB_LIMIT)?;
    let hidden_size = section.size("hidden_size", 4096, HIDDEN_LIMIT)?;
    let n_heads = section.size("num_attention_heads", 32, HEADS_LIMIT)?;
    let n_kv_heads = section.size("num_key_value_heads", n_heads, HEADS_LIMIT)?;
    let head_len = match section.count("head_dim")? {
        Some(_) => section.size("head_dim", 0, HEADS_LIMIT)?,
        None => derived_head_len(hidden_size, n_heads).map_err(|why| section.corrupt("hidden_size", why))?,
    };
    let heads = Heads { n_heads, n_kv_heads, head_len }.check(|key, why| section.corrupt(key, why))?;
    let width = section.size("intermediate_size", 11_008, FFN_LIMIT)?;
    let layer = LayerConfig { rotated: true, chunk: None, ffn: Ffn::Dense { width } };
    let SpecialTokens { bos, eos, pad } = special_tokens(section, vocab_size)?;
    Ok(TextConfig {
        vocab_size,
        hidden_size,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_len: heads.head_len,
        max_positions: section.size("max_position_embeddings", 2048, POSITIONS_LIMIT)?,
        rms_eps: section.positive("rms_norm_eps", 1e-6)?,
        attention_bias: section.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: section.flag("mlp_bias")?.unwrap_or(false),
        rope: rope::parse(section, 10_000.0)?,
        // Hugging Face reorders the rows of q and k for this form when it converts Meta's files.
        pairing: tensor::Pairing::Halves,
        temperature: None,
        qk_norm: false,
        bos,
        eos,
        pad,
        layers: vec![layer; section.size("num_hidden_layers", 32, LAYERS_LIMIT)?],
    })
}
