// Markdown text to a tree of blocks (CommonMark's, with tables and task lists). No DOM here. Time grows with length times
// depth of nesting, and that depth is bounded.
//
// Three deviations, for what models write: a nested list may be indented less than its parent's text, a line break in a
// paragraph is a line break, and markup of HTML is text.

/** Quotes and lists inside each other; what is deeper is a paragraph. */
const DEPTH_LIMIT = 16;

/**
 * @param {string} text lines end in `\n`
 * @param {{open?: boolean}} options `open`: more text will follow, so a table whose rule is half there is one already
 * @returns {Array<object>} blocks, each with `line`, the index of its first line
 */
export function parseBlocks(text, { open = false } = {}) {
  const lines = text.split('\n').map(expandTabs);
  return parseLines(lines, 0, open);
}

const expandTabs = (line) => line.replace(/^[ ]*\t[ \t]*/, (space) => space.replaceAll('\t', '    '));
const isBlank = (line) => line.trim() === '';
const indentOf = (line) => line.length - line.trimStart().length;

/** Looked for in this order; each gives a block and the line after it, or null. */
const READERS = [readFence, readIndentedCode, readHeading, readRule, readQuote, readList, readTable];

function parseLines(lines, depth, open) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    let found = null;
    for (const reader of READERS) {
      found = reader(lines, at, depth, open);
      if (found) break;
    }
    found ??= readParagraph(lines, at, depth);
    found.block.line = at;
    blocks.push(found.block);
    at = found.next;
  }
  return blocks;
}

