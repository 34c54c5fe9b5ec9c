//! FLAC, MP3, Ogg and MP4 through their decoders, packet by packet.

use std::io::{Cursor, ErrorKind, Read};

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known as codec};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::default::{codecs, formats};

use super::sink::{Sink, Terms};
use super::{AudioError, AudioFormat, mp4, ogg};

/// Channels that a decoder may have; Vorbis alone could have 255, whose decoding would take an hour a file.
const CHANNELS: usize = 8;

/// A file whose headers were read.
pub(super) struct Opened<'a> {
    format: AudioFormat,
    reader: Box<dyn FormatReader + 'a>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    rate_hz: u32,
    n_channels: usize,
    /// Frames that the headers promise.
    n_frames: Option<u64>,
    /// Frames to leave out at the beginning, and to keep after them.
    edit: mp4::Edit,
    /// Bytes that packets may hold together: each byte of a file belongs to one.
    n_bytes: usize,
}

impl<'a> Opened<'a> {
    /// Reads the headers of one of the four.
    ///
    /// # Errors
    /// [`AudioError::Unsupported`], [`AudioError::Truncated`], [`AudioError::Corrupt`].
    pub fn new(format: AudioFormat, bytes: &'a [u8]) -> Result<Self, AudioError> {
        let mut edit = mp4::Edit::default();
        let failed = |error| failure(format, error);
        let options = FormatOptions::default;
        let reader: Box<dyn FormatReader + 'a> = match format {
            AudioFormat::Mp3 => {
                // From a source without an end the reader does not guess a length, and so does not cut to its guess.
                let source = stream(ReadOnlySource::new(bytes));
                Box::new(formats::MpaReader::try_new(source, options()).map_err(failed)?)
            }
            AudioFormat::Ogg => {
                let source = stream(Cursor::new(ogg::checked(bytes)?));
                Box::new(formats::OggReader::try_new(source, options()).map_err(failed)?)
            }
            AudioFormat::M4a => {
                edit = mp4::checked(bytes)?;
                Box::new(formats::IsoMp4Reader::try_new(stream(Cursor::new(bytes)), options()).map_err(failed)?)
            }
            AudioFormat::Flac | AudioFormat::Wav | AudioFormat::Pcm16 { .. } => {
                let source = stream(ReadOnlySource::new(bare_flac(bytes)?));
                Box::new(formats::FlacReader::try_new(source, options()).map_err(failed)?)
            }
        };
        let no_audio = || corrupt(format, "it has no track of audio".into());
        let track = reader.default_track(TrackType::Audio).ok_or_else(no_audio)?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else { return Err(no_audio()) };
        let decoder = decoder(format, params)?;
        let params = decoder.codec_params();
        let rate_hz = params.sample_rate.ok_or_else(|| corrupt(format, "it does not say its rate".into()))?;
        let n_channels = params.channels.as_ref().map_or(1, |channels| channels.count());
        if n_channels > CHANNELS {
            return Err(AudioError::Unsupported { what: format!("{format} audio of {n_channels} channels") });
        }
        let (id, n_frames) = (track.id, n_frames(track, rate_hz));
        let n_frames = if format == AudioFormat::M4a { edit.bound(n_frames) } else { n_frames };
        Ok(Self { format, reader, decoder, track: id, rate_hz, n_channels, n_frames, edit, n_bytes: bytes.len() })
    }

    /// Rate, channels, and frames if the headers say them.
    pub fn header(&self) -> (u32, usize, Option<u64>) {
        (self.rate_hz, self.n_channels, self.n_frames)
    }

    /// Decodes, mixes down and resamples.
    ///
    /// # Errors
    /// As [`Sink`], and for damage.
    pub fn decode(mut self, terms: Terms<'_>) -> Result<Vec<f32>, AudioError> {
        let mut sink = Sink::new(self.rate_hz, self.n_channels, terms)?;
        sink.check_length(self.n_frames.unwrap_or(0))?;
        let mut mono = Vec::new();
        let (mut n_sound, mut n_damaged, mut n_read) = (0u64, 0u64, 0usize);
        let mut edit = self.edit;
        while let Some(packet) = self.next_packet()? {
            if (terms.cancelled)() {
                return Err(AudioError::Cancelled);
            }
            n_read = n_read.saturating_add(packet.data.len().max(1));
            if n_read > self.n_bytes {
                return Err(corrupt(self.format, "its parts are larger than it is".into()));
            }
            if packet.track_id != self.track {
                continue;
            }
            match self.decoder.decode(&packet) {
                Ok(buffer) => {
                    if buffer.spec().rate() != self.rate_hz {
                        return Err(corrupt(self.format, "its rate changes on the way".into()));
                    }
                    mix_down(&buffer, &mut mono);
                    sink.push(edit.cut(&mono))?;
                    n_sound += 1;
                }
                Err(Error::DecodeError(_) | Error::IoError(_)) if self.format == AudioFormat::Mp3 => n_damaged += 1,
                Err(error) => return Err(failure(self.format, error)),
            }
        }
        if n_damaged > n_sound {
            return Err(corrupt(self.format, format!("{n_damaged} of its frames are damaged")));
        }
        self.check_end(&sink)?;
        sink.finish()
    }

    fn next_packet(&mut self) -> Result<Option<symphonia::core::packet::Packet>, AudioError> {
        self.reader.next_packet().map_err(|error| failure(self.format, error))
    }

    /// FLAC says how many frames there are and what their checksum is, and its reader passes over what is damaged.
    fn check_end(&mut self, sink: &Sink<'_>) -> Result<(), AudioError> {
        if self.format != AudioFormat::Flac {
            return Ok(());
        }
        match self.n_frames {
            Some(promised) if sink.n_in() < promised => return Err(AudioError::Truncated { format: self.format }),
            _ => {}
        }
        match self.decoder.finalize().verify_ok {
            Some(false) => Err(corrupt(self.format, "its samples do not have the checksum that it says".into())),
            _ => Ok(()),
        }
    }
}

