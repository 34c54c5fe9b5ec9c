// The parts of the page that need no browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { streamAnswer, statTexts } from '../js/answer.js';
import { addMessage, dropLeaf, matches, newConversation, requestBody, showSibling, shownPath, siblingsOf } from '../js/conversation.js';
import { highlight } from '../js/highlight.js';
import { parseBlocks } from '../js/markdown-blocks.js';
import { parseInline, plainText, safeTarget } from '../js/markdown-inline.js';
import { resample } from '../js/resample.js';
import { Session } from '../js/session.js';
import { checkSetting, formatField, parseField } from '../js/settings-rules.js';
import { EVENT_LIMIT_CHARS, SseParser } from '../js/sse.js';
import { exportText, importText } from '../js/transfer.js';
import { AUDIO_TYPES, clock, formatOf, N_PEAKS, peaksOf, wavSeconds, writeWav } from '../js/wav.js';
import { randomMarkdown, seeded } from './random-markdown.mjs';

// --- events ---

test('events come out whole however the stream is cut', () => {
  const stream = ': ping\n\ndata: {"a":1}\n\ndata:b\r\ndata: c\r\n\r\nevent: x\rdata: d\r\rid: 7\ndatax: no\ndata\n\ndata: [DONE]\n\n';
  const expected = ['{"a":1}', 'b\nc', 'd', '', '[DONE]'];
  let cuts = 0;
  for (let first = 0; first <= stream.length; first += 1) {
    for (let second = first; second <= stream.length; second += 1) {
      const parser = new SseParser();
      const events = [stream.slice(0, first), stream.slice(first, second), stream.slice(second)].flatMap((piece) => parser.push(piece));
      assert.deepEqual(events, expected, `cut at ${first} and ${second}`);
      cuts += 1;
    }
  }
  console.log(`${cuts} ways to cut the stream`);
});

test('an event without an end is refused once it is too long', () => {
  const parser = new SseParser();
  const mebibyte = 'x'.repeat(1024 * 1024);
  parser.push('data: ');
  assert.throws(() => {
    for (let sent = 0; sent <= EVENT_LIMIT_CHARS; sent += mebibyte.length) parser.push(mebibyte);
  }, /longer than 16 MiB/);
});

// --- markdown ---

/** A tree of spans in one line: `strong(a em(b))`. */
const spans = (list) => list.map((span) => (span.children ? `${span.type}${span.href ? `<${span.href}>` : ''}(${spans(span.children)})` : span.type === 'text' ? span.text : `${span.type}{${span.text ?? ''}}`)).join('');

test('spans', () => {
  const cases = [
    ['plain', 'plain'],
    ['*a* **b** ***c*** ~~d~~ ~e~', 'em(a) strong(b) em(strong(c)) del(d) ~e~'],
    ['**a *b* c**', 'strong(a em(b) c)'],
    ['*a **b*', '*a *em(b)'],
    ['**a*', '*em(a)'],
    ['snake_case_name and _so_', 'snake_case_name and em(so)'],
    ['2 * 3 * 4', '2 * 3 * 4'],
    ['`a *b*` ``c`d`` ` e', 'code{a *b*} code{c`d} ` e'],
    ['\\*a\\* \\q', '*a* \\q'],
    ['[a](https://x.test/y "t") [b *c*](mailto:a@b.c)', 'link<https://x.test/y>(a) link<mailto:a@b.c>(b em(c))'],
    ['[a](https://x.test/(b)) [c](<https://x.test/d e>)', 'link<https://x.test/(b)>(a) link<https://x.test/d%20e>(c)'],
    ['[a [b](https://b.test) c](https://c.test)', '[a link<https://b.test/>(b) c](link<https://c.test/>(https://c.test))'],
    ['see https://x.test/a_b_c. (https://y.test/)', 'see link<https://x.test/a_b_c>(https://x.test/a_b_c). (link<https://y.test/>(https://y.test/))'],
    ['<https://x.test> <b>no</b> a<br>b', 'link<https://x.test/>(https://x.test) <b>no</b> abreak{}b'],
    ['![a cat](https://x.test/c.png) ![b](data:image/png;base64,AA==)', 'link<https://x.test/c.png>(a cat) b'],
    ['&lt;a&gt; &amp;amp; &#65; &#x1F999; &nope; &#0; &constructor;', '<a> &amp; A 🦙 &nope; \ufffd &constructor;'],
    ['one\ntwo', 'onebreak{}two'],
    ['\\(x_1 * y\\) and $$a_1$$ but $5 and $6', 'formula{x_1 * y} and formula{a_1} but $5 and $6'],
  ];
  for (const [text, expected] of cases) assert.equal(spans(parseInline(text)), expected, text);
});

