// One message on the page.

import { seconds, statTexts } from './answer.js';
import { ClipView } from './clip-view.js';
import { el, icon, iconButton } from './dom.js';
import { MarkdownView } from './markdown.js';

const FAILURES = {
  network: 'No connection',
  key: 'The server wants a key',
  busy: 'The server is busy',
  refused: 'The server refused the request',
  server: 'The server failed',
  cut: 'The answer broke off',
  shape: 'An unexpected answer',
};

/** Why an answer ended, where that is worth a word. */
const ENDS = {
  length: 'The answer reached its limit of tokens.',
  content_filter: 'The server’s content filter ended the answer.',
  tool_calls: 'The model asked for a tool; this page has none.',
};

/** `actions` has what buttons call: `copy`, `edit`, `refusal`, `regenerate`, `sibling`, `dataOf`, `enterKey`,
 * `showImage`, and `player`, which plays clips. */
export function messageView(message, actions) {
  return message.role === 'user' ? new UserView(message, actions) : new AnswerView(message, actions);
}

/** The buttons between messages that stand at the same place. */
function siblingButtons(message, { siblings, running }, actions) {
  if (siblings.length < 2) return null;
  const at = siblings.indexOf(message);
  const step = (name, label, by, off) => iconButton(name, label, () => actions.sibling(message, by), { disabled: off || running });
  return el(
    'span',
    { class: 'siblings', role: 'group', 'aria-label': 'Versions' },
    step('left', 'Earlier version', -1, at === 0),
    el('span', { text: `${at + 1} of ${siblings.length}` }),
    step('right', 'Later version', 1, at === siblings.length - 1),
  );
}

class UserView {
  #message;
  #actions;
  #attachments = el('div', { class: 'attachments' });
  #clips = [];
  #closed = false;
  #text;
  #footer = el('div', { class: 'message-actions' });
  #form = null;

