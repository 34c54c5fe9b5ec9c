// Audio: recorded, by file, paste and drop; played, sent, kept; refused where it must be.

import assert from 'node:assert/strict';
import { writeWav } from '../js/wav.js';
import { everywhere, gate, hear, scripted, seen } from './suite.mjs';

/** Two tones in turn, as no suppressor of noise takes for noise; the quiet between them is a tenth of a second. */
function beeps(seconds, rateHz, loud = 0.5) {
  return Float32Array.from({ length: Math.round(seconds * rateHz) }, (_, index) => {
    const at = index / rateHz;
    const part = Math.floor(at / 0.3);
    return at - part * 0.3 > 0.2 ? 0 : loud * Math.sin(2 * Math.PI * (part % 2 === 0 ? 440 : 700) * at);
  });
}

const wav = (seconds, loud) => Buffer.from(writeWav(beeps(seconds, 16000, loud), 16000));
hear(Buffer.from(writeWav(beeps(6, 48000), 48000)));

const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
const HEARS = { setup: (mock) => (mock.modalities = ['text', 'image', 'audio']) };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

const pending = (driver) => driver.page.locator('#pending li');
const note = (driver) => driver.page.locator('#composer-note');
const file = (name, buffer, mimeType = 'audio/wav') => ({ name, mimeType, buffer });
const clips = (body) => body.messages.flatMap(({ content }) => (Array.isArray(content) ? content.filter(({ type }) => type === 'input_audio') : []));
const announced = (driver, words) => seen.match(() => driver.page.locator('#announcer').textContent(), words);

async function choose(driver, ...files) {
  await driver.button('Record audio').waitFor();
  await driver.page.setInputFiles('#file', files);
}

/** Drops silence of so many bytes, made in the page, for it takes long to hand such files to the browser. */
const dropLarge = (driver, name, bytes) =>
  driver.page.evaluate(
    async ([base, fileName, size]) => {
      const { writeWav } = await import(`${base}js/wav.js`);
      const transfer = new DataTransfer();
      transfer.items.add(new File([writeWav(new Float32Array((size - 44) / 2), 16000)], fileName, { type: 'audio/wav' }));
      document.getElementById('main').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
    },
    [driver.url, name, bytes],
  );

/** Records until the page says that so many seconds are there. */
async function record(driver, seconds) {
  await driver.button('Record audio').click();
  await driver.eventually(async () => assert.ok(Number((await driver.page.locator('#recording-time').textContent()).split(':')[1]) >= seconds));
}

/** What is in a WAV file of 16 bits, one channel. */
function readWav(base64) {
  const bytes = Buffer.from(base64, 'base64');
  assert.equal(bytes.toString('latin1', 0, 4) + bytes.toString('latin1', 8, 16) + bytes.toString('latin1', 36, 40), 'RIFFWAVEfmt data');
  assert.equal(bytes.readUInt32LE(4), bytes.length - 8);
  assert.equal(bytes.readUInt32LE(40), bytes.length - 44);
  const samples = Array.from({ length: (bytes.length - 44) / 2 }, (_, index) => bytes.readInt16LE(44 + 2 * index) / 32768);
  const [kind, channels, bits] = [20, 22, 34].map((at) => bytes.readUInt16LE(at));
  return { kind, channels, bits, rateHz: bytes.readUInt32LE(24), seconds: samples.length / 16000, rms: Math.hypot(...samples.slice(0, 100_000)) / Math.sqrt(Math.min(samples.length, 100_000)) };
}

