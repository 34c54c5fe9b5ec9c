//! GGUF metadata of the architectures `llama4` and `llama`.

use std::num::NonZeroUsize;

use super::{
    Architecture, EXPERTS_LIMIT, FFN_LIMIT, Ffn, HEADS_LIMIT, HIDDEN_LIMIT, Heads, LAYERS_LIMIT, LayerConfig,
    ModelConfig, POSITIONS_LIMIT, Rope, RopeScaling, Temperature, TextConfig, VOCAB_LIMIT, check_token, defaults,
    derived_head_len,
};
use crate::gguf::Metadata;
use crate::{DType, FormatError, Gguf};

/// The tensor of per-pair divisors.
const DIVISORS: &str = "rope_freqs.weight";

/// Maverick's experts: the only trace in a GGUF file that a model has no norm of q and k.
const EXPERTS_WITHOUT_QK_NORM: usize = 128;

/// Positions of a chunk, where they are not 8192.
pub const CHUNK_KEY: &str = "puna.attention.chunk_size";
/// Of each layer: 1 if it rotates, and 2 more if it sees chunks only; where that is not every fourth.
pub const LAYER_KINDS_KEY: &str = "puna.attention.layers";
/// Scaling of queries by position, where it is not that of the published models.
pub const FLOOR_SCALE_KEY: &str = "puna.attention.floor_scale";
/// As [`FLOOR_SCALE_KEY`]; 0 for none.
pub const ATTN_SCALE_KEY: &str = "puna.attention.scale";
/// Whether q and k are normalised, where the number of experts tells another story.
pub const QK_NORM_KEY: &str = "puna.attention.qk_norm";

/// The keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn corrupt(&self, key: &str, why: String) -> FormatError {
        FormatError::corrupt(self.metadata.file(), &self.key(key), why)
    }

    fn unsupported(&self, key: &str, why: String) -> FormatError {
        FormatError::unsupported(self.metadata.file(), &self.key(key), why)
    }

    /// A count from 1 to `limit`, if it is there.
    fn find_size(&self, key: &str, limit: usize) -> Result<Option<usize>, FormatError> {
        match self.metadata.find_count(&self.key(key))? {
            Some(n) if !(1..=limit).contains(&n) => {
                Err(self.corrupt(key, format!("is {n}; it has to be from 1 to {limit}")))
            }
            size => Ok(size),
        }
    }

    fn size(&self, key: &str, limit: usize) -> Result<usize, FormatError> {
        let size = self.find_size(key, limit)?;
        size.ok_or_else(|| FormatError::missing(self.metadata.file(), &self.key(key)))
    }

    /// A number above 0, if it is there.
    fn find_positive(&self, key: &str) -> Result<Option<f32>, FormatError> {
        match self.metadata.find_f32(&self.key(key))? {
            Some(n) if n <= 0.0 => Err(self.corrupt(key, format!("is {n}; it has to be above 0"))),
            number => Ok(number),
        }
    }
}