  constructor(message, actions) {
    this.#message = message;
    this.#actions = actions;
    this.#text = el('div', { class: 'message-text', dir: 'auto', text: message.text });
    this.node = el('article', { class: 'message user', 'data-message': message.id }, el('h2', { class: 'hidden', text: 'You' }));
    if (message.attachments.length > 0) this.node.append(this.#attachments);
    if (message.text !== '') this.node.append(this.#text);
    this.node.append(this.#footer);
    if (message.attachments.length > 0) this.#showAttachments();
  }

  async #showAttachments() {
    const { attachments } = this.#message;
    const data = await this.#actions.dataOf(attachments);
    if (this.#closed) return;
    this.#attachments.replaceChildren(
      ...attachments.map((attachment) => {
        const url = data.get(attachment.id);
        if (!url) return el('span', { class: 'gone', text: `${attachment.kind} no longer here` });
        if (attachment.kind === 'audio') {
          this.#clips.push(new ClipView(attachment, url, this.#actions.player));
          return this.#clips.at(-1).node;
        }
        const image = el('img', { src: url, alt: attachment.name, width: attachment.width, height: attachment.height });
        const show = () => this.#actions.showImage(attachment, url);
        return el('button', { type: 'button', class: attachments.length === 1 ? 'picture only' : 'picture', 'aria-label': `Show image ${attachment.name}`, on: { click: show } }, image);
      }),
    );
  }

  update(state) {
    const { running } = state;
    this.#footer.replaceChildren(
      ...[
        siblingButtons(this.#message, state, this.#actions),
        this.#message.text === '' ? null : iconButton('copy', 'Copy message', (event) => this.#actions.copy(event.currentTarget, this.#message.text)),
        iconButton('edit', 'Edit message', () => this.edit(), { disabled: running }),
      ].filter(Boolean),
    );
  }

  /** Ends what sounds. */
  close() {
    this.#closed = true;
    for (const clip of this.#clips) clip.close();
  }

  /** Makes the text a field; sending it makes another version of the message. */
  edit() {
    if (this.#form) return;
    const area = el('textarea', { 'aria-label': 'Edit message', dir: 'auto', value: this.#message.text });
    const note = el('p', { class: 'field-error', role: 'alert' });
    const close = () => {
      this.#form.replaceWith(this.#footer);
      if (this.#message.text !== '') this.#footer.before(this.#text);
      this.#form = null;
      this.node.classList.remove('editing');
      this.node.querySelector('[aria-label="Edit message"]')?.focus();
    };
    const send = (event) => {
      event.preventDefault();
      const text = area.value.trim();
      if (text === '' && this.#message.attachments.length === 0) return;
      const refusal = this.#actions.refusal(text);
      note.textContent = refusal ?? '';
      if (refusal !== null) return;
      close();
      this.#actions.edit(this.#message, text);
    };
    const keys = (event) => {
      if (event.isComposing) return;
      if (event.key === 'Escape') {
        event.stopPropagation();
        close();
      } else if (event.key === 'Enter' && !event.shiftKey) send(event);
    };
    this.#form = el(
      'form',
      { class: 'edit-form', on: { submit: send, keydown: keys } },
      area,
      note,
      el('div', { class: 'buttons end' }, el('button', { type: 'button', class: 'button quiet', text: 'Cancel', on: { click: close } }), el('button', { class: 'button primary', text: 'Send' })),
    );
    this.#text.remove();
    this.#footer.replaceWith(this.#form);
    this.node.classList.add('editing');
    area.style.height = `${Math.min(area.scrollHeight + 8, innerHeight / 2)}px`;
    area.focus();
  }
}

class AnswerView {
  #message;
  #actions;
  #heading = el('h2', { class: 'hidden' });
  #thinkingLabel = el('span');
  #thinkingText = el('div', { class: 'thinking-text prose message-text', dir: 'auto' });
  #thinking;
  #text = el('div', { class: 'message-text prose', dir: 'auto' });
  #waiting = el('div', { class: 'waiting', 'aria-hidden': 'true' }, el('i'), el('i'), el('i'), el('span'));
  #note = el('p', { class: 'note' });
  #failure = null;
  #footer = el('div', { class: 'message-actions' });
  #thinkingMarkdown = new MarkdownView(this.#thinkingText);
  #markdown = new MarkdownView(this.#text);
  #countdown = null;

  constructor(message, actions) {
    this.#message = message;
    this.#actions = actions;
    const summary = el('summary', {}, icon('thought'), this.#thinkingLabel, icon('right'));
    this.#thinking = el('details', { class: 'thinking', on: { toggle: () => this.#drawThinking() } }, summary, this.#thinkingText);
    this.node = el('article', { class: 'message assistant', 'data-message': message.id }, this.#heading, this.#thinking, this.#text, this.#waiting, this.#note, this.#footer);
    this.begun = performance.now();
  }

  /** What grows while the answer streams. */
  grow() {
    const { text, thinking, status } = this.#message;
    const streaming = status === 'streaming';
    this.#markdown.update(text, { open: streaming });
    this.#text.hidden = text === '';
    this.#thinking.hidden = thinking === '';
    this.#drawThinking();
    const { thinkingMs } = this.#message.stats ?? {};
    const during = streaming && text === '';
    this.#thinkingLabel.textContent = during ? 'Thinking…' : thinkingMs >= 1000 ? `Thought for ${seconds(thinkingMs)}` : 'Thought for a moment';
    this.#waiting.hidden = !streaming || text !== '' || thinking !== '';
  }

  /** Says how long the first word has been waited for. */
  tick() {
    const waited = Math.floor((performance.now() - this.begun) / 1000);
    this.#waiting.lastChild.textContent = waited >= 2 ? `waiting for the first word, ${waited} s` : '';
  }

  #drawThinking() {
    // What is folded need not be drawn.
    if (this.#thinking.open) this.#thinkingMarkdown.update(this.#message.thinking, { open: this.#message.status === 'streaming' });
  }

  update(state) {
    const { status, model, finish } = this.#message;
    const streaming = status === 'streaming';
    this.#heading.textContent = model ? `Answer of ${model}` : 'Answer';
    this.node.setAttribute('aria-busy', String(streaming));
    this.grow();
    this.#note.textContent = status === 'stopped' ? 'You stopped this answer.' : (ENDS[finish] ?? (status === 'done' && this.#message.text === '' ? 'The answer is empty.' : ''));
    this.#note.hidden = streaming || this.#note.textContent === '';
    this.#showFailure(state);
    this.#footer.hidden = streaming;
    if (!streaming) this.#footer.replaceChildren(...this.#footerParts(state));
  }

  #footerParts(state) {
    const { text, stats } = this.#message;
    const parts = [
      siblingButtons(this.#message, state, this.#actions),
      text === '' ? null : iconButton('copy', 'Copy answer', (event) => this.#actions.copy(event.currentTarget, text)),
      this.#message.error ? null : iconButton('again', 'Answer again', () => this.#actions.regenerate(this.#message), { disabled: state.running }),
      stats && text !== '' ? el('span', { class: 'stats', text: statTexts(stats).join(' · ') }) : null,
    ];
    return parts.filter(Boolean);
  }

  #showFailure(state) {
    clearInterval(this.#countdown);
    this.#failure?.remove();
    this.#failure = null;
    const { error } = this.#message;
    if (!error) return;
    const again = () => (error.kind === 'key' ? this.#actions.enterKey(this.#message) : this.#actions.regenerate(this.#message));
    const button = el('button', { type: 'button', class: 'button retry', on: { click: again } });
    const label = () => {
      const leftS = Math.ceil(((error.retryAt ?? 0) - Date.now()) / 1000);
      button.disabled = state.running || leftS > 0;
      button.textContent = error.kind === 'key' ? 'Enter key' : leftS > 0 ? `Try again in ${leftS} s` : 'Try again';
      if (leftS <= 0) clearInterval(this.#countdown);
    };
    if ((error.retryAt ?? 0) > Date.now()) this.#countdown = setInterval(label, 1000);
    label();
    const words = el('div', { class: 'failure-text' }, el('strong', { text: FAILURES[error.kind] ?? FAILURES.server }), el('p', { text: error.message }));
    if (this.#message.text !== '') words.append(el('p', { class: 'field-note', text: 'What came before is kept.' }));
    if (error.requestId) words.append(el('p', { class: 'field-note', text: `request ${error.requestId}` }));
    this.#failure = el('div', { class: 'failure' }, icon('warning'), words, button);
    this.#footer.before(this.#failure);
  }

  /** Ends what runs by itself. */
  close() {
    clearInterval(this.#countdown);
  }
}
