// Images: by file, paste and drop; made smaller or refused where they must be.

import assert from 'node:assert/strict';
import { scripted, seen } from './suite.mjs';

/** Draws an image in the page. `noise` makes it hard to compress. */
function drawn(driver, width, height, { type = 'image/png', noise = false } = {}) {
  return driver.page.evaluate(
    async ([w, h, kind, rough]) => {
      const canvas = new OffscreenCanvas(w, h);
      const context = canvas.getContext('2d');
      context.fillStyle = '#8b4513';
      context.fillRect(0, 0, w, h);
      if (rough) {
        const pixels = context.getImageData(0, 0, w, h);
        let state = 1;
        for (let at = 0; at < pixels.data.length; at += 1) {
          state = (Math.imul(state, 1103515245) + 12345) >>> 0;
          if (at % 4 !== 3) pixels.data[at] = state >>> 24;
        }
        context.putImageData(pixels, 0, 0);
      }
      const blob = await canvas.convertToBlob({ type: kind });
      const bytes = new Uint8Array(await blob.arrayBuffer());
      let text = '';
      for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
      return btoa(text);
    },
    [width, height, type, noise],
  );
}

async function choose(driver, ...files) {
  const before = await driver.page.locator('#pending li').count();
  await driver.page.setInputFiles('#file', files.map(({ name, type = 'image/png', base64 }) => ({ name, mimeType: type, buffer: Buffer.from(base64, 'base64') })));
  return before;
}

const pending = (driver) => driver.page.locator('#pending li');
const note = (driver) => driver.page.locator('#composer-note');

const sizeOf = (driver, url) =>
  driver.page.evaluate(async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  }, url);

scripted('a chosen image is shown, sent, shown with the message and kept', async (driver, mock) => {
  const base64 = await drawn(driver, 40, 30);
  await choose(driver, { name: 'brown.png', base64 });
  await pending(driver).getByRole('img', { name: 'brown.png' }).waitFor();
  await driver.ask('What is it?');
  assert.deepEqual(mock.requests[0].messages[0].content, [
    { type: 'image_url', image_url: { url: `data:image/png;base64,${base64}` } },
    { type: 'text', text: 'What is it?' },
  ]);
  await seen.equal(() => pending(driver).count(), 0);
  await driver.button('Show image brown.png').click();
  await driver.page.getByText('brown.png, 40×30').waitFor();
  await driver.page.keyboard.press('Escape');
  await driver.page.reload();
  await driver.button('Show image brown.png').waitFor();
  await driver.ask('And now?');
  assert.equal(mock.requests[1].messages[0].content[0].image_url.url, `data:image/png;base64,${base64}`, 'from the store');
});

scripted('an image can be sent alone, and be taken away before', async (driver, mock) => {
  const base64 = await drawn(driver, 8, 8);
  await choose(driver, { name: 'a.png', base64 }, { name: 'b.png', base64 });
  await driver.button('Remove a.png').click();
  await seen.equal(() => pending(driver).count(), 1);
  await driver.button('Send').click();
  await driver.answers.first().waitFor();
  await driver.settled();
  assert.equal(mock.requests[0].messages[0].content.length, 1);
  assert.deepEqual(await driver.titles(), ['b.png']);
});

scripted('images can be pasted; text of a word processor stays text', async (driver) => {
  const paste = (base64, withText) =>
    driver.page.evaluate(
      ([data, both]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], 'pasted.png', { type: 'image/png' }));
        if (both) transfer.setData('text/plain', 'words');
        const event = new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true });
        document.getElementById('input').dispatchEvent(event);
        return event.defaultPrevented;
      },
      [base64, withText],
    );
  const base64 = await drawn(driver, 8, 8);
  assert.equal(await paste(base64, true), false);
  assert.equal(await paste(base64, false), true);
  await pending(driver).getByRole('img', { name: 'pasted.png' }).waitFor();
  await seen.equal(() => pending(driver).count(), 1);
});

