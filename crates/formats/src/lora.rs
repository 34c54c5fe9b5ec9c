//! LoRA adapters as PEFT's `save_pretrained` writes them: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! What is added to the output of a linear map is scale · ((x · Aᵀ) · Bᵀ). Rules of the config, the scale's and the
//! patterns' among them, are those of PEFT 0.17 (`LoraConfig`, `LoraLayer.update_layer`, `get_pattern_key`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::json;
use tensor::Bytes;

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

/// The module of routed experts, and its parameters in the order in which PEFT wraps them, so that where both are adapted
/// the second one's wrapper holds the first one's as its base layer.
const EXPERTS: &str = ".experts";
const PARAMETERS: [&str; 2] = ["gate_up_proj", "down_proj"];
const BASE_LAYER: &str = ".base_layer";

/// Before every module's path.
const ROOT: &str = "base_model.model.";

/// The name in the file of half `half`, A or B, of what is added beside `module`.
pub fn half_name(module: &str, half: char) -> String {
    format!("{ROOT}{module}.lora_{half}.weight")
}

/// What changes what an adapter means, and has to be off: the key, and what is there instead.
const REFUSED: [(&str, &str); 10] = [
    ("use_dora", "DoRA is not supported; train with use_dora false"),
    ("use_qalora", "QALoRA is not supported; train with use_qalora false"),
    ("use_bdlora", "BD-LoRA is not supported; train with use_bdlora false"),
    ("lora_bias", "biases of adapters are not supported; train with lora_bias false"),
    ("fan_in_fan_out", "maps stored input by output are not supported; the models read here have none"),
    ("modules_to_save", "whole modules beside an adapter are not supported; train without modules_to_save"),
    ("layer_replication", "repeated layers are not supported; train without layer_replication"),
    ("trainable_token_indices", "trained token embeddings are not supported; train without trainable_token_indices"),
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
    /// `model.layers.0.self_attn.q_proj`; of routed experts, by that of the parameter, such as
    /// `model.layers.0.feed_forward.experts.down_proj`. At least one.
    pub maps: BTreeMap<String, LowRank>,
}

/// What is added to one linear map: scale · ((x · Aᵀ) · Bᵀ).
///
/// To those of [routed experts](is_routed), whose weights Llama 4 stores input by output, PEFT adds B · A as it stands
/// there: expert e gives scale · ((x · Bₑᵀ) · Aₑ).
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Outputs of A and inputs of B; from 1 on. Each expert has as many.
    pub rank: usize,
    /// What the product is multiplied by; finite.
    pub scale: f32,
    /// `[rank, inputs]`, under its name. Of routed experts `[experts · rank, outputs]`, one after another.
    pub a: Tensor,
    /// `[outputs, rank]`, under its name. Of routed experts `[experts · rank, inputs]`, one after another, which is not how
    /// it lies in the file.
    pub b: Tensor,
}