scripted('what is recorded reaches the server as WAV of one channel at 16 kHz with the sound in it', async (driver, mock) => {
  await record(driver, 2);
  await seen.match(() => driver.page.locator('#recording-level .bars-done').getAttribute('d'), /v(?!2\.0)\d/, 'the level shows that something is heard');
  await driver.button('Stop recording').click();
  await driver.button(/^Play voice \d\d\.\d\d\.\d\d\.wav$/).waitFor();
  await announced(driver, /^Recording stopped, 0:0\d$/);
  mock.answers.push((stream) => {
    stream.say('Two ', 'tones.');
    stream.end();
  });
  await driver.ask('What do you hear?');
  await seen.equal(() => driver.lastAnswer(), 'Two tones.');
  const [audio, text] = mock.requests[0].messages[0].content;
  assert.deepEqual(text, { type: 'text', text: 'What do you hear?' });
  assert.deepEqual(Object.keys(audio.input_audio), ['data', 'format']);
  assert.equal(audio.input_audio.format, 'wav');
  const { seconds, rms, ...header } = readWav(audio.input_audio.data);
  assert.deepEqual(header, { kind: 1, channels: 1, bits: 16, rateHz: 16000 });
  assert.ok(seconds >= 2 && seconds < 60, `${seconds} s`);
  assert.ok(rms > 0.02, `the sound has ${rms}`);
  console.log(`${seconds.toFixed(2)} s were recorded, their root mean square is ${rms.toFixed(3)}`);
  await driver.questions.locator('.clip').waitFor();
  await seen.equal(() => pending(driver).count(), 0);
}, HEARS);

everywhere('a recording is answered where the model hears; where it does not there is no microphone', async (driver) => {
  const { data } = await driver.page.evaluate(async (base) => {
    const key = sessionStorage.getItem('puna.key');
    return (await fetch(`${base}v1/models`, { headers: key ? { Authorization: `Bearer ${key}` } : {} })).json();
  }, driver.url);
  await driver.page.locator('#model', { hasText: data[0].id }).waitFor();
  if (!data[0].modalities.includes('audio')) {
    await seen.equal(() => driver.page.locator('#record').isVisible(), false);
    console.log('the model does not hear');
    return;
  }
  await record(driver, 1);
  await driver.ask('What was that?');
  await driver.questions.locator('.clip').waitFor();
  await seen.equal(() => driver.page.locator('.failure').count(), 0);
  assert.notEqual(await driver.lastAnswer(), '');
}, HEARS);

scripted('a recording is one by the keyboard, and escape discards it without stopping the answer', async (driver, mock) => {
  const more = gate();
  mock.answers.push(async (stream) => {
    stream.say('begun');
    await more.promise;
    stream.say(', ended');
    stream.end();
  });
  const { keyboard } = driver.page;
  await driver.type('Slow');
  await driver.answers.getByText('begun').waitFor();
  await driver.page.locator('#attach').focus();
  await keyboard.press('Tab');
  await keyboard.press('Enter');
  await driver.button('Stop recording').waitFor();
  await announced(driver, /^Recording$/);
  await seen.equal(() => driver.page.evaluate(() => document.activeElement.id), 'record');
  await keyboard.press('Escape');
  await driver.button('Record audio').waitFor();
  await announced(driver, /^Recording discarded$/);
  await seen.equal(() => pending(driver).count(), 0);
  await seen.equal(() => driver.page.locator('.message.assistant[aria-busy="true"]').count(), 1, 'the answer goes on');
  more.open();
  await driver.settled();
  await seen.equal(() => driver.lastAnswer(), 'begun, ended');
  await keyboard.press('Space');
  await driver.button('Discard the recording').waitFor();
  await driver.page.getByRole('timer', { name: 'Time recorded' }).waitFor();
  await keyboard.press('Tab');
  await keyboard.press('Enter');
  await driver.button('Record audio').waitFor();
  await seen.equal(() => pending(driver).count(), 0);
}, HEARS);

scripted('sending ends the recording and sends it', async (driver, mock) => {
  await record(driver, 1);
  await driver.button('Send').click();
  await driver.answers.first().waitFor();
  await driver.settled();
  assert.equal(mock.requests[0].messages[0].content.length, 1);
  assert.ok(readWav(clips(mock.requests[0])[0].input_audio.data).seconds >= 1);
  await driver.button('Record audio').waitFor();
  await seen.equal(() => driver.page.locator('#recording').isVisible(), false);
}, HEARS);

