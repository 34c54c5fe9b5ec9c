// The list of conversations: search, rename, delete, export; a drawer on narrow screens.

import { confirm } from './dialogs.js';
import { byId, el, iconButton } from './dom.js';
import { moveFocus, openMenu } from './menu.js';
import { sidebarHidden } from './preferences.js';

const DAY_MS = 24 * 60 * 60 * 1000;
const narrow = matchMedia('(max-width: 800px)');

export class SidebarView {
  #session;
  #exportOne;
  #list = byId('list');
  #search = byId('search');
  #renaming = null;

  /** `exportOne` writes one conversation to a file. */
  constructor(session, exportOne) {
    this.#session = session;
    this.#exportOne = exportOne;
    session.addEventListener('list', () => this.#draw());
    this.#search.addEventListener('input', () => this.#draw(true));
    this.#search.addEventListener('keydown', (event) => event.key === 'ArrowDown' && moveFocus(event, this.#openers()));
    this.#list.addEventListener('keydown', (event) => this.#keys(event));
    byId('new-conversation').addEventListener('click', () => this.create());
    byId('top-new').addEventListener('click', () => this.create());
    byId('sidebar-toggle').addEventListener('click', () => this.toggle());
    byId('sidebar-close').addEventListener('click', () => this.closeDrawer());
    byId('scrim').addEventListener('click', () => this.closeDrawer());
    narrow.addEventListener('change', () => this.#layout());
    document.documentElement.classList.toggle('sidebar-gone', sidebarHidden.read());
    this.#layout();
    this.#draw();
  }

  create() {
    this.closeDrawer();
    this.#session.open(null);
    byId('input').focus();
  }

  focusSearch() {
    if (!this.#isShown()) this.toggle();
    this.#search.focus();
    this.#search.select();
  }

  isDrawerOpen() {
    return document.documentElement.classList.contains('drawer-open');
  }

  toggle() {
    if (!narrow.matches) {
      const hidden = document.documentElement.classList.toggle('sidebar-gone');
      sidebarHidden.write(hidden);
    } else if (this.isDrawerOpen()) return this.closeDrawer();
    else {
      document.documentElement.classList.add('drawer-open');
      byId('sidebar-close').focus();
    }
    this.#layout();
  }

  closeDrawer() {
    if (!this.isDrawerOpen()) return;
    document.documentElement.classList.remove('drawer-open');
    this.#layout();
    byId('sidebar-toggle').focus();
  }

  #isShown() {
    return narrow.matches ? this.isDrawerOpen() : !document.documentElement.classList.contains('sidebar-gone');
  }

  #layout() {
    if (!narrow.matches) document.documentElement.classList.remove('drawer-open');
    // While the drawer is open nothing behind it can be reached.
    byId('page').inert = this.isDrawerOpen();
    byId('scrim').hidden = !this.isDrawerOpen();
    byId('sidebar-toggle').setAttribute('aria-expanded', String(this.#isShown()));
  }

  #openers() {
    return [...this.#list.querySelectorAll('.list-open')];
  }

  #draw(searched = false) {
    // A drawing in the middle of a new name would lose it.
    if (this.#renaming) return;
    const focused = document.activeElement?.closest?.('.list-item')?.dataset.id;
    const wasMenu = document.activeElement?.classList.contains('icon-button');
    const query = this.#search.value;
    const conversations = this.#session.list(query);
    const groups = groupBy(conversations);
    const parts = [...groups].flatMap(([name, group]) => [el('h2', { text: name }), el('ul', { 'aria-label': name }, group.map((conversation) => this.#item(conversation)))]);
    if (parts.length === 0) parts.push(el('p', { class: 'list-empty', text: query.trim() === '' ? 'Conversations will stand here.' : 'Nothing found.' }));
    this.#list.replaceChildren(...parts);
    if (searched) byId('list-status').textContent = `${conversations.length} found`;
    if (focused) this.#list.querySelector(`[data-id="${CSS.escape(focused)}"] ${wasMenu ? '.icon-button' : '.list-open'}`)?.focus();
  }

  #item(conversation) {
    const { id, title } = conversation;
    const current = id === this.#session.current.id;
    const name = title || 'Without a title';
    const running = this.#session.isRunning(id);
    const open = el('button', { type: 'button', class: 'list-open', title: name, 'aria-current': current ? 'page' : null, dir: 'auto', text: name, on: { click: () => this.#open(id) } });
    if (running) open.setAttribute('aria-label', `${name}, answering`);
    const more = iconButton('more', `More for ${name}`, (event) => this.#menu(event.currentTarget, conversation), { 'aria-haspopup': 'menu', 'aria-expanded': 'false' });
    return el('li', { class: `list-item${current ? ' current' : ''}${running ? ' running' : ''}`, 'data-id': id }, open, more);
  }

  #open(id) {
    this.#session.open(id);
    if (!this.isDrawerOpen()) return;
    this.closeDrawer();
    byId('main').focus();
  }

  #menu(button, conversation) {
    openMenu(button, [
      ['Rename', () => this.#rename(conversation)],
      ['Export', () => this.#exportOne(conversation)],
      ['Delete', () => this.#remove(conversation), 'danger'],
    ]);
  }

  #rename(conversation) {
    const item = this.#list.querySelector(`[data-id="${CSS.escape(conversation.id)}"]`);
    if (!item) return;
    const input = el('input', { class: 'list-rename', 'aria-label': 'Name of the conversation', maxlength: '120', value: conversation.title });
    this.#renaming = input;
    const end = (keep) => {
      if (this.#renaming !== input) return;
      this.#renaming = null;
      if (keep) this.#session.rename(conversation.id, input.value);
      this.#draw();
      this.#list.querySelector(`[data-id="${CSS.escape(conversation.id)}"] .list-open`)?.focus();
    };
    input.addEventListener('keydown', (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === 'Enter') end(true);
      if (event.key === 'Escape') end(false);
    });
    input.addEventListener('blur', () => end(true));
    item.replaceChildren(input);
    input.focus();
    input.select();
  }

  async #remove(conversation) {
    const openers = this.#openers();
    const at = openers.findIndex((opener) => opener.closest('.list-item').dataset.id === conversation.id);
    const sure = await confirm({ title: 'Delete this conversation?', text: `“${conversation.title || 'Without a title'}” and its images and audio are removed from this browser. This can not be undone.`, yes: 'Delete' });
    if (sure) await this.#session.remove(conversation.id);
    (this.#openers()[Math.min(at, this.#openers().length - 1)] ?? byId('new-conversation')).focus();
  }

  #keys(event) {
    if (moveFocus(event, this.#openers())) return;
    const id = event.target.closest('.list-open')?.closest('.list-item').dataset.id;
    const conversation = id && this.#session.list().find((other) => other.id === id);
    if (!conversation) return;
    if (event.key === 'F2') this.#rename(conversation);
    if (event.key === 'Delete') this.#remove(conversation);
  }
}

function groupOf({ updated }) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (updated >= midnight) return 'Today';
  if (updated >= midnight - DAY_MS) return 'Yesterday';
  return updated >= midnight - 7 * DAY_MS ? 'Last seven days' : 'Earlier';
}

function groupBy(conversations) {
  const groups = new Map();
  for (const conversation of conversations) {
    const name = groupOf(conversation);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(conversation);
  }
  return groups;
}
