// Which values the settings of a conversation may have. A wrong one is refused here by the same rules as on the server, so
// that the page can say so at the field.

import { LIMITS } from './limits.js';

const between = (least, most) => (value) => (typeof value === 'number' && value >= least && value <= most ? null : `must be a number from ${least} to ${most}`);
const text = (value) => (typeof value === 'string' ? null : 'must be a text');
const whole = (least, words) => (value) => (Number.isSafeInteger(value) && value >= least ? null : words);

const RULES = {
  model: text,
  system: text,
  temperature: between(0, 2),
  top_p: (value) => (typeof value === 'number' && value > 0 && value <= 1 ? null : 'must be a number above 0, at most 1'),
  max_tokens: whole(1, 'must be a whole number from 1'),
  seed: whole(0, 'must be a whole number from 0'),
  stop: checkStop,
  frequency_penalty: between(-2, 2),
  presence_penalty: between(-2, 2),
};

/** What is wrong with a value, in words that follow its name, or null. */
export const checkSetting = (name, value) => RULES[name](value);

function checkStop(value) {
  if (!Array.isArray(value) || !value.every((stop) => typeof stop === 'string')) return 'must be a list of texts';
  if (value.length > LIMITS.stopStrings) return `has ${value.length} lines; the limit is ${LIMITS.stopStrings}`;
  const bytes = Math.max(0, ...value.map((stop) => new TextEncoder().encode(stop).length));
  if (value.includes('')) return 'has an empty text';
  return bytes <= LIMITS.stopBytes ? null : `has a text of ${bytes} bytes; the limit is ${LIMITS.stopBytes}`;
}

/** The text of a field as a value: null where it is empty, `NaN` or the text itself where it can not be one. */
export function parseField(name, raw) {
  if (name === 'system') return raw;
  if (name === 'stop') return raw.split('\n').filter((line) => line !== '').map(unescape);
  if (raw.trim() === '') return null;
  return name === 'model' ? raw : Number(raw);
}

/** A value as the text of its field. */
export function formatField(name, value) {
  if (name === 'stop') return value.map(escape).join('\n');
  return value === null ? '' : String(value);
}

// One stop text stands on each line, so a line break inside one is written `\n`.
const escape = (stop) => stop.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\t', '\\t');
const unescape = (line) => line.replace(/\\([\\nt])/g, (_, mark) => ({ '\\': '\\', n: '\n', t: '\t' })[mark]);
