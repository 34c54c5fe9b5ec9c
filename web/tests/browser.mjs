// A browser for tests, and what every test asks of the page: no violation of the content security policy, no script error,
// no dialog of the browser's (an attack that works would open one), no request to another host.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const tools = process.env.PUNA_WEB_TOOLS;
if (!tools) throw new Error('PUNA_WEB_TOOLS is not set; run web/tests/run');
const { chromium } = createRequire(join(tools, 'node_modules/'))('playwright-core');

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
/** Machines that run tests may be slow or stand still for minutes. */
const PATIENCE_MS = 150_000;

/** Starts it. `microphone`, a WAV file's bytes, is what its microphone hears, again and again; without it there is none. */
export async function startBrowser(microphone = null) {
  const profile = mkdtempSync(join(tmpdir(), 'puna-web-'));
  const args = [...FLAGS];
  if (microphone !== null) {
    const file = join(profile, 'microphone.wav');
    writeFileSync(file, microphone);
    args.push('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', `--use-file-for-fake-audio-capture=${file}`);
  }
  const browser = await chromium.launch({ executablePath: process.env.PUNA_CHROMIUM ?? '/usr/bin/chromium', headless: true, args, timeout: PATIENCE_MS, env: { ...process.env, HOME: profile } });
  return {
    browser,
    async close() {
      await browser.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** A page with nothing stored. `close` of it also asks what every test asks. */
export async function openPage(browser, url, options = {}) {
  const { init = null, path = '', ...contextOptions } = options;
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true, ...contextOptions });
  context.setDefaultTimeout(PATIENCE_MS);
  const faults = [];
  await context.exposeFunction('reportFault', (text) => faults.push(text));
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => globalThis.reportFault(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  if (init) await context.addInitScript(init);
  const watch = (page) => {
    page.on('pageerror', (error) => faults.push(`script: ${error.stack ?? error}`));
    page.on('dialog', (dialog) => {
      faults.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    // The browser writes to the console what it blocks; of failed requests it does too, which tests cause on purpose.
    page.on('console', (message) => message.type() === 'error' && !/Failed to load resource/.test(message.text()) && faults.push(`console: ${message.text()}`));
    page.on('request', (request) => {
      const target = request.url();
      if (!target.startsWith(url) && !target.startsWith('data:') && !target.startsWith('blob:')) faults.push(`request to ${target}`);
    });
  };
  context.on('page', watch);
  const page = await context.newPage();
  await page.goto(url + path);
  await page.waitForFunction(() => document.getElementById('model').textContent !== '');
  return {
    page,
    context,
    faults,
    async close() {
      await context.close();
      assert.deepEqual(faults, []);
    },
  };
}
