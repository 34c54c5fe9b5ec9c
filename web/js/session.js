// What the page knows and does: the conversations, the one that is shown, the answers that are being written. No DOM here;
// the views listen.
//
// Events: `list` (the list of conversations or what is true of one), `thread` (the shown conversation or its messages),
// `message` (detail: a message that grew), `finished` (detail: a message whose answer ended), `models`, `key` (the server
// wants one; detail: the message to try again, or null), `full` (detail: an error).

import { streamAnswer } from './answer.js';
import { ApiError } from './api.js';
import * as tree from './conversation.js';
import { formatBytes, LIMITS } from './limits.js';
import { StoreFull } from './store.js';

/** So long after it has grown an answer is saved while it streams, so that a closed page loses little. */
const SAVE_AFTER_MS = 1000;
/** What a request takes beside texts and images. */
const BODY_OVERHEAD_BYTES = 64 * 1024;

export class Session extends EventTarget {
  #store;
  #api;
  #defaults;
  #conversations = new Map();
  /** Answers being written, by conversation. */
  #running = new Map();
  #data = new Map();
  /** Conversations that could not be written, each with the data of its attachments that is nowhere else. */
  #unsaved = new Map();

  /** `defaults` reads and writes the settings of new conversations. */
  constructor({ store, api, defaults }) {
    super();
    this.#store = store;
    this.#api = api;
    this.#defaults = defaults;
    this.models = [];
    this.modelsError = null;
    this.current = tree.newConversation(defaults.read());
    store.onForeignChange = (id) => this.#reload(id);
  }

