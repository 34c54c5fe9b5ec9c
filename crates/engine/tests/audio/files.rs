//! Files of every kind, and what is refused.

use std::cell::Cell;
use std::f64::consts::TAU;

use engine::Limits;
use engine::media::audio::{AudioError, AudioErrorKind, AudioFormat, Clip, check_count, decode, probe};

use crate::tensors::Tensors;
use crate::{decoded, file, from_pcm, largest_difference};

/// A WAV file of chunks.
fn riff(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WAVE".to_vec();
    for (kind, content) in chunks {
        body.extend(*kind);
        body.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        body.extend(content);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    let mut file = b"RIFF".to_vec();
    file.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    file.extend(body);
    file
}

struct Fmt {
    tag: u16,
    n_channels: u16,
    rate_hz: u32,
    bits: u16,
}

impl Fmt {
    fn chunk(&self) -> Vec<u8> {
        let align = self.n_channels * self.bits.div_ceil(8);
        let mut out = Vec::new();
        out.extend(self.tag.to_le_bytes());
        out.extend(self.n_channels.to_le_bytes());
        out.extend(self.rate_hz.to_le_bytes());
        out.extend((self.rate_hz * u32::from(align)).to_le_bytes());
        out.extend(align.to_le_bytes());
        out.extend(self.bits.to_le_bytes());
        out
    }

    fn wav(&self, data: Vec<u8>) -> Vec<u8> {
        riff(&[(b"fmt ", self.chunk()), (b"data", data)])
    }
}

const PCM16: Fmt = Fmt { tag: 1, n_channels: 1, rate_hz: 16_000, bits: 16 };

/// The samples of `pulses.wav`.
fn pulses() -> Vec<i16> {
    [0, 1, -1, 100, -100, 12_345, -12_345, 32_767, -32_768, 5].repeat(8)
}

fn samples(bytes: &[u8]) -> Vec<f32> {
    decoded(bytes).unwrap().samples().to_vec()
}

#[test]
fn audio_of_every_wav_is_its_samples() {
    let exact: Vec<f32> = pulses().iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    for name in ["pulses", "s24", "s32", "f32", "f64", "rf64", "stream"] {
        assert_eq!(samples(&file(&format!("{name}.wav"))), exact, "{name}");
    }
    for name in ["alaw", "mulaw"] {
        let (got, want) = (samples(&file(&format!("{name}.wav"))), samples(&file(&format!("{name}_expanded.wav"))));
        assert_eq!(got, want, "{name}");
        assert_eq!(got.len(), 80);
    }
    // The upper byte, rounded by the encoder.
    let of_bytes = samples(&file("u8.wav"));
    assert!(of_bytes.iter().zip(&exact).all(|(got, want)| (got - want).abs() <= 1.0 / 128.0), "{of_bytes:?}");
    let of_five: Vec<f32> = exact.chunks(5).map(mean).collect();
    assert_eq!(samples(&file("ext.wav")), of_five);
}

fn mean(frame: &[f32]) -> f32 {
    (frame.iter().map(|sample| f64::from(*sample)).sum::<f64>() / frame.len() as f64) as f32
}

#[test]
fn audio_of_every_companded_byte_is_its_value() {
    // G.711's ends and middles as 16-bit numbers.
    let all: Vec<u8> = (0..=255).collect();
    let a_law = samples(&Fmt { tag: 6, bits: 8, ..PCM16 }.wav(all.clone()));
    let mu_law = samples(&Fmt { tag: 7, bits: 8, ..PCM16 }.wav(all));
    let at = |table: &[f32], byte: usize| (table[byte] * 32_768.0) as i32;
    assert_eq!([0x55, 0xd5, 0x2a, 0xaa].map(|byte| at(&a_law, byte)), [-8, 8, -32_256, 32_256]);
    assert_eq!([0x00, 0x80, 0x7f, 0xff].map(|byte| at(&mu_law, byte)), [-32_124, 32_124, 0, 0]);
    // Each table is odd, and rises with its sign removed.
    for byte in 0..128 {
        assert_eq!(at(&a_law, byte), -at(&a_law, byte + 128), "{byte}");
        assert_eq!(at(&mu_law, byte), -at(&mu_law, byte + 128), "{byte}");
    }
    let rising: Vec<i32> = (0..128).map(|byte| at(&a_law, (byte ^ 0x55) + 128)).collect();
    assert!(rising.is_sorted(), "{rising:?}");
    assert!((128..256).map(|byte| at(&mu_law, byte)).collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
}

#[test]
fn audio_chunks_that_mean_nothing_are_skipped() {
    let data: Vec<u8> = pulses().iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let want = samples(&PCM16.wav(data.clone()));
    // Of odd length, so with a byte of padding.
    let noise = (b"LIST", vec![7; 13]);
    let file = riff(&[noise.clone(), (b"fmt ", PCM16.chunk()), noise.clone(), (b"data", data.clone()), noise.clone()]);
    assert_eq!(samples(&file), want);
    let mut streamed = file.clone();
    let at = streamed.windows(4).position(|window| window == b"data").unwrap() + 4;
    for mark in [0xffff_ffff_u32, 0x7fff_ffff, 0x7fff_ffdb, 0] {
        // Sizes that were never written: everything that follows is samples, as it comes from a pipe.
        streamed[4..8].copy_from_slice(&mark.to_le_bytes());
        streamed[at..at + 4].copy_from_slice(&mark.to_le_bytes());
        assert_eq!(samples(&streamed[..at + 4 + data.len()]), want, "{mark:x}");
    }
    // An empty chunk in a file whose own size is right is empty.
    let file = riff(&[(b"fmt ", PCM16.chunk()), (b"data", vec![]), noise]);
    assert_eq!(decoded(&file), Err(AudioError::Empty));
    let cut = AudioError::Truncated { format: AudioFormat::Wav };
    let whole = PCM16.wav(data);
    for n in 12..whole.len() {
        assert_eq!(decoded(&whole[..n]), Err(cut.clone()), "cut at {n}");
    }
    let early = riff(&[(b"data", vec![0; 4]), (b"fmt ", PCM16.chunk())]);
    assert_eq!(decoded(&early).unwrap_err().kind(), AudioErrorKind::DecodeFailed);
}

#[test]
fn audio_of_wavs_that_cannot_be_read_is_refused_by_name() {
    let check = |fmt: Fmt, want: &str| {
        let error = decoded(&fmt.wav(vec![0; 64])).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
        assert_eq!(error.kind().code(), "audio_decode_failed");
    };
    check(Fmt { tag: 2, bits: 4, ..PCM16 }, "ADPCM");
    check(Fmt { tag: 0x11, bits: 4, ..PCM16 }, "ADPCM");
    check(Fmt { tag: 0x55, ..PCM16 }, "MPEG");
    check(Fmt { tag: 0x1234, ..PCM16 }, "0x1234");
    check(Fmt { bits: 0, ..PCM16 }, "0 bits");
    check(Fmt { bits: 33, ..PCM16 }, "33 bits");
    check(Fmt { tag: 3, bits: 16, ..PCM16 }, "16 bits");
    check(Fmt { n_channels: 0, ..PCM16 }, "0 channels");
    for (rate_hz, is_allowed) in [(0, false), (3999, false), (4000, true), (192_000, true), (192_001, false)] {
        let got = decoded(&Fmt { rate_hz, ..PCM16 }.wav(vec![0; 64]));
        match is_allowed {
            true => assert!(got.is_ok(), "{rate_hz}: {got:?}"),
            false => assert_eq!(got, Err(AudioError::Rate { rate_hz, lowest_hz: 4000, highest_hz: 192_000 })),
        }
    }
    // A frame of another size than its samples.
    let mut odd = PCM16.chunk();
    odd[12] = 3;
    let error = decoded(&riff(&[(b"fmt ", odd), (b"data", vec![0; 64])])).unwrap_err();
    assert!(error.to_string().contains("another size"), "{error}");
}

#[test]
fn audio_samples_that_are_no_numbers_are_refused() {
    let floats = |value: f64, tag_bits: u16| {
        let mut data = Vec::new();
        for i in 0..100 {
            let value = if i == 50 { value } else { 0.5 };
            match tag_bits {
                32 => data.extend((value as f32).to_le_bytes()),
                _ => data.extend(value.to_le_bytes()),
            }
        }
        decoded(&Fmt { tag: 3, bits: tag_bits, rate_hz: 16_000, n_channels: 1 }.wav(data))
    };
    let refused = AudioError::NotFinite { at_seconds: 50.0 / 16_000.0 };
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        assert_eq!(floats(bad, 32), Err(refused.clone()), "{bad}");
        assert_eq!(floats(bad, 64), Err(refused.clone()), "{bad}");
    }
    // Large ones are only loud.
    assert!(floats(1e30, 32).is_ok() && floats(1e30, 64).is_ok());
    // Two infinities whose mean is no number, and the largest numbers, whose resampling overshoots.
    let frame = |a: f32, b: f32| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let stereo = Fmt { tag: 3, bits: 32, rate_hz: 44_100, n_channels: 2 };
    let got = decoded(&stereo.wav(frame(f32::INFINITY, f32::NEG_INFINITY)));
    assert!(matches!(got, Err(AudioError::NotFinite { .. })), "{got:?}");
    let loud: Vec<u8> =
        (0..400).flat_map(|i| frame(f32::MAX, f32::MAX * if i % 50 < 25 { 1.0 } else { 0.9 })).collect();
    let got = decoded(&stereo.wav(loud));
    assert!(matches!(got, Err(AudioError::NotFinite { .. })), "{got:?}");
}

/// Mono at 16 kHz of what `scripts/make_audio_goldens.py` has encoded.
fn tone(n_channels: usize, i: usize) -> f64 {
    let t = i as f64 / 16_000.0;
    let left = 0.3 * (TAU * 440.0 * t).sin() + 0.2 * (TAU * 1000.0 * t).sin();
    if n_channels == 1 { left } else { (left + 0.2 * (TAU * 660.0 * t).sin()) / 2.0 }
}

/// Energy of the clip against that of its difference from the tone, in decibels, edges left out.
fn decibels(clip: &Clip, n_channels: usize) -> f64 {
    let (mut signal, mut error) = (0.0, 0.0);
    for (i, sample) in clip.samples().iter().enumerate().take(7500).skip(500) {
        signal += tone(n_channels, i).powi(2);
        error += (f64::from(*sample) - tone(n_channels, i)).powi(2);
    }
    10.0 * (signal / error).log10()
}

#[test]
fn audio_is_the_same_sound_from_every_kind_of_file() {
    let formats =
        [("flac", AudioFormat::Flac), ("mp3", AudioFormat::Mp3), ("ogg", AudioFormat::Ogg), ("m4a", AudioFormat::M4a)];
    let goldens = Tensors::parse(&file("golden.safetensors"));
    for (extension, format) in formats {
        for (label, rate_hz, n_channels) in [("16k", 16_000, 1), ("44k", 44_100, 2)] {
            let name = format!("tone_{label}.{extension}");
            let bytes = file(&name);
            let clip = decoded(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            let quality = decibels(&clip, n_channels);
            println!("{name}: {} samples, {quality:.1} dB above its error", clip.samples().len());
            // Half a second: what encoders put around it is cut off.
            assert_eq!(clip.samples().len(), 8000, "{name}");
            // Lossy as they are; out of step by a frame or with a channel missing they would be below 6 dB.
            assert!(quality > if format == AudioFormat::Flac { 70.0 } else { 15.0 }, "{name}: {quality:.1} dB");
            let want = &goldens.get(&format!("decoded/{name}")).values[32..480];
            let got = clip.samples().iter().step_by(16).take(480).skip(32).map(|sample| f64::from(*sample));
            let largest = largest_difference(got, want.iter().copied());
            println!("{name}: largest difference from another decoder {largest:.2e}");
            // Both compute in f32, with sums of up to 2048 products of up to 1: 2⁻²⁴ · √2048 and some steps.
            assert!(largest < 2e-5, "{name}: {largest:e}");
            let info = probe(&bytes, Some(format), &Limits::default()).unwrap();
            assert_eq!((info.format, info.rate_hz, info.n_channels), (format, rate_hz, n_channels), "{name}");
            assert_eq!(info.n_samples, Some(8000), "{name}");
        }
    }
}

#[test]
fn audio_behind_a_tag_is_found() {
    let mut tag = b"ID3\x04\0\0\0\0\x01\x02".to_vec();
    tag.resize(10 + 130, 0xff);
    for name in ["tone_16k.mp3", "tone_16k.flac"] {
        let mut bytes = tag.clone();
        bytes.extend(file(name));
        assert_eq!(decoded(&bytes), decoded(&file(name)), "{name}");
    }
}

#[test]
fn audio_whose_pictures_are_bombs_is_decoded_without_them() {
    let whole = file("tone_16k.flac");
    // Behind the description, one block of tags with a claim of 4 GiB and an application's block.
    let mut bytes = whole[..42].to_vec();
    assert_eq!(bytes[4] & 0x7f, 0);
    bytes[4] = 0;
    bytes.extend(b"\x04\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xff\x02\0\0\x04puna");
    bytes.extend(&whole[42..]);
    assert_eq!(decoded(&bytes), decoded(&whole));
}

#[test]
fn audio_with_a_wrong_checksum_is_refused() {
    // Of Ogg's last page, and of all samples in FLAC's description.
    for (name, at) in [("tone_16k.ogg", 4000), ("tone_16k.flac", 30)] {
        let mut bytes = file(name);
        bytes[at] ^= 1;
        let error = decoded(&bytes).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{name}: {error}");
    }
}

#[test]
fn audio_that_is_not_what_was_said_names_both() {
    let limits = Limits::default();
    let flac = file("tone_16k.flac");
    let got = decode(&flac, AudioFormat::named("mp3"), &limits, &|| false).unwrap_err();
    assert_eq!(got, AudioError::Contradicts { declared: AudioFormat::Mp3, found: AudioFormat::Flac });
    assert_eq!(got.to_string(), "audio is declared as MP3, but its bytes are FLAC; declare what it is");
    let got = probe(&file("pulses.wav"), AudioFormat::named("pcm16"), &limits).unwrap_err();
    assert_eq!(
        got,
        AudioError::Contradicts { declared: AudioFormat::Pcm16 { rate_hz: 16_000 }, found: AudioFormat::Wav }
    );
    for (names, format) in [
        (&["wav", "WAV", "x-wav"][..], AudioFormat::Wav),
        (&["mp3", "mpeg"], AudioFormat::Mp3),
        (&["m4a", "mp4", "x-m4a"], AudioFormat::M4a),
        (&["ogg"], AudioFormat::Ogg),
        (&["flac"], AudioFormat::Flac),
    ] {
        assert!(names.iter().all(|name| AudioFormat::named(name) == Some(format)), "{format}");
    }
    assert_eq!(AudioFormat::named("aiff"), None);
    // Bare samples that look like an MP3's beginning are samples.
    for (bytes, n_samples) in [(&b"\xff\xfb\x90\x64"[..], 2), (b"ID3\x04\0\0\0\0\0\x02abcdefgh", 9)] {
        assert_eq!(from_pcm(bytes, 16_000).unwrap().samples().len(), n_samples);
    }
}

#[test]
fn audio_of_kinds_without_a_decoder_is_refused_by_name() {
    let ogg = |packet: &[u8]| {
        let mut page = b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec();
        page.push(u8::try_from(packet.len()).unwrap());
        page.extend(packet);
        page
    };
    for (bytes, name) in [
        (ogg(b"OpusHead\x01\x01\0\0\x80\xbb\0\0\0\0\0"), "Opus"),
        (ogg(b"Speex   1.2"), "Speex"),
        (b"\x1a\x45\xdf\xa3webm".to_vec(), "WebM"),
        (b"FORM\0\0\0\0AIFF".to_vec(), "AIFF"),
        (b"caff\0\x01".to_vec(), "CAF"),
        (b"#!AMR\n".to_vec(), "AMR"),
        (b"RIFX\0\0\0\0WAVE".to_vec(), "big-endian"),
        (b"\xff\xf1\x50\x80\0\x1f".to_vec(), "AAC"),
        (b"\xff\xfd\x90\x04".to_vec(), "layer"),
        (b"\x30\x26\xb2\x75\x8e\x66".to_vec(), "Windows"),
    ] {
        let error = decoded(&bytes).unwrap_err();
        assert!(matches!(error, AudioError::Unsupported { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("convert it"), "{error}");
    }
    for bytes in [&b"\0"[..], b"hello, this is text", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"ID3"] {
        assert_eq!(decoded(bytes), Err(AudioError::UnknownFormat), "{bytes:?}");
    }
}

#[test]
fn audio_has_the_limits_that_it_is_given() {
    let bytes = PCM16.wav(vec![0; 2 * 16_000]);
    let limits = |audio_bytes, audio_seconds| Limits { audio_bytes, audio_seconds, ..Limits::default() };
    let got = |limits: &Limits| decode(&bytes, None, limits, &|| false).map(|clip| clip.samples().len());
    assert_eq!(got(&limits(bytes.len(), 1)), Ok(16_000));
    let refused = got(&limits(bytes.len() - 1, 1)).unwrap_err();
    assert_eq!(refused, AudioError::TooManyBytes { got_bytes: bytes.len(), limit_bytes: bytes.len() - 1 });
    assert_eq!(refused.kind().code(), "audio_too_large");
    let refused = got(&limits(bytes.len(), 0)).unwrap_err();
    assert_eq!(refused.to_string(), "audio is 1 s or longer; the limit is 0 s");
    assert_eq!(refused.kind().code(), "audio_too_long");
    // One sample more than a second, in every kind of file.
    let second = Limits { audio_seconds: 1, ..Limits::default() };
    let longer = PCM16.wav(vec![0; 2 * 16_001]);
    let too_long = Err(AudioError::TooLong { at_least_seconds: 2, limit_seconds: 1 });
    assert_eq!(decode(&longer, None, &second, &|| false), too_long);
    let none = Limits { audio_seconds: 0, ..Limits::default() };
    for name in ["tone_16k.flac", "tone_44k.mp3", "tone_44k.ogg", "tone_16k.m4a"] {
        let got = decode(&file(name), None, &none, &|| false);
        assert!(matches!(got, Err(AudioError::TooLong { .. })), "{name}: {got:?}");
    }
    let stereo = Fmt { n_channels: 2, ..PCM16 }.wav(vec![0; 4 * 100]);
    for (audio_samples, is_allowed) in [(199, false), (200, true), (201, true)] {
        let got = decode(&stereo, None, &Limits { audio_samples, ..Limits::default() }, &|| false);
        match is_allowed {
            true => assert_eq!(got.unwrap().samples().len(), 100),
            false => assert_eq!(got, Err(AudioError::TooManySamples { at_least: 200, limit: 199 })),
        }
    }
    for (n, want) in [(0, Ok(())), (16, Ok(())), (17, Err(AudioError::TooManyClips { got: 17, limit: 16 }))] {
        assert_eq!(check_count(n, &Limits::default()), want);
    }
    for empty in [&b""[..], &PCM16.wav(vec![]), &PCM16.wav(vec![0])] {
        let error = decoded(empty).unwrap_err();
        assert_eq!((error.kind().code(), &error), ("audio_empty", &AudioError::Empty));
    }
    assert_eq!(from_pcm(b"\0", 16_000), Err(AudioError::Empty));
}

#[test]
fn audio_decoding_stops_when_nobody_waits() {
    for bytes in [PCM16.wav(vec![0; 100_000]), file("tone_44k.flac"), file("tone_44k.mp3"), file("tone_44k.m4a")] {
        let n_asked = Cell::new(0);
        let cancelled = || {
            n_asked.set(n_asked.get() + 1);
            n_asked.get() > 3
        };
        assert_eq!(decode(&bytes, None, &Limits::default(), &cancelled), Err(AudioError::Cancelled));
        assert_eq!(n_asked.get(), 4);
    }
}

#[test]
fn audio_clips_are_never_empty_nor_infinite() {
    assert!(Clip::new(vec![]).is_none() && Clip::new(vec![f32::NAN]).is_none());
    assert_eq!(Clip::new(vec![0.0; 8000]).unwrap().seconds(), 0.5);
}
