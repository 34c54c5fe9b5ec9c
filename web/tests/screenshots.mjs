// Pictures of the page at desktop and phone width, light and dark, to be looked at: `web/tests/run --screenshots`.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { writeWav } from '../js/wav.js';
import { openPage, startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';

const folder = join(process.env.PUNA_WEB_TOOLS, 'screenshots');
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

const ANSWER = `A **mixture of experts** replaces one large feed-forward layer by many small ones and a *router* that picks a few for each token.

## How a token is routed

1. The router scores all experts with one matrix.
2. The best score wins; in Llama 4 its sigmoid scales the expert’s *input*.
3. A shared expert always runs:
   - it learns what every token needs
   - so the others can specialise

\`\`\`python
def route(x, w_router):
    """Scores of one token, and the expert that wins."""
    scores = x @ w_router            # [E]
    expert = int(scores.argmax())
    return expert, 1 / (1 + math.exp(-scores[expert]))
\`\`\`

| Model | Experts | Active | Total |
|:------|--------:|-------:|------:|
| Scout | 16 | 17 B | 109 B |
| Maverick | 128 | 17 B | 400 B |

> Only the chosen expert’s weights are read, which is why memory, not arithmetic, sets the pace.

- [x] cheap per token
- [ ] easy to train

More in [the paper](https://arxiv.org/abs/1701.06538).`;

/** Between pieces, so that times and rates look as they do with a model. */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A picture of stripes and a disc, drawn by the page. */
const drawImage = (page, width, height) =>
  page.evaluate(async ([w, h]) => {
    const canvas = new OffscreenCanvas(w, h);
    const context = canvas.getContext('2d');
    const sky = context.createLinearGradient(0, 0, 0, h);
    sky.addColorStop(0, '#33658a');
    sky.addColorStop(1, '#f6ae2d');
    context.fillStyle = sky;
    context.fillRect(0, 0, w, h);
    context.fillStyle = '#f26419';
    context.beginPath();
    context.arc(w * 0.7, h * 0.4, h * 0.13, 0, 7);
    context.fill();
    context.fillStyle = '#2f4858';
    context.beginPath();
    context.moveTo(0, h);
    for (const [x, y] of [[0, 0.7], [0.25, 0.45], [0.45, 0.75], [0.65, 0.55], [1, 0.85], [1, 1]]) context.lineTo(x * w, y * h);
    context.fill();
    const bytes = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
    return Array.from(bytes);
  }, [width, height]);

const image = async (page, name, width, height) => ({ name, mimeType: 'image/png', buffer: Buffer.from(await drawImage(page, width, height)) });

/** What sounds a little as speech looks: syllables of different loudness, with rests between words. */
function babble(seconds, rateHz) {
  return Float32Array.from({ length: seconds * rateHz }, (_, index) => {
    const at = index / rateHz;
    const syllable = Math.max(0, Math.sin(Math.PI * at * 4.3)) * (0.35 + 0.65 * Math.abs(Math.sin(at * 2.1 + Math.sin(at * 5))));
    return (Math.sin(at * 1.7) > -0.75 ? 0.6 : 0.01) * syllable * Math.sin(2 * Math.PI * (150 + 30 * Math.sin(at * 3)) * at);
  });
}

const sound = (seconds, rateHz = 16000) => Buffer.from(writeWav(babble(seconds, rateHz), rateHz));

async function shoot(browser, mock, size, colorScheme) {
  mock.reset();
  mock.modalities = ['text', 'image', 'audio'];
  const { page, close } = await openPage(browser, mock.url, { viewport: SIZES[size], colorScheme, hasTouch: size === 'phone', isMobile: size === 'phone' });
  const picture = async (name) => {
    await page.evaluate(() => document.fonts.ready);
    await page.screenshot({ path: join(folder, `${size}-${colorScheme}-${name}.png`), animations: 'disabled' });
  };
  const send = async (text) => {
    await page.fill('#input', text);
    await page.press('#input', 'Enter');
    await page.locator('.message.assistant[aria-busy="true"]').waitFor({ state: 'detached' });
  };
  await picture('1-empty');

  for (const text of ['Plan a week in the Andes', 'Why is the sky blue?', 'A haiku about llamas']) {
    await send(text);
    await page.locator('#thread .stats').waitFor();
    await page.keyboard.press('Control+Shift+O');
  }
  await page.setInputFiles('#file', [await image(page, 'puna.png', 640, 420)]);
  await page.locator('#pending img').waitFor();
  await page.fill('#input', 'What is on this picture?');
  await picture('2-image-to-send');
  mock.answers.push(async (stream) => {
    for (const piece of 'A low orange sun over dark mountains, under a sky that goes from blue to amber.'.match(/\S+ ?/g)) {
      stream.say(piece);
      await pause(50);
    }
    stream.end({ usage: { prompt_tokens: 183, completion_tokens: 21 } });
  });
  await page.press('#input', 'Enter');
  await page.locator('.stats').waitFor();
  mock.answers.push(async (stream) => {
    stream.think('The user wants to know how routing works.\n\n- Start with **why**: compute per token.\n- Then the router, then an example.');
    await pause(1300);
    for (const piece of ANSWER.match(/[^]{1,10}/g)) {
      stream.say(piece);
      await pause(30);
    }
    stream.end({ usage: { prompt_tokens: 246, completion_tokens: 412, completion_tokens_details: { reasoning_tokens: 38 } } });
  });
  await send('Thanks! Now explain how a mixture of experts works, with code and a table.');
  const main = page.locator('#main');
  await main.evaluate((node) => (node.scrollTop = 0));
  await picture('3-conversation-begin');
  await page.locator('.thinking:visible summary').click();
  await page.locator('.thinking[open]').evaluate((node) => node.scrollIntoView({ block: 'start' }));
  await picture('4-thinking-markdown');
  await main.evaluate((node) => (node.scrollTop = node.scrollHeight));
  await picture('5-conversation-end');

  await shootAudio(page, mock, send, picture);

  await page.keyboard.press('Control+,');
  await page.fill('#set-system', 'You are a patient teacher. Answer in short paragraphs.');
  await page.fill('#set-temperature', '0.7');
  await page.fill('#set-top_p', '1.5');
  await picture('6-settings');
  await page.locator('.panel-body').evaluate((node) => (node.scrollTop = node.scrollHeight));
  await picture('7-settings-page');
  await page.keyboard.press('Escape');

  mock.answers.push(async (stream) => {
    stream.say('The first words of an answer that does not');
    await pause(500);
    stream.cut();
  });
  await send('And now something that breaks');
  mock.answers.push((stream) => stream.refuse(429, '64 requests are waiting; the limit is 64', { 'retry-after': '30' }));
  await send('And once more');
  await main.evaluate((node) => (node.scrollTop = node.scrollHeight));
  await picture('8-errors');

  await page.keyboard.press('Control+/');
  await picture('9-help');
  await page.keyboard.press('Escape');
  if (size === 'phone') {
    await page.click('#sidebar-toggle');
    await page.waitForFunction(() => document.getAnimations().length === 0);
    await picture('a-drawer');
    await page.keyboard.press('Escape');
  } else {
    await page.locator('.list-item .icon-button').nth(1).click();
    await picture('a-menu');
    await page.keyboard.press('Escape');
  }
  mock.key = 'k';
  await send('Needs a key');
  await page.locator('#key-dialog[open]').waitFor();
  await picture('b-key');
  await page.keyboard.press('Escape');
  await close();
}

async function shootAudio(page, mock, send, picture) {
  const wav = (name, seconds) => ({ name, mimeType: 'audio/wav', buffer: sound(seconds) });
  await page.keyboard.press('Control+Shift+O');
  await page.setInputFiles('#file', [wav('voice note.wav', 7), await image(page, 'puna.png', 640, 420)]);
  await page.locator('#pending li').nth(1).waitFor();
  await page.click('#record');
  await page.waitForFunction(() => document.getElementById('recording-time').textContent === '0:03');
  await page.fill('#input', 'Who says what about the picture?');
  await picture('c-recording');
  await page.click('#record');
  await page.locator('#pending li').nth(2).waitFor();
  await picture('d-clips-to-send');
  mock.answers.push((stream) => {
    stream.say('The first voice likes the light over the mountains. The second one asks **where** it was taken.');
    stream.end({ usage: { prompt_tokens: 412, completion_tokens: 19 } });
  });
  await page.press('#input', 'Enter');
  await page.locator('.message.user .clip-play').first().click();
  await page.locator('.stats').waitFor();
  await page.waitForFunction(() => /^0:0[2-9] /.test(document.querySelector('.message.user .clip-time').textContent));
  await picture('e-clips-sent');
  await page.evaluate(() => (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('x', 'NotAllowedError'))));
  await page.setInputFiles('#file', [{ name: 'unheard.flac', mimeType: 'audio/flac', buffer: Buffer.from('fLaC and nothing else') }]);
  await page.locator('#pending .clip').waitFor();
  await page.click('#record');
  await page.locator('#composer-note:visible').waitFor();
  await picture('f-microphone-refused');
  await page.click('#pending .remove');
  mock.answers.push((stream) => {
    stream.say('Yes.');
    stream.end();
  });
  await send('Thanks!');
}

mkdirSync(folder, { recursive: true });
const mock = await startMock();
const { browser, close } = await startBrowser(sound(12, 48000));
for (const size of Object.keys(SIZES)) for (const scheme of ['light', 'dark']) await shoot(browser, mock, size, scheme);
await close();
await mock.down();
console.log(`pictures are in ${folder}`);
