// Markdown to DOM nodes. The tags are those named here, text is text, and the only attribute that comes from a message is
// the target of a link, which `safeTarget` has checked. A message can therefore put nothing else into the page.

import { el, icon } from './dom.js';
import { highlight } from './highlight.js';
import { parseBlocks } from './markdown-blocks.js';
import { parseInline } from './markdown-inline.js';

/** Shows a text that may still grow: only the last block is read and drawn again. */
export class MarkdownView {
  #root;
  #text = null;
  #open = false;
  /** Where the blocks end that more text can not change, and how many nodes they are. */
  #settledChars = 0;
  #settledNodes = 0;

  constructor(root) {
    this.#root = root;
  }

  /** Shows `text`; `open` says that more will follow. */
  update(text, { open = false } = {}) {
    const shown = text.replaceAll('\r\n', '\n').replaceAll('\0', '\ufffd');
    if (shown === this.#text && open === this.#open) return;
    if (this.#text === null || !shown.startsWith(this.#text.slice(0, this.#settledChars))) this.#forget();
    this.#text = shown;
    this.#open = open;
    while (this.#root.childNodes.length > this.#settledNodes) this.#root.lastChild.remove();
    this.#settle();
    const rest = parseBlocks(shown.slice(this.#settledChars), { open });
    rest.forEach((block, index) => this.#root.append(blockNode(block, open && index === rest.length - 1)));
  }

  #forget() {
    this.#settledChars = 0;
    this.#settledNodes = 0;
  }

  /** All blocks but the last one of the complete lines stay as they are, whatever follows. */
  #settle() {
    const complete = this.#text.slice(this.#settledChars, this.#text.lastIndexOf('\n') + 1);
    const blocks = parseBlocks(complete);
    if (blocks.length < 2) return;
    for (const block of blocks.slice(0, -1)) this.#root.append(blockNode(block, false));
    this.#settledNodes += blocks.length - 1;
    this.#settledChars += complete.split('\n').slice(0, blocks.at(-1).line).join('\n').length + 1;
  }
}

const BLOCKS = {
  paragraph: (block, open) => el('p', {}, inlineNodes(block.text, open)),
  // The page has h1 and a message h2, so those of a text begin at h3.
  heading: (block, open) => el(`h${Math.min(6, block.level + 2)}`, { class: `heading-${block.level}` }, inlineNodes(block.text, open)),
  rule: () => el('hr'),
  quote: (block, open) => el('blockquote', {}, blockNodes(block.blocks, open)),
  list: listNode,
  table: tableNode,
  code: codeNode,
};

const blockNode = (block, open) => BLOCKS[block.type](block, open);
const blockNodes = (blocks, open) => blocks.map((block, index) => blockNode(block, open && index === blocks.length - 1));

function listNode(block, open) {
  const items = block.items.map((item, index) => {
    const last = open && index === block.items.length - 1;
    const content = item.blocks.flatMap((inner, place) => {
      const innerOpen = last && place === item.blocks.length - 1;
      return inner.type === 'paragraph' && !block.loose ? inlineNodes(inner.text, innerOpen) : [blockNode(inner, innerOpen)];
    });
    if (item.checked === null) return el('li', {}, content);
    const box = el('input', { type: 'checkbox', disabled: true, checked: item.checked, 'aria-label': item.checked ? 'done' : 'to do' });
    return el('li', { class: 'task' }, box, content);
  });
  if (block.start === null) return el('ul', {}, items);
  return el('ol', { start: block.start === 1 ? null : block.start }, items);
}

function tableNode(block, open) {
  const row = (cells, tag, last) =>
    el('tr', {}, cells.map((cell, column) => {
      const align = block.aligns[column];
      return el(tag, { class: align && `align-${align}`, scope: tag === 'th' ? 'col' : null }, inlineNodes(cell, last && column === cells.length - 1));
    }));
  const body = block.rows.map((cells, index) => row(cells, 'td', open && index === block.rows.length - 1));
  const table = el('table', {}, el('thead', {}, row(block.head, 'th', false)), el('tbody', {}, body));
  // A wide table scrolls by itself, with the keyboard too.
  return el('div', { class: 'table', role: 'region', 'aria-label': 'Table', tabindex: '0' }, table);
}

function codeNode(block) {
  const pieces = highlight(block.text, block.info).map(([kind, text]) => (kind === '' ? text : el('span', { class: `code-${kind}`, text })));
  const copy = el('button', { type: 'button', class: 'copy-code', 'aria-label': 'Copy code' }, icon('copy'), el('span', { text: 'Copy' }));
  return el(
    'div',
    { class: 'code' },
    el('div', { class: 'code-head' }, el('span', { class: 'code-language', text: block.info.slice(0, 40) || 'code' }), copy),
    el('pre', { tabindex: '0', 'aria-label': 'Code' }, el('code', {}, pieces)),
  );
}

const SPANS = {
  text: (span) => span.text,
  code: (span) => el('code', { text: span.text }),
  formula: (span) => el('code', { class: 'formula', text: span.text }),
  break: () => el('br'),
  strong: (span) => el('strong', {}, spanNodes(span.children)),
  em: (span) => el('em', {}, spanNodes(span.children)),
  del: (span) => el('del', {}, spanNodes(span.children)),
  link: (span) => el('a', { href: span.href, target: '_blank', rel: 'noopener noreferrer nofollow' }, spanNodes(span.children)),
};

const spanNodes = (spans) => spans.map((span) => SPANS[span.type](span));
const inlineNodes = (text, open) => spanNodes(parseInline(text, { open }));
