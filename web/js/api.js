// The two endpoints the page uses, and what can go wrong with them.

import { SseParser } from './sse.js';

/**
 * What went wrong. `kind` says what the user can do:
 * `network` (no connection; nothing came), `key` (401), `busy` (429), `refused` (another 4xx), `server` (5xx, or an error
 * inside the stream), `cut` (the connection ended before the answer did), `shape` (not an answer we know).
 */
export class ApiError extends Error {
  constructor(kind, message, { status = null, retryAfterS = null, requestId = null } = {}) {
    super(message);
    this.name = 'ApiError';
    this.kind = kind;
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.requestId = requestId;
  }
}

/** Speaks to the server that this page came from. `readKey` gives the key to send, or null. */
export class Api {
  constructor({ base, readKey }) {
    this.base = base;
    this.readKey = readKey;
  }

  /**
   * The models that the server has, its first one first: `{id, modalities}`, the latter being what may stand in messages, or
   * null where the server does not say.
   */
  async models(signal) {
    const response = await this.#fetch('models', { method: 'GET', signal });
    const answer = await response.json().catch(() => null);
    if (!Array.isArray(answer?.data)) throw new ApiError('shape', 'the list of models is not in the shape that this page knows');
    const models = answer.data.map((model) => ({ id: String(model?.id ?? ''), modalities: Array.isArray(model?.modalities) ? model.modalities : null }));
    return models.filter(({ id }) => id !== '');
  }

  /** Yields the parsed chunks of a streamed answer, and returns once it is complete. */
  async *chat(body, signal) {
    const response = await this.#fetch('chat/completions', { method: 'POST', body, signal });
    const type = response.headers.get('content-type') ?? '';
    if (!type.startsWith('text/event-stream')) {
      throw new ApiError('shape', `the server answered with "${type || 'no content type'}" where a stream of events was asked for`);
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new SseParser();
    let finished = false;
    try {
      for (;;) {
        const { done, value } = await this.#read(reader, signal);
        if (done) break;
        for (const data of parser.push(value)) {
          if (data === '[DONE]') return;
          const chunk = parseChunk(data);
          finished ||= Boolean(chunk.choices?.[0]?.finish_reason);
          yield chunk;
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
    if (!finished) throw new ApiError('cut', 'the connection ended before the answer was complete');
  }

  async #read(reader, signal) {
    try {
      return await reader.read();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError('cut', 'the connection was lost before the answer was complete');
    }
  }

  async #fetch(path, { method, body, signal }) {
    const key = this.readKey();
    const headers = {};
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body) headers['Content-Type'] = 'application/json';
    let response;
    try {
      response = await fetch(new URL(path, this.base), { method, headers, body: body && JSON.stringify(body), signal, cache: 'no-store', credentials: 'same-origin' });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError('network', 'the server can not be reached; it may have stopped');
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

function parseChunk(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError('shape', 'the server sent an event that is not JSON');
  }
  if (chunk === null || typeof chunk !== 'object') throw new ApiError('shape', 'the server sent an event that is not an object');
  if (chunk.error) throw new ApiError('server', String(chunk.error.message ?? 'the server stopped with an error'));
  return chunk;
}

async function errorOf(response) {
  const { status } = response;
  const text = await response.text().catch(() => '');
  let message = null;
  try {
    message = JSON.parse(text)?.error?.message ?? null;
  } catch {
    // Something in between, a proxy for instance, answered in its own words; its status says enough.
  }
  const kind = status === 401 ? 'key' : status === 429 ? 'busy' : status < 500 ? 'refused' : 'server';
  return new ApiError(kind, message === null ? `the server answered with status ${status}` : String(message), {
    status,
    retryAfterS: retryAfter(response.headers.get('retry-after')),
    requestId: response.headers.get('x-request-id'),
  });
}

/** `Retry-After` is seconds or a date; null where there is none that can be read. */
function retryAfter(value) {
  if (value === null) return null;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}
