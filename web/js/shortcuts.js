// Keys that work everywhere on the page, and the dialog that lists them.

import { byId, el } from './dom.js';

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
const COMMAND = isMac ? '⌘' : 'Ctrl';

/** Shown in the help; those without a `press` belong to the field. */
const SHORTCUTS = [
  { keys: ['Enter'], what: 'Send the message' },
  { keys: ['Shift', 'Enter'], what: 'New line' },
  { keys: ['Esc'], what: 'Stop the answer, discard a recording, or close what is open' },
  { keys: ['↑'], what: 'Edit your last message, when the field is empty' },
  { keys: [COMMAND, 'Shift', 'O'], what: 'New conversation', action: 'create', press: (event) => event.shiftKey && event.key.toLowerCase() === 'o' },
  { keys: [COMMAND, 'K'], what: 'Search conversations', action: 'search', press: (event) => !event.shiftKey && event.key.toLowerCase() === 'k' },
  { keys: [COMMAND, ','], what: 'Settings', action: 'settings', press: (event) => event.key === ',' },
  { keys: [COMMAND, '/'], what: 'This list', action: 'help', press: (event) => event.key === '/' },
];

/** Wires the keys to `actions`: `create`, `search`, `settings`, `help`, and `escape`, which says whether it did anything. */
export function wireShortcuts(actions) {
  byId('help-list').append(
    ...SHORTCUTS.flatMap(({ keys, what }) => [el('dt', {}, keys.flatMap((name, index) => [index > 0 ? ' ' : null, el('kbd', { text: name })])), el('dd', { text: what })]),
  );
  addEventListener('keydown', (event) => {
    if (event.isComposing || event.defaultPrevented || document.querySelector('dialog[open], :popover-open')) return;
    if (event.key === 'Escape' && actions.escape()) event.preventDefault();
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const shortcut = SHORTCUTS.find(({ press }) => press?.(event));
    if (!shortcut) return;
    event.preventDefault();
    actions[shortcut.action]();
  });
}
