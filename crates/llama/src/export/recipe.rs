//! Which format each tensor of a quantised file gets.
//!
//! The mixtures are those that GGUF files are known by. Source: llama.cpp, `llama-quant.cpp`, without an importance
//! matrix. A mixture's name promises nothing else, so the same name gives the same formats tensor by tensor.

use tensor::Format;
use tensor::quant::Kind;

/// A way to quantise a model: a format for most tensors and rules for those that want more bits.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// What users call it.
    pub name: &'static str,
    /// `general.file_type` of files made by it.
    pub file_type: u32,
    /// The format of every matrix without a rule.
    pub base: Format,
    /// The first that applies decides.
    rules: &'static [Rule],
}

/// "The `role` of layers that are `when` gets `format`."
#[derive(Debug, Clone, Copy)]
struct Rule {
    role: Role,
    when: When,
    format: Kind,
}

const fn rule(role: Role, when: When, format: Kind) -> Rule {
    Rule { role, when, format }
}

/// What a tensor is for, as far as rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Norms, biases, the router, the divisors of the rotation: little to save, much to lose.
    Kept,
    /// The output map, and an embedding table that is also the output map.
    Output,
    AttentionV,
    AttentionK,
    AttentionOutput,
    FfnDown,
    /// Every other matrix.
    Matrix,
}

/// Which layers a rule is for.
#[derive(Debug, Clone, Copy)]
enum When {
    First(usize),
    FirstEighth,
    /// The first and the last eighth, and every third between.
    Spread,
    /// All, in models of eight experts, which are known by their small attention.
    EightExperts,
    /// All, in models of 80 layers with fewer key heads than query heads.
    EightyLayers,
}

/// What rules ask about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Decoder layers.
    pub n_layers: usize,
    /// Routed experts; 0 for dense models.
    pub n_experts: usize,
    /// Whether several query heads share a key head.
    pub shares_keys: bool,
    /// Whether the embedding table is the output map.
    pub tied: bool,
}

const fn plain(name: &'static str, file_type: u32, base: Format) -> Recipe {
    Recipe { name, file_type, base, rules: &[] }
}

const fn mixture(name: &'static str, file_type: u32, base: Kind, rules: &'static [Rule]) -> Recipe {
    Recipe { name, file_type, base: Format::Block(base), rules }
}

/// Rules of every quantised recipe, before its own.
const ALWAYS: [Rule; 2] =
    [rule(Role::AttentionV, When::EightExperts, Kind::Q8_0), rule(Role::AttentionK, When::EightExperts, Kind::Q8_0)];

/// Every recipe. File types are llama.cpp's `LLAMA_FTYPE_…`; a format that has no file type of its own gets that of the
/// smallest mixture around it.
pub const RECIPES: [Recipe; 16] = [
    plain("f32", 0, Format::F32),
    plain("f16", 1, Format::F16),
    plain("bf16", 32, Format::BF16),
    plain("q8_0", 7, Format::Block(Kind::Q8_0)),
    plain("q4_0", 2, Format::Block(Kind::Q4_0)),
    plain("q4_1", 3, Format::Block(Kind::Q4_1)),
    plain("q5_0", 8, Format::Block(Kind::Q5_0)),
    plain("q5_1", 9, Format::Block(Kind::Q5_1)),
    plain("q2_k", 21, Format::Block(Kind::Q2_K)),
    plain("q3_k", 11, Format::Block(Kind::Q3_K)),
    plain("q4_k", 14, Format::Block(Kind::Q4_K)),
    plain("q5_k", 16, Format::Block(Kind::Q5_K)),
    plain("q6_k", 18, Format::Block(Kind::Q6_K)),
    mixture(
        "q4_k_s",
        14,
        Kind::Q4_K,
        &[
            rule(Role::AttentionV, When::First(4), Kind::Q5_K),
            rule(Role::AttentionV, When::EightyLayers, Kind::Q5_K),
            rule(Role::FfnDown, When::FirstEighth, Kind::Q5_K),
            rule(Role::AttentionOutput, When::EightExperts, Kind::Q5_K),
        ],
    ),
    mixture(
        "q4_k_m",
        15,
        Kind::Q4_K,
        &[
            rule(Role::AttentionV, When::Spread, Kind::Q6_K),
            rule(Role::AttentionV, When::EightyLayers, Kind::Q5_K),
            rule(Role::FfnDown, When::Spread, Kind::Q6_K),
            rule(Role::AttentionOutput, When::EightExperts, Kind::Q5_K),
        ],
    ),
    mixture(
        "q5_k_m",
        17,
        Kind::Q5_K,
        &[rule(Role::AttentionV, When::Spread, Kind::Q6_K), rule(Role::FfnDown, When::Spread, Kind::Q6_K)],
    ),
];

/// What replaces a format in rows that are no whole number of its blocks.
const SHORTER: [(Kind, Kind); 5] = [
    (Kind::Q2_K, Kind::Q4_0),
    (Kind::Q3_K, Kind::Q4_0),
    (Kind::Q4_K, Kind::Q5_0),
    (Kind::Q5_K, Kind::Q5_1),
    (Kind::Q6_K, Kind::Q8_0),
];

