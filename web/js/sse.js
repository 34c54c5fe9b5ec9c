// Server-sent events: text in pieces of any size to whole events.

/** Characters of one event that we hold at most; a server that sends more is broken or hostile. */
export const EVENT_LIMIT_CHARS = 16 * 1024 * 1024;

/** Takes the text of an event stream in whatever pieces it arrives and gives back the `data` of each whole event. */
export class SseParser {
  #line = '';
  #data = [];
  #dataChars = 0;
  #afterReturn = false;

  /**
   * @param {string} piece what arrived
   * @returns {string[]} the data of every event that this piece completes
   */
  push(piece) {
    const events = [];
    let begin = 0;
    // A line may end in \n, \r or \r\n, and a piece may end between the two.
    if (this.#afterReturn && piece.startsWith('\n')) begin = 1;
    if (piece.length > 0) this.#afterReturn = false;
    for (let at = begin; at < piece.length; at += 1) {
      const code = piece.charCodeAt(at);
      if (code !== 10 && code !== 13) continue;
      this.#endLine(this.#line + piece.slice(begin, at), events);
      this.#line = '';
      if (code === 13) {
        if (at + 1 === piece.length) this.#afterReturn = true;
        else if (piece.charCodeAt(at + 1) === 10) at += 1;
      }
      begin = at + 1;
    }
    this.#line += piece.slice(begin);
    if (this.#line.length + this.#dataChars > EVENT_LIMIT_CHARS) throw new RangeError('an event of the stream is longer than 16 MiB');
    return events;
  }

  #endLine(line, events) {
    if (line === '') {
      if (this.#data.length > 0) events.push(this.#data.join('\n'));
      this.#data = [];
      this.#dataChars = 0;
      return;
    }
    // A line that begins with a colon is a comment: servers send them to keep a connection alive.
    if (!line.startsWith('data')) return;
    if (line.length > 4 && line[4] !== ':') return;
    const value = line.slice(5);
    this.#data.push(value.startsWith(' ') ? value.slice(1) : value);
    this.#dataChars += value.length;
  }
}
