// One answer while it streams: chunks go into a message, with the times and counts that are shown under it.

/**
 * Sends `body` and fills `message` until the answer is complete. `onChange` is called after each chunk that changed it.
 * Throws what {@link Api.chat} throws; what came before stays in the message.
 *
 * Time is measured here, so tokens per second are those that reached the page; counts are the server's `usage`.
 */
export async function streamAnswer({ api, body, message, signal, onChange, now = () => performance.now() }) {
  const clock = new Clock(now);
  let usage = null;
  try {
    for await (const chunk of api.chat(body, signal)) {
      if (chunk.usage) usage = chunk.usage;
      if (typeof chunk.model === 'string') message.model = chunk.model;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      // The two names hold the same text where a server sends both.
      const thinking = choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? '';
      const text = choice.delta?.content ?? choice.delta?.refusal ?? '';
      if (choice.finish_reason) message.finish = String(choice.finish_reason);
      if (thinking === '' && text === '') continue;
      clock.tick(text !== '');
      message.thinking += thinking;
      message.text += text;
      message.stats = clock.stats(null);
      onChange();
    }
  } finally {
    message.stats = clock.stats(usage);
  }
}

class Clock {
  #now;
  #begin;
  #first = null;
  #firstText = null;
  #last = null;

  constructor(now) {
    this.#now = now;
    this.#begin = now();
  }

  tick(isText) {
    this.#last = this.#now();
    this.#first ??= this.#last;
    if (isText) this.#firstText ??= this.#last;
  }

  stats(usage) {
    const since = (end) => (end === null ? null : end - this.#begin);
    const answerTokens = count(usage?.completion_tokens);
    // The first token ends the wait for the prompt; the rate is that of the tokens after it. An answer that came all at
    // once, as out of a buffer on the way, has none.
    const streamMs = this.#last === null ? 0 : this.#last - this.#first;
    return {
      promptTokens: count(usage?.prompt_tokens),
      answerTokens,
      thinkingTokens: count(usage?.completion_tokens_details?.reasoning_tokens),
      firstMs: since(this.#first),
      thinkingMs: this.#first === null ? null : (this.#firstText ?? this.#last) - this.#first,
      totalMs: since(this.#now()),
      tokensPerS: answerTokens > 1 && streamMs >= MEASURED_MS ? ((answerTokens - 1) * 1000) / streamMs : null,
    };
  }
}

/** Shorter streams give no rate. */
const MEASURED_MS = 100;

const count = (value) => (Number.isFinite(value) && value >= 0 ? value : null);

/** The counts and times of an answer as short texts. */
export function statTexts(stats) {
  const texts = [];
  if (stats.answerTokens !== null) texts.push(`${number(stats.answerTokens)} ${stats.answerTokens === 1 ? 'token' : 'tokens'}`);
  if (stats.thinkingTokens) texts.push(`${number(stats.thinkingTokens)} of them thinking`);
  if (stats.tokensPerS !== null) texts.push(`${stats.tokensPerS < 100 ? stats.tokensPerS.toFixed(1) : number(Math.round(stats.tokensPerS))} tokens/s`);
  if (stats.firstMs !== null) texts.push(`first after ${seconds(stats.firstMs)}`);
  if (stats.promptTokens !== null) texts.push(`prompt ${number(stats.promptTokens)}`);
  return texts;
}

const number = (value) => value.toLocaleString('en');

/** `4200` → `4.2 s`, `75000` → `1 min 15 s`. */
export function seconds(ms) {
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(s < 1 ? 2 : 1) : Math.round(s)} s`;
  return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
}