impl Recipe {
    /// The recipe called `name`, in whatever case.
    pub fn named(name: &str) -> Option<&'static Self> {
        RECIPES.iter().find(|recipe| recipe.name.eq_ignore_ascii_case(name))
    }

    /// The format of the GGUF tensor `name`.
    pub fn format(&self, facts: &Facts, name: &str, shape: &[usize]) -> Format {
        let role = role(facts, name, shape);
        let Format::Block(base) = self.base else {
            return if role == Role::Kept { Format::F32 } else { self.base };
        };
        let row_len = shape.last().copied().unwrap_or(0);
        let kind = match role {
            Role::Kept => return Format::F32,
            // Every token's choice depends on it: six bits at least.
            Role::Output if base == Kind::Q8_0 || !row_len.is_multiple_of(base.len()) => Kind::Q8_0,
            Role::Output => Kind::Q6_K,
            role => {
                let layer = layer(name).unwrap_or(0);
                let mut rules = ALWAYS.iter().chain(self.rules);
                let rule = rules.find(|rule| rule.role == role && rule.when.holds(facts, layer));
                rule.map_or(base, |rule| rule.format)
            }
        };
        fitting(kind, row_len)
    }

    /// The format of a tower's or its projector's matrix whose rows are `row_len` long and that is stored as `stored`.
    ///
    /// Towers are small beside their decoders, and every row of theirs is read by all that comes after it: they keep eight
    /// bits where decoders have fewer.
    pub(super) fn projector_format(&self, stored: Format, row_len: usize) -> Format {
        match (self.base, stored) {
            (Format::Block(_), _) if row_len.is_multiple_of(Kind::Q8_0.len()) => Format::Block(Kind::Q8_0),
            (Format::Block(_), Format::BF16) => Format::BF16,
            (Format::Block(_), _) => Format::F16,
            (plain, _) => plain,
        }
    }
}

impl When {
    fn holds(self, facts: &Facts, layer: usize) -> bool {
        let (n_layers, eighth) = (facts.n_layers, facts.n_layers / 8);
        match self {
            Self::First(n) => layer < n,
            Self::FirstEighth => layer < eighth,
            Self::Spread => layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2,
            Self::EightExperts => facts.n_experts == 8,
            Self::EightyLayers => n_layers == 80 && facts.shares_keys,
        }
    }
}

/// `kind`, or what replaces it in rows of `row_len`.
fn fitting(kind: Kind, row_len: usize) -> Format {
    let shorter = SHORTER.iter().find(|(long, _)| *long == kind).map(|(_, short)| *short);
    let kinds = std::iter::once(kind).chain(shorter);
    kinds.into_iter().find(|kind| row_len.is_multiple_of(kind.len())).map_or(Format::F16, Format::Block)
}

fn role(facts: &Facts, name: &str, shape: &[usize]) -> Role {
    let n_rows: usize = shape.split_last().map_or(1, |(_, rows)| rows.iter().product());
    let part = name.split('.').nth(2).filter(|_| name.starts_with("blk."));
    match (name, part) {
        _ if n_rows < 2 || !name.ends_with(".weight") => Role::Kept,
        ("output.weight", _) => Role::Output,
        ("token_embd.weight", _) if facts.tied => Role::Output,
        (_, Some("ffn_gate_inp")) => Role::Kept,
        (_, Some(part)) if part.ends_with("_norm") => Role::Kept,
        (_, Some("attn_v")) => Role::AttentionV,
        (_, Some("attn_k")) => Role::AttentionK,
        (_, Some("attn_output")) => Role::AttentionOutput,
        (_, Some("ffn_down" | "ffn_down_exps" | "ffn_down_shexp")) => Role::FfnDown,
        _ => Role::Matrix,
    }
}

