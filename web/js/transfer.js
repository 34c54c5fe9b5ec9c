// Conversations as a file, and back. A file may come from anywhere: every field is checked, what is unknown is left out,
// and one bad field refuses the whole file by the field's name.

import { cleanTitle, DEFAULT_SETTINGS, newId } from './conversation.js';
import { LIMITS } from './limits.js';
import { checkSetting } from './settings-rules.js';
import { AUDIO_TYPES, N_PEAKS, PEAK_MAX } from './wav.js';

const FORMAT = 'puna-conversations';
/** How the data of each kind begins, and what to call it. */
const DATA = {
  image: [/^data:image\/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}$/, 'is no image as a data URL (PNG, JPEG, WebP, GIF)'],
  audio: [/^data:audio\/(?:wav|mpeg|flac|ogg|mp4);base64,[A-Za-z0-9+/]+={0,2}$/, 'is no audio as a data URL (WAV, MP3, FLAC, Ogg, M4A)'],
};
const STATES = ['done', 'stopped', 'cut', 'error'];
const STAT_NAMES = ['promptTokens', 'answerTokens', 'thinkingTokens', 'firstMs', 'thinkingMs', 'totalMs', 'tokensPerS'];

/** A file with these conversations; `data` has the data URL of each attachment by id. */
export function exportText(conversations, data) {
  // An attachment that the browser has dropped is left out, so that the file can be read again.
  const whole = (message) => ({ ...message, attachments: message.attachments.filter(({ id }) => data.has(id)) });
  const kept = conversations.map((conversation) => ({ ...conversation, messages: conversation.messages.map(whole) }));
  return JSON.stringify({ format: FORMAT, version: 1, exported: new Date().toISOString(), conversations: kept, attachments: Object.fromEntries(data) }, null, 1);
}

/**
 * The conversations of a file, each with the data of its attachments. All get new ids, so a file can be read twice.
 *
 * Throws an `Error` that names the field which is wrong.
 */
export function importText(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error('the file is not JSON');
  }
  if (file?.format !== FORMAT) throw new Error(`the file is no export of conversations: "format" is not "${FORMAT}"`);
  if (file.version !== 1) throw new Error('"version" of the file is not 1; a newer page may have written it');
  check(Array.isArray(file.conversations), 'conversations', 'is not a list');
  const urls = object(file.attachments ?? {}, 'attachments');
  return file.conversations.map((conversation, index) => readConversation(conversation, `conversations[${index}]`, urls));
}

function readConversation(value, path, urls) {
  object(value, path);
  const data = new Map();
  const idByOld = new Map();
  check(Array.isArray(value.messages), `${path}.messages`, 'is not a list');
  const messages = value.messages.map((message, index) => {
    const at = `${path}.messages[${index}]`;
    object(message, at);
    const old = string(message.id, `${at}.id`);
    check(!idByOld.has(old), `${at}.id`, 'stands there twice');
    // A parent comes before its children, so the messages are a tree and no ring.
    check(message.parent === null || idByOld.has(message.parent), `${at}.parent`, 'is no message before it');
    const read = readMessage(message, at, urls, data);
    read.parent = message.parent === null ? null : idByOld.get(message.parent);
    idByOld.set(old, read.id);
    return read;
  });
  check(value.leaf === null || idByOld.has(value.leaf), `${path}.leaf`, 'is none of its messages');
  const conversation = {
    id: newId(),
    title: cleanTitle(string(value.title, `${path}.title`)),
    created: time(value.created, `${path}.created`),
    updated: time(value.updated, `${path}.updated`),
    settings: readSettings(value.settings, `${path}.settings`),
    messages,
    leaf: value.leaf === null ? null : idByOld.get(value.leaf),
  };
  return { conversation, data };
}