test('while text still comes, what is not closed counts as closed', () => {
  const cases = [
    ['**bo', 'strong(bo)'],
    ['a *b **c', 'a em(b strong(c))'],
    ['use `foo', 'use code{foo}'],
    ['see [the label](https://x.te', 'see link<https://x.te/>(the label)'],
  ];
  for (const [text, expected] of cases) {
    assert.equal(spans(parseInline(text, { open: true })), expected, text);
    assert.notEqual(spans(parseInline(text)), expected, `${text}, complete`);
  }
  assert.equal(spans(parseInline('2 * 3', { open: true })), '2 * 3');
});

test('only web and mail addresses are targets', () => {
  for (const bad of ['javascript:alert(1)', ' javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'java\nscript:alert(1)', '\u0001javascript:alert(1)', 'data:text/html,<script>alert(1)</script>', 'vbscript:x', 'file:///etc/passwd', 'blob:https://x/y', 'about:blank', '/relative', '//x.test', '#a', '', 'view-source:https://x']) {
    assert.equal(safeTarget(bad), null, bad);
  }
  assert.equal(safeTarget('https://x.test/?q="><script>'), 'https://x.test/?q=%22%3E%3Cscript%3E');
});

/** A tree of blocks in one line. */
function blocks(list) {
  const show = {
    paragraph: (block) => `p(${block.text})`,
    heading: (block) => `h${block.level}(${block.text})`,
    rule: () => 'hr',
    quote: (block) => `quote(${blocks(block.blocks)})`,
    code: (block) => `code${block.info && `:${block.info}`}(${block.text}${block.closed ? '' : '…'})`,
    list: (block) => `${block.start === null ? 'ul' : `ol${block.start}`}${block.loose ? '+' : ''}(${block.items.map((item) => (item.checked === null ? '' : item.checked ? '[x]' : '[ ]') + blocks(item.blocks)).join(' | ')})`,
    table: (block) => `table:${block.aligns.map((align) => (align ?? '-')[0]).join('')}(${[block.head, ...block.rows].map((row) => row.join(',')).join(' | ')})`,
  };
  return list.map((block) => show[block.type](block).replaceAll('\n', '/')).join(' ');
}

test('blocks', () => {
  const cases = [
    ['a\nb\n\nc', 'p(a/b) p(c)'],
    ['# A #\n## B\n#no\n###### F', 'h1(A) h2(B) p(#no) h6(F)'],
    ['Title\n===\nOther\n---\n\n---\n***', 'h1(Title) h2(Other) hr hr'],
    ['```js\nlet a;\n\n# b\n```\nafter', 'code:js(let a;//# b) p(after)'],
    ['~~~\n```\n~~~', 'code(```)'],
    ['```py\nopen', 'code:py(open…)'],
    ['````\n```\nx\n```\n````', 'code(```/x/```)'],
    ['    four\n\n    more\nout', 'code(four//more) p(out)'],
    ['> a\n> b\nlazy\n\nout', 'quote(p(a/b/lazy)) p(out)'],
    ['> - a\n>   - b\n> > deep', 'quote(ul(p(a) ul(p(b))) quote(p(deep)))'],
    ['- a\n- b\n  - c\n    d\n- e', 'ul(p(a) | p(b) ul(p(c/d)) | p(e))'],
    ['- a\n\n- b', 'ul+(p(a) | p(b))'],
    ['1. a\n2. b\n\nc', 'ol1(p(a) | p(b)) p(c)'],
    ['3) a\n4) b', 'ol3(p(a) | p(b))'],
    ['1. a\n  - nested by two\n2. b', 'ol1(p(a) ul(p(nested by two)) | p(b))'],
    ['1. a\n\n   ```sh\n   ls\n   ```\n2. b', 'ol1+(p(a) code:sh(ls) | p(b))'],
    ['- a\n* b', 'ul(p(a)) ul(p(b))'],
    ['- [ ] todo\n- [x] done', 'ul([ ]p(todo) | [x]p(done))'],
    ['Steps:\n1. a\n- b', 'p(Steps:) ol1(p(a)) ul(p(b))'],
    ['in 1984.\n1985. was next', 'p(in 1984./1985. was next)'],
    ['|a|b|\n|:-|-:|\n|1|2|\n|3|\n\nx', 'table:lr(a,b | 1,2 | 3,) p(x)'],
    ['a | b\n--|:-:\n`x \\| y` | z | more', 'table:-c(a,b | `x | y`,z)'],
    ['a | b\nno rule', 'p(a | b/no rule)'],
    ['text\n| a | b |\n|---|---|\n| 1 | 2 |', 'p(text) table:--(a,b | 1,2)'],
    ['-', 'ul()'],
    ['<div onclick="x">\n<script>', 'p(<div onclick="x">/<script>)'],
  ];
  for (const [text, expected] of cases) assert.equal(blocks(parseBlocks(text)), expected, JSON.stringify(text));
  assert.equal(blocks(parseBlocks('|a|b|\n|-', { open: true })), 'table:--(a,b)');
  assert.equal(blocks(parseBlocks('|a|b|\n|-')), 'p(|a|b|/|-)');
});

test('hostile markdown is read in steps that grow with its length', () => {
  const worst = ['*', '[', '*a ', '**a *b ', '[a](', '![', '`', '> ', '- ', '<', '\\(', '$$', 'http://', '-\n', '>\n- >\n', ' ', '*a*', '_a*b', '|', 'a|b\n', '~~', '&#', '1. ', '[a](http://b) ', '`a``b```c', '](', '***a_', '\\', '#', '```\n', 'a\n===\n'];
  const depthOf = (list) => 1 + Math.max(0, ...list.flatMap((block) => [block.blocks, ...(block.items ?? []).map((item) => item.blocks)]).filter(Boolean).map(depthOf));
  const spanDepth = (list) => 1 + Math.max(0, ...list.map((span) => (span.children ? spanDepth(span.children) : 0)));
  let read = 0;
  const walk = (list) => {
    for (const block of list) {
      if (block.blocks) walk(block.blocks);
      for (const item of block.items ?? []) walk(item.blocks);
      for (const text of [block.text, ...(block.head ?? []).slice(0, 1)].filter((text) => text !== undefined && block.type !== 'code')) {
        for (const open of [false, true]) assert.ok(spanDepth(parseInline(text, { open })) <= 60);
        read += text.length;
      }
    }
  };
  // A step count can not be read off a parser from outside; growth with the square of 100,000 would take minutes for each.
  for (const pattern of worst) {
    const text = pattern.repeat(Math.ceil(100_000 / pattern.length));
    const parsed = parseBlocks(text, { open: true });
    assert.ok(depthOf(parsed) <= 20, pattern);
    walk(parsed);
  }
  console.log(`${worst.length} patterns, ${read} characters of spans`);
});

test('no text is lost by markdown: letters and digits all come out', () => {
  const random = seeded(7);
  const words = (text) => text.match(/[A-Z]{4,}\d+/g) ?? [];
  let compared = 0;
  for (let round = 0; round < 400; round += 1) {
    const { text, marks } = randomMarkdown(random);
    const out = [];
    const walk = (list) => {
      for (const block of list) {
        for (const part of [block.text, ...(block.head ?? []), ...(block.rows ?? []).flat()]) {
          if (part !== undefined) out.push(block.type === 'code' ? part : plainText(parseInline(part)));
        }
        if (block.blocks) walk(block.blocks);
        for (const item of block.items ?? []) walk(item.blocks);
      }
    };
    walk(parseBlocks(text));
    assert.deepEqual(words(out.join(' ')).sort(), marks.sort(), text);
    compared += marks.length;
  }
  assert.ok(compared > 1000);
  console.log(`${compared} words found again`);
});

test('colouring code keeps the code', () => {
  const sources = ['def f(x):  # say "hi"\n    return f"{x}" + \'\'\'a\nb\'\'\'', 'let s = `a ${b}`; // c\n/* open', 'SELECT * FROM t -- x', '"unclosed\nnext', '0xFF 1_000 3.14e-2 a1', '', "it's /* odd */ '\\'' \"\\\"\""];
  for (const source of sources) {
    for (const language of ['python', 'js', 'rust', 'sql', 'text', '', '<img>']) assert.equal(highlight(source, language).map(([, text]) => text).join(''), source);
  }
  assert.deepEqual(highlight('if x: # no', 'python').map(([kind]) => kind), ['keyword', '', 'comment']);
});

// --- conversations ---

test('editing and asking again make versions, and all of them can be gone back to', () => {
  const conversation = newConversation();
  const texts = () => shownPath(conversation).map((message) => message.text);
  const ask = addMessage(conversation, { role: 'user', text: 'a' });
  const answer = addMessage(conversation, { role: 'assistant', text: 'b' });
  addMessage(conversation, { role: 'user', text: 'c' });
  addMessage(conversation, { role: 'assistant', text: 'd' });
  const edited = addMessage(conversation, { role: 'user', text: 'A' }, ask.parent);
  addMessage(conversation, { role: 'assistant', text: 'B' });
  assert.deepEqual(texts(), ['A', 'B']);
  assert.deepEqual(siblingsOf(conversation, edited).map(({ text }) => text), ['a', 'A']);
  showSibling(conversation, edited, -1);
  assert.deepEqual(texts(), ['a', 'b', 'c', 'd']);
  showSibling(conversation, ask, -1);
  assert.deepEqual(texts(), ['a', 'b', 'c', 'd'], 'there is none before the first');
  conversation.leaf = ask.id;
  const failed = addMessage(conversation, { role: 'assistant', text: '' });
  assert.equal(dropLeaf(conversation, answer), false, 'something hangs on it');
  assert.equal(dropLeaf(conversation, failed), true);
  assert.deepEqual(texts(), ['a']);
  assert.equal(conversation.title, 'a');
});

test('a request has the shown path, the settings that are set and no others', () => {
  const conversation = newConversation();
  const image = { id: 'i', kind: 'image', name: 'n', type: 'image/png', bytes: 9, width: 1, height: 1 };
  addMessage(conversation, { role: 'user', text: 'look', attachments: [image] });
  addMessage(conversation, { role: 'assistant', text: '', status: 'error' });
  addMessage(conversation, { role: 'user', text: '', attachments: [image] });
  const data = new Map([['i', 'data:image/png;base64,AA==']]);
  const part = { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } };
  assert.deepEqual(requestBody(conversation, 'm', data), {
    model: 'm',
    messages: [{ role: 'user', content: [part, { type: 'text', text: 'look' }] }, { role: 'user', content: [part] }],
    stream: true,
    stream_options: { include_usage: true },
  });
  Object.assign(conversation.settings, { model: 'other', system: 'be brief', temperature: 0, top_p: 0.5, max_tokens: 9, seed: 0, stop: ['x'], frequency_penalty: -1, presence_penalty: 2 });
  const { messages, ...rest } = requestBody(conversation, 'm', data);
  assert.deepEqual(messages[0], { role: 'system', content: 'be brief' });
  assert.deepEqual(rest, { model: 'other', stream: true, stream_options: { include_usage: true }, temperature: 0, top_p: 0.5, max_completion_tokens: 9, seed: 0, stop: ['x'], frequency_penalty: -1, presence_penalty: 2 });
});

