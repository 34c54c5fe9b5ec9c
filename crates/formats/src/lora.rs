//! LoRA adapters as PEFT's `save_pretrained` writes them: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! What is added to the output of a linear map is scale · ((x · Aᵀ) · Bᵀ). Rules of the config, the scale's and the
//! patterns' among them, are those of PEFT 0.17 (`LoraConfig`, `LoraLayer.update_layer`, `get_pattern_key`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::json;

use crate::checkpoint::folder::Folder;
use crate::error::clip;
use crate::json::{self, Node, Section};
use crate::{DType, FormatError, NewTensor, Tensor, atomic, map_file, safetensors};

/// The file with the settings.
const CONFIG: &str = "adapter_config.json";

/// The file with the numbers.
const WEIGHTS: &str = "adapter_model.safetensors";

/// Longest `adapter_config.json`.
const CONFIG_LIMIT_BYTES: usize = 1 << 20;

/// Highest rank.
const RANK_LIMIT: usize = 1 << 16;

/// Most entries of one pattern table, and bytes of their keys.
const PATTERNS_LIMIT: usize = 4096;
const PATTERNS_LIMIT_BYTES: usize = 256 << 10;

/// Before every module's path.
const ROOT: &str = "base_model.model.";

/// The name in the file of half `half`, A or B, of what is added beside `module`.
pub fn half_name(module: &str, half: char) -> String {
    format!("{ROOT}{module}.lora_{half}.weight")
}

/// What changes what an adapter means, and has to be off: the key, and what is there instead.
const REFUSED: [(&str, &str); 11] = [
    ("use_dora", "DoRA is not supported; train with use_dora false"),
    ("use_qalora", "QALoRA is not supported; train with use_qalora false"),
    ("use_bdlora", "BD-LoRA is not supported; train with use_bdlora false"),
    ("lora_bias", "biases of adapters are not supported; train with lora_bias false"),
    ("fan_in_fan_out", "maps stored input by output are not supported; the models read here have none"),
    ("modules_to_save", "whole modules beside an adapter are not supported; train without modules_to_save"),
    ("layer_replication", "repeated layers are not supported; train without layer_replication"),
    ("trainable_token_indices", "trained token embeddings are not supported; train without trainable_token_indices"),
    (
        "target_parameters",
        "adapters of bare parameters (routed experts) are not supported; name linear maps in target_modules",
    ),
    ("alora_invocation_tokens", "activated LoRA is not supported; train without alora_invocation_tokens"),
    ("arrow_config", "Arrow routing is not supported; name one plain adapter"),
];

/// Ways to begin training (or how their names begin) that change the base model's weights: the adapter does not fit the
/// published ones.
const CHANGED_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// A LoRA adapter: described and checked, its numbers mapped.
#[derive(Debug, Clone)]
pub struct Lora {
    /// The folder.
    pub path: PathBuf,
    /// What is added beside linear maps, by the path of the map's module in the model that was trained, such as
    /// `model.layers.0.self_attn.q_proj`. At least one.
    pub maps: BTreeMap<String, LowRank>,
}

/// What is added to one linear map: scale · ((x · Aᵀ) · Bᵀ).
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Outputs of A and inputs of B; from 1 on.
    pub rank: usize,
    /// What the product is multiplied by; finite.
    pub scale: f32,
    /// `[rank, inputs]`, under its name in the file.
    pub a: Tensor,
    /// `[outputs, rank]`, under its name in the file.
    pub b: Tensor,
}