scripted('a recording ends where no longer one can be sent', async (driver) => {
  await driver.button('Record audio').waitFor();
  const leftBytes = await driver.page.evaluate(async (base) => {
    const { LIMITS } = await import(`${base}js/limits.js`);
    return ((LIMITS.bodyWithAudioBytes - 64 * 1024) * 3) / 4;
  }, driver.url);
  await dropLarge(driver, 'long.wav', 24_000_000);
  await pending(driver).nth(0).waitFor();
  // A bit more than two seconds are left then.
  await dropLarge(driver, 'rest.wav', 2 * Math.floor((leftBytes - 24_000_000 - 2.2 * 32000) / 2));
  await pending(driver).nth(1).waitFor();
  await driver.button('Record audio').click();
  await pending(driver).nth(2).waitFor();
  await seen.equal(() => note(driver).textContent(), 'the recording ended at 0:02, which is the longest that can be sent here');
  await driver.button('Record audio').click();
  await seen.match(() => note(driver).textContent(), /^there is no room for a recording: .* are left; begin a new conversation for more$/);
}, HEARS);

const without = (name) => `navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('x', '${name}'))`;
for (const [what, init, words] of [
  ['a microphone that is not allowed', without('NotAllowedError'), 'the browser did not allow the microphone; allow it for this page in the settings of the site, or add an audio file'],
  ['a machine without one', without('NotFoundError'), 'there is no microphone; connect one, or add an audio file'],
  ['a microphone that something else holds', without('NotReadableError'), 'the microphone can not be read; close what else uses it, or add an audio file'],
  ['an address that is not safe', `Object.defineProperty(globalThis, 'isSecureContext', { value: false })`, 'browsers give the microphone only to pages over HTTPS or from this machine; open the page at an address with https: or at localhost, or add an audio file'],
]) {
  scripted(`${what}: the page says so, with the way out`, async (driver) => {
    await driver.page.evaluate(init);
    await driver.button('Record audio').click();
    await seen.equal(() => note(driver).textContent(), words);
    await seen.equal(() => note(driver).getAttribute('role'), 'alert');
    await driver.button('Record audio').waitFor();
    await driver.ask('Hi');
    await seen.equal(() => driver.lastAnswer(), 'You said: Hi');
  }, HEARS);
}

scripted('a chosen clip is shown, played, sent, kept and sent again', async (driver, mock) => {
  const bytes = wav(3);
  await choose(driver, file('tones.wav', bytes));
  const group = driver.page.locator('#pending').getByRole('group', { name: 'Audio tones.wav, 0:03', exact: true });
  await group.waitFor();
  // Drawn from its samples: beeps, with quiet between them.
  const heights = await group.locator('.bars-rest').evaluate((node) => node.getAttribute('d').match(/v[\d.]+/g).map((part) => Number(part.slice(1))));
  assert.equal(heights.length, 64);
  assert.ok(Math.max(...heights) > 25 && Math.min(...heights) === 2, String(heights));
  const time = group.locator('.clip-time');
  await seen.equal(() => time.textContent(), '0:03');
  await driver.button('Play tones.wav').click();
  await driver.button('Pause tones.wav').waitFor();
  await seen.match(() => time.textContent(), /^0:01 \/ 0:03$/);
  assert.ok((await group.locator('.bars-done').getAttribute('d')).length > 0, 'what was heard has another colour');
  await driver.button('Pause tones.wav').click();
  await driver.button('Play tones.wav').waitFor();
  await seen.match(() => time.textContent(), /^0:0[12] \/ 0:03$/, 'it goes on from there');
  await driver.button('Play tones.wav').click();
  await seen.equal(() => time.textContent(), '0:03', 'it has ended');
  await driver.button('Play tones.wav').waitFor();

  await driver.ask('What is it?');
  const part = { type: 'input_audio', input_audio: { data: bytes.toString('base64'), format: 'wav' } };
  assert.deepEqual(mock.requests[0].messages[0].content, [part, { type: 'text', text: 'What is it?' }]);
  await driver.page.reload();
  const sent = driver.questions.getByRole('group', { name: 'Audio tones.wav, 0:03', exact: true });
  await sent.waitFor();
  await seen.equal(() => sent.locator('.bars-rest').evaluate((node) => node.getAttribute('d').match(/v/g).length), 64);
  await driver.button('Play tones.wav', sent).click();
  await seen.match(() => sent.locator('.clip-time').textContent(), /^0:01 \/ 0:03$/);
  await driver.ask('And now?');
  assert.deepEqual(mock.requests[1].messages[0].content[0], part, 'from the store');
  assert.deepEqual(await driver.titles(), ['What is it?']);
}, HEARS);