scripted('images can be dropped anywhere, and the page shows that', async (driver) => {
  const drag = (type, base64) =>
    driver.page.evaluate(
      ([kind, data]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], 'dropped.png', { type: 'image/png' }));
        document.getElementById('main').dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
      },
      [type, base64],
    );
  const base64 = await drawn(driver, 8, 8);
  const drop = driver.page.getByText('Drop images to add them');
  await drag('dragenter', base64);
  await drop.waitFor();
  await drag('dragleave', base64);
  await drop.waitFor({ state: 'hidden' });
  await drag('dragenter', base64);
  await drag('drop', base64);
  await pending(driver).getByRole('img', { name: 'dropped.png' }).waitFor();
  await seen.equal(() => drop.isVisible(), false);
});

scripted('what is no image is refused with the reason', async (driver) => {
  const text = Buffer.from('hello').toString('base64');
  const cases = [
    [{ name: 'a.pdf', type: 'application/pdf', base64: text }, '"a.pdf" is of type application/pdf; images can be sent: PNG, JPEG, WebP, GIF'],
    [{ name: 'a.svg', type: 'image/svg+xml', base64: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>').toString('base64') }, '"a.svg" is of type image/svg+xml; images can be sent: PNG, JPEG, WebP, GIF'],
    [{ name: 'a.png', base64: text }, '"a.png" can not be read as an image; PNG, JPEG, WebP and GIF work'],
    [{ name: 'long.png', base64: await drawn(driver, 510, 10) }, '"long.png" is 510×10; the longer side may be 50 times the shorter'],
  ];
  for (const [file, reason] of cases) {
    await choose(driver, file);
    await driver.eventually(async () => assert.equal(await note(driver).textContent(), reason));
  }
  await seen.equal(() => note(driver).getAttribute('role'), 'alert');
  await seen.equal(() => pending(driver).count(), 0);
});

scripted('an image above 20 megapixels is made smaller, one below is sent as it is', async (driver, mock) => {
  await choose(driver, { name: 'large.png', base64: await drawn(driver, 5500, 4000) });
  await pending(driver).first().waitFor();
  await seen.match(() => note(driver).textContent(), /^"large\.png" was made smaller: 5500×4000 \(22\.0 MP\) to 5244×3813 \(20\.0 MP\)$/);
  const exact = await drawn(driver, 5000, 4000);
  await choose(driver, { name: 'limit.png', base64: exact });
  await pending(driver).nth(1).waitFor();
  await driver.ask('Look');
  const [first, second] = mock.requests[0].messages[0].content.map((part) => part.image_url?.url);
  assert.deepEqual(await sizeOf(driver, first), [5244, 3813]);
  assert.equal(second, `data:image/png;base64,${exact}`);
});

scripted('an image that is too many bytes is made smaller until it fits', async (driver, mock) => {
  const base64 = await drawn(driver, 2200, 2000, { noise: true });
  assert.ok(base64.length > 10 * 1024 * 1024, 'the image must be above the limit to test it');
  await choose(driver, { name: 'noise.png', base64 });
  await pending(driver).first().waitFor();
  await driver.ask('Look');
  const { url } = mock.requests[0].messages[0].content[0].image_url;
  assert.ok(url.length <= 10 * 1024 * 1024);
  assert.ok(url.startsWith('data:image/jpeg;base64,'));
});

scripted('eight images are the most of a request, those sent before included', async (driver, mock) => {
  const base64 = await drawn(driver, 8, 8);
  const files = Array.from({ length: 6 }, (_, index) => ({ name: `${index}.png`, base64 }));
  await choose(driver, ...files);
  await pending(driver).nth(5).waitFor();
  await driver.ask('Six');
  await choose(driver, ...files.slice(0, 3));
  await driver.eventually(async () => assert.match(await note(driver).textContent(), /^a request may carry 8 images/));
  await seen.equal(() => pending(driver).count(), 2);
  await driver.ask('Eight');
  const sent = mock.requests[1].messages.flatMap(({ content }) => (Array.isArray(content) ? content.filter(({ type }) => type === 'image_url') : []));
  assert.equal(sent.length, 8);
});
