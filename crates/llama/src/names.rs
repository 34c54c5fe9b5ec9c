//! What each weight is called in the two families of files.

use formats::Checkpoint;
use formats::config::Architecture;

/// A file's way of naming weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Hugging Face folders; `model` stands before the decoder's names, `head` before `lm_head`, `ffn` is the
    /// feed-forward's module.
    HuggingFace { model: &'static str, head: &'static str, ffn: &'static str },
    /// GGUF.
    Gguf,
}

/// A weight of the decoder outside of its layers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outer {
    Embeddings,
    FinalNorm,
    Output,
}

/// A weight of one decoder layer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Inner {
    AttentionNorm,
    Q,
    K,
    V,
    O,
    FfnNorm,
    Gate,
    Up,
    Down,
    Router,
    SharedGate,
    SharedUp,
    SharedDown,
    /// Gate and up of every expert, fused.
    ExpertsGateUp,
    ExpertsGate,
    ExpertsUp,
    ExpertsDown,
}

impl Names {
    pub(crate) fn of(architecture: Architecture, is_gguf: bool) -> Self {
        match (is_gguf, architecture) {
            (true, _) => Self::Gguf,
            (false, Architecture::Llama4) => {
                Self::HuggingFace { model: "language_model.model.", head: "language_model.", ffn: "feed_forward" }
            }
            (false, Architecture::Llama4Text) => Self::HuggingFace { model: "model.", head: "", ffn: "feed_forward" },
            (false, Architecture::Llama) => Self::HuggingFace { model: "model.", head: "", ffn: "mlp" },
            (false, Architecture::LlamaAudio) => {
                Self::HuggingFace { model: "language_model.model.", head: "language_model.", ffn: "mlp" }
            }
        }
    }

    /// Of the checkpoint's own layout, where a kind of model has several.
    pub(crate) fn of_files(architecture: Architecture, checkpoint: &Checkpoint) -> Self {
        let first = Self::of(architecture, checkpoint.is_gguf());
        if architecture != Architecture::LlamaAudio || checkpoint.tensors.contains_key(&first.outer(Outer::Embeddings))
        {
            return first;
        }
        let ffn = "mlp";
        // The newer layout of models that hear; and a text model of a folder of its own.
        let newer = Self::HuggingFace { model: "model.language_model.", head: "", ffn };
        let plain = Self::HuggingFace { model: "model.", head: "", ffn };
        let found = [newer, plain].into_iter();
        found
            .into_iter()
            .find(|names| checkpoint.tensors.contains_key(&names.outer(Outer::Embeddings)))
            .unwrap_or(first)
    }

    /// The full name of `weight`.
    pub(crate) fn outer(self, weight: Outer) -> String {
        match self {
            Self::HuggingFace { model, head, .. } => match weight {
                Outer::Embeddings => format!("{model}embed_tokens.weight"),
                Outer::FinalNorm => format!("{model}norm.weight"),
                Outer::Output => format!("{head}lm_head.weight"),
            },
            Self::Gguf => match weight {
                Outer::Embeddings => "token_embd.weight".into(),
                Outer::FinalNorm => "output_norm.weight".into(),
                Outer::Output => "output.weight".into(),
            },
        }
    }

    /// The name of `weight` in layer `layer` without its suffix `.weight` or `.bias`, and whether it has one.
    pub(crate) fn inner(self, layer: usize, weight: Inner) -> String {
        match self {
            Self::HuggingFace { model, ffn, .. } => {
                let name = match weight {
                    Inner::AttentionNorm => "input_layernorm".into(),
                    Inner::Q => "self_attn.q_proj".into(),
                    Inner::K => "self_attn.k_proj".into(),
                    Inner::V => "self_attn.v_proj".into(),
                    Inner::O => "self_attn.o_proj".into(),
                    Inner::FfnNorm => "post_attention_layernorm".into(),
                    Inner::Gate => format!("{ffn}.gate_proj"),
                    Inner::Up => format!("{ffn}.up_proj"),
                    Inner::Down => format!("{ffn}.down_proj"),
                    Inner::Router => format!("{ffn}.router"),
                    Inner::SharedGate => format!("{ffn}.shared_expert.gate_proj"),
                    Inner::SharedUp => format!("{ffn}.shared_expert.up_proj"),
                    Inner::SharedDown => format!("{ffn}.shared_expert.down_proj"),
                    Inner::ExpertsGateUp => format!("{ffn}.experts.gate_up_proj"),
                    Inner::ExpertsGate => format!("{ffn}.experts.gate_proj"),
                    Inner::ExpertsUp => format!("{ffn}.experts.up_proj"),
                    Inner::ExpertsDown => format!("{ffn}.experts.down_proj"),
                };
                format!("{model}layers.{layer}.{name}")
            }
            Self::Gguf => {
                let name = match weight {
                    Inner::AttentionNorm => "attn_norm",
                    Inner::Q => "attn_q",
                    Inner::K => "attn_k",
                    Inner::V => "attn_v",
                    Inner::O => "attn_output",
                    Inner::FfnNorm => "ffn_norm",
                    Inner::Gate => "ffn_gate",
                    Inner::Up => "ffn_up",
                    Inner::Down => "ffn_down",
                    Inner::Router => "ffn_gate_inp",
                    Inner::SharedGate => "ffn_gate_shexp",
                    Inner::SharedUp => "ffn_up_shexp",
                    Inner::SharedDown => "ffn_down_shexp",
                    Inner::ExpertsGateUp => "ffn_gate_up_exps",
                    Inner::ExpertsGate => "ffn_gate_exps",
                    Inner::ExpertsUp => "ffn_up_exps",
                    Inner::ExpertsDown => "ffn_down_exps",
                };
                format!("blk.{layer}.{name}")
            }
        }
    }
}
