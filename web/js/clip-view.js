// A clip of audio on the page: its waveform, its length, and a button that plays it. A click into the waveform plays it from there.

import { el, icon, iconButton, svg } from './dom.js';
import { clock, N_PEAKS } from './wav.js';

const STEP = 3;
const HEIGHT = 32;
const LEAST_BAR = 2;

/** Bars as the `d` of a path, from `begin` on; heights are from 0 to 1. */
export const bars = (heights, begin = 0) =>
  heights
    .map((height, index) => {
      const tall = Math.max(LEAST_BAR, height * (HEIGHT - 2));
      return `M${(begin + index) * STEP + 1.5} ${((HEIGHT - tall) / 2).toFixed(1)}v${tall.toFixed(1)}`;
    })
    .join('');

/** A drawing of `n` bars in two paths: those that count and the rest. */
export function barsDrawing(n) {
  const [done, rest] = [svg('path', { class: 'bars-done' }), svg('path', { class: 'bars-rest' })];
  return { node: svg('svg', { class: 'bars', viewBox: `0 0 ${n * STEP} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, rest, done), done, rest };
}

export class ClipView {
  #player;
  #heights;
  #seconds;
  #drawing = barsDrawing(N_PEAKS);
  #time = el('span', { class: 'clip-time' });
  #play = null;
  #name;
  #frame = null;
  #shown = null;

  /** `url` is its data; `remove` is what the button for that does, if there is one. */
  constructor(attachment, url, player, remove = null) {
    const { name, seconds, peaks } = attachment;
    this.url = url;
    this.#player = player;
    this.#name = name;
    this.#seconds = seconds;
    // A quiet clip shows its shape too, and silence stays flat.
    const top = Math.max(10, ...peaks);
    this.#heights = Array.from({ length: N_PEAKS }, (_, index) => (peaks[Math.floor((index * peaks.length) / N_PEAKS)] ?? 0) / top);
    const label = seconds === null ? `Audio ${name}` : `Audio ${name}, ${clock(seconds)}`;
    this.node = el('div', { class: seconds === null ? 'clip unheard' : 'clip', role: 'group', 'aria-label': label });
    if (seconds === null) this.node.append(icon('sound'));
    else {
      this.#play = iconButton('play', `Play ${name}`, () => this.#toggle(), { class: 'icon-button clip-play' });
      this.node.append(this.#play);
      this.#drawing.node.addEventListener('click', (event) => this.#seek(event));
    }
    const words = el('div', { class: 'clip-words' }, el('span', { class: 'clip-name', title: name, text: name }), this.#time);
    this.node.append(el('div', { class: 'clip-body' }, seconds === null ? null : this.#drawing.node, words));
    if (remove) this.node.append(iconButton('close', `Remove ${name}`, remove, { class: 'icon-button remove' }));
    this.#draw();
  }

  /** For the player: it begins, pauses or ends. */
  onChange() {
    const playing = this.#player.isPlaying(this);
    const label = `${playing ? 'Pause' : 'Play'} ${this.#name}`;
    this.#play.setAttribute('aria-label', label);
    this.#play.title = label;
    this.#play.querySelector('svg').replaceWith(icon(playing ? 'pause' : 'play'));
    cancelAnimationFrame(this.#frame);
    if (playing) this.#follow();
    else this.#draw();
  }

  close() {
    if (this.#play) this.#player.end(this);
  }

  #toggle() {
    return this.#heard(this.#player.toggle(this));
  }

  #seek({ clientX }) {
    const { left, width } = this.#drawing.node.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (clientX - left) / width));
    return this.#heard(this.#player.seek(this, part * this.#seconds));
  }

  async #heard(playing) {
    try {
      await playing;
    } catch {
      this.#time.textContent = 'the browser can not play it';
    }
  }

  #follow() {
    this.#draw();
    this.#frame = requestAnimationFrame(() => this.#follow());
  }

  #draw() {
    const atS = this.#player.atS(this);
    const n = atS === null ? 0 : Math.round((atS / this.#seconds) * N_PEAKS);
    const time = this.#seconds === null ? 'can not be played here' : atS === null ? clock(this.#seconds) : `${clock(atS)} / ${clock(this.#seconds)}`;
    if (this.#time.textContent !== time) this.#time.textContent = time;
    if (this.#shown === n) return;
    this.#shown = n;
    this.#drawing.done.setAttribute('d', bars(this.#heights.slice(0, n)));
    this.#drawing.rest.setAttribute('d', bars(this.#heights.slice(n), n));
  }
}
