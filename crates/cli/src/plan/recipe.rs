//! What `--quant` stands for: the format of every weight of a model that is not here yet.

use formats::config::ModelConfig;
use tensor::Format;
use tensor::quant::Kind;

/// A way to store a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// What users write.
    pub name: &'static str,
    base: Format,
    /// Values of attention, and down projections of half of the layers, which lose most by rounding.
    careful: Format,
    /// Down projections of the other half.
    down: Format,
    output: Format,
}

const fn block(kind: Kind) -> Format {
    Format::Block(kind)
}

const fn all(name: &'static str, format: Format) -> Recipe {
    Recipe { name, base: format, careful: format, down: format, output: format }
}

const fn mix(name: &'static str, [base, careful, down, output]: [Kind; 4]) -> Recipe {
    Recipe { name, base: block(base), careful: block(careful), down: block(down), output: block(output) }
}

/// The short names stand for the usual mixtures ("Q4_K_M"): about 2.95, 3.9, 4.85, 5.7, 6.56, 8.5 and 16 bits a weight.
/// The others store all maps alike.
pub const RECIPES: [Recipe; 18] = [
    mix("q2", [Kind::Q2_K, Kind::Q3_K, Kind::Q3_K, Kind::Q6_K]),
    mix("q3", [Kind::Q3_K, Kind::Q5_K, Kind::Q4_K, Kind::Q6_K]),
    mix("q4", [Kind::Q4_K, Kind::Q6_K, Kind::Q4_K, Kind::Q6_K]),
    mix("q5", [Kind::Q5_K, Kind::Q6_K, Kind::Q5_K, Kind::Q6_K]),
    all("q6", block(Kind::Q6_K)),
    all("q8", block(Kind::Q8_0)),
    all("bf16", Format::BF16),
    all("f16", Format::F16),
    all("f32", Format::F32),
    all("q4_0", block(Kind::Q4_0)),
    all("q4_1", block(Kind::Q4_1)),
    all("q5_0", block(Kind::Q5_0)),
    all("q5_1", block(Kind::Q5_1)),
    all("q8_0", block(Kind::Q8_0)),
    all("q2_k", block(Kind::Q2_K)),
    all("q3_k", block(Kind::Q3_K)),
    all("q4_k", block(Kind::Q4_K)),
    all("q6_k", block(Kind::Q6_K)),
];

/// From the largest to the smallest mixture: where to look for one that fits.
pub const DESCENDING: [&str; 7] = ["bf16", "q8", "q6", "q5", "q4", "q3", "q2"];

impl Recipe {
    /// The recipe called `name`, in any case; "q4_k_m" is "q4".
    pub fn find(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let name = name.strip_suffix("_k_m").unwrap_or(&name);
        RECIPES.into_iter().find(|recipe| recipe.name == name)
    }

    /// The format of the weight that GGUF files call `name`, of `n_in` inputs, in a model of `config`.
    pub fn format(&self, config: &ModelConfig, name: &str, n_in: usize) -> Format {
        // Towers are kept in half precision, routers whole: either is small.
        if name.starts_with("v.") || name.starts_with("mm.") {
            return if matches!(self.base, Format::Block(_)) { Format::F16 } else { self.base };
        }
        let (layer, inner) = layer_of(name);
        let n_layers = config.text.layers.len();
        let wanted = match inner.split('.').next().unwrap_or(inner) {
            "ffn_gate_inp" => return Format::F32,
            "output" => self.output,
            "token_embd" if config.tie_word_embeddings => self.output,
            "attn_v" => self.careful,
            "ffn_down" | "ffn_down_exps" | "ffn_down_shexp" if is_careful(layer, n_layers) => self.careful,
            "ffn_down" | "ffn_down_exps" | "ffn_down_shexp" => self.down,
            _ => self.base,
        };
        fitting(wanted, n_in)
    }
}

/// The layer that a GGUF name belongs to, and the rest of the name.
fn layer_of(name: &str) -> (usize, &str) {
    let parts = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    parts.and_then(|(layer, inner)| Some((layer.parse().ok()?, inner))).unwrap_or((0, name))
}

/// Half of the layers, as the usual mixtures choose them: the first and the last eighth, and every third between.
fn is_careful(layer: usize, n_layers: usize) -> bool {
    let eighth = n_layers / 8;
    layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
}

/// The format itself, or the next larger one whose blocks fill rows of `n_in`.
fn fitting(wanted: Format, n_in: usize) -> Format {
    let Format::Block(kind) = wanted else { return wanted };
    let smaller = match kind {
        Kind::Q2_K | Kind::Q3_K => Kind::Q4_0,
        Kind::Q4_K => Kind::Q5_0,
        Kind::Q5_K => Kind::Q5_1,
        Kind::Q6_K => Kind::Q8_0,
        other => other,
    };
    if n_in.is_multiple_of(kind.len()) {
        wanted
    } else if n_in.is_multiple_of(smaller.len()) {
        Format::Block(smaller)
    } else {
        Format::F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_rows_that_blocks_do_not_fill_get_a_larger_format() {
        for recipe in RECIPES {
            assert_eq!(Recipe::find(&recipe.name.to_uppercase()), Some(recipe));
        }
        assert_eq!(Recipe::find("Q4_K_M").map(|recipe| recipe.name), Some("q4"));
        assert_eq!((Recipe::find("q7"), Recipe::find("")), (None, None));
        assert!(DESCENDING.iter().all(|name| Recipe::find(name).is_some()));
        let q4 = block(Kind::Q4_K);
        assert_eq!([512, 576, 100].map(|n| fitting(q4, n)), [q4, block(Kind::Q5_0), Format::F16]);
    }

    #[test]
    fn half_of_the_layers_are_careful() {
        assert_eq!((0..48).filter(|i| is_careful(*i, 48)).count(), 24);
        assert_eq!((1..48).step_by(2).filter(|i| is_careful(*i, 48)).count(), 12);
    }
}
