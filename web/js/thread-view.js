// The messages of the shown conversation, and where the page is scrolled to.

import { shownPath, siblingsOf } from './conversation.js';
import { byId, el } from './dom.js';
import { messageView } from './message-view.js';
import { copyWithMark } from './clipboard.js';

/** So near to the end counts as being there. */
const NEAR_END_PX = 80;
/** Of the time between two drawings of a growing answer at most a quarter goes to drawing. */
const DRAWING_SHARE = 4;

const EXAMPLES = [
  ['Explain', 'how a mixture of experts works, to a curious sixteen-year-old'],
  ['Write', 'a Python function that merges overlapping intervals, with tests'],
  ['Compare', 'TCP, UDP and QUIC in a table, then say when to take which'],
  ['Draft', 'a friendly note that asks my landlord to repair the heating'],
];

export class ThreadView {
  #session;
  #actions;
  #main = byId('main');
  #thread = byId('thread');
  #empty = byId('empty');
  #toEnd = byId('to-end');
  #views = new Map();
  #atEnd = true;
  #scrollTop = 0;
  #frame = null;
  #nextDrawing = 0;
  #ticking = null;

  constructor(session, actions, announce) {
    this.#session = session;
    this.#actions = actions;
    session.addEventListener('thread', (event) => this.#show(event.detail.opened === true));
    session.addEventListener('message', () => this.#grow());
    this.#main.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.#toEnd.addEventListener('click', () => this.scrollToEnd());
    // Whatever makes the messages longer, text or an image that is there now, the end stays in sight if it was.
    new ResizeObserver(() => this.#atEnd && this.#toBottom()).observe(this.#thread);
    new ResizeObserver(() => this.#atEnd && this.#toBottom()).observe(this.#main);
    this.#thread.addEventListener('click', (event) => {
      const button = event.target.closest('.copy-code');
      if (button) copyWithMark(button, button.closest('.code').querySelector('code').textContent, announce);
    });
    byId('examples').append(
      ...EXAMPLES.map(([verb, rest]) => el('li', {}, el('button', { type: 'button', on: { click: () => actions.example(`${verb} ${rest}`) } }, el('strong', { text: verb }), el('span', { text: rest })))),
    );
    this.#show(true);
  }

  scrollToEnd() {
    this.#atEnd = true;
    this.#toBottom();
  }

  /** Opens the last message of the user for editing. */
  editLast() {
    const last = shownPath(this.#session.current).findLast((message) => message.role === 'user');
    if (last && !this.#session.isRunning()) this.#views.get(last.id).edit();
  }

  #show(opened) {
    const { current } = this.#session;
    const path = shownPath(current);
    const running = this.#session.isRunning();
    if (opened) this.#forget();
    const shown = new Set(path.map(({ id }) => id));
    for (const [id, view] of this.#views) {
      if (shown.has(id)) continue;
      view.close?.();
      view.node.remove();
      this.#views.delete(id);
    }
    path.forEach((message, index) => {
      if (!this.#views.has(message.id)) this.#views.set(message.id, messageView(message, this.#actions));
      const view = this.#views.get(message.id);
      if (this.#thread.children[index] !== view.node) this.#thread.insertBefore(view.node, this.#thread.children[index] ?? null);
      view.update({ siblings: siblingsOf(current, message), running });
    });
    this.#empty.hidden = path.length > 0;
    this.#tickWhile(running);
    if (opened || this.#atEnd) this.scrollToEnd();
    this.#showWay();
  }

  #forget() {
    for (const view of this.#views.values()) view.close?.();
    this.#views.clear();
    this.#thread.replaceChildren();
  }

  #tickWhile(running) {
    clearInterval(this.#ticking);
    if (running) this.#ticking = setInterval(() => this.#lastView()?.tick?.(), 1000);
  }

  #lastView() {
    return this.#views.get(this.#session.current.leaf);
  }

  #grow() {
    if (this.#frame !== null || !this.#session.isRunning()) return;
    const draw = (now) => {
      if (now < this.#nextDrawing) {
        this.#frame = requestAnimationFrame(draw);
        return;
      }
      this.#frame = null;
      const begin = performance.now();
      this.#lastView()?.grow?.();
      this.#nextDrawing = begin + (performance.now() - begin) * DRAWING_SHARE;
    };
    this.#frame = requestAnimationFrame(draw);
  }

  #toBottom() {
    this.#main.scrollTop = this.#main.scrollHeight;
  }

  /** Only the reader leaves the end, by going up; that the messages grew does not. */
  #scrolled() {
    const { scrollTop } = this.#main;
    if (scrollTop < this.#scrollTop || this.#leftPx() < NEAR_END_PX) this.#atEnd = this.#leftPx() < NEAR_END_PX;
    this.#scrollTop = scrollTop;
    this.#showWay();
  }

  #showWay() {
    this.#toEnd.hidden = this.#leftPx() < 2 * NEAR_END_PX;
  }

  #leftPx() {
    return this.#main.scrollHeight - this.#main.clientHeight - this.#main.scrollTop;
  }
}
