//! Published defaults that more than one file of this folder needs (transformers 5.23: `LlamaConfig`,
//! `Llama4TextConfig`, `Llama4Config`).

pub(super) const TIE: bool = false;
pub(super) const BOS: u32 = 1;
pub(super) const EOS: u32 = 2;
pub(super) const IMAGE_START: u32 = 200_080;
pub(super) const IMAGE_END: u32 = 200_081;
pub(super) const PATCH: u32 = 200_092;

/// The first three reserved special tokens of Llama 4's tokenizer, which mark audio.
pub(super) const AUDIO_START: u32 = 201_144;
pub(super) const AUDIO: u32 = 201_145;
pub(super) const AUDIO_END: u32 = 201_146;

/// Attention chunk, period of unrotated layers and query scaling of Llama 4: `config.json` may leave them out, GGUF
/// files have no keys for them.
pub(super) const CHUNK: usize = 8192;
pub(super) const UNROTATED_INTERVAL: usize = 4;
pub(super) const FLOOR_SCALE: f32 = 8192.0;
pub(super) const ATTN_SCALE: f32 = 0.1;
