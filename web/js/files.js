// What reading a file needs, whatever its kind.

/** A file that is not taken; the message says why. */
export class Refused extends Error {}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Refused('the browser could not read the file'));
    reader.readAsDataURL(blob);
  });
}

/** Characters of a data URL of so many bytes, with room for its head. */
export const encodedLength = (bytes) => Math.ceil(bytes / 3) * 4 + 40;
