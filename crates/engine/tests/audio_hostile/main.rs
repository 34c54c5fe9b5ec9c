//! Broken, cut and swollen audio files. Each has to end in an error of a known kind or in a clip within the limits, without
//! a panic that gets out and without holding more than the file, the clip and some spare. Runs in release too, where
//! arithmetic would wrap.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

mod bombs;
#[path = "../../../formats/tests/hostile/meter.rs"]
mod meter;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use engine::Limits;
use engine::media::audio::{AudioError, AudioErrorKind, AudioFormat, decode, probe};

/// Beyond twice the file and the clip: decoders' tables and buffers, of which Vorbis may have 16 MiB, and as much of a clip as
/// was there before it was refused.
const SPARE_BYTES: usize = 24 << 20;

/// What came of the cases.
#[derive(Default)]
struct Tally {
    n_by_end: BTreeMap<&'static str, usize>,
    n_panics_caught: usize,
    largest_peak: usize,
    slowest: Duration,
    faults: Vec<String>,
}

impl Tally {
    fn judge(&mut self, what: &str, bytes: &[u8], limits: &Limits) {
        let format = AudioFormat::named(what.split(' ').next().unwrap()).filter(|_| what.starts_with("pcm16"));
        let begin = Instant::now();
        let work = AssertUnwindSafe(|| (probe(bytes, format, limits), decode(bytes, format, limits, &|| false)));
        let (ended, peak) = meter::peak(|| catch_unwind(work));
        let took = begin.elapsed();
        if took > self.slowest {
            self.slowest = took;
            println!("slowest so far: {what}, {took:?}");
        }
        let Ok((probed, ended)) = ended else { return self.faults.push(format!("{what}: panicked")) };
        // A clip that grows is held twice for a moment, and may have grown to the limit before it was refused.
        let clip_bytes = match &ended {
            Ok(clip) => 4 * clip.samples().len(),
            Err(AudioError::TooLong { limit_seconds, .. }) => 4 * 16_000 * *limit_seconds as usize,
            Err(_) => 0,
        };
        let allowed = 2 * (bytes.len() + clip_bytes);
        if peak.saturating_sub(allowed) > self.largest_peak {
            self.largest_peak = peak - allowed;
            println!("largest so far: {what}, {peak} bytes for {} and {clip_bytes}", bytes.len());
        }
        if peak > allowed + SPARE_BYTES {
            self.faults.push(format!("{what}: held {peak} bytes for a file of {}", bytes.len()));
        }
        for error in [probed.err(), ended.as_ref().err().cloned()].into_iter().flatten() {
            self.n_panics_caught += usize::from(error.to_string().contains("gave up"));
            if error.to_string().len() > 300 {
                self.faults.push(format!("{what}: said too much: {error}"));
            }
        }
        let end = match &ended {
            Ok(clip) => {
                let longest = limits.audio_seconds as usize * 16_000;
                let is_sound = clip.samples().iter().all(|sample| sample.is_finite());
                if !is_sound || clip.samples().is_empty() || clip.samples().len() > longest {
                    self.faults.push(format!("{what}: a bad clip of {} samples", clip.samples().len()));
                }
                "clip"
            }
            Err(AudioError::Cancelled) => "cancelled",
            Err(error) => error.kind().code(),
        };
        *self.n_by_end.entry(end).or_default() += 1;
    }

    fn finish(self, name: &str) {
        let n: usize = self.n_by_end.values().sum();
        println!(
            "{name}: {n} files: {:?}; {} panics caught; at most {} bytes beyond twice file and clip; slowest {:?}",
            self.n_by_end, self.n_panics_caught, self.largest_peak, self.slowest
        );
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
        assert_eq!(self.n_by_end.get(AudioErrorKind::Cancelled.code()), None);
    }
}

fn limits() -> Limits {
    // So that a mutation that makes a clip longer is soon over.
    Limits { audio_seconds: 60, ..Limits::default() }
}

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/audio/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n.max(1) as u64) as usize
    }

    /// A place in a file; half of them near its beginning, where the headers are.
    fn place(&mut self, len: usize) -> usize {
        let range = if self.roll(2) == 0 { len } else { len.min(200) };
        self.roll(range)
    }
}

