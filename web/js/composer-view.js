// Where messages are written: the field, attachments to send, the microphone, send and stop.

import { readAttachment, sendable, tooMany } from './attachments.js';
import { ClipView } from './clip-view.js';
import { byId, el, iconButton } from './dom.js';
import { encodedLength, Refused } from './files.js';
import { formatBytes, LIMITS } from './limits.js';
import { RecordingView } from './recording-view.js';
import { wavSeconds } from './wav.js';

export class ComposerView {
  #session;
  #input = byId('input');
  #note = byId('composer-note');
  #list = byId('pending');
  /** What will be sent with the text, in the order it came: `{attachment, url, clip}`, the view of audio or null. */
  #pending = [];
  /** What is written and not sent, by conversation. */
  #drafts = new Map();
  #shown;
  #afterSend;
  #player;
  #recording;
  #reading = Promise.resolve();
  #takes = (kind) => this.#session.takes(kind);

  /**
   * `afterSend` is called when a message goes off; `editLast` when the arrow up is pressed in the empty field; `player` plays
   * clips, and `announce` tells screen readers.
   */
  constructor(session, { afterSend, editLast, player, announce }) {
    this.#session = session;
    this.#afterSend = afterSend;
    this.#player = player;
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
    session.addEventListener('models', () => this.#refresh());
    this.#recording = new RecordingView({
      limitS: () => this.#recordingLimitS(),
      done: (file, why) => this.#add([file], why),
      say: (text) => this.#say(text),
      announce,
      changed: () => this.#recording && this.#refresh(),
    });
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
      for (const { clip } of this.#pending) clip?.close();
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
    const recording = this.#recording.isRecording();
    byId('send').disabled = this.#input.value.trim() === '' && this.#pending.length === 0 && !recording;
    this.#offer(recording);
    this.#input.style.height = 'auto';
    this.#input.style.height = `${this.#input.scrollHeight}px`;
  }

  /** Shows what the model takes; a recording that has begun can be ended even when another model is chosen meanwhile. */
  #offer(recording) {
    const { accept, words } = sendable(this.#takes);
    const attach = byId('attach');
    attach.hidden = accept === '';
    attach.setAttribute('aria-label', `Add ${words}`);
    attach.title = `Add ${words}`;
    byId('file').accept = accept;
    byId('drop-words').textContent = `Drop ${words} to add ${words === 'audio' ? 'it' : 'them'}`;
    byId('record').hidden = !this.#takes('audio') && !recording;
  }

  async #send() {
    if (this.#session.isRunning()) return;
    // What is being recorded belongs to the message.
    await this.#recording.finish();
    await this.#reading;
    const text = this.#input.value.trim();
    if ((text === '' && this.#pending.length === 0) || this.#session.isRunning()) return;
    const sent = this.#pending;
    const refusal = this.#session.refusal(text, sent.map(({ attachment }) => attachment));
    if (refusal !== null) return this.#say(refusal);
    for (const { clip } of sent) clip?.close();
    this.#input.value = '';
    this.#pending = [];
    this.#say('');
    this.#drawPending();
    this.#refresh();
    // What goes wrong from here on stands with the answer.
    this.#session.send(text, sent);
    this.#afterSend();
  }

  // --- attachments ---

  #wireFiles() {
    const file = byId('file');
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

  /** Adds files; `words` is what there is to say of them already. */
  #add(files, ...words) {
    // One after another, so that each knows what room the ones before it have left.
    this.#reading = this.#reading.then(async () => {
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
    return this.#reading;
  }

  #room() {
    return this.#session.room(this.#pending.map(({ attachment }) => attachment));
  }

  async #addOne(file) {
    const { attachment, url, note } = await readAttachment(file, this.#room(), this.#takes);
    const entry = { attachment, url, clip: null };
    if (attachment.kind === 'audio') entry.clip = new ClipView(attachment, url, this.#player, () => this.#remove(entry));
    this.#pending.push(entry);
    return note;
  }

  /** Seconds that a recording may take here, or null, which it says. */
  #recordingLimitS() {
    const room = this.#room();
    const seconds = wavSeconds(Math.min(LIMITS.clipBytes, ((room.bytes - encodedLength(0)) * 3) / 4));
    const full = `there is no room for a recording: ${formatBytes(Math.max(0, room.bytes))} are left; begin a new conversation for more`;
    const refusal = tooMany('audio', room.audio) ?? (seconds < 1 ? full : null);
    if (refusal === null) return seconds;
    this.#say(refusal);
    return null;
  }

  #remove(entry) {
    entry.clip?.close();
    this.#pending = this.#pending.filter((other) => other !== entry);
    this.#say('');
    this.#drawPending();
    this.#refresh();
    this.#input.focus();
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
        if (entry.clip) return el('li', {}, entry.clip.node);
        const { name, width, height } = entry.attachment;
        const remove = iconButton('close', `Remove ${name}`, () => this.#remove(entry), { class: 'icon-button remove' });
        return el('li', {}, el('img', { src: entry.url, alt: name, title: `${name}, ${width}×${height}` }), remove);
      }),
    );
  }
}
