// The microphone: from it to a WAV file. The browser's own recorder writes Opus in WebM, which servers do not read.

import { Refused } from './files.js';
import { resample } from './resample.js';
import { SENT_RATE_HZ, writeWav } from './wav.js';

/** A recording whose end the browser does not confirm in this time is taken as it is. */
const END_MS = 1000;
const OR_FILE = 'or add an audio file';

/** What the browser says of a microphone that it does not give, and the way out. */
const REFUSALS = {
  NotAllowedError: `the browser did not allow the microphone; allow it for this page in the settings of the site, ${OR_FILE}`,
  NotFoundError: `there is no microphone; connect one, ${OR_FILE}`,
  NotReadableError: `the microphone can not be read; close what else uses it, ${OR_FILE}`,
};

export class Recorder {
  #context;
  #stream;
  #taker;
  #blocks = [];
  #n = 0;
  #ended;

  /**
   * Begins to record. `onBlock(level)` is called some twenty times a second with how loud it is, from 0 to 1; `onLost` when
   * the microphone has gone. Throws {@link Refused} where there is none to be had.
   */
  static async begin({ onBlock, onLost }) {
    if (!globalThis.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      throw new Refused(`browsers give the microphone only to pages over HTTPS or from this machine; open the page at an address with https: or at localhost, ${OR_FILE}`);
    }
    const context = new AudioContext();
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
      await context.audioWorklet.addModule(new URL('./recorder-worklet.js', import.meta.url));
      await context.resume();
      return new Recorder(context, stream, { onBlock, onLost });
    } catch (error) {
      for (const track of stream?.getTracks() ?? []) track.stop();
      context.close();
      throw new Refused(REFUSALS[error.name] ?? `the microphone can not be used: ${error.message}; try again, ${OR_FILE}`);
    }
  }

  constructor(context, stream, { onBlock, onLost }) {
    this.#context = context;
    this.#stream = stream;
    this.#taker = new AudioWorkletNode(context, 'taker', { channelCount: 1, channelCountMode: 'explicit' });
    this.#ended = new Promise((resolve) => {
      this.#taker.port.onmessage = ({ data }) => {
        if (data === null) return resolve();
        this.#blocks.push(data);
        this.#n += data.length;
        onBlock(loudness(data));
      };
    });
    stream.getAudioTracks()[0].addEventListener('ended', onLost);
    // Nothing is heard of it: it writes no sound. Browsers run only what leads to the speakers.
    context.createMediaStreamSource(stream).connect(this.#taker).connect(context.destination);
  }

  seconds() {
    return this.#n / this.#context.sampleRate;
  }

  /** Ends it: the file, of one channel at 16 kHz, or null where nothing was recorded. */
  async finish() {
    this.#taker.port.postMessage('end');
    await Promise.race([this.#ended, new Promise((resolve) => setTimeout(resolve, END_MS))]);
    const rateHz = this.#context.sampleRate;
    this.discard();
    if (this.#n === 0) return null;
    const samples = new Float32Array(this.#n);
    let at = 0;
    for (const block of this.#blocks.splice(0)) {
      samples.set(block, at);
      at += block.length;
    }
    const now = new Date();
    const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map((part) => String(part).padStart(2, '0')).join('.');
    return new File([writeWav(resample(samples, rateHz, SENT_RATE_HZ), SENT_RATE_HZ)], `voice ${time}.wav`, { type: 'audio/wav' });
  }

  /** Ends it, and gives the microphone back. */
  discard() {
    this.#taker.port.onmessage = null;
    for (const track of this.#stream.getTracks()) track.stop();
    if (this.#context.state !== 'closed') this.#context.close();
  }
}

/** From -60 dB, which is 0, to full scale, which is 1. */
function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.max(0, Math.min(1, 1 + Math.log10(Math.max(sum / samples.length, 1e-12)) / 6));
}
