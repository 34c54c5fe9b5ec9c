// Keyboard, screen readers, narrow screens, colours.

import assert from 'node:assert/strict';
import { everywhere, gate, scripted, seen } from './suite.mjs';

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

const focused = (driver) => driver.page.evaluate(() => document.activeElement.getAttribute('aria-label') || document.activeElement.id || document.activeElement.localName);

everywhere('everything can be done with the keyboard alone', async (driver) => {
  const { keyboard } = driver.page;
  await seen.equal(() => focused(driver), 'input', 'the field has the focus from the beginning');
  await keyboard.type('First line');
  await keyboard.press('Shift+Enter');
  await keyboard.type('second line');
  await keyboard.press('Enter');
  await driver.answers.first().waitFor();
  await driver.settled();
  await seen.equal(() => driver.questions.locator('.message-text').evaluate((node) => node.textContent), 'First line\nsecond line');
  await seen.equal(() => focused(driver), 'input');

  await keyboard.press('ArrowUp');
  await seen.equal(() => focused(driver), 'Edit message');
  await keyboard.press('Control+a');
  await keyboard.type('Changed');
  await keyboard.press('Enter');
  await driver.page.getByText('2 of 2').waitFor();
  await driver.settled();
  await seen.equal(() => focused(driver), 'input');

  await keyboard.press('Control+k');
  await seen.equal(() => focused(driver), 'search');
  await keyboard.press('ArrowDown');
  await seen.equal(() => driver.page.evaluate(() => document.activeElement.className), 'list-open');
  await keyboard.press('F2');
  await keyboard.type('By keyboard');
  await keyboard.press('Enter');
  await driver.button('By keyboard').waitFor();
  await seen.equal(() => driver.page.evaluate(() => document.activeElement.textContent), 'By keyboard');

  await keyboard.press('Tab');
  await seen.equal(() => focused(driver), 'More for By keyboard');
  await keyboard.press('Enter');
  await seen.equal(() => driver.page.evaluate(() => document.activeElement.textContent), 'Rename');
  await keyboard.press('ArrowUp');
  await seen.equal(() => driver.page.evaluate(() => document.activeElement.textContent), 'Delete');
  await keyboard.press('Escape');
  await seen.equal(() => focused(driver), 'More for By keyboard');

  await keyboard.press('Control+,');
  await driver.page.locator('#settings[open]').waitFor();
  await seen.equal(() => focused(driver), 'set-system');
  await keyboard.press('Escape');
  await driver.page.locator('#settings[open]').waitFor({ state: 'detached' });
  await seen.equal(() => focused(driver), 'More for By keyboard', 'back to where it came from');

  await keyboard.press('Control+Shift+O');
  await seen.equal(() => focused(driver), 'input');
  await seen.equal(() => driver.questions.count(), 0);

  await keyboard.press('Control+k');
  await keyboard.press('ArrowDown');
  await keyboard.press('Delete');
  await driver.page.getByRole('alertdialog').waitFor();
  await keyboard.press('Tab');
  await keyboard.press('Enter');
  await driver.eventually(async () => assert.deepEqual(await driver.titles(), []));
  await seen.equal(() => focused(driver), 'new-conversation');
});

scripted('escape stops the answer', async (driver, mock) => {
  mock.answers.push(async (stream) => {
    stream.say('words');
    await stream.gone;
  });
  await driver.type('Long');
  await driver.answers.getByText('words').waitFor();
  await driver.page.keyboard.press('Enter');
  assert.equal(mock.requests.length, 1, 'enter sends nothing meanwhile');
  await driver.page.keyboard.press('Escape');
  await driver.settled();
  await driver.answers.getByText('You stopped this answer.').waitFor();
  await seen.equal(() => focused(driver), 'input');
});

scripted('enter that ends the choice of a character does not send', async (driver, mock) => {
  await driver.input.fill('日本');
  await driver.input.evaluate((node) => node.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true, cancelable: true })));
  await seen.equal(() => driver.questions.count(), 0);
  assert.equal(mock.requests.length, 0);
});

everywhere('the shortcuts are listed', async (driver) => {
  await driver.page.keyboard.press('Control+/');
  const help = driver.page.locator('#help');
  await help.waitFor();
  const text = await help.innerText();
  for (const what of ['Send the message', 'New line', 'Stop the answer', 'Edit your last message', 'New conversation', 'Search conversations', 'Settings']) assert.ok(text.includes(what), what);
  await driver.page.keyboard.press('Escape');
  await help.waitFor({ state: 'hidden' });
});