  async start() {
    for (const conversation of await this.#store.load()) this.#conversations.set(conversation.id, interrupted(conversation));
    this.#emit('list');
    await this.loadModels();
    if (this.modelsError?.kind === 'key') this.#emit('key');
  }

  async loadModels() {
    try {
      this.models = await this.#api.models();
      this.modelsError = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.modelsError = error;
    }
    this.#emit('models');
  }

  // --- the list ---

  /** Conversations that match, the newest first. */
  list(query = '') {
    return [...this.#conversations.values()].filter((conversation) => tree.matches(conversation, query)).sort((a, b) => b.updated - a.updated);
  }

  has(id) {
    return this.#conversations.has(id);
  }

  isStored() {
    return this.#conversations.has(this.current.id);
  }

  usage() {
    return { conversations: this.#conversations.size, bytes: this.#store.usedBytes(), lasting: this.#store.lasting };
  }

  /** Shows a conversation; a new one where the id is null or unknown. */
  open(id) {
    const fresh = !this.#conversations.has(id);
    if (fresh && !this.isStored() && this.current.messages.length === 0) this.current.settings = { ...tree.DEFAULT_SETTINGS, ...this.#defaults.read() };
    else this.current = fresh ? tree.newConversation(this.#defaults.read()) : this.#conversations.get(id);
    this.#data.clear();
    this.#emit('thread', { opened: true });
    this.#emit('list');
  }

  async rename(id, title) {
    const conversation = this.#conversations.get(id);
    const clean = tree.cleanTitle(title);
    if (!conversation || clean === '') return;
    conversation.title = clean;
    await this.#save(conversation);
    this.#emit('list');
    if (conversation === this.current) this.#emit('thread', {});
  }

  async remove(id) {
    this.stop(id);
    this.#conversations.delete(id);
    this.#unsaved.delete(id);
    await this.#store.remove(id);
    if (this.current.id === id) this.open(null);
    else this.#emit('list');
  }

  /** Conversations with the data of their attachments, to export. */
  async withData(conversations) {
    const ids = conversations.flatMap((conversation) => conversation.messages.flatMap((message) => message.attachments.map(({ id }) => id)));
    return this.#store.data(ids);
  }

  /** Adds what `importText` has read; all of it or, where there is no room, nothing. */
  async add(imported) {
    const added = [];
    try {
      for (const { conversation, data } of imported) {
        await this.#store.write(conversation, data);
        added.push(conversation);
      }
    } catch (error) {
      for (const { id } of added) await this.#store.remove(id);
      throw error;
    }
    for (const conversation of added) this.#conversations.set(conversation.id, conversation);
    this.#emit('list');
  }

  // --- settings ---

  async setSetting(name, value) {
    this.current.settings[name] = value;
    if (this.isStored()) await this.#save(this.current);
    this.#emit('models');
  }

  keepAsDefaults() {
    this.#defaults.write(this.current.settings);
  }

  async resetSettings() {
    this.current.settings = { ...tree.DEFAULT_SETTINGS, stop: [] };
    if (this.isStored()) await this.#save(this.current);
    this.#emit('models');
  }

  /** The id of the model that answers here, or null while it is not known. */
  modelName() {
    return this.current.settings.model ?? this.models[0]?.id ?? null;
  }

  /** Whether that model takes attachments of this kind. One that does not say may see, but does not hear. */
  takes(kind) {
    const modalities = this.models.find(({ id }) => id === this.modelName())?.modalities ?? null;
    return modalities === null ? kind === 'image' : modalities.includes(kind);
  }

  // --- messages ---

  isRunning(id = this.current.id) {
    return this.#running.has(id);
  }

  /** What may still be added beside `pending` attachments not yet sent: how many of each kind, and how many bytes. */
  room(pending) {
    const all = [...tree.shownAttachments(this.current), ...pending];
    const used = all.reduce((sum, { bytes }) => sum + bytes, 0);
    const left = (kind, most) => most - all.filter((attachment) => attachment.kind === kind).length;
    return { image: left('image', LIMITS.imagesPerRequest), audio: left('audio', LIMITS.clipsPerRequest), bytes: this.#bodyBytes() - BODY_OVERHEAD_BYTES - used };
  }

  #bodyBytes() {
    return this.takes('audio') ? LIMITS.bodyWithAudioBytes : LIMITS.bodyBytes;
  }

  /** Why a request could not carry this text with these attachments, or null. */
  refusal(text, attachments = []) {
    const parts = [...tree.shownPath(this.current).map((message) => message.text), text, this.current.settings.system];
    const bytes = parts.reduce((sum, part) => sum + new Blob([part]).size, 0);
    const room = this.room(attachments).bytes;
    if (bytes <= room) return null;
    const most = this.#bodyBytes();
    const what = this.takes('audio') ? 'images and audio' : 'images';
    return `this conversation with its ${what} takes ${formatBytes(most - room + bytes)}; the limit is ${formatBytes(most)}: begin a new one, or go back to an earlier message`;
  }

  /** Sends a message. `attachments` are `{attachment, url}`. */
  async send(text, attachments = []) {
    const { current } = this;
    if (this.isRunning()) return;
    const data = new Map(attachments.map(({ attachment, url }) => [attachment.id, url]));
    for (const [id, url] of data) this.#data.set(id, url);
    tree.addMessage(current, { role: 'user', text, attachments: attachments.map(({ attachment }) => attachment) });
    this.#conversations.set(current.id, current);
    await this.#answer(current, data);
  }

  /** Sends a message again with another text: a sibling, so the first one and what followed it can be gone back to. */
  async edit(message, text) {
    if (this.isRunning()) return;
    tree.addMessage(this.current, { role: 'user', text, attachments: message.attachments }, message.parent);
    await this.#answer(this.current);
  }

  /** Asks again for an answer. One that failed before its first word makes place, any other stays as a sibling. */
  async regenerate(message) {
    if (this.isRunning()) return;
    const empty = message.text === '' && message.thinking === '';
    if (!empty || !tree.dropLeaf(this.current, message)) this.current.leaf = message.parent;
    await this.#answer(this.current);
  }

  async showSibling(message, step) {
    if (this.isRunning()) return;
    tree.showSibling(this.current, message, step);
    this.#emit('thread', {});
    await this.#save(this.current);
  }

  stop(id = this.current.id) {
    this.#running.get(id)?.abort();
  }

  /** The data URLs of a message's attachments, by id. */
  async dataOf(attachments) {
    for (const data of this.#unsaved.values()) for (const [id, url] of data) this.#data.set(id, url);
    const missing = attachments.map(({ id }) => id).filter((id) => !this.#data.has(id));
    if (missing.length > 0) for (const [id, url] of await this.#store.data(missing)) this.#data.set(id, url);
    return this.#data;
  }

  async #answer(conversation, newData = new Map()) {
    const abort = new AbortController();
    this.#running.set(conversation.id, abort);
    conversation.updated = Date.now();
    const message = tree.addMessage(conversation, { role: 'assistant', status: 'streaming', model: this.modelName() });
    this.#emit('thread', {});
    this.#emit('list');
    await this.#save(conversation, newData);
    let saving = null;
    try {
      const body = await this.#body(conversation, message, abort.signal);
      await streamAnswer({
        api: this.#api, body, message, signal: abort.signal,
        onChange: () => {
          this.#emit('message', message);
          saving ??= setTimeout(() => {
            saving = null;
            this.#save(conversation);
          }, SAVE_AFTER_MS);
        },
      });
      message.status = 'done';
    } catch (error) {
      this.#fail(message, error, abort.signal);
    }
    clearTimeout(saving);
    this.#running.delete(conversation.id);
    conversation.updated = Date.now();
    if (!this.has(conversation.id)) return;
    this.#emit('list');
    if (conversation === this.current) this.#emit('thread', {});
    this.#emit('finished', { conversation, message });
    await this.#save(conversation);
    if (message.error?.kind === 'key') this.#emit('key', message);
  }

  async #body(conversation, message, signal) {
    if (this.models.length === 0 && conversation.settings.model === null) {
      this.models = await this.#api.models(signal);
      this.modelsError = null;
      this.#emit('models');
    }
    if (signal.aborted) throw signal.reason;
    message.model = conversation.settings.model ?? this.models[0]?.id ?? null;
    if (message.model === null) throw new ApiError('server', 'the server has no model');
    const attachments = tree.shownAttachments(conversation);
    const data = await this.dataOf(attachments);
    const gone = attachments.find(({ id }) => !data.has(id));
    if (gone) throw new ApiError('shape', `${gone.kind === 'audio' ? 'audio' : 'an image'} of this conversation is no longer in this browser; edit the message it belongs to`);
    return tree.requestBody(conversation, message.model, data);
  }

  #fail(message, error, signal) {
    if (signal.aborted) {
      message.status = 'stopped';
      return;
    }
    const known = error instanceof ApiError;
    if (!known) console.error(error);
    message.status = known && error.kind === 'cut' ? 'cut' : 'error';
    const wait = known && error.retryAfterS !== null ? Date.now() + error.retryAfterS * 1000 : null;
    message.error = known
      ? { kind: error.kind, message: error.message, retryAt: wait, requestId: error.requestId, status: error.status }
      : { kind: 'shape', message: `the page could not read the answer: ${error.message}`, retryAt: null };
  }

  async #save(conversation, newData = new Map()) {
    const data = new Map([...(this.#unsaved.get(conversation.id) ?? []), ...newData]);
    try {
      await this.#store.write(conversation, data);
      if (this.#unsaved.delete(conversation.id) && this.#unsaved.size === 0) this.#emit('full', null);
    } catch (error) {
      // The conversation goes on in this page; what can not be kept is said, not lost in silence.
      const known = this.#unsaved.has(conversation.id);
      this.#unsaved.set(conversation.id, data);
      if (!known) this.#emit('full', error instanceof StoreFull ? error : new Error(`the browser could not keep this conversation: ${error.message}`));
    }
  }

  /** Another tab wrote or removed a conversation. */
  async #reload(id) {
    if (this.isRunning(id)) return;
    const stored = await this.#store.read(id);
    await this.#store.load();
    if (stored) this.#conversations.set(id, interrupted(stored));
    else this.#conversations.delete(id);
    if (this.current.id === id) this.open(id);
    else this.#emit('list');
  }

  #emit(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** An answer that was being written when the page closed is one that was cut. */
function interrupted(conversation) {
  for (const message of conversation.messages) {
    if (message.status !== 'streaming') continue;
    message.status = 'cut';
    message.error = { kind: 'cut', message: 'the page was closed before the answer was complete', retryAt: null };
  }
  return conversation;
}
