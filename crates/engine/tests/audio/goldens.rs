//! Features, filters, resampling and lengths against independent implementations.
//!
//! The repository's own file is from `scripts/make_audio_goldens.py`; `PUNA_AUDIO_GOLDENS` may name a folder with the
//! specification's.

use std::num::NonZero;

use engine::media::audio::{AudioShape, Features, MelSettings, PadTo, PaddingMode, Resampler};

use crate::tensors::{Tensor, Tensors};
use crate::{file, largest_difference, log_mel};

/// f32 results against f64 ones: the logarithm, at most 10, and the result are each rounded once.
const EXACT: f64 = 1e-6;
/// Against a library that computes in f32 on the way; the specification's bound.
const LIBRARY: f64 = 2e-4;

fn own() -> Tensors {
    Tensors::parse(&file("golden.safetensors"))
}

/// Columns of `features` as far as `want` goes, silence included.
fn columns(features: &Features, want: &Tensor) -> Vec<f64> {
    let [n_mels, n_columns] = want.shape[..] else { panic!("{:?}", want.shape) };
    let values = features.values();
    let row = |mel: usize| &values[mel * features.n_frames()..][..features.n_frames()];
    let value = |mel: usize, t: usize| row(mel).get(t).copied().unwrap_or(features.silence());
    (0..n_mels).flat_map(|mel| (0..n_columns).map(move |t| f64::from(value(mel, t)))).collect()
}

fn check(tensors: &Tensors, wave: &str, name: &str, settings: MelSettings, tolerance: f64) {
    let want = tensors.get(name);
    let features = log_mel(settings).features(&tensors.samples(wave));
    let largest = largest_difference(columns(&features, want), want.values.iter().copied());
    println!("{name}: {} values, largest difference {largest:.2e}", want.values.len());
    assert!(largest <= tolerance, "{name}: {largest:e}");
}

fn settings(n_mels: usize, chunk_frames: usize) -> MelSettings {
    MelSettings { n_mels, chunk_frames, ..MelSettings::default() }
}

#[test]
fn audio_features_are_the_formulas() {
    let tensors = own();
    for (wave, n_mels) in [("a", 80), ("a", 128), ("b", 80), ("c", 80), ("zero", 80)] {
        let name = format!("mel/{wave}/chunk{n_mels}");
        check(&tensors, &format!("wave/{wave}"), &name, settings(n_mels, 100), EXACT);
    }
    check(&tensors, "wave/a", "mel/a/chunk128/library", settings(128, 100), LIBRARY);
    let hop = MelSettings { pad_to: PadTo::Hop, ..settings(80, 100) };
    check(&tensors, "wave/a", "mel/a/hop80", hop, EXACT);
    check(&tensors, "wave/b", "mel/b/hop80", hop, EXACT);
    check(&tensors, "wave/a", "mel/a/fixed80", MelSettings { log_mel_max: Some(1.5), ..hop }, EXACT);
}

#[test]
fn audio_filters_are_the_formulas() {
    let tensors = own();
    for n_mels in [1, 2, 13, 80, 128] {
        let weights = log_mel(settings(n_mels, 100)).filters();
        let want = &tensors.get(&format!("filters/{n_mels}")).values;
        let largest = largest_difference(weights.into_iter().filter(|weight| *weight > 1e-12), want.iter().copied());
        println!("{n_mels} bins: {} weights, largest difference {largest:.2e}", want.len());
        // Weights are at most 2/40; their edges' 16 digits are good to some 10⁻¹².
        assert!(largest < 1e-14, "{n_mels}: {largest:e}");
    }
}

fn resampled(samples: &[f32], rate_hz: u32) -> Vec<f32> {
    let mut resampler = Resampler::new(rate_hz).unwrap();
    let wide: Vec<f64> = samples.iter().map(|sample| f64::from(*sample)).collect();
    let mut out = Vec::new();
    resampler.push(&wide, &mut out);
    resampler.finish(&mut out);
    assert_eq!(out.len() as u64, resampler.n_out(samples.len() as u64));
    out
}

fn check_resampling(tensors: &Tensors, tolerance: f64) {
    let rates = tensors.names().filter_map(|name| name.strip_prefix("resample/")?.strip_suffix("/in"));
    let rates: Vec<u32> = rates.map(|rate| rate.parse().unwrap()).collect();
    assert!(rates.len() >= 4);
    for rate in rates {
        let got = resampled(&tensors.samples(&format!("resample/{rate}/in")), rate);
        let want = &tensors.get(&format!("resample/{rate}/out")).values;
        let largest = largest_difference(got.iter().map(|sample| f64::from(*sample)), want.iter().copied());
        println!("{rate} Hz: {} samples, largest difference {largest:.2e}", want.len());
        assert!(largest <= tolerance, "{rate}: {largest:e}");
    }
}

#[test]
fn audio_resampling_is_the_formula() {
    // Both are f64 sums rounded to f32 once.
    check_resampling(&own(), f64::from(f32::EPSILON));
}

fn shape(stack: u64, padding: PaddingMode) -> AudioShape {
    let count = |n| NonZero::new(n).unwrap();
    AudioShape { chunk_frames: count(3000), stack: count(stack), padding, block: None }
}

