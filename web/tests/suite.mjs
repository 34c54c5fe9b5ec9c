// What the browser tests share: one mock server and one browser for a file, a new page for each test.
//
// With PUNA_URL (and PUNA_KEY, if it wants one) the tests run against a real server. Those that need a scripted answer or
// look at the requests of the mock are skipped then, by name.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openPage, startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';

const realUrl = process.env.PUNA_URL ?? null;
const realKey = process.env.PUNA_KEY ?? null;
/** How often an attempt is made to see what has not come yet; the browser's patience ends it. */
const POLL_MS = 25;

let mock;
let browser;
let microphone = null;

before(async () => {
  mock = realUrl === null ? await startMock() : null;
});

after(async () => {
  await browser?.close();
  await mock?.down();
});

/** Gives the browser of this file's tests a microphone that hears a WAV file. */
export const hear = (wav) => (microphone = wav);

/** A test that runs against any server. `work` gets the page's {@link Driver}. */
export const everywhere = (name, work, options = {}) => define(name, work, options, false);

/** A test that writes the server's answers. `work` gets the driver and the mock. */
export const scripted = (name, work, options = {}) => define(name, work, options, realUrl !== null);

function define(name, work, options, skip) {
  test(name, { skip: skip && 'needs scripted answers; PUNA_URL is set' }, async () => {
    mock?.reset();
    const { setup, ...pageOptions } = options;
    if (mock) setup?.(mock);
    // Not before: a file says what its microphone hears once this one has been read.
    browser ??= await startBrowser(microphone);
    const url = realUrl === null ? mock.url : new URL('./', realUrl).href;
    const keyInit = realKey === null ? null : `sessionStorage.setItem('puna.key', ${JSON.stringify(realKey)})`;
    const opened = await openPage(browser.browser, url, { init: keyInit, ...pageOptions });
    try {
      await work(new Driver(opened, url), mock);
    } catch (error) {
      for (const fault of opened.faults) console.error(`fault: ${fault}`);
      await opened.page.screenshot({ path: `${process.env.PUNA_WEB_TOOLS}/failed.png` }).catch(() => {});
      await opened.context.close();
      throw error;
    }
    await opened.close();
  });
}

/** What a user does on the page. */
class Driver {
  constructor({ page, context, faults }, url) {
    this.page = page;
    this.context = context;
    this.faults = faults;
    this.url = url;
    this.input = page.getByRole('textbox', { name: 'Message', exact: true });
    this.answers = page.locator('.message.assistant');
    this.questions = page.locator('.message.user');
  }

  button(name, within = this.page) {
    return within.getByRole('button', { name, exact: true });
  }

  /** Waits until the page has asked the server for its models: a key wanted from then on is wanted by a message. */
  async modelKnown() {
    await this.page.locator('#model', { hasText: 'toy-llama-4' }).waitFor();
  }

  async type(text) {
    await this.input.fill(text);
    await this.input.press('Enter');
  }

  /** Sends a message and waits until its answer ends, well or not. */
  async ask(text) {
    const before = await this.answers.count();
    await this.type(text);
    await this.answers.nth(before).waitFor();
    await this.settled();
  }

  /** Waits until no answer is being written. */
  async settled() {
    await this.page.locator('.message.assistant[aria-busy="true"]').waitFor({ state: 'detached' });
    await this.page.locator('#send').waitFor();
  }

  async lastAnswer() {
    return (await this.answers.last().locator('> .prose').innerText()).trim();
  }

  titles() {
    return this.page.locator('.list-open').allTextContents();
  }

  async menu(title, entry) {
    await this.page.locator('.list-item', { hasText: title }).first().hover();
    await this.button(`More for ${title}`).first().click();
    await this.page.getByRole('menuitem', { name: entry, exact: true }).click();
  }

  async openSettings() {
    await this.page.locator('#top-settings').click();
    await this.page.locator('#settings[open]').waitFor();
  }

  async closeSettings() {
    await this.button('Close settings').click();
  }

  /** {@link eventually}. */
  eventually(check) {
    return eventually(check);
  }
}

/** Tries `check` until it does not throw; the last error where that takes too long. */
async function eventually(check) {
  for (let left = 4000; ; left -= 1) {
    try {
      return await check();
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

/**
 * What the page shows in the end. A page is seldom done when an action on it returns, so what is read of it is read until it
 * is what the test wants. `read` changes nothing.
 */
export const seen = {
  equal: (read, ...expected) => eventually(async () => assert.equal(await read(), ...expected)),
  match: (read, ...expected) => eventually(async () => assert.match(await read(), ...expected)),
};

/** A promise that the test fulfils. */
export function gate() {
  let open;
  const promise = new Promise((resolve) => (open = resolve));
  return { promise, open };
}
