// Dialogs that ask or show one thing.

import { byId } from './dom.js';

/** Asks before something that can not be undone; whether the answer was yes. */
export function confirm({ title, text, yes }) {
  const dialog = byId('confirm');
  byId('confirm-title').textContent = title;
  byId('confirm-text').textContent = text;
  byId('confirm-yes').textContent = yes;
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }));
}

/** Asks for the server's key: `{value, remember}`, or null where the user left it. */
export function askKey({ wrong }) {
  const dialog = byId('key-dialog');
  const input = byId('key-input');
  if (dialog.open) return Promise.resolve(null);
  byId('key-title').textContent = wrong ? 'The server does not accept this key' : 'This server wants a key';
  input.value = '';
  let given = null;
  const submit = () => {
    given = { value: input.value.trim(), remember: byId('key-remember').checked };
  };
  byId('key-form').addEventListener('submit', submit);
  dialog.showModal();
  input.focus();
  return new Promise((resolve) =>
    dialog.addEventListener(
      'close',
      () => {
        byId('key-form').removeEventListener('submit', submit);
        input.value = '';
        resolve(given?.value ? given : null);
      },
      { once: true },
    ),
  );
}

/** Shows an image large. */
export function showImage(attachment, url) {
  const image = byId('image-full');
  image.src = url;
  image.alt = attachment.name;
  byId('image-caption').textContent = `${attachment.name}, ${attachment.width}×${attachment.height}`;
  byId('image-dialog').showModal();
}

/** Closes a dialog where it is clicked beside, and where a button says so. */
export function wireDialogs() {
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('pointerdown', (event) => {
      if (event.target !== dialog || dialog.id === 'confirm') return;
      const box = dialog.getBoundingClientRect();
      const inside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
      if (!inside) dialog.close();
    });
    for (const button of dialog.querySelectorAll('[data-close]')) button.addEventListener('click', () => dialog.close());
  }
}