impl Lora {
    /// Opens the folder `path`.
    ///
    /// # Errors
    /// [`FormatError::Missing`] for a file that is not there or half of a pair, [`FormatError::Unsupported`] for kinds of
    /// adapters other than plain LoRA of linear maps, [`FormatError::Corrupt`] where config and numbers contradict
    /// themselves or each other.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let folder = Folder::open(path)?;
        let config = folder.find(CONFIG)?.ok_or_else(|| folder.missing(CONFIG))?;
        let config = LoraConfig::parse(&config, &json::read(&config, CONFIG_LIMIT_BYTES)?)?;
        let Some(weights) = folder.find(WEIGHTS)? else {
            return Err(match folder.find("adapter_model.bin")? {
                Some(file) => {
                    let why = format!("pickled tensors are not read; save {WEIGHTS} (safe_serialization=True)");
                    FormatError::unsupported(&file, "type of file", why)
                }
                None => folder.missing(WEIGHTS),
            });
        };
        let maps = config.maps(&weights, safetensors::parse(&weights, &map_file(&weights)?)?)?;
        Ok(Self { path: path.into(), maps })
    }

    /// Writes the adapter into the folder `folder`, which exists, as PEFT's `save_pretrained` does: numbers first, then the
    /// settings, each durable before it has its name. `base` is what the adapted model is called; `targets` are modules,
    /// or ends of their names, that are adapted in it and no others.
    ///
    /// # Errors
    /// [`FormatError::Io`]; [`FormatError::Unsupported`] for tensors that can not be stored.
    pub fn write(&self, folder: &Path, base: &str, targets: &[String]) -> Result<(), FormatError> {
        let halves = self.maps.values().flat_map(|map| [&map.a, &map.b]);
        let tensors: Vec<NewTensor<'_>> =
            halves.map(|t| NewTensor { name: &t.name, dtype: t.dtype, shape: &t.shape, bytes: &t.bytes }).collect();
        safetensors::write(&folder.join(WEIGHTS), &tensors)?;
        let config = format!("{:#}\n", self.settings(base, targets));
        atomic::write(&folder.join(CONFIG), |out| out.write(config.as_bytes()))
    }

    /// What stands in `adapter_config.json`. Ranks and scales that are not the first map's are named one by one.
    fn settings(&self, base: &str, targets: &[String]) -> serde_json::Value {
        let alpha = |map: &LowRank| f64::from(map.scale) * map.rank as f64;
        let first = self.maps.values().next();
        let (rank, base_alpha) = first.map_or((1, 1.0), |map| (map.rank, alpha(map)));
        let others = |differs: &dyn Fn(&LowRank) -> bool, value: &dyn Fn(&LowRank) -> serde_json::Value| {
            let named = self.maps.iter().filter(|(_, map)| differs(map));
            serde_json::Value::Object(named.map(|(module, map)| (module.clone(), value(map))).collect())
        };
        json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "revision": null,
            "inference_mode": true, "r": rank, "lora_alpha": number(base_alpha), "lora_dropout": 0.0, "use_rslora": false,
            "use_dora": false, "bias": "none", "fan_in_fan_out": false, "modules_to_save": null,
            "layers_to_transform": null, "layers_pattern": null, "layer_replication": null, "init_lora_weights": true,
            "target_modules": targets, "exclude_modules": null,
            "rank_pattern": others(&|map| map.rank != rank, &|map| json!(map.rank)),
            "alpha_pattern": others(&|map| alpha(map) != base_alpha, &|map| number(alpha(map))),
        })
    }

    /// Bytes of all numbers, as they are stored.
    pub fn size_bytes(&self) -> usize {
        self.maps.values().flat_map(|map| [&map.a, &map.b]).map(|tensor| tensor.bytes.len()).sum()
    }

    /// The lowest and the highest rank.
    pub fn ranks(&self) -> (usize, usize) {
        let ranks = || self.maps.values().map(|map| map.rank);
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }
}

/// A whole number as such: readers expect 16, not 16.0.
fn number(x: f64) -> serde_json::Value {
    match format!("{x}").parse::<u64>() {
        Ok(whole) => json!(whole),
        Err(_) => json!(x),
    }
}

/// `adapter_config.json`: what of it the numbers depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    rank: usize,
    alpha: f32,
    scaling: Scaling,
    /// Ranks of some modules, by the end of their path; the first that fits counts.
    ranks: Vec<(String, f64)>,
    /// The same of alphas.
    alphas: Vec<(String, f64)>,
}

/// What alpha is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    /// The rank.
    Rank,
    /// Its root: `use_rslora`.
    Root,
}

