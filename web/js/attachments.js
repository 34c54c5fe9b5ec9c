// Files that go with a message. Each kind says which files it takes and how it reads them.

import { isAudio, readClip } from './clips.js';
import { newId } from './conversation.js';
import { dataUrl, encodedLength, Refused } from './files.js';
import { formatBytes, LIMITS } from './limits.js';

/** What servers read. Other images that the browser can decode become one of these. */
const SENT_TYPES = ['image/png', 'image/jpeg', 'image/webp', 'image/gif'];

/** `are` is what a file of the kind is called, `lacks` what a model can not do that does not take it. */
const KINDS = [
  {
    kind: 'image', plural: 'images', formats: 'PNG, JPEG, WebP, GIF', are: 'an image', lacks: 'see', accept: 'image/*', limit: LIMITS.imagesPerRequest,
    takes: ({ type }) => type.startsWith('image/') && type !== 'image/svg+xml', read: readImage,
  },
  {
    kind: 'audio', plural: 'audio', formats: 'WAV, MP3, FLAC, Ogg, M4A', are: 'audio', lacks: 'hear', accept: 'audio/*,.wav,.mp3,.flac,.ogg,.oga,.opus,.m4a', limit: LIMITS.clipsPerRequest,
    takes: isAudio, read: readClip,
  },
];

/** What can be sent to a model: `accept` for the file picker, `words` for people, both empty where it is only text. */
export function sendable(takes) {
  const kinds = KINDS.filter(({ kind }) => takes(kind));
  return { accept: kinds.map(({ accept }) => accept).join(), words: kinds.map(({ plural }) => plural).join(' and ') };
}

/** Why one more of this kind does not go into a request that has room for `left`, or null. */
export function tooMany(kind, left) {
  const { limit, plural } = KINDS.find((other) => other.kind === kind);
  const what = kind === 'audio' ? 'clips of audio' : plural;
  return left > 0 ? null : `a request may carry ${limit} ${what}, those of earlier messages included; begin a new conversation for more`;
}

/**
 * Reads a file to what is sent of it.
 *
 * `takes(kind)` says what the model takes; `room` what a request still has room for: how many of each kind, and `bytes`. The
 * result is `{attachment, url, note}`: `note` says what was changed, or is null. Throws {@link Refused}.
 */
export async function readAttachment(file, room, takes) {
  const kind = KINDS.find((candidate) => candidate.takes(file));
  const name = file.name || kind?.kind || 'file';
  if (!kind || !takes(kind.kind)) throw new Refused(`"${name}" is ${kind ? `${kind.are}, which this model can not ${kind.lacks}` : file.type === '' ? 'of an unknown type' : `of type ${file.type}`}; ${wayOut(takes)}`);
  const refusal = tooMany(kind.kind, room[kind.kind]);
  if (refusal !== null) throw new Refused(refusal);
  return kind.read(file, name, room.bytes);
}

function wayOut(takes) {
  const kinds = KINDS.filter(({ kind }) => takes(kind));
  return kinds.length === 0 ? 'it reads text' : `${kinds.map(({ plural }) => plural).join(' and ')} can be sent: ${kinds.map(({ formats }) => formats).join(', ')}`;
}

async function readImage(file, name, leftBytes) {
  if (file.size > LIMITS.imageFileBytes) throw new Refused(`"${name}" is ${formatBytes(file.size)}; the limit is ${formatBytes(LIMITS.imageFileBytes)}`);
  const roomBytes = Math.min(leftBytes, LIMITS.imageBodyBytes);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Refused(`"${name}" can not be read as an image; PNG, JPEG, WebP and GIF work`);
  }
  try {
    const { width, height } = bitmap;
    if (width * height > LIMITS.imageDecodePixels) throw new Refused(`"${name}" is ${sizeText(width, height)}; the limit is ${LIMITS.imageDecodePixels / 1e6} MP`);
    if (Math.max(width, height) > LIMITS.imageAspect * Math.min(width, height)) {
      throw new Refused(`"${name}" is ${width}×${height}; the longer side may be ${LIMITS.imageAspect} times the shorter`);
    }
    const fits = width * height <= LIMITS.imagePixels && encodedLength(file.size) <= roomBytes && SENT_TYPES.includes(file.type);
    return fits ? await asItIs(file, name, width, height) : await smaller(bitmap, file, name, roomBytes);
  } finally {
    bitmap.close();
  }
}

async function asItIs(file, name, width, height) {
  const url = await dataUrl(file);
  return { attachment: imageOf(name, file.type, url, width, height), url, note: null };
}

/** Drawn anew, with fewer pixels where that is needed, until it fits. */
async function smaller(bitmap, file, name, roomBytes) {
  const { width, height } = bitmap;
  const lossless = SENT_TYPES.includes(file.type) ? file.type === 'image/png' || file.type === 'image/gif' : true;
  let scale = Math.min(1, Math.sqrt(LIMITS.imagePixels / (width * height)));
  // PNG first where nothing should be lost, then JPEG, then fewer pixels.
  for (const type of [lossless ? 'image/png' : 'image/jpeg', 'image/jpeg', 'image/jpeg', 'image/jpeg', 'image/jpeg', 'image/jpeg']) {
    const [w, h] = [Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale))];
    const url = await dataUrl(await draw(bitmap, w, h, type));
    if (url.length <= roomBytes) {
      const note = w === width ? null : `"${name}" was made smaller: ${sizeText(width, height)} to ${sizeText(w, h)}`;
      return { attachment: imageOf(name, type, url, w, h), url, note };
    }
    if (type === 'image/jpeg') scale *= 0.7;
  }
  throw new Refused(`"${name}" does not fit: the message has room for ${formatBytes(Math.max(0, roomBytes))}`);
}

async function draw(bitmap, width, height, type) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  // JPEG has no transparency; what was see-through becomes white, not black.
  if (type === 'image/jpeg') {
    context.fillStyle = '#ffffff';
    context.fillRect(0, 0, width, height);
  }
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.convertToBlob({ type, quality: 0.9 });
}

const imageOf = (name, type, url, width, height) => ({ id: newId(), kind: 'image', name: name.slice(0, 255), type, bytes: url.length, width, height });
const sizeText = (width, height) => `${width}×${height} (${((width * height) / 1e6).toFixed(1)} MP)`;
