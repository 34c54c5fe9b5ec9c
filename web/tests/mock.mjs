// A server for tests: the files of the page under the real content security policy, and the two endpoints with answers
// that a test writes. It has no model and no dependencies.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const WEB = fileURLToPath(new URL('..', import.meta.url));
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.mjs': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml', '.webmanifest': 'application/manifest+json' };

/** What the models take; null is a server that does not say. */
const DEFAULT_MODALITIES = ['text', 'image'];

/** What `puna serve` sends with the page. */
export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Writes the events of one answer. */
class Stream {
  #response;
  #text = '';
  #open = false;

  constructor(response, model) {
    this.#response = response;
    this.model = model;
    /** Fulfilled when the client has gone. */
    this.gone = new Promise((resolve) => response.once('close', resolve));
  }

  raw(text) {
    if (!this.#open) this.#response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    this.#open = true;
    // Written out at once, so that what a test sees on the page it has sent.
    this.#response.write(text);
  }

  chunk(fields) {
    this.raw(`data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: this.model, usage: null, ...fields })}\n\n`);
  }

  delta(delta) {
    this.#text += delta.content ?? '';
    this.chunk({ choices: [{ index: 0, delta, finish_reason: null }] });
  }

  say(...pieces) {
    for (const content of pieces) this.delta({ content });
  }

  think(text) {
    this.delta({ reasoning_content: text, reasoning: text });
  }

  end({ reason = 'stop', usage = {} } = {}) {
    this.chunk({ choices: [{ index: 0, delta: {}, finish_reason: reason }] });
    this.chunk({ choices: [], usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18, ...usage } });
    this.raw('data: [DONE]\n\n');
    this.#response.end();
  }

  /** An error inside the stream, as when a step of the engine fails. */
  fail(message) {
    this.raw(`data: ${JSON.stringify({ error: { message, type: 'server_error', param: null, code: null } })}\n\n`);
    this.#response.end();
  }

  /** The response ends well, though the answer has not. */
  close() {
    this.#response.end();
  }

  /** The connection breaks. */
  cut() {
    this.#response.destroy();
  }

  /** An answer that is no stream. */
  refuse(status, message, headers = {}) {
    this.#response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': 'req-test', ...headers });
    this.#response.end(JSON.stringify({ error: { message, type: 'invalid_request_error', param: null, code: null } }));
  }

  other(status, type, text) {
    this.#response.writeHead(status, { 'content-type': type });
    this.#response.end(text);
  }
}

/** Starts it. `key` is one that requests must have, or null; `answers` are used up first, then it says what it was asked. */
export async function startMock() {
  const mock = { key: null, models: ['toy-llama-4'], modalities: DEFAULT_MODALITIES, modelsStatus: 200, answers: [], requests: [], url: '' };

  async function serveFile(path, response) {
    const file = normalize(path === '/' ? '/index.html' : path);
    try {
      const bytes = await readFile(join(WEB, file));
      response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' });
      response.end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  }

  async function chat(request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = JSON.parse(Buffer.concat(parts).toString('utf8'));
    mock.requests.push(body);
    const stream = new Stream(response, body.model);
    const answer = mock.answers.shift();
    if (answer) return answer(stream, body);
    const last = body.messages.at(-1).content;
    const text = typeof last === 'string' ? last : (last.find((part) => part.type === 'text')?.text ?? '');
    stream.delta({ role: 'assistant', content: '' });
    stream.say('You said: ', text);
    stream.end();
  }

  const server = createServer(async (request, response) => {
    const path = new URL(request.url, 'http://mock').pathname;
    if (!path.startsWith('/v1/')) return serveFile(path, response);
    if (mock.key !== null && request.headers.authorization !== `Bearer ${mock.key}`) {
      return new Stream(response, '').refuse(401, 'no key, or one that is not known; send "Authorization: Bearer KEY"');
    }
    if (path === '/v1/chat/completions') return chat(request, response);
    if (mock.modelsStatus !== 200) return new Stream(response, '').refuse(mock.modelsStatus, 'the model is not loaded yet');
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ object: 'list', data: mock.models.map((id) => ({ id, object: 'model', created: 1, owned_by: 'puna', ...(mock.modalities && { modalities: mock.modalities }) })) }));
  });
  const sockets = new Set();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });

  const listen = (port) => new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  await listen(0);
  const { port } = server.address();
  mock.url = `http://127.0.0.1:${port}/`;
  /** Takes the server off the network; `up` brings it back. */
  mock.down = () => {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of sockets) socket.destroy();
    return closed;
  };
  mock.up = () => listen(port);
  mock.reset = () => Object.assign(mock, { key: null, models: ['toy-llama-4'], modalities: DEFAULT_MODALITIES, modelsStatus: 200, answers: [], requests: [] });
  return mock;
}