/// Whether `module` is a parameter of routed experts.
pub fn is_routed(module: &str) -> bool {
    let before = PARAMETERS.iter().find_map(|parameter| module.strip_suffix(parameter)?.strip_suffix('.'));
    before.is_some_and(|before| before.ends_with(EXPERTS))
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
    /// settings, each durable before it has its name. `base` is what the adapted model is called; `targets` are modules and
    /// parameters, or ends of their names, that are adapted in it and no others.
    ///
    /// # Errors
    /// [`FormatError::Io`]; [`FormatError::Unsupported`] for tensors that can not be stored.
    pub fn write(&self, folder: &Path, base: &str, targets: &[String]) -> Result<(), FormatError> {
        let halves: Vec<Tensor> = self.maps.iter().flat_map(|(module, map)| self.in_file(module, map)).collect();
        let halves = halves.iter();
        let tensors: Vec<NewTensor<'_>> =
            halves.map(|t| NewTensor { name: &t.name, dtype: t.dtype, shape: &t.shape, bytes: &t.bytes }).collect();
        safetensors::write(&folder.join(WEIGHTS), &tensors)?;
        let config = format!("{:#}\n", self.settings(base, targets));
        atomic::write(&folder.join(CONFIG), |out| out.write(config.as_bytes()))
    }

    /// Both halves as they are in the file.
    fn in_file(&self, module: &str, map: &LowRank) -> [Tensor; 2] {
        let LowRank { rank, a, b, .. } = map;
        let Some((experts, parameter)) = module.rsplit_once('.').filter(|_| is_routed(module)) else {
            return [a.clone(), b.clone()];
        };
        // Who is wrapped by the other's wrapper.
        let is_inner = parameter == PARAMETERS[0] && self.maps.contains_key(&format!("{experts}.{}", PARAMETERS[1]));
        let module = format!("{experts}{}", if is_inner { BASE_LAYER } else { "" });
        let n_experts = a.shape[0] / rank;
        let [n_rows, n_columns] = [b.shape[0], b.shape[1]];
        // From [experts, rank, inputs] to [inputs, rank, experts].
        let from = |i: usize| (i % n_experts * rank + i / n_experts % rank) * n_columns + i / n_rows;
        let b = Tensor {
            name: half_name(&module, 'B'),
            shape: vec![n_columns, n_rows],
            bytes: moved(b, from),
            ..b.clone()
        };
        [Tensor { name: half_name(&module, 'A'), ..a.clone() }, b]
    }

    /// What stands in `adapter_config.json`. Ranks and scales that are not the first map's are named one by one.
    fn settings(&self, base: &str, targets: &[String]) -> serde_json::Value {
        let alpha = |map: &LowRank| f64::from(map.scale) * map.rank as f64;
        let is_parameter = |target: &&String| is_routed(&format!(".{target}"));
        let (parameters, modules): (Vec<&String>, Vec<&String>) = targets.iter().partition(is_parameter);
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
            "target_modules": modules, "target_parameters": parameters, "exclude_modules": null,
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
    /// Ends of the names of parameters that are adapted.
    parameters: Vec<String>,
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
        const KEYS: [&str; 9] = [
            "peft_type",
            "r",
            "lora_alpha",
            "use_rslora",
            "bias",
            "init_lora_weights",
            "rank_pattern",
            "alpha_pattern",
            "target_parameters",
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
            parameters: parameters(&top)?,
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
            let (a, b) = match pair {
                [Some(a), Some(b)] => (a, b),
                [None, _] => return Err(FormatError::missing(file, &name('A'))),
                [_, None] => return Err(FormatError::missing(file, &name('B'))),
            };
            let parameter = self.parameter(&module);
            let of = parameter.as_ref().unwrap_or(&module);
            let map = self.low_rank(file, of, a, b)?;
            maps.insert(of.clone(), map);
        }
        Ok(maps)
    }

    /// The parameter that the wrapper `module` adapts; `None` for one of a linear map.
    fn parameter(&self, module: &str) -> Option<String> {
        let inner = module.strip_suffix(BASE_LAYER);
        let experts = inner.unwrap_or(module);
        let is_adapted = |parameter: &&String| {
            let ends = |target: &String| parameter.strip_suffix(target.as_str()).is_some_and(is_begin);
            self.parameters.iter().any(ends)
        };
        let all = PARAMETERS.map(|parameter| format!("{experts}.{parameter}"));
        let mut adapted = all.iter().filter(is_adapted);
        let found = if inner.is_some() { adapted.next() } else { adapted.next_back() };
        found.filter(|_| experts.ends_with(EXPERTS)).cloned()
    }

    fn low_rank(&self, file: &Path, module: &str, a: Tensor, b: Tensor) -> Result<LowRank, FormatError> {
        let rank = match first_match(&self.ranks, module) {
            // Checked when the config was read.
            Some(rank) => whole_rank(rank).map_err(|why| FormatError::corrupt(file, module, why))?,
            None => self.rank,
        };
        let is_routed = is_routed(module);
        let (n_rows, n_columns) = (a.shape[0], b.shape[1]);
        for (tensor, got, of) in [(&a, n_rows, "rows"), (&b, n_columns, "columns")] {
            let is_right = if is_routed { got.is_multiple_of(rank) && got == n_rows } else { got == rank };
            if !is_right {
                let each = if is_routed { " for each expert" } else { "" };
                let why = format!("has {got} {of} in {:?}; {CONFIG} says rank {rank}{each}", tensor.shape);
                return Err(FormatError::corrupt(file, &tensor.name, why));
            }
        }
        let (a, b) = if is_routed { one_after_another(module, (a, b), rank) } else { (a, b) };
        let alpha = first_match(&self.alphas, module).unwrap_or(f64::from(self.alpha));
        let divisor = match self.scaling {
            Scaling::Rank => rank as f64,
            Scaling::Root => (rank as f64).sqrt(),
        };
        Ok(LowRank { rank, scale: (alpha / divisor) as f32, a, b })
    }
}