impl LoraConfig {
    /// Reads the file's content `json`.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] for values of the wrong type or outside of their range, [`FormatError::Missing`] without
    /// `peft_type`, `r` or `lora_alpha`, [`FormatError::Unsupported`] for what is no plain LoRA.
    pub fn parse(file: &Path, json: &[u8]) -> Result<Self, FormatError> {
        const KEYS: [&str; 8] = [
            "peft_type",
            "r",
            "lora_alpha",
            "use_rslora",
            "bias",
            "init_lora_weights",
            "rank_pattern",
            "alpha_pattern",
        ];
        let known: Vec<&str> = KEYS.into_iter().chain(REFUSED.iter().map(|(key, _)| *key)).collect();
        let map = json::parse(file, json, &known)?;
        let top = Section::new(file, &map);
        check_kind(&top)?;
        for key in ["r", "lora_alpha"] {
            if top.given(key).is_none() {
                return Err(top.missing(key));
            }
        }
        let [ranks, alphas] = patterns(&top, file, json)?;
        for (key, rank) in &ranks {
            whole_rank(*rank).map_err(|why| top.corrupt("rank_pattern", format!("\"{key}\" {why}")))?;
        }
        Ok(Self {
            rank: top.size("r", 0, RANK_LIMIT)?,
            alpha: top.number("lora_alpha")?.ok_or_else(|| top.missing("lora_alpha"))?,
            scaling: if top.flag("use_rslora")? == Some(true) { Scaling::Root } else { Scaling::Rank },
            ranks,
            alphas,
        })
    }

    /// Pairs the tensors of `file`, each with its module and what the config says of it.
    ///
    /// # Errors
    /// As [`Lora::open`].
    pub fn maps(&self, file: &Path, tensors: Vec<Tensor>) -> Result<BTreeMap<String, LowRank>, FormatError> {
        let mut halves: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        for tensor in tensors {
            let (module, half) = place(&tensor.name).ok_or_else(|| {
                let why = "is neither lora_A.weight nor lora_B.weight of a linear map, and nothing else is supported: \
                           train with target_modules that name linear maps, without modules_to_save and biases";
                FormatError::unsupported(file, &tensor.name, why)
            })?;
            check(file, &tensor)?;
            let pair = halves.entry(module.to_owned()).or_default();
            pair[half] = Some(tensor);
        }
        if halves.is_empty() {
            return Err(FormatError::corrupt(file, "tensors", "there are none: the adapter changes nothing"));
        }
        let mut maps = BTreeMap::new();
        for (module, pair) in halves {
            let name = |half| half_name(&module, half);
            let map = match pair {
                [Some(a), Some(b)] => self.low_rank(file, &module, a, b)?,
                [None, _] => return Err(FormatError::missing(file, &name('A'))),
                [_, None] => return Err(FormatError::missing(file, &name('B'))),
            };
            maps.insert(module, map);
        }
        Ok(maps)
    }

    fn low_rank(&self, file: &Path, module: &str, a: Tensor, b: Tensor) -> Result<LowRank, FormatError> {
        let rank = match first_match(&self.ranks, module) {
            // Checked when the config was read.
            Some(rank) => whole_rank(rank).map_err(|why| FormatError::corrupt(file, module, why))?,
            None => self.rank,
        };
        for (tensor, axis, of) in [(&a, 0, "rows"), (&b, 1, "columns")] {
            let got = tensor.shape.get(axis).copied().unwrap_or(0);
            if got != rank {
                let why = format!("has {got} {of} in {:?}; {CONFIG} says rank {rank}", tensor.shape);
                return Err(FormatError::corrupt(file, &tensor.name, why));
            }
        }
        let alpha = first_match(&self.alphas, module).unwrap_or(f64::from(self.alpha));
        let divisor = match self.scaling {
            Scaling::Rank => rank as f64,
            Scaling::Root => (rank as f64).sqrt(),
        };
        Ok(LowRank { rank, scale: (alpha / divisor) as f32, a, b })
    }
}