scripted('a click into the waveform plays the clip from there, whatever it did before', async (driver) => {
  await choose(driver, file('a.wav', wav(40)), file('b.wav', wav(1)));
  const group = driver.page.getByRole('group', { name: 'Audio a.wav, 0:40', exact: true });
  const [bars, time] = [group.locator('.bars'), group.locator('.clip-time')];
  const { width, height } = await bars.boundingBox();
  const clickAt = (part) => bars.click({ position: { x: part * width, y: height / 2 } });
  await clickAt(0.5);
  await driver.button('Pause a.wav').waitFor();
  await seen.match(() => time.textContent(), /^0:2[0-4] \/ 0:40$/);
  await clickAt(0.25);
  await seen.match(() => time.textContent(), /^0:1[0-4] \/ 0:40$/, 'back, while it plays');
  await driver.button('Pause a.wav').click();
  await driver.button('Play a.wav').waitFor();
  await clickAt(0.75);
  await driver.button('Pause a.wav').waitFor();
  await seen.match(() => time.textContent(), /^0:3[0-4] \/ 0:40$/, 'forward, after a pause');
  assert.ok((await group.locator('.bars-done').getAttribute('d')).match(/v/g).length >= 47, 'what lies before it counts as heard');
  await driver.page.getByRole('group', { name: 'Audio b.wav, 0:01', exact: true }).locator('.bars').click({ position: { x: 1, y: 1 } });
  await driver.button('Play a.wav').waitFor();
  await seen.equal(() => time.textContent(), '0:40', 'another one ended it');
}, HEARS);

scripted('a clip that begins ends the one that plays, and so does leaving the conversation', async (driver) => {
  await driver.ask('Here');
  await choose(driver, file('a.wav', wav(30)), file('b.wav', wav(30)));
  await driver.button('Play a.wav').click();
  await driver.button('Pause a.wav').waitFor();
  await driver.button('Play b.wav').click();
  await driver.button('Pause b.wav').waitFor();
  await driver.button('Play a.wav').waitFor();
  await driver.page.keyboard.press('Control+Shift+O');
  await seen.equal(() => pending(driver).count(), 0);
  await driver.button('Here').click();
  await driver.button('Play b.wav').waitFor();
  await seen.equal(() => pending(driver).count(), 2, 'what was not sent stays with its conversation');
  await seen.equal(() => driver.page.getByRole('button', { name: /^Pause/ }).count(), 0);
}, HEARS);

scripted('a clip can be taken away before, while it plays too', async (driver, mock) => {
  await choose(driver, file('a.wav', wav(20)), file('b.wav', wav(1)));
  await driver.button('Play a.wav').click();
  await driver.button('Pause a.wav').waitFor();
  await driver.button('Remove a.wav').click();
  await seen.equal(() => pending(driver).count(), 1);
  await driver.button('Send').click();
  await driver.answers.first().waitFor();
  await driver.settled();
  assert.deepEqual(clips(mock.requests[0]).map(({ input_audio: { data } }) => data), [wav(1).toString('base64')]);
  assert.deepEqual(await driver.titles(), ['b.wav']);
}, HEARS);

