// What goes wrong, and what the page says then.

import assert from 'node:assert/strict';
import { gate, scripted, seen } from './suite.mjs';

const failure = (driver) => driver.page.locator('.failure').last();

scripted('an error of the server is shown in its words, and trying again takes its place', async (driver, mock) => {
  mock.answers.push((stream) => stream.refuse(400, 'temperature is 9; the limit is 2'));
  await driver.ask('Hi');
  await seen.match(() => failure(driver).innerText(), /The server refused the request\s+temperature is 9; the limit is 2\s+request req-test\s+Try again/i);
  await seen.equal(() => driver.page.locator('#announcer').innerText(), 'Error: temperature is 9; the limit is 2');
  await driver.button('Try again').click();
  await driver.answers.getByText('You said: Hi').waitFor();
  await driver.settled();
  await seen.equal(() => driver.page.locator('.failure').count(), 0);
  await seen.equal(() => driver.page.locator('.siblings').count(), 0, 'an empty failure is no version');
  assert.deepEqual(mock.requests[1].messages, [{ role: 'user', content: 'Hi' }]);
});

scripted('a server that failed and answered in HTML is an error by its status', async (driver, mock) => {
  mock.answers.push((stream) => stream.other(502, 'text/html', '<h1 onclick="alert(1)">Bad gateway</h1>'));
  await driver.ask('Hi');
  await seen.match(() => failure(driver).innerText(), /The server failed\s+the server answered with status 502/i);
});

scripted('an answer that is no stream is an error', async (driver, mock) => {
  mock.answers.push((stream) => stream.other(200, 'text/html', 'hello'));
  await driver.ask('Hi');
  await seen.match(() => failure(driver).innerText(), /An unexpected answer\s+the server answered with "text\/html"/i);
});

scripted('an event that is not JSON is an error', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.say('Good');
    stream.raw('data: {"broken\n\n');
  });
  await driver.ask('Hi');
  await seen.match(() => failure(driver).innerText(), /an event that is not JSON/);
  await seen.equal(() => driver.lastAnswer(), 'Good');
});

scripted('a busy server says when to come back, and the button waits', async (driver, mock) => {
  mock.answers.push((stream) => stream.refuse(429, '64 requests are waiting; the limit is 64', { 'retry-after': '2' }));
  await driver.ask('Hi');
  const button = failure(driver).getByRole('button');
  await seen.match(() => button.innerText(), /^Try again in [12] s$/);
  await seen.equal(() => button.isDisabled(), true);
  await seen.match(() => failure(driver).innerText(), /The server is busy\s+64 requests are waiting/i);
  await driver.button('Try again').click();
  await driver.answers.getByText('You said: Hi').waitFor();
  await driver.settled();
});

scripted('a connection that is lost keeps what came and says so', async (driver, mock) => {
  const shown = gate();
  mock.answers.push(async (stream) => {
    stream.say('The first half');
    await shown.promise;
    stream.cut();
  });
  await driver.type('Hi');
  await driver.answers.getByText('The first half').waitFor();
  shown.open();
  await driver.settled();
  await seen.equal(() => driver.lastAnswer(), 'The first half');
  await seen.match(() => failure(driver).innerText(), /The answer broke off\s+the connection was lost before the answer was complete\s+What came before is kept/i);
  await driver.button('Try again').click();
  await driver.page.getByText('2 of 2').waitFor();
  await driver.settled();
  await driver.button('Earlier version').click();
  await driver.eventually(async () => assert.equal(await driver.lastAnswer(), 'The first half'));
});

scripted('a stream that ends without its end is broken off too', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.say('Half');
    stream.close();
  });
  await driver.ask('Hi');
  await seen.match(() => failure(driver).innerText(), /The answer broke off\s+the connection ended before the answer was complete/i);
});

scripted('an error inside the stream is shown, and what came is kept', async (driver, mock) => {
  mock.answers.push((stream) => {
    stream.say('Half');
    stream.fail('the engine failed at step 7; id 81');
  });
  await driver.ask('Hi');
  await seen.equal(() => driver.lastAnswer(), 'Half');
  await seen.match(() => failure(driver).innerText(), /The server failed\s+the engine failed at step 7; id 81/i);
});

scripted('without a connection a message is kept, and sent when there is one', async (driver, mock) => {
  await mock.down();
  await driver.ask('Hi');
  await seen.match(() => failure(driver).innerText(), /No connection\s+the server can not be reached/i);
  await mock.up();
  await driver.button('Try again').click();
  await driver.answers.getByText('You said: Hi').waitFor();
  await driver.settled();
});

scripted('a server that is not ready at first is asked again', async (driver, mock) => {
  await seen.match(() => driver.page.locator('#model').innerText(), /no connection: try again/);
  mock.modelsStatus = 200;
  await driver.button('try again').click();
  await driver.modelKnown();
  await driver.ask('Hi');
  await seen.equal(() => driver.lastAnswer(), 'You said: Hi');
}, { setup: (mock) => (mock.modelsStatus = 503) });

