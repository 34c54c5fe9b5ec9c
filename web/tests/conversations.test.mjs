// Several conversations, kept in the browser: list, search, rename, delete, export, import, other tabs.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { everywhere, gate, scripted, seen } from './suite.mjs';

async function begin(driver, ...texts) {
  for (const text of texts) {
    await driver.page.keyboard.press('Control+Shift+O');
    await driver.ask(text);
  }
}

async function importFile(driver, text) {
  await driver.openSettings();
  await driver.page.setInputFiles('#import-file', { name: 'conversations.json', mimeType: 'application/json', buffer: Buffer.from(text) });
  const status = driver.page.locator('#transfer-status');
  await driver.eventually(async () => assert.notEqual(await status.innerText(), ''));
  // Not `innerText`, which has the capital that the style gives.
  const said = await status.textContent();
  await driver.closeSettings();
  return said;
}

async function exported(driver, click) {
  const [download] = await Promise.all([driver.page.waitForEvent('download'), click()]);
  return { name: download.suggestedFilename(), text: await readFile(await download.path(), 'utf8') };
}

everywhere('conversations are listed, the newest first, and outlive a reload', async (driver) => {
  await begin(driver, 'About llamas', 'About alpacas');
  assert.deepEqual(await driver.titles(), ['About alpacas', 'About llamas']);
  await driver.button('About llamas').click();
  await driver.questions.getByText('About llamas').waitFor();
  const answer = await driver.lastAnswer();
  await driver.page.reload();
  await driver.questions.getByText('About llamas').waitFor();
  await seen.equal(() => driver.lastAnswer(), answer);
  await seen.equal(() => driver.page.locator('[aria-current="page"]').innerText(), 'About llamas');
  await seen.equal(() => driver.page.title(), 'About llamas – Puna');
  assert.deepEqual(await driver.titles(), ['About alpacas', 'About llamas']);
});

scripted('search looks into titles and messages', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.say('They hum.');
    stream.end();
  });
  await begin(driver, 'About llamas', 'About fish');
  const search = driver.page.getByRole('searchbox', { name: 'Search conversations' });
  await search.fill('hum');
  assert.deepEqual(await driver.titles(), ['About llamas']);
  await seen.equal(() => driver.page.locator('#list-status').innerText(), '1 found');
  await search.fill('zebra');
  await driver.page.getByText('Nothing found.').waitFor();
  await search.fill('');
  assert.equal((await driver.titles()).length, 2);
});

everywhere('a conversation can be renamed', async (driver) => {
  await begin(driver, 'Old name');
  await driver.menu('Old name', 'Rename');
  const field = driver.page.getByRole('textbox', { name: 'Name of the conversation' });
  await field.fill('Given up');
  await field.press('Escape');
  assert.deepEqual(await driver.titles(), ['Old name']);
  await driver.menu('Old name', 'Rename');
  await field.fill('  New \t name ');
  await field.press('Enter');
  await driver.button('New name').waitFor();
  await seen.equal(() => driver.page.getByRole('heading', { level: 1 }).innerText(), 'New name');
  await driver.page.reload();
  await driver.button('New name').waitFor();
});

everywhere('deleting asks first', async (driver) => {
  await begin(driver, 'Stays', 'Goes');
  await driver.menu('Goes', 'Delete');
  const dialog = driver.page.getByRole('alertdialog');
  await seen.match(() => dialog.innerText(), /Delete this conversation\?\s+“Goes” and its images/);
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  assert.equal((await driver.titles()).length, 2);
  await driver.menu('Goes', 'Delete');
  await dialog.getByRole('button', { name: 'Delete' }).click();
  await driver.eventually(async () => assert.deepEqual(await driver.titles(), ['Stays']));
  await seen.equal(() => driver.questions.count(), 0, 'the shown one was deleted');
  await driver.page.reload();
  await driver.button('Stays').waitFor();
  assert.deepEqual(await driver.titles(), ['Stays']);
});