test('search wants every word, in the title or a message', () => {
  const conversation = newConversation();
  addMessage(conversation, { role: 'user', text: 'About llamas' });
  addMessage(conversation, { role: 'assistant', text: 'They live in the Andes.' });
  for (const [query, expected] of [['', true], ['LLAMA andes', true], ['andes fish', false], ['  ', true]]) assert.equal(matches(conversation, query), expected, query);
});

test('settings are held to the limits of the server', () => {
  const good = { temperature: [0, 2, 0.7], top_p: [0.01, 1], max_tokens: [1, 4096], seed: [0, 2 ** 53 - 1], stop: [[], ['a', 'b', 'c', 'd'], ['ä'.repeat(128)]], frequency_penalty: [-2, 2], presence_penalty: [0], system: [''], model: ['m'] };
  const bad = { temperature: [-0.01, 2.01, Number.NaN, Infinity, '1', null], top_p: [0, 1.01, Number.NaN, -1], max_tokens: [0, 1.5, -1, Number.NaN, 2 ** 53], seed: [-1, 0.5, 2 ** 53], stop: [['a', 'b', 'c', 'd', 'e'], ['ä'.repeat(128) + 'x'], [''], [1], 'a'], frequency_penalty: [-2.1, 2.1], presence_penalty: [Number.NaN], system: [1, null], model: [{}] };
  for (const [name, values] of Object.entries(good)) for (const value of values) assert.equal(checkSetting(name, value), null, `${name} ${value}`);
  for (const [name, values] of Object.entries(bad)) for (const value of values) assert.equal(typeof checkSetting(name, value), 'string', `${name} ${value}`);
  assert.deepEqual(parseField('stop', 'a\\nb\n\n\\\\n'), ['a\nb', '\\n']);
  assert.equal(formatField('stop', parseField('stop', 'a\\nb\n\\\\n\n\\t')), 'a\\nb\n\\\\n\n\\t');
  assert.equal(parseField('temperature', ' '), null);
});

