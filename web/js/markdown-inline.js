// The text of one block to a tree of spans: code, strong, emphasis, struck, links, line breaks, formulas. No DOM here.
// Emphasis is CommonMark's algorithm; every scan ahead is bounded, so time grows with length.

import { matchEmphasis, spanTree } from './markdown-emphasis.js';

const PUNCTUATION = /[!-/:-@[-`{-~\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const LINK_LIMIT_CHARS = 2048;
/** Parentheses inside each other in an address. */
const PAREN_LIMIT = 32;
const FORMULA_LIMIT_CHARS = 4096;
/** How far back the beginning of code may lie that is closed for the reader while text still arrives. */
const OPEN_CODE_LIMIT_CHARS = 400;
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' };

/** Which method of the scanner looks at which character. */
const READERS = {
  '\\': 'escape', $: 'formula', '`': 'code', '<': 'angle', '&': 'entity', '\n': 'lineBreak', '*': 'emphasis', _: 'emphasis', '~': 'emphasis',
  '[': 'openBracket', '!': 'openImage', ']': 'closeBracket', h: 'bareLink',
};

/**
 * @param {string} text
 * @param {{open?: boolean}} options `open`: more text will follow, so what is not closed yet counts as closed at the end
 * @returns {Array<object>} `{type: 'text'|'code'|'formula', text}`, `{type: 'break'}`, `{type: 'link', href, children}` or
 *   `{type: 'strong'|'em'|'del', children}`
 */
export function parseInline(text, { open = false } = {}) {
  return new Scanner(open ? closeOpen(text) : text).parse();
}

/** The target where it is one that a link may have, else null. Anything but http, https and mailto is none. */
export function safeTarget(target) {
  if (!URL.canParse(target)) return null;
  const url = new URL(target);
  return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null;
}

/** Closes what is open at the end: a link that is half there, code, emphasis. */
function closeOpen(text) {
  const link = text.lastIndexOf('](');
  const half = link >= 0 && text.length - link < LINK_LIMIT_CHARS && !text.includes(')', link);
  const whole = half ? `${text})` : text;
  return whole + new Scanner(whole).openMarks();
}

class Scanner {
  #text;
  #at = 0;
  /** Where the plain text begins that is not in a node yet. */
  #plain = 0;
  #nodes = [];
  #brackets = [];
  /** Brackets before this one hold a link already and can not become one: links do not nest. */
  #deadBrackets = 0;
  #codeRuns = null;
  #found = new Map();
  #openCode = null;

  constructor(text) {
    this.#text = text;
  }

  parse() {
    this.#scan();
    matchEmphasis(this.#nodes);
    return spanTree(this.#nodes);
  }

  /** What would close the spans that are open at the end. */
  openMarks() {
    this.#scan();
    if (this.#openCode !== null && this.#text.length - this.#openCode.at < OPEN_CODE_LIMIT_CHARS) return '`'.repeat(this.#openCode.length);
    return matchEmphasis(this.#nodes).filter((node) => node.count <= 3).slice(-8).map((node) => node.mark.repeat(node.count)).reverse().join('');
  }

  #scan() {
    const text = this.#text;
    while (this.#at < text.length) {
      const reader = READERS[text[this.#at]];
      if (reader === undefined || !this[reader]()) this.#at += 1;
    }
    this.#flush();
  }

  #flush() {
    if (this.#at > this.#plain) this.#nodes.push({ type: 'text', text: this.#text.slice(this.#plain, this.#at) });
    this.#plain = this.#at;
  }

  /** Ends the plain text here, adds the node and goes on at `end`. */
  #add(node, end) {
    this.#flush();
    this.#nodes.push(node);
    this.#at = end;
    this.#plain = end;
    return true;
  }

  /** Where `what` comes next, or -1 if that is too far. All searches for one thing together pass the text once. */
  #find(what, from, limit) {
    let found = this.#found.get(what);
    if (found === undefined || found < from) {
      found = this.#text.indexOf(what, from);
      if (found < 0) found = Infinity;
      this.#found.set(what, found);
    }
    return found < from + limit ? found : -1;
  }

  escape() {
    const next = this.#text[this.#at + 1];
    if (next === '(' || next === '[') {
      const end = this.#find(next === '(' ? '\\)' : '\\]', this.#at + 2, FORMULA_LIMIT_CHARS);
      if (end >= 0) return this.#add({ type: 'formula', text: this.#text.slice(this.#at + 2, end).trim() }, end + 2);
    }
    if (next === '\n') return this.#add({ type: 'break' }, this.#at + 2);
    if (next === undefined || !ESCAPABLE.test(next)) return false;
    return this.#add({ type: 'text', text: next }, this.#at + 2);
  }

  formula() {
    if (this.#text[this.#at + 1] !== '$') return false;
    const end = this.#find('$$', this.#at + 2, FORMULA_LIMIT_CHARS);
    if (end <= this.#at + 2) return false;
    return this.#add({ type: 'formula', text: this.#text.slice(this.#at + 2, end).trim() }, end + 2);
  }

  code() {
    const begin = this.#at;
    const length = runLength(this.#text, begin);
    this.#codeRuns ??= codeRuns(this.#text);
    const runs = this.#codeRuns.get(length);
    // Runs of one length stand last one first, and are passed once by all searches together.
    while (runs.length > 0 && runs.at(-1) <= begin) runs.pop();
    if (runs.length === 0) {
      this.#openCode ??= { at: begin, length };
      return this.#add({ type: 'text', text: '`'.repeat(length) }, begin + length);
    }
    let text = this.#text.slice(begin + length, runs.at(-1)).replaceAll('\n', ' ');
    if (text.startsWith(' ') && text.endsWith(' ') && text.trim() !== '') text = text.slice(1, -1);
    return this.#add({ type: 'code', text }, runs.at(-1) + length);
  }

  angle() {
    const end = this.#find('>', this.#at + 1, LINK_LIMIT_CHARS);
    if (end < 0) return false;
    const inside = this.#text.slice(this.#at + 1, end);
    if (/^br ?\/?$/i.test(inside)) return this.#add({ type: 'break' }, end + 1);
    if (/\s/.test(inside) || !/^(https?|mailto):/i.test(inside)) return false;
    const href = safeTarget(inside);
    return href !== null && this.#add({ type: 'link', href, children: [{ type: 'text', text: inside }] }, end + 1);
  }

  entity() {
    const match = /^&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-z]{2,4});/.exec(this.#text.slice(this.#at, this.#at + 12));
    const text = match && entityText(match[1]);
    return Boolean(text) && this.#add({ type: 'text', text }, this.#at + match[0].length);
  }

  lineBreak() {
    return this.#add({ type: 'break' }, this.#at + 1);
  }

  emphasis() {
    const text = this.#text;
    const mark = text[this.#at];
    const length = runLength(text, this.#at);
    const end = this.#at + length;
    if (mark === '~' && length !== 2) return this.#add({ type: 'text', text: mark.repeat(length) }, end);
    const before = this.#at === 0 ? ' ' : text[this.#at - 1];
    const after = end === text.length ? ' ' : String.fromCodePoint(text.codePointAt(end));
    const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
    const [markBefore, markAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
    const left = !spaceAfter && (!markAfter || spaceBefore || markBefore);
    const right = !spaceBefore && (!markBefore || spaceAfter || markAfter);
    // Underlines inside a word, as in names of variables, are text.
    const inWord = mark === '_';
    const canOpen = left && (!inWord || !right || markBefore);
    const canClose = right && (!inWord || !left || markAfter);
    return this.#add({ mark, length, count: length, canOpen, canClose, opens: [], closes: [] }, end);
  }

  openBracket() {
    return this.#addBracket('[', false);
  }

  openImage() {
    return this.#text[this.#at + 1] === '[' && this.#addBracket('![', true);
  }

  #addBracket(text, image) {
    const node = { type: 'text', text, image };
    this.#brackets.push(node);
    return this.#add(node, this.#at + text.length);
  }

  closeBracket() {
    const bracket = this.#brackets.pop();
    const dead = this.#brackets.length < this.#deadBrackets && !bracket?.image;
    this.#deadBrackets = Math.min(this.#deadBrackets, this.#brackets.length);
    const target = bracket && !dead && this.#text[this.#at + 1] === '(' ? readTarget(this.#text, this.#at + 2) : null;
    if (!target) return false;
    this.#flush();
    const inside = this.#nodes.splice(this.#nodes.lastIndexOf(bracket)).slice(1);
    matchEmphasis(inside);
    const children = spanTree(inside);
    const href = safeTarget(target.url);
    // A picture from elsewhere is not fetched, which would tell its server who reads: it is a link. What may not be a
    // link is its text.
    const shown = bracket.image ? [{ type: 'text', text: plainText(children) || 'image' }] : children;
    if (href === null) this.#nodes.push(...shown);
    else this.#nodes.push({ type: 'link', href, children: shown });
    if (!bracket.image) this.#deadBrackets = this.#brackets.length;
    this.#at = target.end;
    this.#plain = target.end;
    return true;
  }

  bareLink() {
    if (!/^https?:\/\//.test(this.#text.slice(this.#at, this.#at + 8))) return false;
    if (this.#at > 0 && /[\p{L}\p{N}_]/u.test(this.#text[this.#at - 1])) return false;
    // A link in the text of a link would be one inside the other.
    if (this.#brackets.length > this.#deadBrackets && this.#find('](', this.#at, LINK_LIMIT_CHARS) >= 0) return false;
    const inside = trimLink(/^[^\s<>"`]*/.exec(this.#text.slice(this.#at, this.#at + LINK_LIMIT_CHARS))[0]);
    const href = /^https?:\/\/./.test(inside) ? safeTarget(inside) : null;
    return href !== null && this.#add({ type: 'link', href, children: [{ type: 'text', text: inside }] }, this.#at + inside.length);
  }
}

function runLength(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

/** Where runs of backticks begin, by their length, the last one first. */
function codeRuns(text) {
  const runs = new Map();
  for (const match of text.matchAll(/`+/g)) {
    if (!runs.has(match[0].length)) runs.set(match[0].length, []);
    runs.get(match[0].length).push(match.index);
  }
  for (const positions of runs.values()) positions.reverse();
  return runs;
}

function entityText(name) {
  if (name[0] !== '#') return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : null;
  const code = /x/i.test(name[1]) ? Number.parseInt(name.slice(2), 16) : Number.parseInt(name.slice(1), 10);
  const valid = code >= 32 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
  return valid ? String.fromCodePoint(code) : '\ufffd';
}

/** The `url "title")` of a link and where it ends, or null. The title is dropped. */
function readTarget(text, begin) {
  const limit = Math.min(text.length, begin + LINK_LIMIT_CHARS);
  let at = begin;
  let depth = 0;
  const angled = text[at] === '<';
  for (; at < limit; at += 1) {
    const char = text[at];
    if (char === '\n' || (angled && char === '>')) break;
    if (angled) continue;
    if (char === ' ' || (char === ')' && depth === 0)) break;
    if (char === '(') depth += 1;
    if (depth > PAREN_LIMIT) return null;
    if (char === ')') depth -= 1;
  }
  const url = text.slice(begin + (angled ? 1 : 0), at);
  if (angled) at += 1;
  const rest = /^(?: +(?:"[^"\n]{0,500}"|'[^'\n]{0,500}'))? {0,8}\)/.exec(text.slice(at, at + 600));
  return rest ? { url, end: at + rest[0].length } : null;
}

/** Marks at the end of an address belong to the sentence, and a `)` does where none was opened. */
function trimLink(link) {
  let end = link.length;
  let balance = 0;
  for (const char of link) balance += char === '(' ? 1 : char === ')' ? -1 : 0;
  for (; end > 0; end -= 1) {
    const last = link[end - 1];
    if (last === ')' && balance < 0) balance += 1;
    else if (!'.,;:!?\'*_~]'.includes(last)) break;
  }
  return link.slice(0, end);
}

/** The text of spans without their marks. */
export function plainText(spans) {
  return spans.map((span) => (span.children ? plainText(span.children) : span.type === 'break' ? ' ' : span.text)).join('');
}