scripted('a server with a key asks for it, and tells a wrong one', async (driver, mock) => {
  const dialog = driver.page.locator('#key-dialog');
  await dialog.getByText('This server wants a key').waitFor();
  const field = dialog.getByLabel('Key', { exact: true });
  await seen.equal(() => field.getAttribute('type'), 'password');
  await field.fill('wrong');
  await field.press('Enter');
  await dialog.getByText('The server does not accept this key').waitFor();
  await field.fill('right');
  await driver.button('Continue').click();
  await driver.modelKnown();
  await driver.ask('Hi');
  await seen.equal(() => driver.lastAnswer(), 'You said: Hi');
  const kept = () => driver.page.evaluate(() => [sessionStorage.getItem('puna.key'), localStorage.getItem('puna.key')]);
  assert.deepEqual(await kept(), ['right', null]);
  await driver.openSettings();
  await driver.page.getByText('A key is set').waitFor();
  await driver.button('Forget').click();
  await driver.page.getByText('None is set').waitFor();
  assert.deepEqual(await kept(), [null, null]);
  assert.equal(mock.requests.length, 1);
}, { setup: (mock) => (mock.key = 'right') });

scripted('a key is remembered where the user wants that, and a message that needed it goes off by itself', async (driver, mock) => {
  await driver.modelKnown();
  mock.key = 'right';
  await driver.type('Hi');
  const dialog = driver.page.locator('#key-dialog');
  await dialog.getByLabel('Key', { exact: true }).fill('wrong');
  await driver.button('Continue').click();
  await dialog.getByText('The server does not accept this key').waitFor();
  await dialog.getByLabel('Key', { exact: true }).fill('right');
  await dialog.getByLabel('Remember it in this browser').check();
  await driver.button('Continue').click();
  await driver.answers.getByText('You said: Hi').waitFor();
  await driver.settled();
  await seen.equal(() => driver.page.evaluate(() => localStorage.getItem('puna.key')), 'right');
  await driver.page.reload();
  await driver.modelKnown();
  await seen.equal(() => dialog.isVisible(), false);
});

scripted('a key can be given later', async (driver, mock) => {
  await driver.modelKnown();
  mock.key = 'right';
  await driver.type('Hi');
  const dialog = driver.page.locator('#key-dialog');
  await dialog.getByLabel('Key', { exact: true }).waitFor();
  await driver.page.keyboard.press('Escape');
  await driver.button('Enter key').click();
  await dialog.getByLabel('Key', { exact: true }).fill('right');
  await driver.button('Continue').click();
  await driver.answers.getByText('You said: Hi').waitFor();
  await driver.settled();
});

scripted('a page that is closed in the middle keeps what came', async (driver, mock) => {
  const never = gate();
  mock.answers.push(async (stream) => {
    stream.say('Saved part');
    await stream.gone;
    never.open();
  });
  await driver.type('Hi');
  await driver.answers.getByText('Saved part').waitFor();
  await driver.eventually(async () => {
    const stored = await driver.page.evaluate(async (base) => (await (await import(`${base}js/store.js`)).openStore()).load(), driver.url);
    assert.equal(stored[0].messages[1].text, 'Saved part');
  });
  await driver.page.reload();
  await failure(driver).getByText('the page was closed before the answer was complete').waitFor();
  await seen.equal(() => driver.lastAnswer(), 'Saved part');
  await never.promise;
});

scripted('a full browser is said, and the conversation goes on', async (driver) => {
  await driver.ask('Hi');
  await driver.page.evaluate(() => {
    globalThis.realPut = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = () => {
      throw new DOMException('no room', 'QuotaExceededError');
    };
  });
  await driver.ask('Ho');
  const banner = driver.page.getByRole('alert').filter({ hasText: 'the browser gives this page no more room' });
  await banner.waitFor();
  await seen.equal(() => driver.lastAnswer(), 'You said: Ho');
  await driver.page.evaluate(() => (IDBObjectStore.prototype.put = globalThis.realPut));
  await driver.ask('Again');
  await banner.waitFor({ state: 'hidden' });
});

scripted('the store holds to its bounds and says which', async (driver) => {
  const said = await driver.page.evaluate(async (base) => {
    const { openStore, StoreFull } = await import(`${base}js/store.js`);
    const { newConversation, addMessage } = await import(`${base}js/conversation.js`);
    const limits = { conversations: 2, storedBytes: 4000 };
    const store = await openStore({ name: 'bounds', limits });
    const make = (text) => {
      const conversation = newConversation();
      addMessage(conversation, { role: 'user', text });
      return conversation;
    };
    const attempt = async (conversation) => {
      try {
        await store.write(conversation);
        return 'written';
      } catch (error) {
        return error instanceof StoreFull ? error.message : String(error);
      }
    };
    const [first, second] = [make('a'), make('b')];
    const results = [await attempt(first), await attempt(second), await attempt(make('c'))];
    addMessage(second, { role: 'assistant', text: 'x'.repeat(4000) });
    results.push(await attempt(second));
    await store.remove(first.id);
    results.push(await attempt(make('d')));
    results.push((await store.load()).length, (await (await openStore({ name: 'bounds', limits })).load()).length);
    return results;
  }, driver.url);
  assert.equal(said[0], 'written');
  assert.equal(said[1], 'written');
  assert.match(said[2], /^2 conversations are kept in this browser, which is the limit/);
  assert.match(said[3], /of 3\.9 KiB in this browser, and this one does not fit/);
  assert.deepEqual(said.slice(4), ['written', 2, 2]);
});

scripted('without storage the page works, and says that nothing is kept', async (driver) => {
  await driver.ask('Hi');
  await seen.equal(() => driver.lastAnswer(), 'You said: Hi');
  assert.deepEqual(await driver.titles(), ['Hi']);
  await driver.openSettings();
  await driver.page.getByText('1, until this page is closed: the browser forbids storage').waitFor();
}, {
  init: `Object.defineProperty(globalThis, 'indexedDB', { get() { throw new DOMException('forbidden', 'SecurityError'); } });
    for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(globalThis, name, { get() { throw new DOMException('forbidden', 'SecurityError'); } });`,
});
