//! From a file's bytes to samples.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::compressed::Opened;
use super::sink::{Sink, Terms};
use super::wav::Wav;
use super::{AudioError, AudioFormat, RATE_HZ, Resampler};
use crate::limits::Limits;

/// Mono samples at 16 kHz: at least one, and all finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    samples: Vec<f32>,
}

impl Clip {
    /// A clip of `samples` at 16 kHz; `None` if there are none or one is not finite.
    pub fn new(samples: Vec<f32>) -> Option<Self> {
        (!samples.is_empty() && samples.iter().all(|sample| sample.is_finite())).then_some(Self { samples })
    }

    /// The samples, nominally from −1 to 1.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// How long it lasts.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(RATE_HZ)
    }
}

/// What a file's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioInfo {
    /// What kind of file.
    pub format: AudioFormat,
    /// Samples a second, as stored.
    pub rate_hz: u32,
    /// Channels, as stored.
    pub n_channels: usize,
    /// Samples at 16 kHz that [`decode`] would give, if the headers say it. They may be wrong: only [`decode`] knows.
    pub n_samples: Option<u64>,
}

/// Refuses more clips than one prompt may have.
///
/// # Errors
/// [`AudioError::TooManyClips`].
pub fn check_count(got: usize, limits: &Limits) -> Result<(), AudioError> {
    match limits.audios_per_prompt {
        limit if got > limit => Err(AudioError::TooManyClips { got, limit }),
        _ => Ok(()),
    }
}

/// Decodes an audio file, told apart by content, to mono at 16 kHz.
///
/// Integers are divided by 2^(bits − 1), 8-bit ones centred first; channels are averaged in f64; other rates are resampled
/// as [`Resampler`](super::Resampler) says. What encoders of MP3, Vorbis and AAC put before and behind the audio is cut off
/// where the file says how much it is. A damaged frame of an MP3 is skipped, as by any player, unless most are;
/// all other damage refuses the file.
///
/// Holds the result, four bytes a sample, twice for a moment while it grows, and under 20 MiB of a decoder's beside it. `declared` is what the sender said, if anything; [`AudioFormat::Pcm16`] must be said. `cancelled` is asked
/// before every piece of at most 2¹⁶ frames.
///
/// # Errors
/// [`AudioError`]; a decoder that panics on a hostile file counts as [`AudioError::Corrupt`].
pub fn decode(
    bytes: &[u8],
    declared: Option<AudioFormat>,
    limits: &Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<Clip, AudioError> {
    let terms = Terms { limits, cancelled };
    let (format, bytes) = recognised(bytes, declared, limits)?;
    let samples = guarded(format, || match format {
        AudioFormat::Wav => Wav::parse(bytes)?.decode(terms),
        AudioFormat::Pcm16 { rate_hz } => Wav::bare(bytes, rate_hz).decode(terms),
        AudioFormat::Flac | AudioFormat::Mp3 | AudioFormat::Ogg | AudioFormat::M4a => {
            Opened::new(format, bytes)?.decode(terms)
        }
    })?;
    Ok(Clip { samples })
}

/// What the headers of an audio file say, without decoding: what a clip may cost.
///
/// # Errors
/// As [`decode`], but for damage behind the headers.
pub fn probe(bytes: &[u8], declared: Option<AudioFormat>, limits: &Limits) -> Result<AudioInfo, AudioError> {
    let (format, bytes) = recognised(bytes, declared, limits)?;
    let (rate_hz, n_channels, n_frames) = guarded(format, || {
        let of_wav = |wav: Wav<'_>| (wav.rate_hz, wav.n_channels, Some(wav.n_frames() as u64));
        Ok(match format {
            AudioFormat::Wav => of_wav(Wav::parse(bytes)?),
            AudioFormat::Pcm16 { rate_hz } => of_wav(Wav::bare(bytes, rate_hz)),
            AudioFormat::Flac | AudioFormat::Mp3 | AudioFormat::Ogg | AudioFormat::M4a => {
                Opened::new(format, bytes)?.header()
            }
        })
    })?;
    // For the check of the rate.
    Sink::new(rate_hz, n_channels, Terms { limits, cancelled: &|| false })?;
    let n_samples = n_frames.zip(Resampler::new(rate_hz)).map(|(n_frames, resampler)| resampler.n_out(n_frames));
    Ok(AudioInfo { format, rate_hz, n_channels, n_samples })
}

/// The format, and the bytes from where it begins.
fn recognised<'a>(
    bytes: &'a [u8],
    declared: Option<AudioFormat>,
    limits: &Limits,
) -> Result<(AudioFormat, &'a [u8]), AudioError> {
    if bytes.len() > limits.audio_bytes {
        return Err(AudioError::TooManyBytes { got_bytes: bytes.len(), limit_bytes: limits.audio_bytes });
    }
    if bytes.is_empty() {
        return Err(AudioError::Empty);
    }
    let tag_len = id3_len(bytes);
    let untagged = bytes.get(tag_len..).unwrap_or(&[]);
    match (declared, found(untagged, tag_len > 0)) {
        // Two bytes look like an MP3 easily.
        (Some(declared @ AudioFormat::Pcm16 { .. }), Err(_) | Ok(AudioFormat::Mp3)) => Ok((declared, bytes)),
        (Some(declared), Ok(found)) if declared != found => Err(AudioError::Contradicts { declared, found }),
        (_, found) => Ok((found?, untagged)),
    }
}