scripted('images and clips keep the order in which they were added', async (driver, mock) => {
  const [first, last] = [wav(1), wav(2)];
  await choose(driver, file('first.wav', first), file('brown.png', PNG, 'image/png'), file('last.wav', last));
  await pending(driver).nth(2).waitFor();
  await driver.ask('Compare');
  assert.deepEqual(mock.requests[0].messages[0].content, [
    { type: 'input_audio', input_audio: { data: first.toString('base64'), format: 'wav' } },
    { type: 'image_url', image_url: { url: `data:image/png;base64,${PNG.toString('base64')}` } },
    { type: 'input_audio', input_audio: { data: last.toString('base64'), format: 'wav' } },
    { type: 'text', text: 'Compare' },
  ]);
  await seen.equal(() => driver.questions.locator('.attachments').evaluate((node) => [...node.children].map((child) => child.className.split(' ')[0]).join()), 'clip,picture,clip');
}, HEARS);

scripted('clips can be pasted and dropped, and the page says what can be', async (driver) => {
  await driver.button('Record audio').waitFor();
  const give = (kind, name) =>
    driver.page.evaluate(
      ([event, fileName, data]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], fileName, { type: 'audio/wav' }));
        const init = { bubbles: true, cancelable: true };
        const made = event === 'paste' ? new ClipboardEvent('paste', { ...init, clipboardData: transfer }) : new DragEvent(event, { ...init, dataTransfer: transfer });
        document.getElementById('input').dispatchEvent(made);
      },
      [kind, name, wav(1).toString('base64')],
    );
  await give('paste', 'pasted.wav');
  await driver.button('Play pasted.wav').waitFor();
  await give('dragenter', 'dropped.wav');
  await driver.page.getByText('Drop images and audio to add them').waitFor();
  await give('drop', 'dropped.wav');
  await driver.button('Play dropped.wav').waitFor();
  await seen.equal(() => pending(driver).count(), 2);
  await driver.button('Add images and audio').waitFor();
  await seen.equal(() => driver.page.locator('#file').getAttribute('accept'), 'image/*,audio/*,.wav,.mp3,.flac,.ogg,.oga,.opus,.m4a');
}, HEARS);

scripted('what can not be sent is refused by name, before it is sent', async (driver, mock) => {
  const cases = [
    [file('not.wav', Buffer.from('hello')), /^"not\.wav" can not be read as audio; WAV, MP3, FLAC, Ogg Vorbis and M4A work$/],
    [file('empty.mp3', Buffer.alloc(0), 'audio/mpeg'), /^"empty\.mp3" can not be read as audio/],
    [file('a.pdf', Buffer.from('x'), 'application/pdf'), /^"a\.pdf" is of type application\/pdf; images and audio can be sent: PNG, JPEG, WebP, GIF, WAV, MP3, FLAC, Ogg, M4A$/],
  ];
  for (const [bad, words] of cases) {
    await choose(driver, bad);
    await seen.match(() => note(driver).textContent(), words);
  }
  await dropLarge(driver, 'large.wav', 25_000_002);
  await seen.equal(() => note(driver).textContent(), '"large.wav" is 25.1 MB; the limit is 25 MB');
  await dropLarge(driver, 'fits.wav', 25_000_000);
  await driver.page.getByRole('group', { name: 'Audio fits.wav, 13:01', exact: true }).waitFor();
  await dropLarge(driver, 'also.wav', 20_000_000);
  await seen.match(() => note(driver).textContent(), /^"also\.wav" does not fit: it takes 25 MiB of the message, and [678](\.\d)? MiB are left$/);
  await seen.equal(() => pending(driver).count(), 1);
  assert.equal(mock.requests.length, 0);
}, HEARS);

