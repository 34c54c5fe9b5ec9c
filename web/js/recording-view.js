// The microphone's button, and what is seen while it records: a level, the time, a way to discard.

import { bars, barsDrawing } from './clip-view.js';
import { byId, icon } from './dom.js';
import { Refused } from './files.js';
import { Recorder } from './recorder.js';
import { clock } from './wav.js';

/** Bars of the level; some twenty come each second. */
const N_BARS = 40;

export class RecordingView {
  #button = byId('record');
  #place = byId('recording');
  #time = byId('recording-time');
  #drawing = barsDrawing(N_BARS);
  #levels = [];
  #recorder = null;
  /** From the press of the button until the browser has given the microphone, or not. */
  #opening = false;
  #finishing = null;
  #actions;

  /**
   * `actions`: `limitS()` says how long a recording may be, `done(file)` takes it, `say(text)` shows a message, `announce`
   * reads one out, `changed` is told that a recording began or ended.
   */
  constructor(actions) {
    this.#actions = actions;
    byId('recording-level').append(this.#drawing.node);
    this.#button.addEventListener('click', () => (this.#recorder ? this.finish() : this.#begin()));
    byId('discard').addEventListener('click', () => this.discard());
    // Before all other uses of the key, which would stop an answer.
    addEventListener('keydown', (event) => this.#escape(event), { capture: true });
  }

  isRecording() {
    return this.#recorder !== null;
  }

  /** Ends the recording and hands it over. */
  finish(why = '') {
    this.#finishing ??= this.#finish(why).finally(() => (this.#finishing = null));
    return this.#finishing;
  }

  discard() {
    if (!this.#recorder || this.#finishing) return;
    this.#recorder.discard();
    this.#show(null);
    this.#button.focus();
    this.#actions.announce('Recording discarded');
  }

  async #begin() {
    if (this.#opening) return;
    const limitS = this.#actions.limitS();
    if (limitS === null) return;
    this.#opening = true;
    this.#actions.say('');
    try {
      const recorder = await Recorder.begin({
        onBlock: (level) => this.#grow(level, limitS),
        onLost: () => this.finish('the microphone has gone; what was recorded before is kept'),
      });
      this.#show(recorder);
      this.#actions.announce('Recording');
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#actions.say(error.message);
    } finally {
      this.#opening = false;
    }
  }

  async #finish(why) {
    const recorder = this.#recorder;
    if (!recorder) return;
    const seconds = recorder.seconds();
    this.#button.disabled = true;
    try {
      const file = await recorder.finish();
      this.#show(null);
      if (file === null) this.#actions.say('nothing was recorded; press the button again, and speak');
      else {
        await this.#actions.done(file, why);
        this.#actions.announce(`Recording stopped, ${clock(seconds)}`);
      }
    } finally {
      this.#show(null);
    }
  }

  #grow(level, limitS) {
    if (!this.#recorder || this.#finishing) return;
    this.#levels = [...this.#levels, level].slice(-N_BARS);
    const seconds = this.#recorder.seconds();
    this.#draw(level);
    const time = clock(seconds);
    if (this.#time.textContent !== time) this.#time.textContent = time;
    if (seconds >= limitS) this.finish(`the recording ended at ${clock(limitS)}, which is the longest that can be sent here`);
  }

  /** What was heard lately; or, where nothing shall wander over the screen, how loud it is now. */
  #draw(level) {
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    const n = still ? Math.round(level * N_BARS) : N_BARS;
    const heights = still ? Array(N_BARS).fill(0.5) : [...Array(N_BARS - this.#levels.length).fill(0), ...this.#levels];
    this.#drawing.done.setAttribute('d', bars(heights.slice(0, n)));
    this.#drawing.rest.setAttribute('d', bars(heights.slice(n), n));
  }

  #show(recorder) {
    this.#recorder = recorder;
    this.#levels = [];
    this.#time.textContent = '0:00';
    this.#draw(0);
    const on = recorder !== null;
    const label = on ? 'Stop recording' : 'Record audio';
    this.#button.disabled = false;
    this.#button.classList.toggle('on', on);
    this.#button.setAttribute('aria-label', label);
    this.#button.title = label;
    this.#button.querySelector('svg').replaceWith(icon(on ? 'stop' : 'microphone'));
    this.#place.hidden = !on;
    byId('composer-hint').hidden = on;
    this.#actions.changed();
  }

  #escape(event) {
    if (event.key !== 'Escape' || !this.#recorder || event.isComposing || document.querySelector('dialog[open], :popover-open')) return;
    event.preventDefault();
    event.stopPropagation();
    this.discard();
  }
}