test('a conversation above the limit of a request is refused before it is sent', () => {
  const store = {};
  const session = new Session({ store, api: {}, defaults: { read: () => ({}) } });
  const mebibyte = 1024 * 1024;
  assert.equal(session.refusal('ä'.repeat(11.9 * mebibyte)), null);
  assert.match(session.refusal('ä'.repeat(12 * mebibyte)), /^this conversation with its images takes 24 MiB; the limit is 24 MiB/);
  const image = { id: 'i', kind: 'image', name: 'n', type: 'image/png', bytes: 20 * mebibyte, width: 1, height: 1 };
  assert.equal(session.refusal('x'.repeat(3 * mebibyte), [image]), null);
  assert.match(session.refusal('x'.repeat(5 * mebibyte), [image]), /takes 25 MiB/);
  addMessage(session.current, { role: 'user', text: '', attachments: [image] });
  assert.equal(session.room([]).image, 7);
  assert.equal(session.room([]).audio, 16);
  assert.ok(session.room([image]).bytes < 0);
  session.models = [{ id: 'm', modalities: ['text', 'audio'] }];
  assert.ok(session.room([image]).bytes > -mebibyte, 'a model that hears takes longer requests');
  assert.match(session.refusal('x'.repeat(21 * mebibyte)), /^this conversation with its images and audio takes 41 MiB; the limit is 40 MiB/);
});