function readMessage(value, path, urls, data) {
  check(value.role === 'user' || value.role === 'assistant', `${path}.role`, 'is neither "user" nor "assistant"');
  check(Array.isArray(value.attachments), `${path}.attachments`, 'is not a list');
  const attachments = value.attachments.map((attachment, index) => readAttachment(attachment, `${path}.attachments[${index}]`, urls, data));
  const status = value.status === 'streaming' ? 'cut' : value.status;
  check(STATES.includes(status), `${path}.status`, `is none of ${STATES.join(', ')}`);
  return {
    id: newId(),
    parent: null,
    role: value.role,
    created: time(value.created, `${path}.created`),
    text: string(value.text, `${path}.text`),
    thinking: string(value.thinking, `${path}.thinking`),
    attachments,
    status,
    error: value.error === null ? null : { kind: 'server', message: string(value.error?.message, `${path}.error.message`), retryAt: null },
    finish: value.finish === null ? null : string(value.finish, `${path}.finish`),
    model: value.model === null ? null : string(value.model, `${path}.model`),
    stats: value.stats === null ? null : readStats(value.stats, `${path}.stats`),
  };
}

function readAttachment(value, path, urls, data) {
  object(value, path);
  const { kind } = value;
  check(kind === 'image' || kind === 'audio', `${path}.kind`, 'is neither "image" nor "audio"');
  const [pattern, wrong] = DATA[kind];
  const url = Object.hasOwn(urls, value.id) ? urls[value.id] : null;
  check(typeof url === 'string' && pattern.test(url), `attachments["${String(value.id).slice(0, 60)}"]`, wrong);
  check(url.length <= (kind === 'image' ? LIMITS.bodyBytes : LIMITS.bodyWithAudioBytes), path, 'is larger than a request may be');
  const type = url.slice(5, url.indexOf(';'));
  const own = kind === 'image' ? { width: number(value.width, `${path}.width`), height: number(value.height, `${path}.height`) } : readSound(value, path, type);
  const id = newId();
  data.set(id, url);
  return { id, kind, name: string(value.name, `${path}.name`).slice(0, 255), type, bytes: url.length, ...own };
}

function readSound(value, path, type) {
  check(Array.isArray(value.peaks) && value.peaks.length <= N_PEAKS, `${path}.peaks`, `is no list of at most ${N_PEAKS}`);
  const peaks = value.peaks.map((peak, index) => number(peak, `${path}.peaks[${index}]`));
  check(peaks.every((peak) => peak <= PEAK_MAX), `${path}.peaks`, `has one above ${PEAK_MAX}`);
  const format = Object.keys(AUDIO_TYPES).find((name) => AUDIO_TYPES[name] === type);
  return { format, peaks, seconds: value.seconds === null ? null : number(value.seconds, `${path}.seconds`) };
}

function readSettings(value, path) {
  object(value, path);
  const settings = { ...DEFAULT_SETTINGS, stop: [] };
  for (const name of Object.keys(DEFAULT_SETTINGS)) {
    if (value[name] === undefined || value[name] === null) continue;
    const wrong = checkSetting(name, value[name]);
    check(wrong === null, `${path}.${name}`, wrong);
    settings[name] = value[name];
  }
  return settings;
}

function readStats(value, path) {
  object(value, path);
  return Object.fromEntries(STAT_NAMES.map((name) => [name, value[name] === null || value[name] === undefined ? null : number(value[name], `${path}.${name}`)]));
}

function check(holds, path, wrong) {
  if (!holds) throw new Error(`${path} ${wrong}`);
}

function object(value, path) {
  check(value !== null && typeof value === 'object' && !Array.isArray(value), path, 'is not an object');
  return value;
}

function string(value, path) {
  check(typeof value === 'string', path, 'is not a text');
  return value;
}

function number(value, path) {
  check(typeof value === 'number' && Number.isFinite(value) && value >= 0, path, 'is not a number of 0 or more');
  return value;
}

function time(value, path) {
  check(number(value, path) <= 8.64e15, path, 'is no time');
  return value;
}
