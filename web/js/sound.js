// Sound through Web Audio: decoding, and playing. Not an audio element, whose source the page's policy does not allow.

import { SENT_RATE_HZ } from './wav.js';

/**
 * The samples of an audio file at 16 kHz: an `AudioBuffer`. Throws where the browser can not read the file.
 *
 * A context that is never heard needs no permission to play.
 */
export const decode = (bytes) => new OfflineAudioContext(1, 1, SENT_RATE_HZ).decodeAudioData(bytes.slice().buffer);

/** One channel: the mean of all. */
export function toMono(buffer) {
  const mono = new Float32Array(buffer.length);
  const n = buffer.numberOfChannels;
  for (let channel = 0; channel < n; channel += 1) buffer.getChannelData(channel).forEach((sample, index) => (mono[index] += sample / n));
  return mono;
}

/** The bytes of a data URL. */
export const bytesOf = (url) => Uint8Array.from(atob(url.slice(url.indexOf(',') + 1)), (char) => char.charCodeAt(0));

/** Plays one clip at a time; another one that begins ends it. */
export class Player {
  #context = null;
  /** What plays or is paused: `{clip, buffer, source, begun, atS}`. */
  #current = null;

  /**
   * Plays, pauses or goes on with `clip`, an object with `url` and `onChange`, which is called when it begins, pauses or
   * ends. Throws where the browser can not read it.
   */
  async toggle(clip) {
    if (this.isPlaying(clip)) return this.#pause();
    if (this.#current?.clip !== clip) return this.#open(clip, 0);
    if (this.#current.buffer !== null) await this.#begin(this.#current);
  }

  /** Plays `clip` from the second `atS` on, whatever it does. Throws as `toggle`. */
  async seek(clip, atS) {
    const current = this.#current;
    if (current?.clip !== clip) return this.#open(clip, atS);
    silence(current);
    current.atS = atS;
    // One that is being read begins there when it is.
    if (current.buffer !== null) await this.#begin(current);
  }

  async #open(clip, atS) {
    this.end(this.#current?.clip);
    // Made in the turn of the click, which is what the browser wants before there is sound.
    this.#context ??= new AudioContext();
    const current = { clip, buffer: null, source: null, begun: 0, atS };
    this.#current = current;
    try {
      current.buffer = await this.#context.decodeAudioData(bytesOf(clip.url).buffer);
    } catch (error) {
      this.end(clip);
      throw error;
    }
    if (this.#current === current) await this.#begin(current);
  }

  isPlaying(clip) {
    return this.#current?.clip === clip && this.#current.source !== null;
  }

  /** Seconds since the beginning of `clip`, or null where it neither plays nor is paused. */
  atS(clip) {
    const current = this.#current;
    if (current?.clip !== clip || current.buffer === null) return null;
    return Math.min(current.buffer.duration, current.atS + (current.source === null ? 0 : this.#context.currentTime - current.begun));
  }

  /** Ends `clip` if it plays or is paused. */
  end(clip) {
    const current = this.#current;
    if (!current || current.clip !== clip) return;
    this.#current = null;
    silence(current);
    clip.onChange();
    this.#context.suspend();
  }

  async #begin(current) {
    await this.#context.resume();
    if (this.#current !== current || current.source !== null) return;
    const source = new AudioBufferSourceNode(this.#context, { buffer: current.buffer });
    source.connect(this.#context.destination);
    source.onended = () => this.#current?.source === source && this.end(current.clip);
    source.start(0, current.atS);
    Object.assign(current, { source, begun: this.#context.currentTime });
    current.clip.onChange();
  }

  #pause() {
    const current = this.#current;
    current.atS = this.atS(current.clip);
    silence(current);
    current.clip.onChange();
    this.#context.suspend();
  }
}

function silence(current) {
  const { source } = current;
  current.source = null;
  source?.stop();
  source?.disconnect();
}