// --- audio ---

/** A tone of so many seconds. */
const tone = (hz, seconds, rateHz, loud = 0.5) => Float32Array.from({ length: Math.round(seconds * rateHz) }, (_, index) => loud * Math.sin((2 * Math.PI * hz * index) / rateHz));

test('a WAV file has the header of 16 bits in one channel, and samples that a reader gets back', () => {
  const cases = [[0, 0], [1, 32767], [-1, -32768], [2, 32767], [-2, -32768], [0.5, 16384], [-0.5, -16384], [1 / 32768, 1], [0.4 / 32768, 0], [Number.NaN, 0], [Infinity, 32767]];
  const bytes = writeWav(Float32Array.from(cases.map(([sample]) => sample)), 16000);
  const header = Buffer.from(bytes.subarray(0, 44));
  assert.equal(bytes.length, 44 + 2 * cases.length);
  assert.deepEqual([header.toString('latin1', 0, 4), header.toString('latin1', 8, 16), header.toString('latin1', 36, 40)], ['RIFF', 'WAVEfmt ', 'data']);
  assert.deepEqual([4, 16, 24, 28, 40].map((at) => header.readUInt32LE(at)), [bytes.length - 8, 16, 16000, 32000, 2 * cases.length]);
  assert.deepEqual([20, 22, 32, 34].map((at) => header.readUInt16LE(at)), [1, 1, 2, 16], 'integers, one channel, two bytes');
  cases.forEach(([sample, expected], index) => assert.equal(Buffer.from(bytes).readInt16LE(44 + 2 * index), expected, `${sample}`));
  assert.equal(writeWav(new Float32Array(0), 16000).length, 44);
  for (const [size, seconds] of [[44 + 32000, 1], [44 + 31998, 0], [44 + 96001, 3], [0, 0], [-5, 0]]) assert.equal(wavSeconds(size), seconds, `${size} bytes`);
});

