// Asking and answering.

import assert from 'node:assert/strict';
import { everywhere, gate, scripted, seen } from './suite.mjs';

everywhere('a message is answered, with its counts and rate', async (driver) => {
  await driver.ask('Say hello.');
  await seen.equal(() => driver.questions.innerText().then((text) => text.includes('Say hello.')), true);
  assert.notEqual(await driver.lastAnswer(), '');
  const stats = await driver.answers.locator('.stats').innerText();
  assert.match(stats, /\d+ tokens? .*first after .* prompt \d+/);
  await seen.equal(() => driver.input.inputValue(), '');
});

scripted('the model’s name and the request', async (driver, mock) => {
  await seen.equal(() => driver.page.locator('#model').innerText(), 'toy-llama-4');
  await driver.ask('One');
  await driver.ask('Two');
  assert.deepEqual(mock.requests[1], {
    model: 'toy-llama-4',
    messages: [
      { role: 'user', content: 'One' },
      { role: 'assistant', content: 'You said: One' },
      { role: 'user', content: 'Two' },
    ],
    stream: true,
    stream_options: { include_usage: true },
  });
});

scripted('the answer grows while it comes, and only its end is announced', async (driver, mock) => {
  const more = gate();
  mock.answers.push(async (stream) => {
    stream.say('Here is **the fir');
    await more.promise;
    stream.say('st** part');
    stream.end({ usage: { completion_tokens: 1234, prompt_tokens: 5678 } });
  });
  await driver.type('Go');
  const strong = driver.answers.locator('strong');
  await strong.waitFor();
  await seen.equal(() => strong.innerText(), 'the fir', 'what is open is shown as if closed');
  await seen.equal(() => driver.answers.getAttribute('aria-busy'), 'true');
  const announcer = driver.page.locator('#announcer');
  await seen.equal(() => announcer.innerText(), '');
  await seen.equal(() => driver.button('Send').isVisible(), false);
  more.open();
  await driver.settled();
  await seen.equal(() => driver.lastAnswer(), 'Here is the first part');
  await seen.equal(() => announcer.innerText(), 'Answer: Here is the first part');
  await seen.equal(() => announcer.getAttribute('aria-live'), 'polite');
  await seen.match(() => driver.answers.locator('.stats').innerText(), /^1,234 tokens .*prompt 5,678$/);
});

scripted('markdown of every kind', async (driver, mock) => {
  const text = [
    '# Title', 'A *soft* and **strong** ~~gone~~ `x<y` [link](https://example.test/a?b=1) https://bare.test.', '',
    '- one', '  - inner', '- [x] done', '', '3. three', '4. four', '',
    '> quoted', '', '| a | b |', '|:--|--:|', '| 1 | 2 |', '', '---', '', '```python', 'def f(): # note', '    return "x"', '```',
  ].join('\n');
  mock.answers.push((stream) => {
    for (const piece of text.match(/[^]{1,3}/g)) stream.say(piece);
    stream.end();
  });
  await driver.ask('All of it');
  const prose = driver.answers.locator('> .prose');
  const shape = await prose.evaluate((root) => {
    const walk = (node) => (node.nodeType === 3 ? '' : `${node.localName}${[...node.children].length ? `(${[...node.children].map(walk).join(' ')})` : ''}`);
    return [...root.children].map(walk);
  });
  assert.deepEqual(shape, [
    'h3',
    'p(em strong del code a a)',
    'ul(li(ul(li)) li(input))',
    'ol(li li)',
    'blockquote(p)',
    'div(table(thead(tr(th th)) tbody(tr(td td))))',
    'hr',
    'div(div(span button(svg(path) span)) pre(code(span span span span span)))',
  ]);
  const link = prose.locator('a').first();
  await seen.equal(() => link.getAttribute('href'), 'https://example.test/a?b=1');
  await seen.equal(() => link.getAttribute('rel'), 'noopener noreferrer nofollow');
  await seen.equal(() => link.getAttribute('target'), '_blank');
  await seen.equal(() => prose.locator('ol').getAttribute('start'), '3');
  await seen.equal(() => prose.locator('pre').innerText(), 'def f(): # note\n    return "x"');
});

