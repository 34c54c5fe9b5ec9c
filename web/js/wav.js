// What an audio file is, by its first bytes, and WAV files of our own: 16 bits, one channel. No DOM, no Web Audio.

/** What the server reads, with the media type of each. */
export const AUDIO_TYPES = Object.freeze({ wav: 'audio/wav', mp3: 'audio/mpeg', flac: 'audio/flac', ogg: 'audio/ogg', m4a: 'audio/mp4' });

/** The rate of what is recorded or written anew; the model hears no other one. */
export const SENT_RATE_HZ = 16000;
const HEADER_BYTES = 44;
const SAMPLE_BYTES = 2;

/** Bars of a drawn waveform. */
export const N_PEAKS = 64;
/** A bar of full scale. */
export const PEAK_MAX = 100;

/** `samples`, from -1 to 1, as a WAV file; what is beyond is clipped. */
export function writeWav(samples, rateHz) {
  const bytes = new Uint8Array(HEADER_BYTES + samples.length * SAMPLE_BYTES);
  const view = new DataView(bytes.buffer);
  const text = (at, word) => [...word].forEach((char, index) => view.setUint8(at + index, char.charCodeAt(0)));
  text(0, 'RIFF');
  view.setUint32(4, bytes.length - 8, true);
  text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rateHz, true);
  view.setUint32(28, rateHz * SAMPLE_BYTES, true);
  view.setUint16(32, SAMPLE_BYTES, true);
  view.setUint16(34, 8 * SAMPLE_BYTES, true);
  text(36, 'data');
  view.setUint32(40, samples.length * SAMPLE_BYTES, true);
  // The reader divides by 32768, so that is the scale; what is no number becomes silence.
  for (let index = 0; index < samples.length; index += 1) {
    view.setInt16(HEADER_BYTES + index * SAMPLE_BYTES, Math.max(-32768, Math.min(32767, Math.round(samples[index] * 32768))), true);
  }
  return bytes;
}

/** Seconds of such a file of so many bytes. */
export const wavSeconds = (bytes) => Math.max(0, Math.floor((bytes - HEADER_BYTES) / SAMPLE_BYTES / SENT_RATE_HZ));

/**
 * The format of an audio file as a request names it, or null where the server does not read it: Opus and AAC without their
 * usual container, for instance, which the browser may.
 */
export function formatOf(bytes) {
  const word = (at, text) => [...text].every((char, index) => bytes[at + index] === char.charCodeAt(0));
  if (word(0, 'RIFF') && word(8, 'WAVE')) return 'wav';
  if (word(0, 'fLaC')) return 'flac';
  if (word(4, 'ftyp')) return 'm4a';
  // An Ogg file names its codec where its first packet begins.
  if (word(0, 'OggS')) return word(29, 'vorbis') ? 'ogg' : null;
  // A tag, or a frame of layer III; AAC has the same first bits and no layer.
  if (word(0, 'ID3') || (bytes[0] === 0xff && (bytes[1] & 0xe6) === 0xe2)) return 'mp3';
  return null;
}

/** The loudest sample of each of {@link N_PEAKS} parts, from 0 to {@link PEAK_MAX}; fewer for the shortest sounds. */
export function peaksOf(samples) {
  const n = Math.min(N_PEAKS, samples.length);
  return Array.from({ length: n }, (_, part) => {
    const end = Math.floor(((part + 1) * samples.length) / n);
    let peak = 0;
    for (let index = Math.floor((part * samples.length) / n); index < end; index += 1) peak = Math.max(peak, Math.abs(samples[index]));
    return Math.min(PEAK_MAX, Math.round(peak * PEAK_MAX));
  });
}

/** `75.4` → `1:15`. */
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