test('resampling keeps what the lower rate can hold, and takes away what it can not', () => {
  let compared = 0;
  for (const [fromHz, toHz, hz] of [[48000, 16000, 440], [48000, 16000, 5000], [48000, 16000, 6500], [44100, 16000, 440], [44100, 16000, 6500], [8000, 16000, 440], [22050, 16000, 3000], [16000, 16000, 7900], [48000, 16000, 8700], [48000, 16000, 12000], [44100, 16000, 15000], [96000, 16000, 40000]]) {
    const samples = resample(tone(hz, 1, fromHz), fromHz, toHz);
    assert.equal(samples.length, Math.ceil((fromHz * toHz) / fromHz), `${fromHz} to ${toHz}`);
    // At the ends the filter sees the silence around.
    const wanted = hz < toHz / 2 ? tone(hz, 1, toHz) : new Float32Array(toHz);
    let worst = 0;
    for (let index = 200; index < samples.length - 200; index += 1) worst = Math.max(worst, Math.abs(samples[index] - wanted[index]));
    // A fiftieth of the tone, the phase included; the filter falls from 6.5 to 8.7 kHz.
    assert.ok(worst <= 0.01, `${hz} Hz from ${fromHz} to ${toHz}: ${worst}`);
    compared += samples.length - 400;
  }
  for (const length of [0, 1, 2, 3, 147]) assert.equal(resample(new Float32Array(length), 44100, 16000).length, Math.ceil((length * 160) / 441), `${length} samples`);
  const flat = resample(new Float32Array(4410).fill(0.25), 44100, 16000).subarray(100, 1500);
  assert.ok(flat.every((sample) => Math.abs(sample - 0.25) < 1e-6), 'a constant stays what it is');
  console.log(`${compared} samples compared`);
});

test('the format of a file is read from its bytes, whatever its name', () => {
  const bytes = (...parts) => Uint8Array.from(parts.flatMap((part) => (typeof part === 'string' ? [...part].map((char) => char.charCodeAt(0)) : part)));
  const ogg = (codec) => bytes('OggS', Array(24).fill(0), codec);
  const cases = [
    [writeWav(tone(440, 0.01, 16000), 16000), 'wav'],
    [bytes('fLaC', [0, 0, 0, 34]), 'flac'],
    [bytes([0, 0, 0, 32], 'ftypM4A '), 'm4a'],
    [ogg('\u0001vorbis'), 'ogg'],
    [ogg('OpusHead'), null],
    [bytes('ID3', [4, 0]), 'mp3'],
    [bytes([0xff, 0xfb, 0x90]), 'mp3'],
    [bytes([0xff, 0xf3, 0x90]), 'mp3'],
    [bytes([0xff, 0xf1, 0x50]), null], // AAC without a container
    [bytes([0x1a, 0x45, 0xdf, 0xa3]), null], // WebM
    [bytes('RIFF', [0, 0, 0, 0], 'WEBP'), null],
    [bytes('hello'), null],
    [bytes(), null],
  ];
  for (const [start, expected] of cases) assert.equal(formatOf(start), expected, Buffer.from(start).toString('latin1', 0, 12));
});

test('a waveform is the loudest sample of each part', () => {
  const samples = new Float32Array(N_PEAKS * 100);
  samples[0] = -1;
  samples[150] = 0.5;
  samples[samples.length - 1] = 3;
  const expected = Array(N_PEAKS).fill(0);
  [expected[0], expected[1], expected[N_PEAKS - 1]] = [100, 50, 100];
  assert.deepEqual(peaksOf(samples), expected);
  assert.deepEqual(peaksOf(Float32Array.of(0.25, -0.75)), [25, 75]);
  assert.deepEqual(peaksOf(new Float32Array(0)), []);
  for (const [seconds, text] of [[0, '0:00'], [9.99, '0:09'], [75, '1:15'], [3600, '60:00']]) assert.equal(clock(seconds), text);
});

test('a model that does not say what it takes may see, but does not hear', () => {
  const session = new Session({ store: {}, api: {}, defaults: { read: () => ({ model: null }) } });
  const takes = () => ['image', 'audio'].filter((kind) => session.takes(kind)).join();
  assert.equal(takes(), 'image', 'no model is known yet');
  for (const [modalities, expected] of [[null, 'image'], [['text'], ''], [['text', 'image'], 'image'], [['text', 'audio'], 'audio'], [['text', 'image', 'audio'], 'image,audio']]) {
    session.models = [{ id: 'm', modalities }];
    assert.equal(takes(), expected, String(modalities));
  }
  session.current.settings.model = 'other';
  assert.equal(takes(), 'image', 'another model than those of the server');
});

