// Where the page begins: makes its parts and tells them of each other.

import { Api } from './api.js';
import { copyWithMark } from './clipboard.js';
import { ComposerView } from './composer-view.js';
import { askKey, showImage, wireDialogs } from './dialogs.js';
import { byId, el, icon } from './dom.js';
import { formatBytes, LIMITS } from './limits.js';
import { defaults, key, theme } from './preferences.js';
import { Session } from './session.js';
import { SettingsView } from './settings-view.js';
import { wireShortcuts } from './shortcuts.js';
import { Player } from './sound.js';
import { SidebarView } from './sidebar-view.js';
import { openStore } from './store.js';
import { ThreadView } from './thread-view.js';
import { exportText, importText } from './transfer.js';

/** Characters of an answer that are read out when it is finished. */
const ANNOUNCED_CHARS = 1500;

/** Says something to those who listen to the page. */
function announce(text) {
  byId('announcer').textContent = text;
}

function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const link = el('a', { href: url, download: name });
  link.click();
  // The browser has taken the file by the next turn of its loop in practice; a minute is safe.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function transferOf(session) {
  const fileName = (what) => `puna-${what}-${new Date().toISOString().slice(0, 10)}.json`;
  const write = async (conversations, what) => download(exportText(conversations, await session.withData(conversations)), fileName(what));
  return {
    exportOne: (conversation) => write([conversation], 'conversation'),
    async exportAll() {
      const conversations = session.list();
      await write(conversations, 'conversations');
      return `${conversations.length} exported.`;
    },
    async importFile(file) {
      try {
        if (file.size > LIMITS.importBytes) throw new Error(`the file is ${formatBytes(file.size)}; the limit is ${formatBytes(LIMITS.importBytes)}`);
        const imported = importText(await file.text());
        await session.add(imported);
        return `${imported.length} imported.`;
      } catch (error) {
        return `nothing was imported: ${error.message}`;
      }
    },
  };
}

/** Asks for the key, then does again what needed it. */
function keyAsker(session) {
  return async (message = null) => {
    do {
      const given = await askKey({ wrong: key.read() !== null });
      if (!given) return;
      key.write(given.value, given);
      await session.loadModels();
    } while (session.modelsError?.kind === 'key');
    if (message) await session.regenerate(message);
  };
}

function showHead(session, enterKey) {
  const { current, modelsError } = session;
  const title = current.title || 'New conversation';
  byId('title').textContent = title;
  document.title = current.title ? `${title} – Puna` : 'Puna';
  const place = byId('model');
  if (modelsError && session.models.length === 0) {
    const needsKey = modelsError.kind === 'key';
    const click = () => (needsKey ? enterKey() : session.loadModels());
    const button = el('button', { type: 'button', text: needsKey ? 'enter it' : 'try again', on: { click } });
    place.replaceChildren(needsKey ? 'needs a key: ' : 'no connection: ', button);
    place.title = modelsError.message;
  } else {
    place.textContent = session.modelName() ?? 'looking for the model…';
    place.removeAttribute('title');
  }
}

/** Says that conversations can not be kept, or that they can again. */
function showBanner(error) {
  const banner = byId('banner');
  banner.hidden = error === null;
  if (error === null) return;
  const close = el('button', { type: 'button', class: 'icon-button', 'aria-label': 'Dismiss', on: { click: () => (banner.hidden = true) } }, icon('close'));
  banner.replaceChildren(icon('warning'), el('p', { text: `${error.message}. What is new stays only until this page is closed.` }), close);
}

/** Keeps the address on the shown conversation, so that a reload comes back to it. */
function wireAddress(session) {
  const idOf = () => /^#c=([\w-]+)$/.exec(location.hash)?.[1] ?? null;
  session.addEventListener('thread', () => {
    const wanted = session.isStored() ? `#c=${session.current.id}` : '';
    if (location.hash !== wanted) history.replaceState(null, '', wanted === '' ? location.pathname + location.search : wanted);
  });
  addEventListener('hashchange', () => session.has(idOf()) && session.open(idOf()));
  return idOf();
}

function wireAnnouncements(session) {
  session.addEventListener('finished', ({ detail: { conversation, message } }) => {
    if (conversation !== session.current) return announce(`${conversation.title}: the answer is there`);
    if (message.error) return announce(`Error: ${message.error.message}`);
    // What is read out is the text of the page, without marks.
    const shown = document.querySelector(`[data-message="${message.id}"] > .prose`)?.innerText ?? '';
    announce(message.status === 'stopped' ? 'Stopped' : `Answer: ${shown.slice(0, ANNOUNCED_CHARS)}`);
  });
}

async function start() {
  theme.write(theme.read());
  for (const place of document.querySelectorAll('[data-icon]')) place.prepend(icon(place.dataset.icon));
  wireDialogs();
  const store = await openStore();
  const api = new Api({ base: new URL('v1/', document.baseURI), readKey: key.read });
  const session = new Session({ store, api, defaults });
  const enterKey = keyAsker(session);
  const transfer = transferOf(session);
  const wanted = wireAddress(session);

  const player = new Player();
  const actions = {
    copy: (button, text) => copyWithMark(button, text, announce),
    edit: (message, text) => send(() => session.edit(message, text)),
    regenerate: (message) => send(() => session.regenerate(message)),
    sibling: (message, step) => session.showSibling(message, step),
    refusal: (text) => session.refusal(text),
    dataOf: (attachments) => session.dataOf(attachments),
    example: (text) => composer.write(text),
    enterKey,
    showImage,
    player,
  };
  const thread = new ThreadView(session, actions, announce);
  const composer = new ComposerView(session, { afterSend: () => thread.scrollToEnd(), editLast: () => thread.editLast(), player, announce });
  // What goes wrong stands with the answer.
  const send = (work) => {
    work();
    composer.focus();
    thread.scrollToEnd();
  };
  const sidebar = new SidebarView(session, transfer.exportOne);
  const settings = new SettingsView(session, { transfer, enterKey });
  const help = () => byId('help').showModal();
  byId('open-help').addEventListener('click', help);
  const escape = () => {
    if (sidebar.isDrawerOpen()) sidebar.closeDrawer();
    else if (session.isRunning()) session.stop();
    else return false;
    return true;
  };
  wireShortcuts({ create: () => sidebar.create(), search: () => sidebar.focusSearch(), settings: () => settings.open(), help, escape });
  for (const event of ['thread', 'models']) session.addEventListener(event, () => showHead(session, enterKey));
  session.addEventListener('key', ({ detail }) => enterKey(detail));
  session.addEventListener('full', ({ detail }) => showBanner(detail));
  wireAnnouncements(session);
  showHead(session, enterKey);
  composer.focus();
  session.addEventListener('list', () => session.has(wanted) && session.open(wanted), { once: true });
  await session.start();
}

start();
