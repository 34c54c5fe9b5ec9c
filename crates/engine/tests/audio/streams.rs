//! Audio in pieces, and what the features' definition promises about them.

use std::sync::Arc;

use engine::Limits;
use engine::media::audio::{
    AudioError, ClipBuffer, Columns, Features, HOP, MelError, MelSettings, MelStream, PadTo, Pcm16Stream, Resampler,
};
use proptest::prelude::*;

use crate::{from_pcm, log_mel, noise};

fn fixed(pad_to: PadTo) -> MelSettings {
    MelSettings { n_mels: 20, chunk_frames: 50, log_mel_max: Some(1.5), pad_to }
}

/// Cuts `x` into pieces whose lengths are those of `sizes` again and again.
fn pieces<'a, T>(mut x: &'a [T], sizes: &'a [usize]) -> impl Iterator<Item = &'a [T]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let n = sizes.next().copied().unwrap_or(1).min(x.len());
        let (piece, rest) = x.split_at(n);
        x = rest;
        (!piece.is_empty() || !x.is_empty()).then_some(piece)
    })
}

/// Columns of features as a stream gives them.
fn transposed(features: &Features, n_mels: usize) -> Vec<f32> {
    let (n, values) = (features.n_frames(), &features.values());
    (0..n).flat_map(|t| (0..n_mels).map(move |mel| values[mel * n + t])).collect()
}

fn streamed(settings: MelSettings, samples: &[f32], sizes: &[usize]) -> (Vec<f32>, usize, f32) {
    let mut stream = MelStream::new(Arc::new(log_mel(settings)), &Limits::default()).unwrap();
    let mut out = Vec::new();
    let mut take = |columns: Columns| {
        assert_eq!(columns.first * settings.n_mels, out.len());
        out.extend(columns.values);
    };
    let mut n_pushed = 0;
    for piece in pieces(samples, sizes) {
        n_pushed += piece.len();
        let columns = stream.push(piece).unwrap();
        assert_eq!(stream.n_samples(), n_pushed);
        take(columns);
    }
    let end = stream.commit().unwrap();
    take(end.columns);
    assert_eq!(stream.n_samples(), 0, "ready for the next");
    (out, end.n_valid, end.silence)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn audio_in_any_pieces_gives_the_same_columns(
        n in 1usize..20_000, sizes in prop::collection::vec(1usize..3000, 1..6), hop: bool, seed: u32
    ) {
        let settings = fixed(if hop { PadTo::Hop } else { PadTo::Chunk });
        let samples = noise(n, seed);
        let whole = log_mel(settings).features(&samples);
        let (columns, n_valid, silence) = streamed(settings, &samples, &sizes);
        prop_assert_eq!(bits(&columns), bits(&transposed(&whole, settings.n_mels)));
        prop_assert_eq!((n_valid, silence.to_bits()), (whole.n_valid(), whole.silence().to_bits()));
    }

    #[test]
    fn audio_in_any_pieces_is_resampled_the_same(
        n in 1usize..6000, rate in 4000u32..60_000, sizes in prop::collection::vec(1usize..999, 1..6), seed: u32
    ) {
        let samples: Vec<f64> = noise(n, seed).into_iter().map(f64::from).collect();
        let resampled = |sizes: &[usize]| {
            let (mut resampler, mut out) = (Resampler::new(rate).unwrap(), Vec::new());
            for piece in pieces(&samples, sizes) {
                resampler.push(piece, &mut out);
            }
            resampler.finish(&mut out);
            out
        };
        let whole = resampled(&[n]);
        prop_assert_eq!(whole.len(), (n * 16_000).div_ceil(rate as usize));
        prop_assert_eq!(bits(&resampled(&sizes)), bits(&whole));
    }

    #[test]
    fn audio_bytes_may_come_one_by_one(
        bytes in prop::collection::vec(any::<u8>(), 2..2000), sizes in prop::collection::vec(1usize..99, 1..6)
    ) {
        for rate in [16_000, 24_000] {
            let mut stream = Pcm16Stream::new(rate, &Limits::default()).unwrap();
            for _ in 0..2 {
                let mut out: Vec<f32> = pieces(&bytes, &sizes).flat_map(|piece| stream.push(piece)).collect();
                out.extend(stream.finish());
                let whole = from_pcm(&bytes, rate).unwrap();
                prop_assert_eq!(&out, whole.samples());
            }
        }
    }

    #[test]
    fn zeros_behind_audio_in_its_chunk_change_nothing(n in 1usize..7999, more in 1usize..7999, seed: u32) {
        let settings = MelSettings { n_mels: 20, chunk_frames: 50, ..MelSettings::default() };
        let mel = log_mel(settings);
        let mut samples = noise(n, seed);
        let before: Vec<_> = mel.features(&samples).chunks().collect();
        samples.resize((n + more).min(50 * HOP), 0.0);
        let after: Vec<_> = mel.features(&samples).chunks().collect();
        prop_assert_eq!((before.len(), after.len()), (1, 1));
        prop_assert_eq!(bits(&before[0].values), bits(&after[0].values));
        prop_assert_eq!(after[0].n_valid, samples.len().div_ceil(HOP));
    }

    #[test]
    fn audio_twice_as_loud_is_a_constant_more(n in 1000usize..8000, seed: u32) {
        let settings = MelSettings { n_mels: 20, chunk_frames: 50, pad_to: PadTo::Hop, ..MelSettings::default() };
        let mel = log_mel(settings);
        let samples = noise(n, seed);
        let louder: Vec<f32> = samples.iter().map(|sample| 2.0 * sample).collect();
        let (quiet, loud) = (mel.features(&samples), mel.features(&louder));
        let step = 4f64.log10() / 4.0;
        for (quiet, loud) in quiet.values().into_iter().zip(loud.values()) {
            // Each was rounded twice, as logarithm up to 4 and as result up to 2.
            prop_assert!((f64::from(loud) - f64::from(quiet) - step).abs() < 1e-6);
        }
    }
}