test('images and clips stand in a request in the order they were added', () => {
  const conversation = newConversation();
  const clip = (id, format) => ({ id, kind: 'audio', name: id, type: AUDIO_TYPES[format], bytes: 30, format, seconds: 1, peaks: [] });
  const image = { id: 'i', kind: 'image', name: 'i', type: 'image/png', bytes: 30, width: 1, height: 1 };
  addMessage(conversation, { role: 'user', text: 'compare', attachments: [clip('a', 'wav'), image, clip('b', 'mp3')] });
  const data = new Map([['a', 'data:audio/wav;base64,UklG'], ['i', 'data:image/png;base64,AA=='], ['b', 'data:audio/mpeg;base64,SUQz']]);
  assert.deepEqual(requestBody(conversation, 'm', data).messages[0].content, [
    { type: 'input_audio', input_audio: { data: 'UklG', format: 'wav' } },
    { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } },
    { type: 'input_audio', input_audio: { data: 'SUQz', format: 'mp3' } },
    { type: 'text', text: 'compare' },
  ]);
});

// --- times and counts ---

test('the rate is that of the tokens after the first one', async () => {
  let now = 1000;
  const api = {
    async *chat() {
      const say = (delta) => ({ model: 'm', choices: [{ delta }] });
      now = 1500;
      yield say({ role: 'assistant', content: '' });
      now = 2000;
      yield say({ reasoning_content: 'hm', reasoning: 'hm' });
      now = 3000;
      yield say({ content: 'a' });
      now = 4000;
      yield say({ content: 'b' });
      yield { choices: [{ delta: {}, finish_reason: 'stop' }] };
      now = 9000;
      yield { choices: [], usage: { prompt_tokens: 1234, completion_tokens: 21, completion_tokens_details: { reasoning_tokens: 5 } } };
    },
  };
  const message = { text: '', thinking: '', stats: null };
  await streamAnswer({ api, body: {}, message, onChange() {}, now: () => now });
  assert.equal(message.text, 'ab');
  assert.equal(message.thinking, 'hm');
  assert.deepEqual(message.stats, { promptTokens: 1234, answerTokens: 21, thinkingTokens: 5, firstMs: 1000, thinkingMs: 1000, totalMs: 8000, tokensPerS: 10 });
  assert.deepEqual(statTexts(message.stats), ['21 tokens', '5 of them thinking', '10.0 tokens/s', 'first after 1.0 s', 'prompt 1,234']);
});

// --- files ---

function sample() {
  const conversation = newConversation();
  const image = { id: 'i', kind: 'image', name: 'n.png', type: 'image/png', bytes: 26, width: 1, height: 1 };
  const clip = { id: 'c', kind: 'audio', name: 'n.mp3', type: 'audio/mpeg', bytes: 31, format: 'mp3', seconds: 1.5, peaks: [0, 100] };
  const ask = addMessage(conversation, { role: 'user', text: 'a', attachments: [image, clip] });
  addMessage(conversation, { role: 'assistant', text: 'b', thinking: 't', stats: { promptTokens: 1, answerTokens: 2, thinkingTokens: null, firstMs: 1, thinkingMs: 0, totalMs: 2, tokensPerS: null }, finish: 'stop', model: 'm' });
  addMessage(conversation, { role: 'user', text: 'c' }, ask.parent);
  conversation.settings.temperature = 0.5;
  return { conversation, data: new Map([['i', 'data:image/png;base64,iVBORw0KGgo='], ['c', 'data:audio/mpeg;base64,SUQzBA==']]) };
}

test('what is exported can be imported', () => {
  const { conversation, data } = sample();
  const [{ conversation: read, data: readData }] = importText(exportText([conversation], data));
  const shape = ({ title, settings, messages }) => ({ title, settings, messages: messages.map(({ text, thinking, role, stats, finish, model, status, attachments }) => ({ text, thinking, role, stats, finish, model, status, attachments: attachments.map(({ id, bytes, ...rest }) => rest) })) });
  assert.deepEqual(shape(read), shape(conversation));
  assert.deepEqual(shownPath(read).map(({ text }) => text), ['c']);
  assert.deepEqual([...readData.values()], [...data.values()]);
  assert.notEqual(read.id, conversation.id);
});

