// Conversations in the browser: IndexedDB, or memory where that is not to be had. Images and audio lie in a place of their own, so
// that the list and the search do not read them. Bounded, and full is an error that says what to do.

import { formatBytes, LIMITS } from './limits.js';

/** There is no more room; nothing was written. */
export class StoreFull extends Error {}

/**
 * Opens the conversations of this browser. `lasting` of the result says whether they outlive the page; where they do not,
 * the browser forbids storage.
 */
export async function openStore({ name = 'puna', limits = LIMITS } = {}) {
  let backend;
  try {
    backend = await IndexedBackend.open(name);
  } catch {
    backend = new MemoryBackend();
  }
  const store = new Store(backend, limits, name);
  await store.load();
  return store;
}

class Store {
  #backend;
  #limits;
  #bytesById = new Map();
  #channel;

  constructor(backend, limits, name) {
    this.#backend = backend;
    this.#limits = limits;
    this.lasting = backend instanceof IndexedBackend;
    this.#channel = this.lasting && typeof BroadcastChannel === 'function' ? new BroadcastChannel(name) : null;
    /** Called with the id of a conversation that another tab has written or removed. */
    this.onForeignChange = () => {};
    this.#channel?.addEventListener('message', (event) => this.onForeignChange(String(event.data)));
  }

  /** All conversations, without the data of their attachments. */
  async load() {
    const conversations = await this.#backend.all();
    this.#bytesById = new Map(conversations.map((conversation) => [conversation.id, sizeOf(conversation)]));
    return conversations;
  }

  /** One conversation as it is stored now, or null. */
  async read(id) {
    return (await this.#backend.one(id)) ?? null;
  }

  /**
   * Writes a conversation, and `data`, a map from id to data URL, for attachments that are new.
   *
   * Throws {@link StoreFull} where it does not fit.
   */
  async write(conversation, data = new Map()) {
    const bytes = sizeOf(conversation);
    const known = this.#bytesById.get(conversation.id);
    const { conversations: most, storedBytes } = this.#limits;
    if (known === undefined && this.#bytesById.size >= most) {
      throw new StoreFull(`${most} conversations are kept in this browser, which is the limit; delete some, or export them first`);
    }
    // What is there may shrink even when all of it is too much.
    if (bytes > (known ?? 0) && this.usedBytes() - (known ?? 0) + bytes > storedBytes) {
      throw new StoreFull(`conversations take ${formatBytes(this.usedBytes())} of ${formatBytes(storedBytes)} in this browser, and this one does not fit; delete some, or export them first`);
    }
    try {
      await this.#backend.write(structuredClone(conversation), data);
    } catch (error) {
      if (error?.name === 'QuotaExceededError') throw new StoreFull('the browser gives this page no more room; delete conversations, or export them first');
      throw error;
    }
    this.#bytesById.set(conversation.id, bytes);
    this.#channel?.postMessage(conversation.id);
  }

  async remove(id) {
    await this.#backend.remove(id);
    this.#bytesById.delete(id);
    this.#channel?.postMessage(id);
  }

  /** The data URLs of attachments, by id. */
  data(ids) {
    return this.#backend.data(ids);
  }

  usedBytes() {
    let sum = 0;
    for (const bytes of this.#bytesById.values()) sum += bytes;
    return sum;
  }
}

/** Bytes that a conversation counts, its attachments once each. */
function sizeOf(conversation) {
  const attachments = new Map(conversation.messages.flatMap((message) => message.attachments).map((attachment) => [attachment.id, attachment.bytes]));
  let sum = JSON.stringify(conversation).length;
  for (const bytes of attachments.values()) sum += bytes;
  return sum;
}

class IndexedBackend {
  #database;

  constructor(database) {
    this.#database = database;
  }

  static open(name) {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore('conversations', { keyPath: 'id' });
        request.result.createObjectStore('attachments', { keyPath: 'id' }).createIndex('conversation', 'conversation');
      };
      request.onsuccess = () => {
        // Another tab may need to remove or renew the database.
        request.result.onversionchange = () => request.result.close();
        resolve(new IndexedBackend(request.result));
      };
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error('another tab holds the database'));
    });
  }

  /** Runs `work` in one transaction, whose end is the end of the promise. */
  #transact(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(['conversations', 'attachments'], mode);
      let request;
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onabort = () => reject(transaction.error ?? request?.error ?? new Error('the browser did not write'));
      request = work(transaction.objectStore('conversations'), transaction.objectStore('attachments'));
    });
  }

  all() {
    return this.#transact('readonly', (conversations) => conversations.getAll());
  }

  one(id) {
    return this.#transact('readonly', (conversations) => conversations.get(id));
  }

  write(conversation, data) {
    return this.#transact('readwrite', (conversations, attachments) => {
      conversations.put(conversation);
      for (const [id, url] of data) attachments.put({ id, conversation: conversation.id, url });
    });
  }

  remove(id) {
    return this.#transact('readwrite', (conversations, attachments) => {
      conversations.delete(id);
      const cursor = attachments.index('conversation').openKeyCursor(IDBKeyRange.only(id));
      cursor.onsuccess = () => {
        if (!cursor.result) return;
        attachments.delete(cursor.result.primaryKey);
        cursor.result.continue();
      };
    });
  }

  async data(ids) {
    const urls = new Map();
    await this.#transact('readonly', (_, attachments) => {
      for (const id of ids) attachments.get(id).onsuccess = (event) => event.target.result && urls.set(id, event.target.result.url);
    });
    return urls;
  }
}

class MemoryBackend {
  #conversations = new Map();
  #urls = new Map();

  async all() {
    return [...this.#conversations.values()].map((conversation) => structuredClone(conversation));
  }

  async one(id) {
    return structuredClone(this.#conversations.get(id));
  }

  async write(conversation, data) {
    this.#conversations.set(conversation.id, conversation);
    for (const [id, url] of data) this.#urls.set(id, { conversation: conversation.id, url });
  }

  async remove(id) {
    this.#conversations.delete(id);
    for (const [key, { conversation }] of this.#urls) if (conversation === id) this.#urls.delete(key);
  }

  async data(ids) {
    return new Map(ids.filter((id) => this.#urls.has(id)).map((id) => [id, this.#urls.get(id).url]));
  }
}
