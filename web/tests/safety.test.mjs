// Attacks through everything that is shown: messages, answers, titles, names of files, errors, imported files. A page on
// which one works opens a dialog, violates the policy, asks another host or has an element it should not have; the suite
// looks for the first three after every test.

import assert from 'node:assert/strict';
import { writeWav } from '../js/wav.js';
import { CSP } from './mock.mjs';
import { everywhere, scripted, seen } from './suite.mjs';

const ATTACKS = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x dur=1s>',
  '<iframe src="javascript:alert(1)"></iframe>',
  '<a href="javascript:alert(1)">click</a>',
  '<style>*{background:url(https://evil.test/css)}</style><link rel=stylesheet href=https://evil.test/x.css>',
  '<form action=https://evil.test><input name=a><button>go</button></form>',
  '<base href=https://evil.test/><meta http-equiv=refresh content="0;url=https://evil.test">',
  '"><img src=x onerror=alert(1)>',
  "'-alert(1)-'",
  '</textarea></title></template><script>alert(1)</script>',
  '[click](javascript:alert(1))',
  '[click](JaVaScRiPt:alert%281%29)',
  '[click](java\tscript:alert(1))',
  '[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)',
  '[click](vbscript:msgbox(1))',
  '[click](&#106;avascript:alert(1))',
  '[click](<javascript:alert(1)>)',
  '[a](https://x.test/"onmouseover="alert(1))',
  '![x](https://evil.test/pixel.png)',
  '![x](javascript:alert(1))',
  '![x" onerror="alert(1)](https://evil.test/y.png)',
  '<javascript:alert(1)>',
  '<https://x.test/"onclick="alert(1)>',
  'https://x.test/<img src=x onerror=alert(1)>',
  '```<img src=x onerror=alert(1)>\n<img src=x onerror=alert(1)>\n```',
  '``` "onclick=alert(1) x="\ncode\n```',
  '`<img src=x onerror=alert(1)>`',
  '| <img src=x onerror=alert(1)> |\n|---|\n| <script>alert(1)</script> |',
  '- <details open ontoggle=alert(1)>',
  '> <video><source onerror=alert(1)></video>',
  '# <img src=x onerror=alert(1)>',
  '$$<img src=x onerror=alert(1)>$$ \\(<img src=x onerror=alert(1)>\\)',
  '&lt;img src=x onerror=alert(1)&gt; &#60;script&#62;alert(1)&#60;/script&#62;',
  '{{constructor.constructor("alert(1)")()}} ${alert(1)}',
];

/** Every element and attribute inside messages, the list and the head that a message could have made. */
async function inspect(driver) {
  const found = await driver.page.evaluate(() => {
    const allowed = {
      '': ['class', 'dir', 'hidden', 'aria-label', 'aria-hidden', 'role', 'tabindex', 'title', 'type', 'data-message', 'data-id', 'aria-busy', 'aria-current', 'aria-haspopup', 'aria-expanded', 'disabled', 'aria-controls', 'id', 'for'],
      a: ['href', 'target', 'rel'],
      ol: ['start'],
      th: ['scope'],
      input: ['checked'],
      details: ['open'],
      img: ['src', 'alt', 'width', 'height'],
      svg: ['viewBox', 'preserveAspectRatio'],
      path: ['d'],
    };
    const tags = 'article h1 h2 h3 h4 h5 h6 p div span section ul ol li a code pre em strong del br hr blockquote table thead tbody tr th td details summary button svg path i input img'.split(' ');
    const wrong = [];
    let seen = 0;
    for (const root of ['thread', 'list', 'title', 'model', 'banner', 'composer-note', 'pending', 'announcer'].map((id) => document.getElementById(id))) {
      for (const node of root.querySelectorAll('*')) {
        seen += 1;
        if (!tags.includes(node.localName)) wrong.push(node.outerHTML);
        for (const { name } of node.attributes) if (![...allowed[''], ...(allowed[node.localName] ?? [])].includes(name)) wrong.push(node.outerHTML);
        if (node.localName === 'a' && !/^(https?|mailto):/.test(node.getAttribute('href'))) wrong.push(node.outerHTML);
        if (node.localName === 'img' && !/^data:image\/(png|jpeg|webp|gif);base64,/.test(node.getAttribute('src'))) wrong.push(node.outerHTML);
      }
    }
    return { wrong, seen };
  });
  assert.deepEqual(found.wrong, []);
  return found.seen;
}

