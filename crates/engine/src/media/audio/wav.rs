//! WAV files, and samples without a file around them.

use super::sink::{Sink, Terms};
use super::{AudioError, AudioFormat};

/// Frames that are converted at a time.
const BLOCK: usize = 4096;
/// From here on a size is no size but a mark of a writer that could not go back to write it: 0xffffffff, or the largest
/// number it dared, less its headers.
const STREAMED: u32 = 0x7fff_0000;
/// What follows the format's number in the 16 bytes that name it in an extensible header.
const GUID_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// How a sample is stored, in as many bytes as [`Encoding::len`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    U8,
    S16,
    S24,
    S32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

impl Encoding {
    fn parse(tag: u16, bits: u16) -> Result<Self, AudioError> {
        let unsupported = |what: String| Err(AudioError::Unsupported { what });
        Ok(match (tag, bits) {
            // Fewer bits than bytes hold stand at the upper end.
            (1, 1..=8) => Self::U8,
            (1, 9..=16) => Self::S16,
            (1, 17..=24) => Self::S24,
            (1, 25..=32) => Self::S32,
            (3, 32) => Self::F32,
            (3, 64) => Self::F64,
            (6, 8) => Self::ALaw,
            (7, 8) => Self::MuLaw,
            (1 | 3 | 6 | 7, _) => return unsupported(format!("WAV with samples of {bits} bits")),
            (2 | 0x11, _) => return unsupported("WAV with ADPCM".into()),
            (0x50 | 0x55, _) => return unsupported("WAV with MPEG audio inside".into()),
            _ => return unsupported(format!("WAV of format 0x{tag:04x}")),
        })
    }

    fn len(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The value of the sample that `bytes` hold.
    fn value(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Self::U8, [a]) => (f64::from(*a) - 128.0) / 128.0,
            (Self::S16, [a, b]) => f64::from(i16::from_le_bytes([*a, *b])) / 32_768.0,
            (Self::S24, [a, b, c]) => f64::from(i32::from_le_bytes([0, *a, *b, *c])) / 2_147_483_648.0,
            (Self::S32, [a, b, c, d]) => f64::from(i32::from_le_bytes([*a, *b, *c, *d])) / 2_147_483_648.0,
            (Self::F32, [a, b, c, d]) => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
            (Self::F64, bytes) => bytes.first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes)),
            (Self::ALaw, [a]) => f64::from(a_law(*a)) / 32_768.0,
            (Self::MuLaw, [a]) => f64::from(mu_law(*a)) / 32_768.0,
            _ => 0.0,
        }
    }
}

/// G.711, A-law, as a 16-bit number.
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = (byte >> 4 & 7, i16::from(byte & 15));
    let value = match exponent {
        0 => mantissa << 4 | 8,
        _ => (mantissa << 4 | 0x108) << (exponent - 1),
    };
    if byte & 0x80 != 0 { value } else { -value }
}

/// G.711, mu-law, as a 16-bit number.
fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let value = ((i16::from(byte & 15) << 3 | 0x84) << (byte >> 4 & 7)) - 0x84;
    if byte & 0x80 != 0 { -value } else { value }
}

/// A WAV file whose headers were read, or bare samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wav<'a> {
    pub rate_hz: u32,
    pub n_channels: usize,
    encoding: Encoding,
    data: &'a [u8],
}

impl<'a> Wav<'a> {
    /// Whether the bytes begin like a WAV file.
    pub fn is_one(bytes: &[u8]) -> bool {
        let [a, b] = [bytes.get(..4), bytes.get(8..12)];
        matches!(a, Some(b"RIFF" | b"RF64" | b"BW64")) && b == Some(b"WAVE")
    }

    /// Mono, signed, 16-bit, little-endian samples.
    pub fn bare(bytes: &'a [u8], rate_hz: u32) -> Self {
        Self { rate_hz, n_channels: 1, encoding: Encoding::S16, data: bytes }
    }

