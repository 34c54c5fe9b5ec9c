// Every bound of the page, in one place. Those on requests are the server's defaults; a server with other ones answers
// with its own error, which the page shows.

const MIB = 1024 * 1024;

export const LIMITS = Object.freeze({
  /** Bytes of one request with images. */
  bodyBytes: 24 * MIB,
  /** The same where the model hears. */
  bodyWithAudioBytes: 40 * MIB,
  /** Bytes that one image may take in a request, as base64; a larger one is made smaller first. */
  imageBodyBytes: 10 * MIB,
  /** Pixels of one image; a larger one is made smaller first. */
  imagePixels: 20e6,
  /** The longer side of an image divided by the shorter. */
  imageAspect: 50,
  /** Pixels of an image that the page decodes at all, to make it smaller. */
  imageDecodePixels: 200e6,
  /** Bytes of an image file that the page reads at all. */
  imageFileBytes: 64 * MIB,
  /** Images of one request, those of earlier messages included. */
  imagesPerRequest: 8,
  /** Bytes of one file of audio. */
  clipBytes: 25e6,
  clipSeconds: 3600,
  /** Bytes of compressed audio that the page decodes, to draw and to play it; as samples it takes a multiple of that. */
  clipDecodeBytes: 10e6,
  /** Clips of one request, those of earlier messages included. */
  clipsPerRequest: 16,
  stopStrings: 4,
  stopBytes: 256,
  /** Conversations kept in the browser. */
  conversations: 500,
  /** Bytes kept in the browser, images and audio included. */
  storedBytes: 512 * MIB,
  /** Bytes of a file to import. */
  importBytes: 512 * MIB,
  titleChars: 120,
});

/** `1536` → `1.5 KiB`. */
export function formatBytes(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < MIB) return `${(bytes / 1024).toFixed(bytes < 10240 ? 1 : 0)} KiB`;
  return `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`;
}