scripted('attacks in answers and thoughts are text', async (driver, mock) => {
  let seen = 0;
  // One at a time, cut into pieces, so that each is also shown half.
  for (const attack of [ATTACKS.join('\n\n'), ...ATTACKS.slice(0, 6)]) {
    mock.answers.push((stream) => {
      for (const piece of attack.match(/[^]{1,5}/g)) stream.think(piece);
      for (const piece of attack.match(/[^]{1,5}/g)) stream.say(piece);
      stream.end();
    });
    await driver.ask('Go');
    await driver.page.locator('.thinking:visible summary').last().click();
    seen += await inspect(driver);
    // What could run on a pointer or the focus gets both.
    for (const link of await driver.answers.last().locator('> .prose a').all()) await link.hover();
  }
  assert.ok(seen > 100);
  const links = await driver.answers.first().locator('> .prose a').evaluateAll((all) => all.map((link) => link.getAttribute('href')));
  console.log(`${ATTACKS.length} attacks, ${seen} elements looked at, ${links.length} links left`);
  const shown = await driver.answers.first().locator('> .prose').innerText();
  for (const part of ['<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '<iframe src="javascript:alert(1)"></iframe>', '{{constructor.constructor("alert(1)")()}} ${alert(1)}']) assert.ok(shown.includes(part), part);
});

everywhere('attacks in what the user writes, and so in titles, are text', async (driver) => {
  for (const attack of [ATTACKS[0], ATTACKS[1], ATTACKS[8], ATTACKS.join('\n')]) {
    await driver.page.keyboard.press('Control+Shift+O');
    await driver.ask(attack);
    await seen.equal(() => driver.questions.locator('.message-text').evaluate((node) => node.textContent), attack);
    await inspect(driver);
  }
  await driver.menu(ATTACKS[0], 'Rename');
  await driver.page.getByRole('textbox', { name: 'Name of the conversation' }).fill(ATTACKS[1]);
  await driver.page.keyboard.press('Enter');
  await driver.eventually(async () => assert.equal((await driver.titles()).filter((title) => title === ATTACKS[1]).length, 2));
  await driver.menu(ATTACKS[1], 'Delete');
  assert.ok((await driver.page.getByRole('alertdialog').innerText()).includes(ATTACKS[1]));
  await driver.button('Cancel').click();
  await inspect(driver);
});

scripted('attacks in what the server says are text', async (driver, mock) => {
  mock.models = [ATTACKS[1], ATTACKS[0]];
  await driver.page.reload();
  await driver.page.locator('#model', { hasText: ATTACKS[1] }).waitFor();
  mock.answers.push((stream) => stream.refuse(400, ATTACKS.join(' '), { 'x-request-id': '"><img src=x onerror=alert(1)>' }));
  await driver.ask('Hi');
  await inspect(driver);
  mock.answers.push((stream) => {
    stream.model = ATTACKS[3];
    stream.say('x');
    stream.chunk({ choices: [{ index: 0, delta: {}, finish_reason: '<img src=x onerror=alert(1)>' }], usage: { prompt_tokens: '<img src=x onerror=alert(1)>', completion_tokens: ATTACKS[0] } });
    stream.end({ usage: { prompt_tokens: ATTACKS[1], completion_tokens: null } });
  });
  await driver.ask('Ho');
  await inspect(driver);
});

scripted('attacks in the name of an image are text', async (driver) => {
  const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  await driver.page.setInputFiles('#file', { name: '"><img src=x onerror=alert(1)>.png', mimeType: 'image/png', buffer: Buffer.from(png, 'base64') });
  await driver.page.locator('#pending img').waitFor();
  await inspect(driver);
  await driver.ask('');
  await inspect(driver);
  await driver.page.locator('.attachments .picture').click();
  assert.ok((await driver.page.locator('#image-caption').innerText()).startsWith('"><img src=x onerror=alert(1)>.png'));
});

scripted('attacks in the name of a clip are text', async (driver) => {
  await driver.button('Record audio').waitFor();
  const wav = Buffer.from(writeWav(Float32Array.from({ length: 4000 }, (_, index) => Math.sin(index / 8)), 16000));
  await driver.page.setInputFiles('#file', { name: '"><img src=x onerror=alert(1)>.wav', mimeType: 'audio/wav', buffer: wav });
  await driver.page.locator('#pending .clip').waitFor();
  await inspect(driver);
  await driver.ask('');
  await driver.questions.locator('.clip').waitFor();
  await inspect(driver);
  await seen.equal(() => driver.questions.locator('.clip-name').textContent(), '"><img src=x onerror=alert(1)>.wav');
}, { setup: (mock) => (mock.modalities = ['text', 'audio']) });

everywhere('attacks in an imported file are text', async (driver) => {
  const settings = { model: null, system: ATTACKS[1], temperature: null, top_p: null, max_tokens: null, seed: null, stop: [ATTACKS[0]], frequency_penalty: null, presence_penalty: null };
  const message = (role, index) => ({
    id: `"><b>${index}`, parent: index === 0 ? null : `"><b>${index - 1}`, role, created: 1, text: ATTACKS.join('\n\n'), thinking: role === 'user' ? '' : ATTACKS.join('\n'), attachments: [],
    status: 'error', error: { kind: 'constructor', message: ATTACKS[1] }, finish: ATTACKS[1], model: ATTACKS[1], stats: null,
  });
  const file = {
    format: 'puna-conversations', version: 1, attachments: {},
    conversations: ATTACKS.slice(0, 12).map((title) => ({ id: title, title, created: 1, updated: 1, settings, leaf: '"><b>1', messages: [message('user', 0), message('assistant', 1)] })),
  };
  await driver.openSettings();
  await driver.page.setInputFiles('#import-file', { name: 'x.json', mimeType: 'application/json', buffer: Buffer.from(JSON.stringify(file)) });
  await driver.page.getByText('12 imported.').waitFor();
  await driver.closeSettings();
  for (const index of [0, 5, 11]) {
    await driver.page.locator('.list-open').nth(index).click();
    await driver.answers.waitFor();
    await inspect(driver);
  }
  await driver.openSettings();
  await seen.equal(() => driver.page.getByLabel('System prompt').inputValue(), ATTACKS[1]);
});

scripted('the policy holds: what it forbids is blocked and seen by this suite', async (driver) => {
  const answer = await driver.page.request.get(driver.url);
  assert.equal(answer.headers()['content-security-policy'], CSP);
  await driver.page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'globalThis.ran = true';
    document.body.append(script);
    const image = document.createElement('img');
    image.setAttribute('onerror', 'globalThis.ran = true');
    image.src = 'data:image/png;base64,AA==';
    document.body.append(image);
  });
  await driver.eventually(() => assert.ok(driver.faults.filter((fault) => fault.startsWith('policy: script-src')).length >= 2));
  await seen.equal(() => driver.page.evaluate(() => globalThis.ran), undefined);
  // These were made here; any other one still fails the test.
  driver.faults.splice(0, driver.faults.length, ...driver.faults.filter((fault) => !/script-src|inline (script|event handler)/.test(fault)));
});

scripted('no file of the page uses what would run text as code', async (driver) => {
  const names = await driver.page.evaluate(() => performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => name.endsWith('.js')));
  assert.ok(names.length > 20, `${names.length} scripts`);
  for (const name of names) {
    const text = await (await driver.page.request.get(name)).text();
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|setHTML|https?:\/\/(?!www\.w3\.org\/2000\/svg)[a-z]/, name);
  }
});