scripted('a streamed text ends as the same page as the whole text', async (driver) => {
  const compared = await driver.page.evaluate(async (base) => {
    const { MarkdownView } = await import(`${base}js/markdown.js`);
    const { randomMarkdown, seeded } = await import(`${base}tests/random-markdown.mjs`);
    const random = seeded(11);
    let count = 0;
    for (let round = 0; round < 150; round += 1) {
      const { text } = randomMarkdown(random);
      const [whole, streamed] = [document.createElement('div'), document.createElement('div')];
      new MarkdownView(whole).update(text);
      const view = new MarkdownView(streamed);
      for (let end = 0; end < text.length; end += 1 + Math.floor(random() * 12)) {
        view.update(text.slice(0, end), { open: true });
        count += 1;
      }
      view.update(text);
      if (streamed.outerHTML !== whole.outerHTML) throw new Error(`differs for ${JSON.stringify(text)}:\n${streamed.outerHTML}\n${whole.outerHTML}`);
    }
    return count;
  }, driver.url);
  console.log(`${compared} pieces drawn`);
  assert.ok(compared > 1000);
});

scripted('code has a copy button, and so has an answer', async (driver, mock) => {
  await driver.context.grantPermissions(['clipboard-read', 'clipboard-write']);
  mock.answers.push((stream) => {
    stream.say('Look:\n\n```js\nlet a = 1 < 2;\n\nb();\n```\n');
    stream.end();
  });
  await driver.ask('Code');
  const clipboard = () => driver.page.evaluate(() => navigator.clipboard.readText());
  await driver.button('Copy code').click();
  await driver.page.getByText('Copied', { exact: true }).first().waitFor();
  await seen.equal(() => clipboard(), 'let a = 1 < 2;\n\nb();');
  await seen.equal(() => driver.page.locator('#announcer').innerText(), 'Copied');
  await driver.button('Copy answer').click();
  await driver.eventually(async () => assert.equal(await clipboard(), 'Look:\n\n```js\nlet a = 1 < 2;\n\nb();\n```\n'));
});

scripted('copying works where the browser has no clipboard for the page, as over plain HTTP', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.say('```\nkept\n```');
    stream.end();
  });
  await driver.ask('Code');
  await driver.button('Copy code').click();
  await driver.page.getByText('Copied', { exact: true }).first().waitFor();
  await driver.input.focus();
  await driver.page.keyboard.press('Control+v');
  await seen.equal(() => driver.input.inputValue(), 'kept');
}, { init: "Object.defineProperty(navigator, 'clipboard', { value: undefined }); delete Crypto.prototype.randomUUID;" });

scripted('thinking is folded, and can be unfolded', async (driver, mock) => {
  const more = gate();
  mock.answers.push(async (stream) => {
    stream.think('First, **consider** this.');
    await more.promise;
    stream.say('Done.');
    stream.end({ usage: { completion_tokens_details: { reasoning_tokens: 4 } } });
  });
  await driver.type('Think');
  const summary = driver.answers.locator('summary');
  await summary.getByText('Thinking…').waitFor();
  await seen.equal(() => driver.answers.locator('.thinking-text').isVisible(), false);
  await summary.click();
  await seen.equal(() => driver.answers.locator('.thinking-text strong').innerText(), 'consider');
  more.open();
  await driver.settled();
  await seen.match(() => summary.innerText(), /^Thought/);
  await seen.equal(() => driver.lastAnswer(), 'Done.');
  await seen.match(() => driver.answers.locator('.stats').innerText(), /4 of them thinking/);
  await driver.ask('Again');
  const body = mock.requests[1].messages;
  assert.equal(body[1].content, 'Done.', 'thoughts are not sent back');
});