pub(super) fn parse(gguf: &Gguf) -> Result<ModelConfig, FormatError> {
    let metadata = &gguf.metadata;
    let key = "general.architecture";
    let architecture = match metadata.get_str(key)? {
        "llama4" => Architecture::Llama4Text,
        "llama" => Architecture::Llama,
        other => {
            let why = format!("\"{other}\" is not supported; \"llama4\" and \"llama\" are");
            return Err(FormatError::unsupported(metadata.file(), key, why));
        }
    };
    let keys = Keys { metadata, architecture: metadata.get_str(key)? };
    let llama4 = architecture == Architecture::Llama4Text;
    let vocab_size = vocab_size(&keys)?;
    let hidden_size = keys.size("embedding_length", HIDDEN_LIMIT)?;
    let Heads { n_heads, n_kv_heads, head_len } = heads(&keys, hidden_size)?;
    let text = TextConfig {
        vocab_size,
        hidden_size,
        n_heads,
        n_kv_heads,
        head_len,
        max_positions: keys.size("context_length", POSITIONS_LIMIT)?,
        rms_eps: keys
            .find_positive("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| FormatError::missing(metadata.file(), &keys.key("attention.layer_norm_rms_epsilon")))?,
        attention_bias: gguf.tensor("blk.0.attn_q.bias").is_some(),
        mlp_bias: gguf.tensor("blk.0.ffn_gate.bias").is_some(),
        rope: rope(gguf, &keys, head_len)?,
        // Llama 4 is never permuted, and converters of dense models undo what Hugging Face did.
        pairing: tensor::Pairing::Interleaved,
        temperature: if llama4 { temperature(metadata)? } else { None },
        qk_norm: llama4 && qk_norm(&keys)?,
        bos: token(metadata, "bos", vocab_size)?,
        eos: end_tokens(metadata, vocab_size)?,
        pad: metadata.find_u32("tokenizer.ggml.padding_token_id")?,
        layers: if llama4 { llama4_layers(&keys)? } else { dense_layers(&keys)? },
    };
    let tie_word_embeddings = gguf.tensor("output.weight").is_none();
    Ok(ModelConfig {
        architecture,
        text,
        vision: None,
        image_tokens: None,
        audio: None,
        tie_word_embeddings,
        dtype: None,
    })
}

/// The vocabulary's own key, or the number of its tokens.
fn vocab_size(keys: &Keys<'_>) -> Result<usize, FormatError> {
    if let Some(size) = keys.find_size("vocab_size", VOCAB_LIMIT)? {
        return Ok(size);
    }
    let len = keys.metadata.find_array("tokenizer.ggml.tokens")?.map(crate::gguf::Array::len);
    match len {
        Some(len @ 1..=VOCAB_LIMIT) => Ok(len),
        _ => Err(FormatError::missing(keys.metadata.file(), &keys.key("vocab_size"))),
    }
}

fn heads(keys: &Keys<'_>, hidden_size: usize) -> Result<Heads, FormatError> {
    let n_heads = keys.size("attention.head_count", HEADS_LIMIT)?;
    let n_kv_heads = keys.find_size("attention.head_count_kv", HEADS_LIMIT)?.unwrap_or(n_heads);
    let head_len = match keys.find_size("attention.key_length", HEADS_LIMIT)? {
        Some(len) => len,
        None => derived_head_len(hidden_size, n_heads).map_err(|why| keys.corrupt("embedding_length", why))?,
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(len) = keys.find_size(key, HEADS_LIMIT)?.filter(|len| *len != head_len) {
            return Err(keys.unsupported(key, format!("is {len}; only the head length {head_len} is supported")));
        }
    }
    let named = |key: &str, why| match key {
        "head_dim" => keys.corrupt("attention.key_length", why),
        _ => keys.corrupt("attention.head_count_kv", why),
    };
    Heads { n_heads, n_kv_heads, head_len }.check(named)
}

fn rope(gguf: &Gguf, keys: &Keys<'_>, head_len: usize) -> Result<Rope, FormatError> {
    let theta = keys.find_positive("rope.freq_base")?.unwrap_or(10_000.0); // the format's default
    if let Some(divisors) = gguf.tensor(DIVISORS) {
        if divisors.dtype != DType::Weight(tensor::Format::F32) || divisors.shape != [head_len / 2] {
            let got = format!("is {} {:?}, not F32 [{}]", divisors.dtype.name(), divisors.shape, head_len / 2);
            return Err(FormatError::corrupt(gguf.metadata.file(), DIVISORS, got));
        }
        return Ok(Rope { theta, scaling: RopeScaling::Divisors });
    }
    let old_factor = keys.find_positive("rope.scale_linear")?;
    let factor = keys.find_positive("rope.scaling.factor")?.or(old_factor);
    let scaling = match keys.metadata.find_str(&keys.key("rope.scaling.type"))? {
        Some("none") => RopeScaling::None,
        None | Some("linear") => match factor {
            Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        },
        Some(other) => {
            let why = format!("\"{other}\" is not supported; \"none\" and \"linear\" are");
            return Err(keys.unsupported("rope.scaling.type", why));
        }
    };
    Ok(Rope { theta, scaling })
}

fn token(metadata: &Metadata, name: &str, vocab_size: usize) -> Result<Option<u32>, FormatError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(id) = metadata.find_u32(&key)? else { return Ok(None) };
    check_token(id, vocab_size).map_err(|why| FormatError::corrupt(metadata.file(), &key, why))?;
    Ok(Some(id))
}

/// The ends of a text, a turn and a message.
fn end_tokens(metadata: &Metadata, vocab_size: usize) -> Result<Vec<u32>, FormatError> {
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(token(metadata, name, vocab_size)?.filter(|id| !ends.contains(id)));
    }
    Ok(ends)
}