/// Damages a file in one of six ways.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) -> String {
    const EXTREMES: [u32; 8] = [0, 1, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
    let at = dice.place(bytes.len());
    match dice.roll(6) {
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            let n = 1 + dice.roll(8);
            for _ in 0..n {
                let at = dice.place(bytes.len());
                bytes[at] ^= 1 << dice.roll(8);
            }
            format!("{n} bits turned")
        }
        2 | 3 => {
            let (extreme, is_big) = (EXTREMES[dice.roll(8)], dice.roll(2) == 0);
            let field = if is_big { extreme.to_be_bytes() } else { extreme.to_le_bytes() };
            let len = [1, 2, 4][dice.roll(3)].min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&field[..len]);
            format!("{len} bytes of {extreme:x} at {at}")
        }
        4 => {
            let len = dice.roll(200).min(bytes.len() - at);
            bytes.drain(at..at + len);
            format!("{len} bytes less at {at}")
        }
        _ => {
            let begin = dice.place(bytes.len());
            let part = bytes[begin..bytes.len().min(begin + 1 + dice.roll(400))].to_vec();
            let n = part.len();
            bytes.splice(at..at, part);
            format!("{n} bytes from {begin} again at {at}")
        }
    }
}

/// Gives every page that can be found its right checksum, so that damage gets past it.
fn mend_ogg(bytes: &mut [u8]) {
    let mut at = 0;
    while at + 27 < bytes.len() && &bytes[at..at + 4] == b"OggS" {
        let n_segments = usize::from(bytes[at + 26]);
        let Some(table) = bytes.get(at + 27..at + 27 + n_segments) else { break };
        let len = 27 + n_segments + table.iter().map(|len| usize::from(*len)).sum::<usize>();
        let Some(page) = bytes.get_mut(at..at + len) else { break };
        page[22..26].fill(0);
        let crc = page.iter().fold(0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
        });
        page[22..26].copy_from_slice(&crc.to_le_bytes());
        at += len;
    }
}

/// What is printed when a decoder panics is of no use here.
fn quiet() {
    std::panic::set_hook(Box::new(|about| {
        if about.location().is_some_and(|place| place.file().contains("audio_hostile")) {
            eprintln!("{about}");
        }
    }));
}

/// `PUNA_AUDIO_ROUNDS` multiplies the number of files.
fn check(names: &[&str], n_each: usize, seed: u64) {
    quiet();
    println!("seed {seed}");
    let more = std::env::var("PUNA_AUDIO_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let n_each: usize = n_each * more;
    let mut tally = Tally::default();
    for name in names {
        let intact = file(name);
        for round in 0..n_each {
            let mut dice = Dice(seed ^ (round as u64) << 8);
            let mut bytes = intact.clone();
            let mut what =
                format!("{} {name}, round {round}", if name.starts_with("pcm16") { "pcm16" } else { "file" });
            for _ in 0..=dice.roll(2) {
                what = format!("{what}, {}", mutate(&mut bytes, &mut dice));
                if bytes.is_empty() {
                    break;
                }
            }
            if name.ends_with("ogg") && round % 4 != 0 {
                mend_ogg(&mut bytes);
            }
            tally.judge(&what, &bytes, &limits());
        }
    }
    tally.finish(&format!("{names:?}"));
}

#[test]
fn damaged_wav_audio_is_an_error_or_a_clip() {
    check(&["pulses.wav", "s24.wav", "ext.wav", "f64.wav", "rf64.wav", "stream.wav"], 100, 11);
}

#[test]
fn damaged_flac_audio_is_an_error_or_a_clip() {
    check(&["tone_16k.flac", "tone_44k.flac"], 300, 12);
}

#[test]
fn damaged_mp3_audio_is_an_error_or_a_clip() {
    check(&["tone_16k.mp3", "tone_44k.mp3"], 300, 13);
}

#[test]
fn damaged_ogg_audio_is_an_error_or_a_clip() {
    check(&["tone_16k.ogg", "tone_44k.ogg"], 400, 14);
}

#[test]
fn damaged_mp4_audio_is_an_error_or_a_clip() {
    check(&["tone_16k.m4a", "tone_44k.m4a"], 400, 15);
}

#[test]
fn every_cut_of_an_audio_file_with_an_end_is_refused() {
    quiet();
    let mut n = 0;
    for name in ["pulses.wav", "tone_16k.flac", "tone_16k.ogg", "tone_16k.m4a"] {
        let bytes = file(name);
        for i in 1..200 {
            // What follows an MP4's samples is their table, or nothing.
            let cut = bytes.len() * i / 200;
            let got = decode(&bytes[..cut], None, &limits(), &|| false);
            assert!(got.is_err(), "{name} cut at {cut} of {}", bytes.len());
            n += 1;
        }
    }
    println!("{n} cuts refused");
}
