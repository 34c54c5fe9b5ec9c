// Small things that the browser keeps: the key, the colours, the settings of new conversations, whether the list is shown.
// Where the browser forbids storage they live as long as the page.

import { DEFAULT_SETTINGS } from './conversation.js';
import { checkSetting } from './settings-rules.js';

class Kept {
  #storage;
  #memory = new Map();

  constructor(name) {
    try {
      this.#storage = globalThis[name];
    } catch {
      this.#storage = null;
    }
  }

  read(key) {
    try {
      return this.#storage?.getItem(key) ?? this.#memory.get(key) ?? null;
    } catch {
      return this.#memory.get(key) ?? null;
    }
  }

  write(key, value) {
    this.#memory.delete(key);
    try {
      if (value === null) this.#storage?.removeItem(key);
      else this.#storage.setItem(key, value);
    } catch {
      if (value !== null) this.#memory.set(key, value);
    }
  }
}

const lasting = new Kept('localStorage');
const session = new Kept('sessionStorage');

/** The server's key: for this tab, or for this browser where the user asked for that. */
export const key = {
  read: () => session.read('puna.key') ?? lasting.read('puna.key'),
  write(value, { remember }) {
    session.write('puna.key', remember ? null : value);
    lasting.write('puna.key', remember ? value : null);
  },
  forget() {
    session.write('puna.key', null);
    lasting.write('puna.key', null);
  },
};

/** `auto`, `light` or `dark`; `theme-early.js` reads it too, before the page is drawn. */
export const theme = {
  read: () => (['light', 'dark'].includes(lasting.read('puna.theme')) ? lasting.read('puna.theme') : 'auto'),
  write(value) {
    lasting.write('puna.theme', value === 'auto' ? null : value);
    if (value === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
  },
};

export const sidebarHidden = {
  read: () => lasting.read('puna.sidebar') === 'hidden',
  write: (hidden) => lasting.write('puna.sidebar', hidden ? 'hidden' : null),
};

/** The settings that new conversations begin with. */
export const defaults = {
  read() {
    const settings = { ...DEFAULT_SETTINGS, stop: [] };
    try {
      const stored = JSON.parse(lasting.read('puna.defaults')) ?? {};
      for (const name of Object.keys(settings)) {
        if (stored[name] !== undefined && stored[name] !== null && checkSetting(name, stored[name]) === null) settings[name] = stored[name];
      }
    } catch {
      // Not ours, or damaged; the server's own settings are always right.
    }
    return settings;
  },
  write: (settings) => lasting.write('puna.defaults', JSON.stringify(settings)),
};