scripted('everything that can be used has a name, and the focus can be seen', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.think('hm');
    stream.say('```js\nx\n```\n\n|a|\n|-|\n|b|\n\n[l](https://x.test)');
    stream.end();
  });
  await driver.ask('Hi');
  mock.answers.push((stream) => stream.refuse(400, 'no'));
  await driver.ask('Ho');
  const audit = () =>
    driver.page.evaluate(() => {
      const nameOf = (node) => node.getAttribute('aria-label') || (node.getAttribute('aria-labelledby') && document.getElementById(node.getAttribute('aria-labelledby'))?.textContent) || [...(node.labels ?? [])].map((label) => label.textContent).join('') || node.textContent.trim() || node.alt || '';
      const nodes = [...document.querySelectorAll('button, a, input, textarea, select, dialog, nav, main, [role], [tabindex="0"]')].filter((node) => node.type !== 'file' && node.role !== 'status' && node.role !== 'alert' && node.id !== 'menu')
        // These two get their words when they open.
        .filter((node) => !node.closest('#confirm:not([open]), #image-dialog:not([open])'));
      const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
      const broken = [...document.querySelectorAll('[aria-describedby], [aria-labelledby], [aria-controls], label[for]')].flatMap((node) => ['aria-describedby', 'aria-labelledby', 'aria-controls', 'for'].flatMap((name) => (node.getAttribute(name) ?? '').split(' ').filter((id) => id !== '' && !ids.includes(id))));
      return { count: nodes.length, nameless: nodes.filter((node) => nameOf(node).trim() === '').map((node) => node.outerHTML.slice(0, 200)), twice: ids.filter((id, index) => ids.indexOf(id) !== index), broken };
    });
  const result = await audit();
  assert.deepEqual({ ...result, count: 0 }, { count: 0, nameless: [], twice: [], broken: [] });
  assert.ok(result.count > 40, `${result.count} looked at`);
  const headings = await driver.page.locator('h1:visible, .message h2').allTextContents();
  assert.deepEqual(headings, ['Hi', 'You', 'Answer of toy-llama-4', 'You', 'Answer of toy-llama-4']);
  // Through the whole page with Tab: each stop has an outline.
  await driver.page.locator('body').press('Tab');
  const stops = new Set();
  for (let at = 0; at < 60; at += 1) {
    await driver.page.keyboard.press('Tab');
    const stop = await driver.page.evaluate(() => {
      const node = document.activeElement;
      // The frame of the field stands for it.
      const shown = node.id === 'input' ? document.getElementById('composer') : node;
      const { outlineStyle, outlineWidth } = getComputedStyle(shown);
      return node === document.body ? null : { name: node.outerHTML.slice(0, 160), seen: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1 };
    });
    if (stop === null) continue;
    assert.ok(stop.seen, stop.name);
    stops.add(stop.name);
  }
  assert.ok(stops.size >= 15, `${stops.size} stops`);
  console.log(`${result.count} controls with names, ${stops.size} stops of the focus`);
});

everywhere('contrast of text is at least 4.5 to 1, light and dark', async (driver) => {
  await driver.ask('Hi');
  const pages = new Set();
  for (const colorScheme of ['light', 'dark']) {
    await driver.page.emulateMedia({ colorScheme });
    const { measured: pairs, page } = await driver.page.evaluate(() => {
      const probe = document.createElement('span');
      document.body.append(probe);
      const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
      const rgb = (name) => {
        probe.style.color = `var(--${name})`;
        context.fillStyle = getComputedStyle(probe).color;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
      };
      const luminance = (color) => color.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
      const contrast = (a, b) => {
        const [high, low] = [luminance(rgb(a)), luminance(rgb(b))].sort((x, y) => y - x);
        return (high + 0.05) / (low + 0.05);
      };
      const texts = [['text', 'page'], ['text', 'side'], ['text', 'raised'], ['text', 'soft'], ['text-soft', 'page'], ['text-soft', 'side'], ['text-soft', 'raised'], ['text-soft', 'soft'], ['accent', 'page'], ['accent', 'raised'], ['accent', 'accent-soft'], ['accent-text', 'accent'], ['danger', 'page'], ['danger', 'danger-soft'], ['danger', 'raised']];
      const lines = [['line-strong', 'page'], ['line-strong', 'raised'], ['focus', 'page'], ['focus', 'side'], ['focus', 'raised']];
      const measured = [...texts.map((pair) => [...pair, contrast(...pair), 4.5]), ...lines.map((pair) => [...pair, contrast(...pair), 3])];
      const page = rgb('page').join();
      probe.remove();
      return { measured, page };
    });
    pages.add(page);
    for (const [front, back, contrast, least] of pairs) assert.ok(contrast >= least, `${colorScheme}: ${front} on ${back} is ${contrast.toFixed(2)}`);
    console.log(`${colorScheme}: ${pairs.length} pairs, the least ${pairs.toSorted((a, b) => a[2] - b[2])[0].join(' ')}`);
  }
  assert.equal(pages.size, 2, 'two sets of colours were measured');
});

