//! One dial: from a number of parameters to the shape of a model.

/// Width of a head.
const HEAD_LEN: usize = 64;

/// The shape of a text model with mixture-of-experts layers throughout, as Scout has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub n_layers: usize,
    /// Routed experts of a layer, one of which a token goes to; a shared one stands beside them.
    pub n_experts: usize,
    /// Width of an expert.
    pub ffn: usize,
    /// Tokens.
    pub vocab_size: usize,
}

impl ModelShape {
    /// The widest model of the family of at most `n` parameters: 8 experts twice as wide as the residual stream, and a
    /// layer for each 43 of its width (6 at 256), at least 4. `None` if not even the narrowest one, 64, fits.
    pub fn of_size(n: u64, vocab_size: usize) -> Option<Self> {
        let of_width = |width: usize| {
            let n_layers = (width as f64 / 43.0).round().max(4.0) as usize;
            Self { width, n_layers, n_experts: 8, ffn: 2 * width, vocab_size }
        };
        let widths = (1..).map(|i| i * HEAD_LEN).map(of_width);
        widths.take_while(|shape| shape.n_parameters() <= n).last()
    }

    /// Query heads, and heads of keys and values.
    pub fn heads(&self) -> [usize; 2] {
        let n = (self.width / HEAD_LEN).max(1);
        [n, if n.is_multiple_of(2) { n / 2 } else { n }]
    }

    /// Parameters in all.
    pub fn n_parameters(&self) -> u64 {
        let Self { width, n_layers, n_experts, ffn, vocab_size } = *self;
        let [n_heads, n_kv_heads] = self.heads();
        let attention = width * HEAD_LEN * 2 * (n_heads + n_kv_heads);
        let experts = (n_experts + 1) * 3 * width * ffn + n_experts * width;
        (n_layers * (attention + experts + 2 * width) + width + 2 * width * vocab_size) as u64
    }

    /// `config.json` of the model: Llama 4's, with every peculiarity in proportion. One layer in four sees everything
    /// without rotation; the others see chunks of `chunk` positions.
    pub fn config(&self, chunk: usize, [bos, eos]: [u32; 2]) -> serde_json::Value {
        let Self { width, n_layers, n_experts, ffn, vocab_size } = *self;
        let [n_heads, n_kv_heads] = self.heads();
        serde_json::json!({
            "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "vocab_size": vocab_size,
            "hidden_size": width, "intermediate_size": ffn, "intermediate_size_mlp": ffn,
            "num_hidden_layers": n_layers, "num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads,
            "head_dim": HEAD_LEN, "max_position_embeddings": 32 * chunk, "rms_norm_eps": 1e-5,
            "num_local_experts": n_experts, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
            "use_qk_norm": true, "attn_temperature_tuning": true, "floor_scale": 8 * chunk, "attn_scale": 0.1,
            "attention_chunk_size": chunk, "no_rope_layer_interval": 4, "tie_word_embeddings": false,
            "attention_bias": false, "hidden_act": "silu", "bos_token_id": bos, "eos_token_id": eos,
            "rope_theta": 10000.0, "rope_scaling": null, "torch_dtype": "float32",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dial_gives_the_reference_model() {
        let shape = ModelShape::of_size(25_000_000, 4096);
        let want = ModelShape { width: 256, n_layers: 6, n_experts: 8, ffn: 512, vocab_size: 4096 };
        assert_eq!((shape, want.n_parameters()), (Some(want), 24_526_080));
        assert_eq!(ModelShape::of_size(1_000_000, 128_000), None);
        let sizes = [2, 4, 8, 20, 50, 100, 400].map(|millions| ModelShape::of_size(millions * 1_000_000, 1024));
        let widths: Vec<usize> = sizes.iter().flatten().map(|shape| shape.width).collect();
        assert!(widths.len() == 7 && widths.is_sorted(), "{widths:?}");
    }
}