scripted('sixteen clips are the most of a request, those sent before included', async (driver, mock) => {
  const files = Array.from({ length: 10 }, (_, index) => file(`${index}.wav`, wav(0.5)));
  await choose(driver, ...files);
  await pending(driver).nth(9).waitFor();
  await driver.ask('Ten');
  await choose(driver, ...files.slice(0, 7));
  await seen.equal(() => note(driver).textContent(), 'a request may carry 16 clips of audio, those of earlier messages included; begin a new conversation for more');
  await seen.equal(() => pending(driver).count(), 6);
  await driver.button('Record audio').click();
  await seen.match(() => note(driver).textContent(), /^a request may carry 16 clips/);
  await driver.ask('Sixteen');
  assert.equal(clips(mock.requests[1]).length, 16);
}, HEARS);

scripted('a file that the server does not read and the browser does is sent as WAV; the other way round as it is', async (driver, mock) => {
  const recorded = await driver.page.evaluate(async () => {
    const context = new AudioContext();
    await context.resume();
    const [oscillator, target] = [context.createOscillator(), context.createMediaStreamDestination()];
    oscillator.connect(target);
    oscillator.start();
    const recorder = new MediaRecorder(target.stream, { mimeType: 'audio/webm;codecs=opus' });
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const stopped = new Promise((resolve) => (recorder.onstop = resolve));
    recorder.start(100);
    while (parts.length < 12) await new Promise((resolve) => recorder.addEventListener('dataavailable', resolve, { once: true }));
    recorder.stop();
    await stopped;
    await context.close();
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    return btoa(String.fromCharCode(...bytes));
  });
  await choose(driver, file('voice.weba', Buffer.from(recorded, 'base64'), 'audio/webm'));
  await seen.equal(() => note(driver).textContent(), '"voice.weba" is sent as WAV');
  const broken = Buffer.concat([Buffer.from('fLaC'), Buffer.alloc(60)]);
  await choose(driver, file('odd.flac', broken, 'audio/flac'));
  const plain = driver.page.getByRole('group', { name: 'Audio odd.flac', exact: true });
  await plain.getByText('can not be played here').waitFor();
  await seen.equal(() => plain.getByRole('button').count(), 1, 'only to remove it');
  await driver.ask('Hear');
  const [voice, odd] = clips(mock.requests[0]).map(({ input_audio }) => input_audio);
  const { rateHz, rms } = readWav(voice.data);
  assert.deepEqual([voice.format, rateHz, rms > 0.3], ['wav', 16000, true], `${rms}`);
  assert.deepEqual(odd, { data: broken.toString('base64'), format: 'flac' });
  await driver.questions.getByRole('group', { name: 'Audio odd.flac', exact: true }).waitFor();
}, HEARS);

for (const [modalities, audio, images] of [[['text', 'image'], false, true], [null, false, true], [['text'], false, false], [['text', 'audio'], true, false]]) {
  scripted(`a model that takes ${modalities?.join(' and ') ?? 'what it does not say'} has the buttons for that`, async (driver) => {
    await driver.modelKnown();
    await seen.equal(() => driver.page.locator('#record').isVisible(), audio);
    await seen.equal(() => driver.page.locator('#attach').isVisible(), audio || images);
    await driver.page.setInputFiles('#file', audio ? file('a.png', PNG, 'image/png') : file('a.wav', wav(1)));
    const words = audio ? '"a.png" is an image, which this model can not see; audio can be sent: WAV, MP3, FLAC, Ogg, M4A' : `"a.wav" is audio, which this model can not hear; ${images ? 'images can be sent: PNG, JPEG, WebP, GIF' : 'it reads text'}`;
    await seen.equal(() => note(driver).textContent(), words);
    await seen.equal(() => pending(driver).count(), 0);
  }, { setup: (mock) => (mock.modalities = modalities) });
}