scripted('all can be deleted, and their images go too', async (driver) => {
  await begin(driver, 'One', 'Two');
  await driver.openSettings();
  await driver.page.getByText('2 of 500 kept').waitFor();
  await driver.button('Delete all conversations').click();
  await driver.button('Delete all').click();
  await driver.page.getByText('All conversations are deleted.').waitFor();
  await driver.closeSettings();
  assert.deepEqual(await driver.titles(), []);
  const left = await driver.page.evaluate(
    () =>
      new Promise((resolve) => {
        indexedDB.open('puna').onsuccess = (event) => {
          const transaction = event.target.result.transaction(['conversations', 'attachments']);
          const counts = ['conversations', 'attachments'].map((name) => transaction.objectStore(name).count());
          transaction.oncomplete = () => resolve(counts.map(({ result }) => result));
        };
      }),
  );
  assert.deepEqual(left, [0, 0]);
});

scripted('an answer goes on while another conversation is shown', async (driver, mock) => {
  const more = gate();
  mock.answers.push(async (stream) => {
    stream.say('begun');
    await more.promise;
    stream.say(', ended');
    stream.end();
  });
  await driver.type('Slow one');
  await driver.answers.getByText('begun').waitFor();
  await driver.page.keyboard.press('Control+Shift+O');
  await driver.ask('Quick one');
  await seen.equal(() => driver.lastAnswer(), 'You said: Quick one');
  await driver.button('Slow one, answering').waitFor();
  more.open();
  await driver.button('Slow one').click();
  await driver.eventually(async () => assert.equal(await driver.lastAnswer(), 'begun, ended'));
});

everywhere('what is written but not sent stays with its conversation', async (driver) => {
  await begin(driver, 'First');
  await driver.input.fill('draft of the first');
  await driver.page.keyboard.press('Control+Shift+O');
  await seen.equal(() => driver.input.inputValue(), '');
  await driver.button('First').click();
  await seen.equal(() => driver.input.inputValue(), 'draft of the first');
});

everywhere('what is exported can be imported into another browser', async (driver) => {
  await begin(driver, 'About llamas', 'About fish');
  await driver.button('Answer again').click();
  await driver.page.getByText('2 of 2').waitFor();
  await driver.settled();
  await driver.openSettings();
  const { name, text } = await exported(driver, () => driver.button('Export').click());
  assert.match(name, /^puna-conversations-\d{4}-\d\d-\d\d\.json$/);
  await driver.page.getByText('2 exported.').waitFor();
  await driver.button('Delete all conversations').click();
  await driver.button('Delete all').click();
  await driver.page.getByText('All conversations are deleted.').waitFor();
  await driver.closeSettings();
  assert.equal(await importFile(driver, text), '2 imported.');
  assert.deepEqual(await driver.titles(), ['About fish', 'About llamas']);
  await driver.page.reload();
  await driver.button('About fish').click();
  await driver.page.getByText('2 of 2').waitFor();
});

scripted('one conversation can be exported', async (driver) => {
  await begin(driver, 'About llamas', 'About fish');
  const { name, text } = await exported(driver, () => driver.menu('About llamas', 'Export'));
  assert.match(name, /^puna-conversation-/);
  assert.deepEqual(JSON.parse(text).conversations.map(({ title }) => title), ['About llamas']);
});

scripted('a file that is wrong changes nothing and is named', async (driver) => {
  await begin(driver, 'Mine');
  assert.equal(await importFile(driver, 'x'), 'nothing was imported: the file is not JSON');
  const file = { format: 'puna-conversations', version: 1, conversations: [{ title: 'a', messages: [{ id: '1', parent: '2' }] }], attachments: {} };
  assert.equal(await importFile(driver, JSON.stringify(file)), 'nothing was imported: conversations[0].messages[0].parent is no message before it');
  assert.deepEqual(await driver.titles(), ['Mine']);
});

scripted('another tab sees what this one writes', async (driver) => {
  const other = await driver.context.newPage();
  await other.goto(driver.url);
  await begin(driver, 'From the first tab');
  await other.locator('.list-open', { hasText: 'From the first tab' }).click();
  await other.locator('.message.assistant', { hasText: 'You said: From the first tab' }).waitFor();
  await driver.menu('From the first tab', 'Delete');
  await driver.button('Delete').click();
  await other.getByText('Conversations will stand here.').waitFor();
  await other.close();
});