test('a file with one wrong field is refused by the name of the field', () => {
  const { conversation, data } = sample();
  const base = JSON.parse(exportText([conversation], data));
  const cases = [
    [(file) => (file.format = 'x'), '"format"'],
    [(file) => (file.version = 2), '"version"'],
    [(file) => (file.conversations = {}), 'conversations is not a list'],
    [(file) => (file.conversations[0] = null), 'conversations[0] is not an object'],
    [(file) => (file.conversations[0].title = 7), 'conversations[0].title'],
    [(file) => (file.conversations[0].created = 'now'), 'conversations[0].created'],
    [(file) => (file.conversations[0].updated = 1e300), 'conversations[0].updated is no time'],
    [(file) => (file.conversations[0].leaf = 'nope'), 'conversations[0].leaf'],
    [(file) => (file.conversations[0].settings.temperature = 9), 'conversations[0].settings.temperature'],
    [(file) => (file.conversations[0].settings.stop = ['']), 'conversations[0].settings.stop'],
    [(file) => (file.conversations[0].messages[1].role = 'system'), 'conversations[0].messages[1].role'],
    [(file) => (file.conversations[0].messages[1].text = { toString: 1 }), 'conversations[0].messages[1].text'],
    [(file) => (file.conversations[0].messages[1].id = file.conversations[0].messages[0].id), 'conversations[0].messages[1].id'],
    [(file) => (file.conversations[0].messages[0].parent = file.conversations[0].messages[1].id), 'conversations[0].messages[0].parent'],
    [(file) => (file.conversations[0].messages[1].status = 'odd'), 'conversations[0].messages[1].status'],
    [(file) => (file.conversations[0].messages[1].error = { message: [] }), 'conversations[0].messages[1].error.message'],
    [(file) => (file.conversations[0].messages[1].stats.firstMs = '<b>'), 'conversations[0].messages[1].stats.firstMs'],
    [(file) => (file.conversations[0].messages[0].attachments[0].kind = 'script'), 'attachments[0].kind'],
    [(file) => (file.conversations[0].messages[0].attachments[1].peaks = Array(65).fill(1)), 'attachments[1].peaks is no list of at most 64'],
    [(file) => (file.conversations[0].messages[0].attachments[1].peaks = ['M0 0']), 'attachments[1].peaks[0]'],
    [(file) => (file.conversations[0].messages[0].attachments[1].peaks = [101]), 'attachments[1].peaks has one above 100'],
    [(file) => (file.conversations[0].messages[0].attachments[1].seconds = '1'), 'attachments[1].seconds'],
    [(file) => (file.attachments.c = 'data:audio/webm;base64,AAAA'), 'attachments["c"]'],
    [(file) => (file.attachments.c = file.attachments.i), 'attachments["c"]'],
    [(file) => (file.attachments.i = 'https://x.test/a.png'), 'attachments["i"]'],
    [(file) => (file.attachments.i = 'data:image/svg+xml;base64,AAAA'), 'attachments["i"]'],
    [(file) => (file.attachments.i = 'data:text/html;base64,AAAA'), 'attachments["i"]'],
    [(file) => delete file.attachments.i, 'attachments["i"]'],
  ];
  for (const [spoil, expected] of cases) {
    const file = structuredClone(base);
    spoil(file);
    assert.throws(() => importText(JSON.stringify(file)), (error) => error.message.includes(expected), expected);
  }
  assert.throws(() => importText('{'), /not JSON/);
  assert.throws(() => importText('null'), /"format"/);
});

test('of a file only what is known is taken', () => {
  const { conversation, data } = sample();
  const file = JSON.parse(exportText([conversation], data));
  file.conversations[0].extra = 'x';
  file.conversations[0].messages[0].html = '<b>';
  file.conversations[0].settings.tools = [1];
  const text = JSON.stringify(file).replace('"title"', '"__proto__":{"polluted":true},"title"');
  const [{ conversation: read }] = importText(text);
  assert.equal(read.extra, undefined);
  assert.equal(read.messages[0].html, undefined);
  assert.equal(read.settings.tools, undefined);
  assert.equal(read.polluted, undefined);
});