scripted('a full browser is said, and the clip is sent again all the same', async (driver, mock) => {
  await choose(driver, file('a.wav', wav(1)));
  await pending(driver).first().waitFor();
  await driver.page.evaluate(() => {
    globalThis.realPut = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = () => {
      throw new DOMException('no room', 'QuotaExceededError');
    };
  });
  await driver.ask('Hear');
  const banner = driver.page.getByRole('alert').filter({ hasText: 'the browser gives this page no more room' });
  await banner.waitFor();
  await driver.ask('Again');
  assert.deepEqual(clips(mock.requests[1])[0].input_audio.data, wav(1).toString('base64'));
  await driver.page.evaluate(() => (IDBObjectStore.prototype.put = globalThis.realPut));
  await driver.ask('Once more');
  await banner.waitFor({ state: 'hidden' });
  await driver.page.reload();
  await driver.questions.locator('.clip').waitFor();
  await seen.equal(() => driver.page.getByText('no longer here').count(), 0);
}, HEARS);

scripted('a clip that the browser has dropped is named where it was', async (driver, mock) => {
  await choose(driver, file('a.wav', wav(1)));
  await pending(driver).first().waitFor();
  await driver.ask('Hear');
  await driver.page.evaluate(() => new Promise((resolve) => {
    indexedDB.open('puna').onsuccess = ({ target: { result } }) => {
      const transaction = result.transaction('attachments', 'readwrite');
      transaction.objectStore('attachments').clear();
      transaction.oncomplete = resolve;
    };
  }));
  await driver.page.reload();
  await driver.questions.getByText('audio no longer here').waitFor();
  await driver.ask('Again');
  await driver.answers.last().getByText('audio of this conversation is no longer in this browser; edit the message it belongs to').waitFor();
  assert.equal(mock.requests.length, 1);
}, HEARS);

scripted('recording and clips are as wide as a phone, and all of it has names', async (driver) => {
  await choose(driver, file('a-name-that-is-long-enough-to-be-cut-on-a-phone-for-certain.wav', wav(1)));
  await pending(driver).first().waitFor();
  await driver.ask('Hear');
  await choose(driver, file('b.wav', wav(1)));
  await pending(driver).first().waitFor();
  await record(driver, 1);
  for (const width of [390, 320]) {
    await driver.page.setViewportSize({ width, height: 700 });
    for (const id of ['main', 'page', 'composer']) {
      const [inner, outer] = await driver.page.locator(`#${id}`).evaluate((node) => [node.scrollWidth, node.clientWidth]);
      assert.ok(inner <= outer, `#${id} at ${width}: ${inner} in ${outer}`);
    }
    const out = await driver.page.locator('.composer *, .clip *').evaluateAll((all, most) => all.filter((node) => node.getBoundingClientRect().right > most && node.checkVisibility()).map((node) => node.outerHTML.slice(0, 100)), width);
    assert.deepEqual(out, []);
  }
  const small = await driver.page.locator('.composer-row button').evaluateAll((all) => all.filter((node) => node.offsetParent && Math.min(node.offsetWidth, node.offsetHeight) < 40).map((node) => node.id));
  assert.deepEqual(small, []);
  const nameless = await driver.page.locator('button').evaluateAll((all) => all.filter((node) => node.checkVisibility() && !node.getAttribute('aria-label') && node.textContent.trim() === '').map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
  await seen.equal(() => driver.page.getByRole('group', { name: 'Recording' }).count(), 1);
}, { ...HEARS, ...PHONE });

scripted('where motion is not wanted the level stands still', async (driver) => {
  await record(driver, 1);
  const places = () => driver.page.locator('#recording-level path').evaluateAll((all) => all.flatMap((node) => node.getAttribute('d').match(/v[\d.]+/g) ?? []));
  const heights = await places();
  assert.equal(heights.length, 40);
  assert.equal(new Set(heights).size, 1, String(heights));
}, { ...HEARS, reducedMotion: 'reduce' });