/// The halves of routed experts' additions as [`LowRank`] has them.
fn one_after_another(module: &str, (a, b): (Tensor, Tensor), rank: usize) -> (Tensor, Tensor) {
    let n_experts = a.shape[0] / rank;
    let [n_rows, n_columns] = [b.shape[0], b.shape[1]];
    // From [inputs, rank, experts] to [experts, rank, inputs].
    let from = |i: usize| i % n_rows * n_columns + i / n_rows % rank * n_experts + i / (n_rows * rank);
    let bytes = moved(&b, from);
    let b = Tensor { name: half_name(module, 'B'), shape: vec![n_columns, n_rows], bytes, ..b };
    (Tensor { name: half_name(module, 'A'), ..a }, b)
}

/// The bytes of the numbers of `tensor`, of which the one at `i` was at `from(i)`.
fn moved(tensor: &Tensor, from: impl Fn(usize) -> usize) -> Bytes {
    let n = tensor.n_values();
    let size = tensor.bytes.len().checked_div(n).unwrap_or(0);
    let number = |i| &tensor.bytes[from(i) * size..][..size];
    (0..n).flat_map(number).copied().collect::<Vec<u8>>().into()
}

/// The parameters that are adapted: of routed experts, and of nothing else.
fn parameters(top: &Section<'_>) -> Result<Vec<String>, FormatError> {
    let key = "target_parameters";
    let Some(Node::List(list)) = top.given(key) else {
        return match top.given(key) {
            None => Ok(Vec::new()),
            Some(_) => Err(top.corrupt(key, "is no list of names")),
        };
    };
    let name = |node: &Node| match node {
        Node::Text(name) if is_named_routed(name) => Ok(name.clone()),
        Node::Text(name) => {
            let why = format!("\"{}\" is not supported; of bare parameters those of routed experts are", clip(name));
            Err(top.unsupported(key, why))
        }
        _ => Err(top.corrupt(key, "is no list of names")),
    };
    list.iter().map(name).collect()
}

/// Whether `target` is a parameter of routed experts, or the end of its name.
fn is_named_routed(target: &str) -> bool {
    PARAMETERS.contains(&target) || is_routed(&format!(".{target}"))
}

/// Whether a name may end behind `before`.
fn is_begin(before: &str) -> bool {
    before.is_empty() || before.ends_with('.')
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
    let fits = |pattern: &str| module.strip_suffix(pattern).is_some_and(is_begin);
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
    fn wrappers_are_of_the_parameters_that_are_adapted() {
        let experts = "model.layers.1.feed_forward.experts";
        let (both, down) =
            (r#"["experts.gate_up_proj","down_proj"]"#, r#"["layers.1.feed_forward.experts.down_proj"]"#);
        for (list, module, want) in [
            (both, format!("{experts}.base_layer"), Some("gate_up_proj")),
            (both, experts.into(), Some("down_proj")),
            (down, experts.into(), Some("down_proj")),
            (down, "model.layers.11.feed_forward.experts".into(), None),
            (both, "model.layers.1.feed_forward.shared_expert".into(), None),
            ("[]", experts.into(), None),
        ] {
            let config = config(&format!(r#","target_parameters":{list}"#)).unwrap();
            let want = want.map(|parameter| format!("{experts}.{parameter}"));
            assert_eq!(config.parameter(&module), want, "{list} {module}");
        }
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
            ("target_parameters", "[\"feed_forward.experts.down_proj\", \"lm_head.weight\"]"),
            ("target_parameters", "[\"my_experts.down_proj\"]"),
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