everywhere('colours follow the system, or what was chosen', async (driver) => {
  const background = () => driver.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await driver.page.emulateMedia({ colorScheme: 'light' });
  const light = await background();
  await driver.page.emulateMedia({ colorScheme: 'dark' });
  const dark = await background();
  assert.notEqual(light, dark);
  await driver.openSettings();
  await driver.page.getByRole('radio', { name: 'Light' }).check();
  await seen.equal(() => background(), light);
  await driver.closeSettings();
  await driver.page.reload();
  await seen.equal(() => background(), light);
  await driver.openSettings();
  await seen.equal(() => driver.page.getByRole('radio', { name: 'Light' }).isChecked(), true);
  await driver.page.getByRole('radio', { name: 'System' }).check();
  await seen.equal(() => background(), dark);
});

everywhere('on a narrow screen the list is a drawer', async (driver) => {
  await driver.ask('About llamas');
  const sidebar = driver.page.getByRole('navigation', { name: 'Conversations' });
  await seen.equal(() => sidebar.isVisible(), false);
  const toggle = driver.page.locator('#sidebar-toggle');
  await seen.equal(() => toggle.getAttribute('aria-expanded'), 'false');
  await toggle.click();
  await sidebar.waitFor();
  await seen.equal(() => toggle.getAttribute('aria-expanded'), 'true');
  await seen.equal(() => focused(driver), 'Close the list of conversations');
  await seen.equal(() => driver.page.locator('#page').evaluate((node) => node.inert), true);
  await driver.page.keyboard.press('Escape');
  await sidebar.waitFor({ state: 'hidden' });
  await seen.equal(() => focused(driver), 'List of conversations');
  await driver.page.locator('#top-new').click();
  await seen.equal(() => driver.questions.count(), 0);
  await toggle.click();
  await driver.button('About llamas').click();
  await sidebar.waitFor({ state: 'hidden' });
  await driver.questions.getByText('About llamas').waitFor();
  await toggle.click();
  await sidebar.waitFor();
  await driver.page.mouse.click(380, 400);
  await sidebar.waitFor({ state: 'hidden' });
}, PHONE);

scripted('nothing is wider than a narrow screen', async (driver, mock) => {
  const wide = 'x'.repeat(300);
  mock.answers.push((stream) => {
    stream.think(wide);
    stream.say(`${wide}\n\n\`${wide}\`\n\n\`\`\`\n${wide}\n\`\`\`\n\n|${'a|'.repeat(30)}\n|${'-|'.repeat(30)}\n|${'bbbb|'.repeat(30)}\n\n# ${wide}\n\n- ${wide}\n\nhttps://x.test/${wide}`);
    stream.end();
  });
  await driver.ask(wide);
  await driver.page.locator('summary:visible').click();
  mock.answers.push((stream) => stream.refuse(400, wide));
  await driver.ask('again');
  for (const width of [390, 320]) {
    await driver.page.setViewportSize({ width, height: 700 });
    for (const id of ['main', 'page']) {
      const [inner, outer] = await driver.page.locator(`#${id}`).evaluate((node) => [node.scrollWidth, node.clientWidth]);
      assert.ok(inner <= outer, `#${id} at ${width}: ${inner} in ${outer}`);
    }
    await driver.openSettings();
    const [inner, outer] = await driver.page.locator('.panel-body').evaluate((node) => [node.scrollWidth, node.clientWidth]);
    assert.ok(inner <= outer, `settings at ${width}: ${inner} in ${outer}`);
    await driver.closeSettings();
  }
  // The parts that a finger must hit are large enough.
  const small = await driver.page.locator('.top button, .composer button').evaluateAll((all) => all.filter((node) => node.offsetParent && Math.min(node.offsetWidth, node.offsetHeight) < 40).map((node) => node.id));
  assert.deepEqual(small, []);
}, PHONE);

scripted('while it waits for the first word the page says so without noise', async (driver, mock) => {
  const first = gate();
  mock.answers.push(async (stream) => {
    await first.promise;
    stream.say('here');
    stream.end();
  });
  await driver.type('Slow');
  await driver.page.getByText(/waiting for the first word, \d+ s/).waitFor();
  await seen.equal(() => driver.answers.locator('.waiting').getAttribute('aria-hidden'), 'true');
  first.open();
  await driver.settled();
  await seen.equal(() => driver.page.locator('.waiting:visible').count(), 0);
});