#[test]
fn audio_columns_come_as_soon_as_they_can() {
    let mut stream = MelStream::new(Arc::new(log_mel(fixed(PadTo::Chunk))), &Limits::default()).unwrap();
    let mut n_columns = |n: usize| stream.push(&vec![0.25; n]).unwrap().values.len() / 20;
    assert_eq!([n_columns(200), n_columns(1), n_columns(158), n_columns(1), n_columns(160)], [0, 1, 0, 1, 1]);
}

#[test]
fn audio_without_a_fixed_maximum_waits_for_its_end() {
    let settings = MelSettings { log_mel_max: None, ..fixed(PadTo::Chunk) };
    let mel = Arc::new(log_mel(settings));
    let refused = MelStream::new(Arc::clone(&mel), &Limits::default()).unwrap_err();
    assert_eq!(refused, MelError::NeedsFixedMaximum);
    assert!(refused.to_string().contains("log_mel_max"), "{refused}");
    let samples = noise(9000, 5);
    let mut buffer = ClipBuffer::new(&Limits::default());
    for piece in samples.chunks(700) {
        buffer.push(piece).unwrap();
    }
    assert_eq!(buffer.commit(&mel).unwrap(), mel.features(&samples));
    assert_eq!(buffer.commit(&mel), Err(AudioError::Empty));
}

#[test]
fn audio_streams_have_the_limits_of_clips() {
    let limits = Limits { audio_seconds: 2, ..Limits::default() };
    let mut stream = MelStream::new(Arc::new(log_mel(fixed(PadTo::Hop))), &limits).unwrap();
    let mut buffer = ClipBuffer::new(&limits);
    assert_eq!(stream.commit(), Err(AudioError::Empty));
    let too_long = AudioError::TooLong { at_least_seconds: 3, limit_seconds: 2 };
    stream.push(&vec![0.0; 32_000]).unwrap();
    buffer.push(&vec![0.0; 32_000]).unwrap();
    assert_eq!(stream.push(&[0.0]), Err(too_long.clone()));
    assert_eq!(buffer.push(&[0.0]), Err(too_long));
    assert_eq!(stream.commit().unwrap().n_valid, 200);
    for (rate, is_allowed) in [(3999, false), (4000, true), (192_000, true), (192_001, false), (0, false)] {
        assert_eq!(Pcm16Stream::new(rate, &limits).is_ok(), is_allowed, "{rate}");
    }
}

#[test]
fn audio_chunks_hold_silence_or_nothing_behind_the_clip() {
    let samples = noise(50 * HOP + 300, 9);
    for (pad_to, absent) in [(PadTo::Chunk, None), (PadTo::Hop, Some(0.0))] {
        let settings = MelSettings { n_mels: 3, chunk_frames: 50, pad_to, log_mel_max: None };
        let features = log_mel(settings).features(&samples);
        let chunks: Vec<_> = features.chunks().collect();
        assert_eq!(chunks.iter().map(|chunk| chunk.n_valid).collect::<Vec<_>>(), [50, 2]);
        let absent = absent.unwrap_or(features.silence());
        // Of the second chunk two frames are valid and, padded with zeros, two more reach back into the clip.
        let n_made = if pad_to == PadTo::Chunk { 4 } else { 2 };
        for row in chunks[1].values.chunks(50) {
            assert!(row[..n_made].iter().all(|value| *value != absent), "{pad_to:?}");
            assert!(row[n_made..].iter().all(|value| *value == absent), "{pad_to:?}");
        }
    }
    let silent = log_mel(MelSettings::default()).features(&[0.0; 4000]);
    assert!(silent.values().iter().all(|value| *value == -1.5) && silent.silence() == -1.5);
}

#[test]
fn audio_settings_that_cannot_be_are_refused() {
    let limits = Limits::default();
    let check = |settings: MelSettings, field: Option<&str>| {
        let got = engine::media::audio::LogMel::parse(settings, &limits).map(drop).map_err(|error| error.to_string());
        match field {
            None => assert_eq!(got, Ok(()), "{settings:?}"),
            Some(field) => assert!(got.clone().is_err_and(|error| error.contains(field)), "{settings:?}: {got:?}"),
        }
    };
    let sound = MelSettings::default();
    for (n_mels, is_refused) in [(0, true), (1, false), (1024, false), (1025, true)] {
        check(MelSettings { n_mels, ..sound }, is_refused.then_some("feature_size"));
    }
    for (chunk_frames, is_refused) in [(0, true), (1, true), (2, false), (3, true), (30_000, false), (30_002, true)] {
        check(MelSettings { chunk_frames, ..sound }, is_refused.then_some("chunk_length"));
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 101.0, -101.0] {
        check(MelSettings { log_mel_max: Some(bad), ..sound }, Some("log_mel_max"));
    }
    check(MelSettings { log_mel_max: Some(-100.0), ..sound }, None);
}