/// The layer in a name such as `blk.7.attn_q.weight`.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENSE: Facts = Facts { n_layers: 32, n_experts: 0, shares_keys: true, tied: false };

    fn check(recipe: &str, facts: &Facts, name: &str, shape: &[usize], expected: &str) {
        let recipe = Recipe::named(recipe).expect(recipe);
        assert_eq!(recipe.format(facts, name, shape).name(), expected, "{} {name} {shape:?}", recipe.name);
    }

    #[test]
    fn every_recipe_is_found_by_its_name_and_says_its_format() {
        for recipe in &RECIPES {
            let upper = recipe.name.to_uppercase();
            assert_eq!(Recipe::named(&upper).map(|found| found.name), Some(recipe.name));
            let base = recipe.base.name();
            assert!(upper == base || upper.starts_with(&format!("{base}_")), "{upper} is made of {base}");
            check(recipe.name, &DENSE, "blk.3.attn_q.weight", &[4096, 4096], base);
            check(recipe.name, &DENSE, "token_embd.weight", &[32000, 4096], base);
        }
        assert!(Recipe::named("q4").is_none());
    }

    #[test]
    fn small_and_delicate_tensors_stay_f32() {
        for recipe in ["f16", "q4_0", "q4_k_m", "bf16", "f32"] {
            for (name, shape) in [
                ("blk.0.attn_norm.weight", &[4096][..]),
                ("output_norm.weight", &[4096]),
                ("blk.0.attn_q.bias", &[4096]),
                ("rope_freqs.weight", &[64]),
                ("blk.0.ffn_gate_inp.weight", &[16, 4096]),
                ("blk.0.ffn_norm.weight", &[1, 4096]),
            ] {
                check(recipe, &DENSE, name, shape, "F32");
            }
        }
    }

    #[test]
    fn the_output_map_keeps_six_bits() {
        let tied = Facts { tied: true, ..DENSE };
        for (recipe, width, expected) in [
            ("q4_0", 4096, "Q6_K"),
            ("q4_0", 576, "Q8_0"),
            ("q8_0", 4096, "Q8_0"),
            ("q4_k_m", 4096, "Q6_K"),
            ("q4_k_m", 576, "Q8_0"),
            ("q2_k", 4096, "Q6_K"),
            ("bf16", 4096, "BF16"),
        ] {
            check(recipe, &DENSE, "output.weight", &[32000, width], expected);
            check(recipe, &tied, "token_embd.weight", &[32000, width], expected);
        }
        check("q4_0", &DENSE, "token_embd.weight", &[32000, 4096], "Q4_0");
    }

    /// The layers of `n_layers` in which `name` is not the base format.
    fn layers_with_more(recipe: &str, facts: &Facts, name: &str) -> Vec<usize> {
        let recipe = Recipe::named(recipe).expect(recipe);
        let format = |layer| recipe.format(facts, &format!("blk.{layer}.{name}.weight"), &[4096, 4096]);
        (0..facts.n_layers).filter(|layer| format(*layer) != recipe.base).collect()
    }

    #[test]
    fn mixtures_spend_more_bits_where_they_are_known_to() {
        // Llama 3 8B: the files that everybody has.
        let spread = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
        for mixture in ["q4_k_m", "q5_k_m"] {
            for name in ["attn_v", "ffn_down"] {
                assert_eq!(layers_with_more(mixture, &DENSE, name), spread, "{mixture} {name}");
                check(mixture, &DENSE, &format!("blk.0.{name}.weight"), &[1024, 4096], "Q6_K");
            }
            for name in ["attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"] {
                assert_eq!(layers_with_more(mixture, &DENSE, name), [0; 0], "{mixture} {name}");
            }
        }
        assert_eq!(layers_with_more("q4_k_s", &DENSE, "attn_v"), [0, 1, 2, 3]);
        assert_eq!(layers_with_more("q4_k_s", &DENSE, "ffn_down"), [0, 1, 2, 3]);
        check("q4_k_s", &DENSE, "blk.0.ffn_down.weight", &[4096, 14336], "Q5_K");
        assert_eq!(layers_with_more("q4_k", &DENSE, "ffn_down"), [0; 0]);
    }

    #[test]
    fn experts_count_as_the_feed_forward_they_are() {
        let scout = Facts { n_layers: 48, n_experts: 16, ..DENSE };
        for name in ["ffn_down_exps", "ffn_down_shexp"] {
            check("q4_k_m", &scout, &format!("blk.0.{name}.weight"), &[16, 5120, 8192], "Q6_K");
            check("q4_k_m", &scout, &format!("blk.7.{name}.weight"), &[16, 5120, 8192], "Q4_K");
        }
        let eight = Facts { n_experts: 8, ..DENSE };
        for (recipe, name, expected) in [
            ("q4_0", "attn_v", "Q8_0"),
            ("q4_0", "attn_k", "Q8_0"),
            ("q4_0", "attn_output", "Q4_0"),
            ("q4_k_m", "attn_v", "Q8_0"),
            ("q4_k_m", "attn_output", "Q5_K"),
            ("q5_k_m", "attn_output", "Q5_K"),
        ] {
            check(recipe, &eight, &format!("blk.5.{name}.weight"), &[1024, 4096], expected);
        }
        let large = Facts { n_layers: 80, ..DENSE };
        check("q4_k_m", &large, "blk.11.attn_v.weight", &[1024, 8192], "Q5_K");
        check("q4_k_m", &large, "blk.0.attn_v.weight", &[1024, 8192], "Q6_K");
    }

    #[test]
    fn short_rows_fall_back() {
        for (recipe, row_len, expected) in [
            ("q2_k", 576, "Q4_0"),
            ("q3_k", 576, "Q4_0"),
            ("q4_k", 576, "Q5_0"),
            ("q5_k", 576, "Q5_1"),
            ("q6_k", 576, "Q8_0"),
            ("q4_0", 40, "F16"),
            ("q4_k_m", 40, "F16"),
        ] {
            check(recipe, &DENSE, "blk.5.attn_q.weight", &[64, row_len], expected);
        }
    }
}
