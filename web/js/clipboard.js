// Copying text, and saying on the button that it was done.

import { icon } from './dom.js';

const SHOWN_MS = 1600;

/** Copies `text`; whether it could. Browsers give the clipboard only to safe origins, so others take the old way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'hidden';
    const focused = document.activeElement;
    // Inside an open dialog nothing outside can be selected.
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    focused?.focus();
    return copied;
  }
}

/** Copies, and shows a check mark on the button for a moment. `announce` tells screen readers. */
export async function copyWithMark(button, text, announce) {
  const copied = await copyText(text);
  announce(copied ? 'Copied' : 'The browser did not allow copying');
  if (!copied || button.dataset.copied) return;
  button.dataset.copied = 'yes';
  const label = button.querySelector('span');
  button.querySelector('svg').replaceWith(icon('check'));
  if (label) label.textContent = 'Copied';
  setTimeout(() => {
    delete button.dataset.copied;
    button.querySelector('svg').replaceWith(icon('copy'));
    if (label) label.textContent = 'Copy';
  }, SHOWN_MS);
}
