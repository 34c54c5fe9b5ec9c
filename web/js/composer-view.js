// Where messages are written: the field, images to send, send and stop.

import { ACCEPT, readAttachment, Refused } from './attachments.js';
import { byId, el, iconButton } from './dom.js';
import { LIMITS } from './limits.js';

export class ComposerView {
  #session;
  #input = byId('input');
  #note = byId('composer-note');
  #list = byId('pending');
  /** `{attachment, url}` of images to send. */
  #pending = [];
  /** What is written and not sent, by conversation. */
  #drafts = new Map();
  #shown;
  #afterSend;
  #reading = Promise.resolve();

  /** `afterSend` is called when a message goes off; `editLast` when the arrow up is pressed in the empty field. */
  constructor(session, { afterSend, editLast }) {
    this.#session = session;
    this.#afterSend = afterSend;
    this.#shown = session.current.id;
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#input.addEventListener('input', () => this.#refresh());
    this.#input.addEventListener('keydown', (event) => {
      // Enter also ends the choice of a character in many languages.
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === 'Enter' && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        this.#send();
      }
      if (event.key === 'ArrowUp' && this.#input.value === '') {
        event.preventDefault();
        editLast();
      }
    });
    byId('stop').addEventListener('click', () => {
      session.stop();
      this.#input.focus();
    });
    session.addEventListener('thread', (event) => this.#follow(event.detail.opened === true));
    this.#wireFiles();
    this.#refresh();
  }

  /** Puts a text into the field, to be sent or changed. */
  write(text) {
    this.#input.value = text;
    this.#refresh();
    this.#input.focus();
  }

  focus() {
    // On a touch screen the keyboard would cover what there is to read.
    if (!matchMedia('(hover: none)').matches) this.#input.focus();
  }

  #follow(opened) {
    if (opened && this.#shown !== this.#session.current.id) {
      this.#drafts.set(this.#shown, { text: this.#input.value, pending: this.#pending });
      this.#shown = this.#session.current.id;
      const draft = this.#drafts.get(this.#shown) ?? { text: '', pending: [] };
      this.#input.value = draft.text;
      this.#pending = draft.pending;
      this.#say('');
      this.#drawPending();
    }
    this.#refresh();
  }

  #refresh() {
    const running = this.#session.isRunning();
    byId('stop').hidden = !running;
    byId('send').hidden = running;
    byId('send').disabled = this.#input.value.trim() === '' && this.#pending.length === 0;
    this.#input.style.height = 'auto';
    this.#input.style.height = `${this.#input.scrollHeight}px`;
  }

  async #send() {
    await this.#reading;
    const text = this.#input.value.trim();
    if ((text === '' && this.#pending.length === 0) || this.#session.isRunning()) return;
    const sent = this.#pending;
    const refusal = this.#session.refusal(text, sent.map(({ attachment }) => attachment));
    if (refusal !== null) return this.#say(refusal);
    this.#input.value = '';
    this.#pending = [];
    this.#say('');
    this.#drawPending();
    this.#refresh();
    // What goes wrong from here on stands with the answer.
    this.#session.send(text, sent);
    this.#afterSend();
  }

  // --- images ---

  #wireFiles() {
    const file = byId('file');
    file.accept = ACCEPT;
    byId('attach').addEventListener('click', () => file.click());
    file.addEventListener('change', () => {
      this.#add([...file.files]);
      file.value = '';
      this.#input.focus();
    });
    document.addEventListener('paste', (event) => {
      // What comes from a word processor is text and a picture of it; the text is meant.
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length === 0 || event.clipboardData.types.includes('text/plain') || document.querySelector('dialog[open]')) return;
      event.preventDefault();
      this.#add(files);
    });
    this.#wireDrop();
  }

  #wireDrop() {
    const drop = byId('drop');
    const hasFiles = (event) => event.dataTransfer?.types.includes('Files') && !document.querySelector('dialog[open]');
    let inside = 0;
    addEventListener('dragenter', (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      inside += 1;
      drop.hidden = false;
    });
    addEventListener('dragover', (event) => hasFiles(event) && event.preventDefault());
    addEventListener('dragleave', (event) => {
      if (!hasFiles(event)) return;
      inside = Math.max(0, inside - 1);
      drop.hidden = inside === 0;
    });
    addEventListener('drop', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      // Otherwise the browser would leave the page for the file.
      event.preventDefault();
      inside = 0;
      drop.hidden = true;
      if (hasFiles(event)) this.#add([...event.dataTransfer.files]);
    });
  }

  #add(files) {
    // One after another, so that each knows what room the ones before it have left.
    this.#reading = this.#reading.then(async () => {
      const words = [];
      let refused = false;
      for (const file of files) {
        try {
          words.push(await this.#addOne(file));
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          refused = true;
          words.push(error.message);
        }
      }
      this.#say([...new Set(words.filter(Boolean))].join('\n'), refused ? '' : 'plain');
      this.#drawPending();
      this.#refresh();
    });
  }

  async #addOne(file) {
    const room = this.#session.imageRoom(this.#pending.map(({ attachment }) => attachment));
    if (room.images <= 0) throw new Refused(`a request may carry ${LIMITS.imagesPerRequest} images, those of earlier messages included; begin a new conversation for more`);
    const { attachment, url, note } = await readAttachment(file, room.bytes);
    this.#pending.push({ attachment, url });
    return note;
  }

  #say(text, kind = '') {
    this.#note.textContent = text;
    this.#note.className = `composer-note ${kind}`;
    this.#note.hidden = text === '';
  }

  #drawPending() {
    this.#list.hidden = this.#pending.length === 0;
    this.#list.replaceChildren(
      ...this.#pending.map((entry) => {
        const { name, width, height } = entry.attachment;
        const remove = () => {
          this.#pending = this.#pending.filter((other) => other !== entry);
          this.#say('');
          this.#drawPending();
          this.#refresh();
          this.#input.focus();
        };
        return el('li', {}, el('img', { src: entry.url, alt: name, title: `${name}, ${width}×${height}` }), iconButton('close', `Remove ${name}`, remove));
      }),
    );
  }
}