function fenceOf(line) {
  const match = /^ {0,3}(`{3,}|~{3,})(.*)$/.exec(line);
  if (!match || (match[1][0] === '`' && match[2].includes('`'))) return null;
  return { mark: match[1][0], length: match[1].length, info: match[2].trim(), indent: indentOf(line) };
}

function readFence(lines, at) {
  const fence = fenceOf(lines[at]);
  if (!fence) return null;
  const content = [];
  let next = at + 1;
  let closed = false;
  for (; next < lines.length && !closed; next += 1) {
    const end = fenceOf(lines[next]);
    closed = end !== null && end.mark === fence.mark && end.length >= fence.length && end.info === '';
    if (!closed) content.push(lines[next].slice(Math.min(indentOf(lines[next]), fence.indent)));
  }
  // What the split leaves after the last line break is not a line of code yet.
  if (!closed && content.at(-1) === '') content.pop();
  return { block: { type: 'code', info: fence.info.split(/\s/, 1)[0], text: content.join('\n'), closed }, next };
}

function readIndentedCode(lines, at) {
  if (indentOf(lines[at]) < 4) return null;
  let end = at;
  for (let next = at; next < lines.length && (indentOf(lines[next]) >= 4 || isBlank(lines[next])); next += 1) {
    if (!isBlank(lines[next])) end = next + 1;
  }
  return { block: { type: 'code', info: '', text: lines.slice(at, end).map((line) => line.slice(4)).join('\n'), closed: true }, next: end };
}

function headingOf(line) {
  const match = /^ {0,3}(#{1,6})(?=[ \t]|$)/.exec(line);
  if (!match) return null;
  let text = line.slice(match[0].length).trim();
  let end = text.length;
  while (end > 0 && text[end - 1] === '#') end -= 1;
  if (end === 0 || text[end - 1] === ' ') text = text.slice(0, end).trimEnd();
  return { type: 'heading', level: match[1].length, text };
}

function readHeading(lines, at) {
  const block = headingOf(lines[at]);
  return block && { block, next: at + 1 };
}

function isRule(line) {
  if (indentOf(line) > 3) return false;
  const marks = line.replace(/[ \t]/g, '');
  return marks.length >= 3 && '-*_'.includes(marks[0]) && marks === marks[0].repeat(marks.length);
}

function readRule(lines, at) {
  return isRule(lines[at]) ? { block: { type: 'rule' }, next: at + 1 } : null;
}

const isQuote = (line) => /^ {0,3}>/.test(line);

function readQuote(lines, at, depth, open) {
  if (depth >= DEPTH_LIMIT || !isQuote(lines[at])) return null;
  const content = [];
  let next = at;
  for (; next < lines.length; next += 1) {
    if (isQuote(lines[next])) content.push(lines[next].replace(/^ {0,3}> ?/, ''));
    // A paragraph in a quote goes on without its mark.
    else if (!isBlank(lines[next]) && !isBlank(content.at(-1)) && !beginsBlock(lines, next, depth)) content.push(lines[next]);
    else break;
  }
  return { block: { type: 'quote', blocks: parseLines(content, depth + 1, open) }, next };
}

function markerOf(line) {
  const match = /^( *)([-*+]|\d{1,9}[.)])(?=[ ]|$)/.exec(line);
  if (!match || isRule(line)) return null;
  const rest = line.slice(match[0].length);
  const space = indentOf(rest);
  return {
    indent: match[1].length,
    kind: match[2].at(-1),
    number: match[2].length > 1 ? Number(match[2].slice(0, -1)) : null,
    // Five spaces and more are one space and the indent of code; an item may also begin on its next line.
    content: match[0].length + (isBlank(rest) || space > 4 ? 1 : space),
    empty: isBlank(rest),
  };
}

function readList(lines, at, depth, open) {
  const first = markerOf(lines[at]);
  if (depth >= DEPTH_LIMIT || !first || first.indent > 3) return null;
  const items = [];
  let next = at;
  let loose = false;
  while (next < lines.length) {
    const marker = markerOf(lines[next]);
    if (!marker || marker.kind !== first.kind || marker.indent > first.indent + 3 || indentOf(lines[next]) > 3) break;
    const item = readItem(lines, next, marker, depth);
    const task = /^\[([ xX])\] +(?=\S)/.exec(item.lines[0]);
    if (task) item.lines[0] = item.lines[0].slice(task[0].length);
    const blocks = parseLines(item.lines, depth + 1, open);
    items.push({ blocks, checked: task ? task[1] !== ' ' : null });
    const between = blocks.some((block, index) => index > 0 && isBlank(item.lines[block.line - 1]));
    next = item.next;
    while (next < lines.length && isBlank(lines[next])) next += 1;
    const again = next < lines.length && markerOf(lines[next])?.kind === first.kind && indentOf(lines[next]) <= 3;
    loose ||= between || (next > item.next && again);
    if (!again) {
      next = item.next;
      break;
    }
  }
  return { block: { type: 'list', start: first.number, loose, items }, next };
}

/** The lines of one item, without its indent, and the line after them, blank ones at its end left out. */
function readItem(lines, at, marker, depth) {
  const content = [lines[at].slice(marker.content)];
  let end = at + 1;
  let blank = marker.empty;
  for (let next = at + 1; next < lines.length; next += 1) {
    const line = lines[next];
    if (isBlank(line)) {
      // An item that begins with a blank line has at most that one.
      if (marker.empty && next === at + 1) break;
      content.push('');
      blank = true;
      continue;
    }
    const indent = indentOf(line);
    const nested = indent >= marker.indent + 2 && markerOf(line) !== null;
    const inside = indent >= marker.content || nested;
    const goesOn = !blank && !inside && markerOf(line) === null && !beginsBlock(lines, next, depth);
    if (!inside && !goesOn) break;
    content.push(line.slice(inside ? Math.min(indent, marker.content) : indent));
    blank = false;
    end = next + 1;
  }
  return { lines: content.slice(0, end - at), next: end };
}

/** The cells of a row, whose `|` may be escaped. */
function cellsOf(line) {
  const cells = [''];
  const row = line.trim();
  for (let at = 0; at < row.length; at += 1) {
    if (row[at] === '\\' && row[at + 1] === '|') {
      cells[cells.length - 1] += '|';
      at += 1;
    } else if (row[at] === '|') cells.push('');
    else cells[cells.length - 1] += row[at];
  }
  if (row.startsWith('|')) cells.shift();
  if (cells.length > 1 && row.endsWith('|') && cells.at(-1) === '') cells.pop();
  return cells.map((cell) => cell.trim());
}

const ALIGN = { '::': 'center', ':-': 'left', '-:': 'right', '--': null };

/** The alignments that a table's rule gives, or null where the two lines begin no table. */
function tableAt(lines, at, open) {
  if (!lines[at].includes('|') || at + 1 >= lines.length || indentOf(lines[at]) > 3) return null;
  const rule = lines[at + 1];
  if (!/^[ |:-]+$/.test(rule) || !rule.includes('-')) return null;
  const columns = cellsOf(lines[at]).length;
  const cells = cellsOf(rule);
  if (open && at + 2 === lines.length && rule.includes('|') && cells.length <= columns) return Array(columns).fill(null);
  if (cells.length !== columns || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return cells.map((cell) => ALIGN[(cell.startsWith(':') ? ':' : '-') + (cell.endsWith(':') ? ':' : '-')]);
}

function readTable(lines, at, depth, open) {
  const aligns = tableAt(lines, at, open);
  if (!aligns) return null;
  const rows = [];
  let next = at + 2;
  for (; next < lines.length && !isBlank(lines[next]) && !beginsBlock(lines, next, depth); next += 1) {
    const cells = cellsOf(lines[next]);
    rows.push(aligns.map((_, column) => cells[column] ?? ''));
  }
  return { block: { type: 'table', aligns, head: cellsOf(lines[at]), rows }, next };
}

/** Whether the line ends a paragraph before it. */
function beginsBlock(lines, at, depth) {
  const line = lines[at];
  if (fenceOf(line) || headingOf(line) || isRule(line)) return true;
  if (depth < DEPTH_LIMIT) {
    if (isQuote(line)) return true;
    const marker = markerOf(line);
    if (marker && marker.indent <= 3 && !marker.empty && (marker.number === null || marker.number === 1)) return true;
  }
  return false;
}

function readParagraph(lines, at, depth) {
  const content = [lines[at].trim()];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    const underline = /^ {0,3}(=+|-+) *$/.exec(line);
    if (underline) return { block: { type: 'heading', level: underline[1][0] === '=' ? 1 : 2, text: content.join('\n') }, next: next + 1 };
    if (isBlank(line) || beginsBlock(lines, next, depth) || tableAt(lines, next, false)) break;
    // Two spaces at the end are kept out: every line break is one.
    content.push(line.trim());
  }
  return { block: { type: 'paragraph', text: content.join('\n') }, next };
}