/// Refuses what is no plain LoRA.
fn check_kind(top: &Section<'_>) -> Result<(), FormatError> {
    match top.text("peft_type")? {
        Some("LORA") => {}
        Some(other) => {
            return Err(top.unsupported("peft_type", format!("\"{other}\" is not supported; \"LORA\" is")));
        }
        None => return Err(top.missing("peft_type")),
    }
    if let Some(other) = top.text("bias")?.filter(|bias| *bias != "none") {
        return Err(top.unsupported("bias", format!("\"{other}\" is not supported; train with bias \"none\"")));
    }
    for (key, why) in REFUSED {
        let is_off = match top.given(key) {
            None | Some(Node::Bool(false)) => true,
            Some(Node::List(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !is_off {
            return Err(top.unsupported(key, why));
        }
    }
    if let Some(Node::Text(way)) = top.given("init_lora_weights")
        && CHANGED_BASE.iter().any(|changed| way.to_ascii_lowercase().starts_with(changed))
    {
        let why = format!(
            "\"{way}\" changed the weights of the base model, which the adapter alone does not hold; save it converted to \
             plain LoRA (path_initial_model_for_weight_conversion)"
        );
        return Err(top.unsupported("init_lora_weights", why));
    }
    Ok(())
}

/// `rank_pattern` and `alpha_pattern`, in the file's order: PEFT takes the first entry that fits.
fn patterns(top: &Section<'_>, file: &Path, json: &[u8]) -> Result<[Vec<(String, f64)>; 2], FormatError> {
    #[derive(Deserialize)]
    struct Patterns {
        rank_pattern: Option<Ordered>,
        alpha_pattern: Option<Ordered>,
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        // Says which of the two is no object.
        top.section(key)?;
    }
    let read: Result<Patterns, _> = serde_json::from_slice(json);
    let read = read.map_err(|e| FormatError::corrupt(file, "rank_pattern, alpha_pattern", e.to_string()))?;
    let all = [("rank_pattern", read.rank_pattern), ("alpha_pattern", read.alpha_pattern)];
    for (key, list) in &all {
        for (pattern, _) in list.iter().flat_map(|list| &list.0) {
            if !pattern.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
                let pattern = clip(pattern);
                let why = format!("\"{pattern}\" is a regular expression; ends of modules' names are supported");
                return Err(top.unsupported(key, why));
            }
        }
    }
    Ok(all.map(|(_, list)| list.map(|list| list.0).unwrap_or_default()))
}

/// A table in the order of its file.
struct Ordered(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let (mut list, mut n_bytes) = (Vec::new(), 0usize);
                while let Some((key, value)) = map.next_entry::<String, f64>()? {
                    n_bytes = n_bytes.saturating_add(key.len());
                    if list.len() >= PATTERNS_LIMIT || n_bytes > PATTERNS_LIMIT_BYTES {
                        return Err(A::Error::custom("a pattern table has too many entries"));
                    }
                    if !(value as f32).is_finite() {
                        return Err(A::Error::custom(format!("{value} is too large")));
                    }
                    list.push((key, value));
                }
                Ok(Ordered(list))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// The value of the first pattern that is `module`, or its end after a dot.
fn first_match(patterns: &[(String, f64)], module: &str) -> Option<f64> {
    let fits =
        |pattern: &str| module.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    patterns.iter().find(|(pattern, _)| fits(pattern)).map(|(_, value)| *value)
}

/// A rank that stands in a table of numbers.
fn whole_rank(rank: f64) -> Result<usize, String> {
    let whole = (rank.fract() == 0.0 && rank >= 1.0).then(|| format!("{rank:.0}").parse().ok()).flatten();
    whole.filter(|rank| *rank <= RANK_LIMIT).ok_or_else(|| format!("is {rank}; a rank is from 1 to {RANK_LIMIT}"))
}

/// The module that a tensor belongs to, and which half of the pair it is.
fn place(name: &str) -> Option<(&str, usize)> {
    let rest = name.strip_prefix(ROOT)?;
    let halves = [".lora_A.weight", ".lora_B.weight"].iter().enumerate();
    let mut found = halves.filter_map(|(half, end)| Some((rest.strip_suffix(end)?, half)));
    found.next().filter(|(module, _)| !module.is_empty())
}

/// Refuses a half that is no matrix of numbers.
fn check(file: &Path, tensor: &Tensor) -> Result<(), FormatError> {
    let Tensor { name, dtype, shape, .. } = tensor;
    if !matches!(dtype, DType::Weight(_)) {
        let why = format!("is stored as {}; F32, F16 and BF16 are supported", dtype.name());
        return Err(FormatError::unsupported(file, name, why));
    }
    match shape.as_slice() {
        [n_out, n_in] if *n_out > 0 && *n_in > 0 => Ok(()),
        _ => {
            Err(FormatError::corrupt(file, name, format!("has the shape {shape:?}; a half of an adapter is a matrix")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Result<LoraConfig, FormatError> {
        let json = format!(r#"{{"peft_type":"LORA","r":8,"lora_alpha":16{more}}}"#);
        LoraConfig::parse(Path::new(CONFIG), json.as_bytes())
    }

    /// The scale of a module of rank `rank`.
    fn scale(config: &LoraConfig, module: &str, rank: usize) -> Result<f32, FormatError> {
        let half = |half: &str, shape: [usize; 2]| Tensor {
            name: format!("{ROOT}{module}.lora_{half}.weight"),
            dtype: DType::Weight(tensor::Format::F32),
            shape: shape.to_vec(),
            bytes: Vec::new().into(),
        };
        let maps = config.maps(Path::new(WEIGHTS), vec![half("A", [rank, 3]), half("B", [5, rank])])?;
        Ok(maps.get(module).unwrap().scale)
    }

    #[test]
    fn alpha_is_divided_by_the_rank_or_its_root() {
        assert_eq!(scale(&config("").unwrap(), "model.q_proj", 8).unwrap(), 2.0);
        let rooted = config(r#","use_rslora":true"#).unwrap();
        assert_eq!(scale(&rooted, "model.q_proj", 8).unwrap(), (16.0 / 8f64.sqrt()) as f32);
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let patterns =
            r#","rank_pattern":{"layers.1.q_proj":2,"q_proj":4},"alpha_pattern":{"q_proj":1,"layers.1.q_proj":3}"#;
        let config = config(patterns).unwrap();
        for (module, rank, want) in [
            ("model.layers.1.q_proj", 2, 0.5),
            ("model.layers.0.q_proj", 4, 0.25),
            // A pattern fits whole names only.
            ("model.layers.11.q_proj", 4, 0.25),
            ("model.layers.1.xq_proj", 8, 2.0),
        ] {
            assert_eq!(scale(&config, module, rank).unwrap(), want, "{module}");
        }
        let refused = scale(&config, "model.layers.1.q_proj", 4).unwrap_err().to_string();
        assert!(refused.contains("model.layers.1.q_proj.lora_A.weight") && refused.contains("rank 2"), "{refused}");
    }

    #[test]
    fn what_is_off_is_read_and_what_is_on_is_refused_by_name() {
        let off = r#","bias":"none","modules_to_save":null,"target_parameters":[],"use_dora":false,"init_lora_weights":true,
            "target_modules":["q_proj"],"rank_pattern":{},"loftq_config":{}"#;
        assert_eq!(config(off).unwrap(), config("").unwrap());
        for (key, value) in [
            ("use_dora", "true"),
            ("bias", "\"all\""),
            ("modules_to_save", "[\"lm_head\"]"),
            ("target_parameters", "[\"feed_forward.experts.down_proj\"]"),
            ("trainable_token_indices", "{\"embed_tokens\":[1]}"),
            ("init_lora_weights", "\"pissa_niter_4\""),
            ("rank_pattern", "{\"model.*q_proj\":4}"),
        ] {
            let refused = config(&format!(",\"{key}\":{value}")).unwrap_err();
            assert!(matches!(refused, FormatError::Unsupported { .. }), "{refused}");
            assert_eq!(refused.field(), Some(key));
        }
        let other = LoraConfig::parse(Path::new(CONFIG), br#"{"peft_type":"IA3","r":8,"lora_alpha":1}"#).unwrap_err();
        assert_eq!(other.to_string(), "adapter_config.json: peft_type: \"IA3\" is not supported; \"LORA\" is");
    }
}