#[test]
fn audio_costs_what_the_table_says() {
    let tensors = own();
    let rows = tensors.get("lengths").values.chunks(6).map(|row| row.iter().map(|x| *x as u64).collect::<Vec<_>>());
    let mut n_rows = 0;
    for row in rows {
        let [n, stack, mode, mel, frames, tokens] = row[..] else { panic!("{row:?}") };
        let shape = shape(stack, if mode == 0 { PaddingMode::Valid } else { PaddingMode::Chunk });
        let got = shape.clip(n);
        assert_eq!([got.mel_frames, got.encoder_frames, got.tokens], [mel, frames, tokens], "{n}");
        let parts: Vec<_> = shape.chunks(n).collect();
        assert_eq!(parts.len() as u64, shape.n_chunks(n));
        assert_eq!(parts.iter().map(|part| part.tokens).sum::<u64>(), tokens, "{n}");
        n_rows += 1;
    }
    println!("{n_rows} rows");
    assert!(n_rows > 50);
    assert_eq!(shape(4, PaddingMode::Valid).clip(0), Default::default());
    assert_eq!(shape(4, PaddingMode::Valid).clip(u64::MAX).mel_frames, u64::MAX / 160 + 1);
}

/// The specification's own files, where the variable says that they are.
#[test]
fn audio_agrees_with_the_specifications_files() {
    let Some(folder) = std::env::var_os("PUNA_AUDIO_GOLDENS") else {
        println!("NOT RUN: PUNA_AUDIO_GOLDENS names no folder");
        return;
    };
    let read = |name: &str| std::fs::read(std::path::Path::new(&folder).join(name)).unwrap();
    let tensors = Tensors::parse(&read("features.safetensors"));
    for n_mels in [80, 128] {
        let want = tensors.get(&format!("filters/mel{n_mels}"));
        let got = log_mel(settings(n_mels, 3000)).filters();
        let largest = largest_difference(got, want.values.iter().copied());
        println!("filters/mel{n_mels}: largest difference {largest:.2e}");
        assert!(largest <= 1e-8);
        let name = format!("mel/a/max_length/{n_mels}");
        check(&tensors, "wave/a", &format!("{name}/f64"), settings(n_mels, 3000), EXACT);
        check(&tensors, "wave/a", &name, settings(n_mels, 3000), LIBRARY);
    }
    let hop = MelSettings { pad_to: PadTo::Hop, ..MelSettings::default() };
    check(&tensors, "wave/a", "mel/a/longest/128", hop, LIBRARY);
    for wave in ["b", "c", "zeros", "s"] {
        let name = format!("mel/{wave}/max_length2s/128");
        check(&tensors, &format!("wave/{wave}"), &name, settings(128, 200), LIBRARY);
    }
    check_chunks(&tensors);
    check_fixed(&tensors);
    check_resampling(&tensors, 1e-5);
    check_lengths(&serde_json::from_slice(&read("lengths.json")).unwrap());
}

fn check_chunks(tensors: &Tensors) {
    let want = tensors.get("mel/a/chunks2s/128");
    let features = log_mel(settings(128, 200)).features(&tensors.samples("wave/a"));
    let got: Vec<_> = features.chunks().collect();
    assert_eq!(got.iter().map(|chunk| chunk.n_valid).collect::<Vec<_>>(), [200, 138]);
    let values = got.iter().flat_map(|chunk| chunk.values.iter().map(|value| f64::from(*value)));
    let largest = largest_difference(values, want.values.iter().copied());
    println!("mel/a/chunks2s/128: largest difference {largest:.2e}");
    assert!(largest <= LIBRARY);
}

/// Without any padding: as many frames as the samples fill, the last window mirrored at the last sample. What reaches
/// behind it differs, so the comparison ends before.
fn check_fixed(tensors: &Tensors) {
    let want = tensors.get("mel/a/fixed_max/128");
    let n_compared = want.shape[1] - 1;
    let settings = MelSettings { log_mel_max: Some(1.5), pad_to: PadTo::Hop, ..MelSettings::default() };
    let features = log_mel(settings).features(&tensors.samples("wave/a"));
    let mel_rows = |values: &[f64], n: usize| -> Vec<f64> {
        values.chunks(n).flat_map(|row| row[..n_compared].to_vec()).collect()
    };
    let got: Vec<f64> = features.values().iter().map(|value| f64::from(*value)).collect();
    let (got, want) = (mel_rows(&got, features.n_frames()), mel_rows(&want.values, want.shape[1]));
    let largest = largest_difference(got, want);
    println!("mel/a/fixed_max/128: {n_compared} columns, largest difference {largest:.2e}");
    assert!(largest <= LIBRARY);
}

fn check_lengths(table: &serde_json::Value) {
    let rows = table.as_array().unwrap();
    for row in rows {
        let n = row["samples"].as_u64().unwrap();
        for stack in [4, 8] {
            let shape = shape(stack, PaddingMode::Valid);
            let list = |part: fn(engine::media::audio::AudioCost) -> u64| shape.chunks(n).map(part).collect::<Vec<_>>();
            let (frames, encoder, tokens) = (list(|c| c.mel_frames), list(|c| c.encoder_frames), list(|c| c.tokens));
            let tokens_name = format!("tokens_stack{stack}");
            for (name, got) in [("chunk_mel_frames", frames), ("encoder_frames", encoder), (&tokens_name, tokens)] {
                assert_eq!(serde_json::json!(got), row[name], "{n} {name}");
            }
            assert_eq!(shape.clip(n).mel_frames, row["mel_frames"].as_u64().unwrap(), "{n}");
            assert_eq!(shape.clip(n).tokens, row[format!("total_stack{stack}")].as_u64().unwrap(), "{n}");
        }
        assert_eq!(shape(4, PaddingMode::Chunk).clip(n).tokens, row["voxtral_padded_tokens"].as_u64().unwrap(), "{n}");
    }
    println!("lengths.json: {} rows", rows.len());
    assert!(!rows.is_empty());
}
