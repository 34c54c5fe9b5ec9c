//! Adapters to train: fresh ones, and what PEFT calls the maps that they adapt.

use std::collections::{BTreeMap, BTreeSet};

use formats::config::ModelConfig;
use formats::{DType, Lora, LowRank, Tensor, half_name, is_routed};
use llama::{Adaptable, adaptable};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tensor::Format;

use crate::TrainError;

/// What a fresh adapter is like.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSettings {
    /// Outputs of A and inputs of B.
    pub rank: usize,
    /// What is added is multiplied by alpha / rank.
    pub alpha: f64,
    /// Modules that are adapted, or ends of their names behind a dot, as PEFT's `target_modules`; if empty attention, dense
    /// feed-forwards and shared experts. Routed experts are adapted where they are named, by the names of their parameters
    /// (PEFT's `target_parameters`).
    pub targets: Vec<String>,
    /// Decides A.
    pub seed: u64,
}

/// An adapter that adds nothing yet: A is uniform between ±inputs^−½, which is PEFT's default (Kaiming's, with a = √5), and
/// B is 0. The same seed gives the same bits everywhere.
///
/// # Errors
/// [`TrainError::Lora`] for a rank of 0, an alpha that is no number above 0, or a target that no map has.
pub fn fresh(config: &ModelConfig, settings: &LoraSettings) -> Result<Lora, TrainError> {
    let LoraSettings { rank, alpha, ref targets, seed } = *settings;
    let scale = (alpha / rank as f64) as f32;
    if rank == 0 || !scale.is_finite() || scale <= 0.0 {
        let why = format!("rank {rank} and alpha {alpha} make none; both are above 0");
        return Err(TrainError::Lora { why });
    }
    let all = adaptable(config);
    if let Some(target) = targets.iter().find(|target| !all.iter().any(|map| is_named(&map.module, target))) {
        let ends: BTreeSet<&str> = all.iter().map(|map| end_of(&map.module)).collect();
        let known = ends.into_iter().collect::<Vec<_>>().join(", ");
        return Err(TrainError::Lora {
            why: format!("no map that can be adapted is called \"{target}\"; there are {known}"),
        });
    }
    let is_target = |map: &Adaptable| match targets.is_empty() {
        true => map.n_experts.is_none(),
        false => targets.iter().any(|target| is_named(&map.module, target)),
    };
    let chosen = (0..).zip(all).filter(|(_, map)| is_target(map));
    let maps = chosen.map(|(stream, map)| {
        let Adaptable { module, n_out, n_in, n_experts } = map;
        let half = |half, shape: [usize; 2], values: Vec<f32>| Tensor {
            name: half_name(&module, half),
            dtype: DType::Weight(Format::F32),
            shape: shape.to_vec(),
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
        };
        let ([n_rows, n_columns], b) = match n_experts {
            None => ([rank, n_in], [n_out, rank]),
            Some(n_experts) => ([n_experts * rank, n_out], [n_experts * rank, n_in]),
        };
        let a = half('A', [n_rows, n_columns], uniform(n_rows * n_columns, n_columns, (seed, stream)));
        let b = half('B', b, vec![0.0; b[0] * b[1]]);
        (module.clone(), LowRank { rank, scale, a, b })
    });
    Ok(Lora { path: "a fresh adapter".into(), maps: maps.collect() })
}

/// The shortest list of modules and parameters, or ends of their names, that tells PEFT which of a model's maps `lora`
/// adapts.
///
/// A tower's maps may be called like the decoder's, so models with one get whole names.
pub fn targets(config: &ModelConfig, lora: &Lora) -> Vec<String> {
    let mut by_end: BTreeMap<String, bool> = BTreeMap::new();
    for map in adaptable(config) {
        let is_adapted = lora.maps.contains_key(&map.module);
        *by_end.entry(end_of(&map.module).to_owned()).or_insert(true) &= is_adapted;
    }
    let is_whole = |module: &String| by_end.get(end_of(module)) == Some(&true);
    if config.vision.is_none() && config.audio.is_none() && lora.maps.keys().all(is_whole) {
        return by_end.into_iter().filter(|(_, is_whole)| *is_whole).map(|(end, _)| end).collect();
    }
    lora.maps.keys().cloned().collect()
}

/// PEFT's rule for `target_modules`.
fn is_named(module: &str, target: &str) -> bool {
    let before = module.strip_suffix(target);
    !target.is_empty() && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The last part of a module's name; the last two of a parameter of routed experts, whose last one may be that of modules.
fn end_of(module: &str) -> &str {
    let last = module.rfind('.').unwrap_or(0);
    let begin = if is_routed(module) { module[..last].rfind('.').unwrap_or(0) } else { last };
    module[begin..].trim_start_matches('.')
}

/// `n` numbers between ±`n_in`^−½.
fn uniform(n: usize, n_in: usize, (seed, stream): (u64, u64)) -> Vec<f32> {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    draw.set_stream(stream);
    let bound = (n_in.max(1) as f64).sqrt().recip();
    let mut next = || (f64::from(draw.next_u32()) + 0.5) / 2_147_483_648.0 - 1.0;
    (0..n).map(|_| (bound * next()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_or_their_ends() {
        for (target, is) in
            [("q_proj", true), ("self_attn.q_proj", true), ("proj", false), ("", false), ("k_proj", false)]
        {
            assert_eq!(is_named("model.layers.0.self_attn.q_proj", target), is, "{target}");
        }
    }

    #[test]
    fn fresh_numbers_fill_their_range_and_no_more() {
        let values = uniform(10_000, 64, (7, 3));
        let bound = 1.0 / 8.0;
        assert!(values.iter().all(|x| x.abs() <= bound));
        // Deviation of the mean: bound / √3 / √n = 7e-4. Of the mean square, bound² / 3 · √(4/5) / √n = 5e-5.
        let mean = values.iter().sum::<f32>() / 1e4;
        let square = values.iter().map(|x| x * x).sum::<f32>() / 1e4;
        assert!(mean.abs() < 4.0 * 7e-4 && (square - bound * bound / 3.0).abs() < 4.0 * 5e-5, "{mean} {square}");
        assert_ne!(uniform(4, 64, (7, 4)), values[..4]);
    }
}