scripted('stopping keeps what came, and the server sees the client go', async (driver, mock) => {
  const gone = gate();
  mock.answers.push(async (stream) => {
    stream.say('Some words');
    await stream.gone;
    gone.open();
  });
  await driver.type('Long');
  await driver.answers.getByText('Some words').waitFor();
  await driver.button('Stop the answer').click();
  await driver.settled();
  await gone.promise;
  await seen.equal(() => driver.lastAnswer(), 'Some words');
  await driver.answers.getByText('You stopped this answer.').waitFor();
  await driver.ask('Next');
  assert.equal(mock.requests[1].messages[1].content, 'Some words');
});

everywhere('answering again makes a version, and both can be seen', async (driver) => {
  await driver.ask('Say hello.');
  await driver.button('Answer again').click();
  await driver.page.getByText('2 of 2').waitFor();
  await driver.settled();
  await seen.equal(() => driver.answers.count(), 1);
  await driver.button('Earlier version').click();
  await driver.page.getByText('1 of 2').waitFor();
  await seen.equal(() => driver.button('Earlier version').isDisabled(), true);
  await driver.button('Later version').click();
  await driver.page.getByText('2 of 2').waitFor();
});

everywhere('editing a message branches off, and the first branch can be gone back to', async (driver) => {
  await driver.ask('First question');
  await driver.ask('Second question');
  await driver.questions.first().hover();
  await driver.button('Edit message').first().click();
  const field = driver.page.getByRole('textbox', { name: 'Edit message' });
  await seen.equal(() => field.inputValue(), 'First question');
  await field.fill('Changed question');
  await field.press('Enter');
  await driver.page.getByText('2 of 2').waitFor();
  await driver.settled();
  await seen.equal(() => driver.questions.count(), 1);
  await seen.equal(() => driver.questions.locator('.message-text').innerText(), 'Changed question');
  await driver.button('Earlier version').click();
  await driver.eventually(async () => assert.deepEqual(await driver.questions.locator('.message-text').allInnerTexts(), ['First question', 'Second question']));
});

scripted('an edited message is sent in place of the old one, without what followed', async (driver, mock) => {
  await driver.ask('First');
  await driver.ask('Second');
  await driver.questions.first().hover();
  await driver.button('Edit message').first().click();
  const field = driver.page.getByRole('textbox', { name: 'Edit message' });
  await field.fill('Not sent');
  await field.press('Escape');
  await seen.equal(() => driver.questions.first().locator('.message-text').innerText(), 'First');
  await driver.button('Edit message').first().click();
  await field.fill('Sent');
  await driver.button('Send', driver.page.locator('.edit-form')).click();
  await driver.eventually(() => assert.equal(mock.requests.length, 3));
  await driver.settled();
  assert.deepEqual(mock.requests[2].messages, [{ role: 'user', content: 'Sent' }]);
});

scripted('settings go with the request, for this conversation only', async (driver, mock) => {
  await driver.openSettings();
  const set = (label, value) => driver.page.getByLabel(label, { exact: true }).fill(value);
  await set('System prompt', 'You are brief.');
  await set('Temperature', '0');
  await set('Top p', '0.9');
  await set('Most tokens', '256');
  await set('Seed', '42');
  await set('Frequency penalty', '0.5');
  await set('Presence penalty', '-0.5');
  await set('Stop texts', 'END\n\\n\\n');
  await driver.closeSettings();
  await seen.equal(() => driver.page.locator('#top-settings').getAttribute('aria-label'), 'Settings of this conversation, changed');
  await driver.ask('Hi');
  const { messages, ...rest } = mock.requests[0];
  assert.deepEqual(messages[0], { role: 'system', content: 'You are brief.' });
  assert.deepEqual(rest, {
    model: 'toy-llama-4', stream: true, stream_options: { include_usage: true },
    temperature: 0, top_p: 0.9, max_completion_tokens: 256, seed: 42, frequency_penalty: 0.5, presence_penalty: -0.5, stop: ['END', '\n\n'],
  });
  await driver.button('New conversation').first().click();
  await driver.ask('Other');
  assert.equal(mock.requests[1].temperature, undefined);
  assert.equal(mock.requests[1].messages.length, 1);
});

