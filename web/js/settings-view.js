// The settings: those of the shown conversation, and those of the page.

import { confirm } from './dialogs.js';
import { byId, el } from './dom.js';
import { formatBytes, LIMITS } from './limits.js';
import { key, theme } from './preferences.js';
import { checkSetting, formatField, parseField } from './settings-rules.js';

export class SettingsView {
  #session;
  #transfer;
  #dialog = byId('settings');
  #fields = new Map();

  /** `transfer` has `exportAll()` and `importFile(file)`, which say what they did; `enterKey` asks for the key. */
  constructor(session, { transfer, enterKey }) {
    this.#session = session;
    this.#transfer = transfer;
    for (const place of this.#dialog.querySelectorAll('[data-field]')) this.#wireField(place);
    for (const id of ['open-settings', 'top-settings']) byId(id).addEventListener('click', () => this.open());
    byId('keep-defaults').addEventListener('click', () => {
      session.keepAsDefaults();
      this.#say('settings-status', 'New conversations begin with these settings.');
    });
    byId('reset-settings').addEventListener('click', async () => {
      await session.resetSettings();
      this.#fill();
      this.#say('settings-status', 'The model’s own settings are back.');
    });
    for (const choice of this.#dialog.querySelectorAll('[name="theme"]')) choice.addEventListener('change', () => theme.write(choice.value));
    byId('set-key').addEventListener('click', async () => {
      await enterKey();
      this.#fillPage();
    });
    byId('forget-key').addEventListener('click', () => {
      key.forget();
      this.#fillPage();
    });
    this.#wireTransfer();
    session.addEventListener('models', () => this.#mark());
    session.addEventListener('thread', () => this.#mark());
    session.addEventListener('list', () => this.#dialog.open && this.#fillPage());
    this.#mark();
  }

  open() {
    this.#fill();
    this.#fillPage();
    for (const id of ['settings-status', 'transfer-status']) this.#say(id, '');
    this.#dialog.showModal();
    byId('set-system').focus();
  }

  #wireField(place) {
    const name = place.dataset.field;
    const input = place.querySelector('input, textarea, select');
    const error = el('p', { class: 'field-error', id: `error-${name}`, hidden: true });
    place.append(error);
    const note = place.querySelector('.field-note');
    if (note) note.id = `note-${name}`;
    input.setAttribute('aria-describedby', [note?.id, error.id].filter(Boolean).join(' '));
    const change = () => {
      const value = parseField(name, input.value);
      // A number field gives '' for what it can not read.
      const unreadable = input.validity.badInput ? 'must be a number' : null;
      const wrong = unreadable ?? (value === null ? null : checkSetting(name, value));
      this.#showError(input, error, wrong);
      if (wrong === null) this.#session.setSetting(name, value);
    };
    input.addEventListener('input', change);
    this.#fields.set(name, { place, input, error });
  }

  #showError(input, error, wrong) {
    error.textContent = wrong ?? '';
    error.hidden = wrong === null;
    input.setAttribute('aria-invalid', String(wrong !== null));
  }

  #fill() {
    const { settings } = this.#session.current;
    const models = this.#session.models.map(({ id }) => id);
    const model = this.#fields.get('model');
    const known = settings.model === null || models.includes(settings.model) ? models : [settings.model, ...models];
    model.place.hidden = known.length < 2;
    model.input.replaceChildren(...known.map((id) => el('option', { value: id, text: id })));
    for (const [name, { input, error }] of this.#fields) {
      input.value = name === 'model' ? (this.#session.modelName() ?? '') : formatField(name, settings[name]);
      this.#showError(input, error, null);
    }
  }

  #fillPage() {
    this.#dialog.querySelector(`[name="theme"][value="${theme.read()}"]`).checked = true;
    byId('key-state').textContent = key.read() ? 'A key is set' : 'None is set';
    byId('forget-key').hidden = !key.read();
    const { conversations, bytes, lasting } = this.#session.usage();
    const kept = `${conversations} of ${LIMITS.conversations} kept, ${formatBytes(bytes)} of ${formatBytes(LIMITS.storedBytes)}`;
    byId('usage').textContent = lasting ? kept : `${conversations}, until this page is closed: the browser forbids storage`;
    byId('delete-all').disabled = conversations === 0;
    byId('export-all').disabled = conversations === 0;
  }

  #wireTransfer() {
    byId('export-all').addEventListener('click', async () => this.#say('transfer-status', await this.#transfer.exportAll()));
    byId('import').addEventListener('click', () => byId('import-file').click());
    byId('import-file').addEventListener('change', async (event) => {
      const [file] = event.target.files;
      if (file) this.#say('transfer-status', await this.#transfer.importFile(file));
      event.target.value = '';
      this.#fillPage();
    });
    byId('delete-all').addEventListener('click', async () => {
      const { conversations } = this.#session.usage();
      const sure = await confirm({ title: 'Delete all conversations?', text: `${conversations} with their images and audio are removed from this browser. This can not be undone.`, yes: 'Delete all' });
      if (!sure) return;
      for (const { id } of this.#session.list()) await this.#session.remove(id);
      this.#say('transfer-status', 'All conversations are deleted.');
      this.#fillPage();
    });
  }

  #say(id, text) {
    byId(id).textContent = text;
  }

  /** Shows on the button that something differs from the model's own settings. */
  #mark() {
    const { settings } = this.#session.current;
    const changed = Object.entries(settings).some(([name, value]) => name !== 'model' && value !== null && value.length !== 0);
    byId('top-settings').classList.toggle('changed', changed);
    byId('top-settings').setAttribute('aria-label', `Settings of this conversation${changed ? ', changed' : ''}`);
  }
}
