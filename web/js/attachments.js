// Files that go with a message. Each kind says which files it takes and how it reads them; images are the only one so far.

import { newId } from './conversation.js';
import { formatBytes, LIMITS } from './limits.js';

/** A file that is not taken; the message says why. */
export class Refused extends Error {}

/** What servers read. Other images that the browser can decode become one of these. */
const SENT_TYPES = ['image/png', 'image/jpeg', 'image/webp', 'image/gif'];

const KINDS = [{ kind: 'image', takes: (type) => type.startsWith('image/') && type !== 'image/svg+xml', read: readImage }];

/** For the file picker. */
export const ACCEPT = 'image/*';

/**
 * Reads a file to what is sent of it.
 *
 * `roomBytes` is what a request still has room for. The result is `{attachment, url, note}`: `note` says what was changed,
 * or is null. Throws {@link Refused}.
 */
export async function readAttachment(file, roomBytes) {
  const kind = KINDS.find(({ takes }) => takes(file.type));
  const name = file.name || 'image';
  if (!kind) throw new Refused(`"${name}" is ${file.type === '' ? 'of an unknown type' : `of type ${file.type}`}; images can be sent: PNG, JPEG, WebP, GIF`);
  if (file.size > LIMITS.imageFileBytes) throw new Refused(`"${name}" is ${formatBytes(file.size)}; the limit is ${formatBytes(LIMITS.imageFileBytes)}`);
  return kind.read(file, name, Math.min(roomBytes, LIMITS.imageBodyBytes));
}

async function readImage(file, name, roomBytes) {
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
    const fits = width * height <= LIMITS.imagePixels && Math.ceil(file.size / 3) * 4 + 40 <= roomBytes && SENT_TYPES.includes(file.type);
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
  throw new Refused(`"${name}" does not fit: the message with its images may take ${formatBytes(LIMITS.bodyBytes)}, and ${formatBytes(Math.max(0, roomBytes))} are left`);
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

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Refused('the browser could not read the file'));
    reader.readAsDataURL(blob);
  });
}