scripted('a wrong setting is said at its field and not sent', async (driver, mock) => {
  await driver.openSettings();
  const field = driver.page.getByLabel('Temperature', { exact: true });
  await field.fill('0.5');
  await field.fill('3');
  await seen.equal(() => field.getAttribute('aria-invalid'), 'true');
  await driver.page.getByText('must be a number from 0 to 2').waitFor();
  await driver.page.getByLabel('Stop texts').fill('a\nb\nc\nd\ne');
  await driver.page.getByText('has 5 lines; the limit is 4').waitFor();
  await driver.closeSettings();
  await driver.ask('Hi');
  assert.equal(mock.requests[0].temperature, 0.5);
  assert.equal(mock.requests[0].stop, undefined);
});

scripted('settings can be those of new conversations, and be reset', async (driver, mock) => {
  await driver.openSettings();
  await driver.page.getByLabel('Temperature', { exact: true }).fill('0.25');
  await driver.button('Use for new conversations').click();
  await driver.closeSettings();
  await driver.page.reload();
  await driver.ask('Hi');
  assert.equal(mock.requests[0].temperature, 0.25);
  await driver.openSettings();
  await driver.button('Reset').click();
  await driver.page.getByText('The model’s own settings are back.').waitFor();
  await seen.equal(() => driver.page.getByLabel('Temperature', { exact: true }).inputValue(), '');
  await driver.closeSettings();
  await driver.ask('Ho');
  assert.equal(mock.requests[1].temperature, undefined);
});

scripted('with several models one can be chosen', async (driver, mock) => {
  await driver.openSettings();
  await driver.page.getByLabel('Model', { exact: true }).selectOption('toy-lora');
  await driver.closeSettings();
  await driver.ask('Hi');
  assert.equal(mock.requests[0].model, 'toy-lora');
  await seen.equal(() => driver.page.locator('#model').innerText(), 'toy-lora');
}, { setup: (mock) => (mock.models = ['toy-llama-4', 'toy-lora']) });

scripted('an answer that reached its limit of tokens says so', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.say('Half a');
    stream.end({ reason: 'length' });
  });
  await driver.ask('Hi');
  await driver.page.getByText('The answer reached its limit of tokens.').waitFor();
});

scripted('the end stays in sight while the answer grows, unless the reader has gone up', async (driver, mock) => {
  const [first, second, third] = [gate(), gate(), gate()];
  const paragraphs = (n) => Array.from({ length: n }, (_, index) => `Paragraph ${index}\n\n`);
  mock.answers.push(async (stream) => {
    stream.say(...paragraphs(40), 'HALF\n\n');
    await first.promise;
    stream.say(...paragraphs(20), 'MORE\n\n');
    await second.promise;
    stream.say('LAST');
    await third.promise;
    stream.end();
  });
  const left = () => driver.page.locator('#main').evaluate((main) => main.scrollHeight - main.clientHeight - main.scrollTop);
  await driver.type('Go');
  await driver.answers.getByText('HALF').waitFor();
  await driver.eventually(async () => assert.ok((await left()) < 5));
  await driver.page.locator('#main').evaluate((main) => (main.scrollTop = 0));
  await driver.button('Go to the newest message').waitFor();
  first.open();
  await driver.answers.getByText('MORE').waitFor();
  await seen.equal(() => driver.page.locator('#main').evaluate((main) => main.scrollTop), 0);
  await driver.button('Go to the newest message').click();
  await driver.eventually(async () => assert.ok((await left()) < 5));
  second.open();
  await driver.answers.getByText('LAST').waitFor();
  await driver.eventually(async () => assert.ok((await left()) < 5));
  third.open();
  await driver.settled();
});

everywhere('an example fills the field and waits to be sent', async (driver) => {
  await driver.page.locator('#examples button').first().click();
  await seen.match(() => driver.input.inputValue(), /^Explain how a mixture of experts works/);
  await seen.equal(() => driver.questions.count(), 0);
  await seen.equal(() => driver.input.evaluate((node) => node === document.activeElement), true);
});
