// Runs where the browser's sound does: hands the samples of the microphone to the page, a few milliseconds at a time.

/** Samples of one message, so that there are some twenty a second. */
const BLOCK = 2048;

class Taker extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;
  #ended = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.#hand();
      this.port.postMessage(null);
      this.#ended = true;
    };
  }

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.#block[this.#filled] = sample;
      this.#filled += 1;
      if (this.#filled === BLOCK) this.#hand();
    }
    return !this.#ended;
  }

  #hand() {
    const samples = this.#block.slice(0, this.#filled);
    this.#filled = 0;
    if (samples.length > 0) this.port.postMessage(samples, [samples.buffer]);
  }
}

registerProcessor('taker', Taker);
