// What a conversation is: a tree of messages, of which one path is shown. Editing a message or asking again adds a sibling,
// so nothing is lost. No DOM here, no storage, no network.

import { LIMITS } from './limits.js';

/** The settings of a conversation; null means that the server decides. */
export const DEFAULT_SETTINGS = Object.freeze({
  model: null,
  system: '',
  temperature: null,
  top_p: null,
  max_tokens: null,
  seed: null,
  stop: Object.freeze([]),
  frequency_penalty: null,
  presence_penalty: null,
});

/** 128 random bits. Not `randomUUID`, which browsers keep from pages that came over plain HTTP. */
export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

export function newConversation(settings = DEFAULT_SETTINGS) {
  const now = Date.now();
  return { id: newId(), title: '', created: now, updated: now, settings: { ...DEFAULT_SETTINGS, ...settings }, messages: [], leaf: null };
}

/** Adds a message under `parent` (the end of the shown path unless told otherwise), and shows it. */
export function addMessage(conversation, fields, parent = conversation.leaf) {
  const message = {
    id: newId(), parent, created: Date.now(), text: '', thinking: '', attachments: [], status: 'done', error: null, finish: null, model: null, stats: null, ...fields,
  };
  conversation.messages.push(message);
  conversation.leaf = message.id;
  if (conversation.title === '' && message.role === 'user') conversation.title = titleOf(message);
  return message;
}

/** The messages that are shown, the first one first. */
export function shownPath(conversation) {
  const byId = new Map(conversation.messages.map((message) => [message.id, message]));
  const path = [];
  for (let at = byId.get(conversation.leaf); at; at = byId.get(at.parent)) path.push(at);
  return path.reverse();
}

/** Messages that stand at the same place as this one, itself included, in the order they were made. */
export const siblingsOf = (conversation, message) => conversation.messages.filter((other) => other.parent === message.parent);

/** Shows the sibling `step` places further, down to the newest message under it. */
export function showSibling(conversation, message, step) {
  const siblings = siblingsOf(conversation, message);
  let at = siblings[siblings.indexOf(message) + step];
  if (!at) return;
  for (let next = at; next; next = conversation.messages.findLast((other) => other.parent === at.id)) at = next;
  conversation.leaf = at.id;
}

/** Takes a message away that nothing hangs on, an empty answer that failed for instance, and shows its parent. */
export function dropLeaf(conversation, message) {
  if (conversation.messages.some((other) => other.parent === message.id)) return false;
  conversation.messages.splice(conversation.messages.indexOf(message), 1);
  if (conversation.leaf === message.id) conversation.leaf = message.parent;
  return true;
}

function titleOf(message) {
  const line = message.text.trim().split('\n', 1)[0].replace(/\s+/g, ' ');
  const title = line === '' ? message.attachments[0]?.name ?? '' : line;
  return title.length <= 60 ? title : `${title.slice(0, 59).trimEnd()}…`;
}

/** A title as a user or a file gives it: one line, bounded. */
export const cleanTitle = (title) => title.replace(/\s+/g, ' ').trim().slice(0, LIMITS.titleChars);

/**
 * The body of a chat request for the path that ends at `leaf`.
 *
 * `dataById` has the data URL of each attachment. An answer that failed before it had a word is left out.
 */
export function requestBody(conversation, model, dataById) {
  const { settings } = conversation;
  const messages = settings.system.trim() === '' ? [] : [{ role: 'system', content: settings.system }];
  for (const message of shownPath(conversation)) {
    if (message.role === 'assistant' && message.text === '') continue;
    messages.push({ role: message.role, content: contentOf(message, dataById) });
  }
  const body = { model: settings.model ?? model, messages, stream: true, stream_options: { include_usage: true } };
  for (const name of ['temperature', 'top_p', 'seed', 'frequency_penalty', 'presence_penalty']) {
    if (settings[name] !== null) body[name] = settings[name];
  }
  if (settings.max_tokens !== null) body.max_completion_tokens = settings.max_tokens;
  if (settings.stop.length > 0) body.stop = [...settings.stop];
  return body;
}

function contentOf(message, dataById) {
  if (message.attachments.length === 0) return message.text;
  const parts = message.attachments.map((attachment) => PARTS[attachment.kind](dataById.get(attachment.id), attachment));
  if (message.text !== '') parts.push({ type: 'text', text: message.text });
  return parts;
}

/** How each kind of attachment stands in a request. */
const PARTS = {
  image: (url) => ({ type: 'image_url', image_url: { url } }),
  audio: (url, { format }) => ({ type: 'input_audio', input_audio: { data: url.slice(url.indexOf(',') + 1), format } }),
};

/** Attachments of the shown path. */
export const shownAttachments = (conversation) => shownPath(conversation).flatMap((message) => message.attachments);

/** Whether every word of `query` stands in the title or in a message. */
export function matches(conversation, query) {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== '');
  if (words.length === 0) return true;
  const text = [conversation.title, ...conversation.messages.map((message) => message.text)].join('\n').toLowerCase();
  return words.every((word) => text.includes(word));
}
