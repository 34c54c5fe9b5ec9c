// Audio that goes with a message: from a file to what is sent of it.

import { newId } from './conversation.js';
import { dataUrl, encodedLength, Refused } from './files.js';
import { formatBytes, LIMITS } from './limits.js';
import { decode, toMono } from './sound.js';
import { AUDIO_TYPES, formatOf, peaksOf, SENT_RATE_HZ, writeWav } from './wav.js';

const WORK = 'WAV, MP3, FLAC, Ogg Vorbis and M4A work';

/** Some systems know no type of these. */
const NAMES = /\.(wav|mp3|flac|ogg|oga|opus|m4a)$/i;

export const isAudio = (file) => file.type.startsWith('audio/') || file.type === 'application/ogg' || (file.type === '' && NAMES.test(file.name));

/** Reads a file; what the server does not read and the browser does becomes a WAV file. */
export async function readClip(file, name, roomBytes) {
  if (file.size > LIMITS.clipBytes) throw new Refused(`"${name}" is ${megabytes(file.size)}; the limit is ${megabytes(LIMITS.clipBytes)}`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const format = formatOf(bytes);
  const buffer = await samplesOf(bytes, format);
  if (buffer === null && format === null) throw new Refused(`"${name}" can not be read as audio; ${WORK}`);
  if (buffer?.length === 0) throw new Refused(`"${name}" has no sound in it; choose another one`);
  if (buffer?.duration > LIMITS.clipSeconds) throw new Refused(`"${name}" is ${Math.ceil(buffer.duration)} s long; the limit is ${LIMITS.clipSeconds} s`);
  const samples = buffer && toMono(buffer);
  const sent = format === null ? writeWav(samples, SENT_RATE_HZ) : bytes;
  if (sent.length > LIMITS.clipBytes) throw new Refused(`"${name}" would be ${megabytes(sent.length)} as WAV; the limit is ${megabytes(LIMITS.clipBytes)}`);
  if (encodedLength(sent.length) > roomBytes) {
    throw new Refused(`"${name}" does not fit: it takes ${formatBytes(encodedLength(sent.length))} of the message, and ${formatBytes(Math.max(0, roomBytes))} are left`);
  }
  const type = AUDIO_TYPES[format ?? 'wav'];
  const url = await dataUrl(new Blob([sent], { type }));
  const attachment = {
    id: newId(), kind: 'audio', name: name.slice(0, 255), type, bytes: url.length, format: format ?? 'wav',
    seconds: buffer?.duration ?? null, peaks: samples ? peaksOf(samples) : [],
  };
  return { attachment, url, note: format === null ? `"${name}" is sent as WAV` : null };
}

/** What the browser makes of it, or null. Compressed files of some size may hold hours, so those are sent unheard. */
async function samplesOf(bytes, format) {
  if (format !== 'wav' && bytes.length > LIMITS.clipDecodeBytes) return null;
  try {
    return await decode(bytes);
  } catch {
    return null;
  }
}

/** As the server states its limit, and rounded up, so that nothing is refused for being what it may be. */
const megabytes = (bytes) => `${Math.ceil(bytes / 1e5) / 10} MB`;
