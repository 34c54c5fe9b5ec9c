// A small menu that opens at a button.

import { byId, el } from './dom.js';

/** Opens it. `entries` are `[label, action, class]`; the focus goes back to the button unless an action takes it. */
export function openMenu(button, entries) {
  const menu = byId('menu');
  const close = () => menu.hidePopover();
  menu.replaceChildren(
    ...entries.map(([label, action, kind]) =>
      el('button', { type: 'button', role: 'menuitem', class: kind ?? null, text: label, tabindex: '-1', on: { click: () => { close(); action(); } } }),
    ),
  );
  menu.onkeydown = (event) => {
    if (event.key === 'Escape' || event.key === 'Tab') {
      event.preventDefault();
      close();
      button.focus();
    } else moveFocus(event, [...menu.children]);
  };
  menu.ontoggle = (event) => {
    button.setAttribute('aria-expanded', String(event.newState === 'open'));
    if (event.newState === 'closed' && [document.body, null].includes(document.activeElement)) button.focus();
  };
  menu.setAttribute('aria-label', button.getAttribute('aria-label'));
  menu.showPopover();
  const place = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(place.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${place.bottom + menu.offsetHeight + 8 > innerHeight ? place.top - menu.offsetHeight - 4 : place.bottom + 4}px`;
  menu.firstElementChild.focus();
}

/** Arrow keys, Home and End among `items`; whether the key was one of them. */
export function moveFocus(event, items) {
  const at = items.indexOf(document.activeElement);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (next === undefined || items.length === 0) return false;
  event.preventDefault();
  items[(next + items.length) % items.length].focus();
  return true;
}