    /// Reads the headers. Chunks that are neither `fmt `, `data` nor RF64's `ds64` are skipped; one that is cut off ends the
    /// file. A `data` chunk whose size was never written goes to the end.
    ///
    /// # Errors
    /// [`AudioError::Unsupported`], [`AudioError::Truncated`], [`AudioError::Corrupt`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AudioError> {
        let (mut format, mut long_size) = (None, None);
        let mut rest = bytes.get(12..).unwrap_or(&[]);
        while let Some((kind, size, content)) = chunk(rest) {
            let body = usize::try_from(size).ok().and_then(|size| content.get(..size));
            match &kind {
                b"ds64" => long_size = body.and_then(|body| le_u64(body, 8)),
                b"fmt " => format = Some(Self::format(body.ok_or(TRUNCATED)?)?),
                b"data" => {
                    let (rate_hz, n_channels, encoding) =
                        format.ok_or_else(|| corrupt("its samples come before their format"))?;
                    let data = data(bytes, size, long_size, content)?;
                    return Ok(Self { rate_hz, n_channels, encoding, data });
                }
                _ => {}
            }
            let Some(body) = body else { break };
            // Chunks begin at even places; some writers forget it, but only behind the last.
            rest = content.get(body.len() + body.len() % 2..).unwrap_or(&[]);
        }
        Err(TRUNCATED)
    }

    /// Rate, channels and encoding.
    fn format(chunk: &[u8]) -> Result<(u32, usize, Encoding), AudioError> {
        let word = |at: usize| le_u16(chunk, at).ok_or_else(|| corrupt("its format is too short"));
        let (mut tag, n_channels, align, bits) = (word(0)?, word(2)?, word(12)?, word(14)?);
        let rate_hz = u32::from(word(4)?) | u32::from(word(6)?) << 16;
        if tag == 0xfffe {
            tag = word(24)?;
            if chunk.get(26..40) != Some(&GUID_TAIL[..]) {
                return Err(AudioError::Unsupported { what: "WAV of an extensible format without a number".into() });
            }
        }
        let encoding = Encoding::parse(tag, bits)?;
        let n_channels = usize::from(n_channels);
        if n_channels == 0 {
            return Err(corrupt("it has 0 channels"));
        }
        if usize::from(align) != n_channels * encoding.len() {
            return Err(corrupt("its frames have another size than its channels' samples"));
        }
        Ok((rate_hz, n_channels, encoding))
    }

    /// Samples of each channel. Bytes that fill no frame do not count.
    pub fn n_frames(&self) -> usize {
        self.data.len() / (self.n_channels * self.encoding.len())
    }

    /// Converts, mixes down and resamples.
    ///
    /// # Errors
    /// As [`Sink`].
    pub fn decode(&self, terms: Terms<'_>) -> Result<Vec<f32>, AudioError> {
        let mut sink = Sink::new(self.rate_hz, self.n_channels, terms)?;
        sink.check_length(self.n_frames() as u64)?;
        sink.expect(self.n_frames() as u64);
        let (sample_len, n_channels) = (self.encoding.len(), self.n_channels);
        let frame_len = sample_len * n_channels;
        let mut mono = Vec::with_capacity(BLOCK);
        for block in self.data.chunks(frame_len * BLOCK) {
            mono.clear();
            mono.extend(block.chunks_exact(frame_len).map(|frame| {
                let sum: f64 = frame.chunks_exact(sample_len).map(|bytes| self.encoding.value(bytes)).sum();
                sum / n_channels as f64
            }));
            sink.push(&mono)?;
        }
        sink.finish()
    }
}

const TRUNCATED: AudioError = AudioError::Truncated { format: AudioFormat::Wav };

fn corrupt(why: &str) -> AudioError {
    AudioError::Corrupt { format: AudioFormat::Wav, why: why.into() }
}

/// The samples' bytes: `content` is everything behind the header of their chunk, `size` what that header says, and
/// `long_size` what RF64's header says instead.
fn data<'a>(bytes: &[u8], size: u32, long_size: Option<u64>, content: &'a [u8]) -> Result<&'a [u8], AudioError> {
    let size = match (size, long_size) {
        (u32::MAX, Some(0 | u64::MAX)) => return Ok(content),
        (u32::MAX, Some(size)) => size,
        (STREAMED.., _) if content.len() as u64 != u64::from(size) => return Ok(content),
        // Nothing at all, or a size that was never written? Then the whole file's was not written either.
        (0, _) if le_u32(bytes, 4).map(u64::from) != Some(bytes.len() as u64 - 8) => return Ok(content),
        (size, _) => u64::from(size),
    };
    usize::try_from(size).ok().and_then(|size| content.get(..size)).ok_or(TRUNCATED)
}

/// Kind, stated size and everything behind the header of the chunk at the front.
fn chunk(bytes: &[u8]) -> Option<([u8; 4], u32, &[u8])> {
    Some((*bytes.first_chunk()?, le_u32(bytes, 4)?, bytes.get(8..)?))
}

fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