/// Scaling of queries by position: the published one, unless our own keys say otherwise. A scale of 0 is none.
fn temperature(metadata: &Metadata) -> Result<Option<Temperature>, FormatError> {
    let floor_scale = metadata.find_f32(FLOOR_SCALE_KEY)?.unwrap_or(defaults::FLOOR_SCALE);
    if floor_scale <= 0.0 {
        let why = format!("is {floor_scale}; it has to be above 0");
        return Err(FormatError::corrupt(metadata.file(), FLOOR_SCALE_KEY, why));
    }
    let scale = metadata.find_f32(ATTN_SCALE_KEY)?.unwrap_or(defaults::ATTN_SCALE);
    Ok((scale != 0.0).then_some(Temperature { floor_scale, scale }))
}

fn qk_norm(keys: &Keys<'_>) -> Result<bool, FormatError> {
    let usual = keys.metadata.find_count("llama4.expert_count")? != Some(EXPERTS_WITHOUT_QK_NORM);
    Ok(keys.metadata.find_bool(QK_NORM_KEY)?.unwrap_or(usual))
}

/// What our own key says of each layer: whether it rotates, and whether it sees chunks only.
fn layer_kinds(metadata: &Metadata, n_layers: usize) -> Result<Option<Vec<[bool; 2]>>, FormatError> {
    let Some(array) = metadata.find_array(LAYER_KINDS_KEY)? else { return Ok(None) };
    let kinds: Vec<[bool; 2]> = array
        .integers()
        .into_iter()
        .flatten()
        .filter(|kind| (0..4).contains(kind))
        .map(|kind| [kind & 1 != 0, kind & 2 != 0])
        .collect();
    if kinds.len() != n_layers || array.len() != n_layers {
        let why = format!("has not one entry from 0 to 3 for each of {n_layers} layers");
        return Err(FormatError::corrupt(metadata.file(), LAYER_KINDS_KEY, why));
    }
    Ok(Some(kinds))
}

/// The architecture's keys leave out which layers rotate and what they see: every fourth is unrotated and sees everything,
/// the others see chunks of 8192. A sliding window of 0 says that all rotate and see everything. Our own keys say the rest.
fn llama4_layers(keys: &Keys<'_>) -> Result<Vec<LayerConfig>, FormatError> {
    let n_layers = keys.size("block_count", LAYERS_LIMIT)?;
    let all_full = keys.metadata.find_count(&keys.key("attention.sliding_window"))? == Some(0);
    let chunk = NonZeroUsize::new(keys.metadata.find_count(CHUNK_KEY)?.unwrap_or(defaults::CHUNK));
    let kinds = layer_kinds(keys.metadata, n_layers)?;
    let dense_width = keys.size("feed_forward_length", FFN_LIMIT)?;
    let n_experts = keys.metadata.find_count(&keys.key("expert_count"))?.unwrap_or(0);
    let moe = match n_experts {
        0 => None,
        1..=EXPERTS_LIMIT => {
            let width = keys.size("expert_feed_forward_length", FFN_LIMIT)?;
            let top_k = keys.size("expert_used_count", n_experts)?;
            let ffn = Ffn::Moe { width, n_experts, top_k, shared_width: width };
            Some((keys.size("interleave_moe_layer_step", LAYERS_LIMIT)?, ffn))
        }
        _ => return Err(keys.corrupt("expert_count", format!("is {n_experts}; the limit is {EXPERTS_LIMIT}"))),
    };
    let layer = |nth: usize| {
        let usual = all_full || !nth.is_multiple_of(defaults::UNROTATED_INTERVAL);
        let kind = kinds.as_ref().and_then(|kinds| kinds.get(nth - 1)).copied();
        let [rotated, chunked] = kind.unwrap_or([usual, usual && !all_full]);
        let ffn = match &moe {
            Some((step, ffn)) if nth.is_multiple_of(*step) => ffn.clone(),
            _ => Ffn::Dense { width: dense_width },
        };
        LayerConfig { rotated, chunk: chunk.filter(|_| chunked), ffn }
    };
    Ok((1..=n_layers).map(layer).collect())
}

fn dense_layers(keys: &Keys<'_>) -> Result<Vec<LayerConfig>, FormatError> {
    if let Some(n @ 1..) = keys.metadata.find_count(&keys.key("expert_count"))? {
        return Err(keys.unsupported("expert_count", format!("is {n}; experts are supported in \"llama4\" only")));
    }
    let width = keys.size("feed_forward_length", FFN_LIMIT)?;
    let layer = LayerConfig { rotated: true, chunk: None, ffn: Ffn::Dense { width } };
    Ok(vec![layer; keys.size("block_count", LAYERS_LIMIT)?])
}