/// A source for a reader.
fn stream<'a>(source: impl MediaSource + 'a) -> MediaSourceStream<'a> {
    MediaSourceStream::new(Box::new(source), Default::default())
}

fn decoder(format: AudioFormat, params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, AudioError> {
    let failed = |error| failure(format, error);
    let options = AudioDecoderOptions::default().verify(true);
    Ok(match params.codec {
        codec::CODEC_ID_FLAC => Box::new(codecs::FlacDecoder::try_new(params, &options).map_err(failed)?),
        codec::CODEC_ID_MP3 => Box::new(codecs::MpaDecoder::try_new(params, &options).map_err(failed)?),
        // Its tables were checked with the pages; in another container nobody did.
        codec::CODEC_ID_VORBIS if format == AudioFormat::Ogg => {
            Box::new(codecs::VorbisDecoder::try_new(params, &options).map_err(failed)?)
        }
        codec::CODEC_ID_AAC => Box::new(codecs::AacDecoder::try_new(params, &options).map_err(failed)?),
        codec::CODEC_ID_OPUS => return Err(AudioError::Unsupported { what: "Opus audio".into() }),
        codec::CODEC_ID_ALAC => return Err(AudioError::Unsupported { what: "Apple Lossless audio".into() }),
        _ => return Err(AudioError::Unsupported { what: format!("the codec of this {format} audio") }),
    })
}

/// Frames of a track, as its container counts them.
fn n_frames(track: &Track, rate_hz: u32) -> Option<u64> {
    let by_time = || {
        let time_base = track.time_base?;
        let (numerator, denominator) = (u128::from(time_base.numer.get()), u128::from(time_base.denom.get()));
        let wide = u128::from(track.duration?.get()) * u128::from(rate_hz) * numerator / denominator;
        u64::try_from(wide).ok()
    };
    track.num_frames.or_else(by_time).filter(|n_frames| *n_frames > 0)
}

/// The mean of the channels.
fn mix_down(buffer: &GenericAudioBufferRef<'_>, mono: &mut Vec<f64>) {
    let mut planes: Vec<Vec<f64>> = Vec::new();
    buffer.copy_to_vecs_planar(&mut planes);
    mono.clear();
    mono.resize(buffer.frames(), 0.0);
    for plane in &planes {
        for (sum, sample) in mono.iter_mut().zip(plane) {
            *sum += sample;
        }
    }
    let n_channels = planes.len().max(1) as f64;
    mono.iter_mut().for_each(|sum| *sum /= n_channels);
}

/// A FLAC file without the metadata between its first block and its frames: pictures and tags are not worth reading.
fn bare_flac(bytes: &[u8]) -> Result<impl Read + Send + Sync + '_, AudioError> {
    let cut = AudioError::Truncated { format: AudioFormat::Flac };
    let mut at = 4;
    let mut info = None;
    loop {
        let Some([kind, a, b, c]) = bytes.get(at..).and_then(|bytes| bytes.first_chunk()) else { return Err(cut) };
        let Ok(len) = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])) else { return Err(cut) };
        let Some(block) = bytes.get(at + 4..).and_then(|bytes| bytes.get(..len)) else { return Err(cut) };
        if kind & 0x7f == 0 {
            info = Some(block);
        }
        at += 4 + len;
        if kind & 0x80 != 0 {
            break;
        }
    }
    let info = info.filter(|info| info.len() == 34);
    let info = info.ok_or_else(|| corrupt(AudioFormat::Flac, "it does not begin with its description".into()))?;
    let head: &[u8] = b"fLaC\x80\0\0\x22";
    Ok(head.chain(info).chain(bytes.get(at..).unwrap_or(&[])))
}

fn corrupt(format: AudioFormat, why: String) -> AudioError {
    AudioError::Corrupt { format, why }
}

fn failure(format: AudioFormat, error: Error) -> AudioError {
    match error {
        Error::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => AudioError::Truncated { format },
        Error::Unsupported(what) if what.starts_with("aac: ") => {
            AudioError::Unsupported { what: format!("AAC other than plain AAC-LC ({})", &what[5..]) }
        }
        Error::ResetRequired => corrupt(format, "several streams follow each other in it".into()),
        error => corrupt(format, error.to_string().to_lowercase()),
    }
}