/// Bytes of an ID3v2 tag at the front, which stands before MP3 and, against the rules, FLAC.
fn id3_len(bytes: &[u8]) -> usize {
    let Some([b'I', b'D', b'3', _, _, flags, a, b, c, d]) = bytes.first_chunk() else { return 0 };
    if [a, b, c, d].iter().any(|byte| **byte >= 0x80) {
        return 0;
    }
    let len = [a, b, c, d].iter().fold(0, |len, byte| len << 7 | usize::from(**byte));
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    10 + len + footer
}

fn found(bytes: &[u8], is_tagged: bool) -> Result<AudioFormat, AudioError> {
    let unsupported = |what: &str| Err(AudioError::Unsupported { what: what.into() });
    let at = |place: usize, mark: &[u8]| bytes.get(place..).is_some_and(|bytes| bytes.starts_with(mark));
    if Wav::is_one(bytes) {
        return Ok(AudioFormat::Wav);
    }
    match bytes {
        [b'f', b'L', b'a', b'C', ..] => Ok(AudioFormat::Flac),
        [b'O', b'g', b'g', b'S', ..] => {
            // The first page has one packet, which says what the stream is; its table of sizes has one entry.
            match () {
                () if at(28, b"OpusHead") => unsupported("Opus audio"),
                () if at(28, b"Speex   ") => unsupported("Speex audio"),
                () => Ok(AudioFormat::Ogg),
            }
        }
        _ if at(4, b"ftyp") => Ok(AudioFormat::M4a),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => unsupported("WebM and Matroska"),
        [b'R', b'I', b'F', b'X', ..] => unsupported("big-endian WAV"),
        [b'F', b'O', b'R', b'M', ..] if at(8, b"AIF") => unsupported("AIFF"),
        [b'c', b'a', b'f', b'f', ..] => unsupported("CAF"),
        [b'#', b'!', b'A', b'M', b'R', ..] => unsupported("AMR"),
        [0x30, 0x26, 0xb2, 0x75, ..] => unsupported("Windows Media audio"),
        // Eleven bits of synchronisation, then the version and the layer, of which 0 is none.
        [0xff, second, third, ..] if second & 0xe0 == 0xe0 => match (second >> 1 & 3, third >> 4) {
            (0, _) if second & 0xf0 == 0xf0 => unsupported("AAC without a container"),
            (1, bit_rate) if second & 0x18 != 0x08 && bit_rate != 15 => Ok(AudioFormat::Mp3),
            (2 | 3, _) => unsupported("MPEG audio of layer I or II"),
            _ => Err(AudioError::UnknownFormat),
        },
        // Some writers of tags get their own length wrong; the decoder looks for the first frame.
        _ if is_tagged && bytes.len() > 4 => Ok(AudioFormat::Mp3),
        _ => Err(AudioError::UnknownFormat),
    }
}

/// Runs `work`, turning a panic of a decoder into an error: one request must not end the process.
fn guarded<T>(format: AudioFormat, work: impl FnOnce() -> Result<T, AudioError>) -> Result<T, AudioError> {
    let gave_up = |_| Err(AudioError::Corrupt { format, why: "the decoder gave up".into() });
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(gave_up)
}
