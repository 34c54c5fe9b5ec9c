// Random markdown for property tests, from a seed.

/** A generator of numbers from 0 to 1 (mulberry32). */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A text of many kinds of blocks, and the words in it that no markup swallows. */
export function randomMarkdown(random) {
  const marks = [];
  const pick = (list) => list[Math.floor(random() * list.length)];
  const word = () => {
    const mark = `WORD${marks.length}`;
    marks.push(mark);
    return mark;
  };
  const span = () => pick([() => word(), () => `**${word()}**`, () => `*${word()} ${word()}*`, () => `\`${word()}\``, () => `~~${word()}~~`, () => `[${word()}](https://x.test/a)`, () => `${word()} * ${word()}`, () => `[${word()}](javascript:x)`, () => `<b>${word()}</b>`, () => `**${word()} *${word()}***`, () => `\\(${word()}\\)`])();
  const line = () => Array.from({ length: 1 + Math.floor(random() * 3) }, span).join(' ');
  const list = (depth) => {
    const marker = pick(['- ', '* ', '1. ', '2) ']);
    const pad = ' '.repeat(marker.length);
    const items = Array.from({ length: 1 + Math.floor(random() * 3) }, () => {
      const inner = depth < 2 && random() < 0.5 ? `\n${block(depth + 1).split('\n').map((text) => (text === '' ? '' : pad + text)).join('\n')}` : '';
      return `${marker}${line()}${inner}`;
    });
    return items.join(random() < 0.3 ? '\n\n' : '\n');
  };
  const block = (depth) =>
    pick([
      () => line(),
      () => `${line()}\n${line()}`,
      () => `${'#'.repeat(1 + Math.floor(random() * 6))} ${line()}`,
      () => `\`\`\`${pick(['', 'js', 'python'])}\n${word()} = "${word()}"\n\n# ${word()}\n\`\`\``,
      () => `> ${line()}\n> ${line()}`,
      () => list(depth),
      () => `| ${word()} | ${word()} |\n|---|:-:|\n| ${span()} | ${span()} |\n| ${span()} | ${span()} |`,
      () => `---`,
      () => `${line()}\n===`,
    ])();
  const text = Array.from({ length: 2 + Math.floor(random() * 6) }, () => block(0)).join(random() < 0.8 ? '\n\n' : '\n');
  return { text, marks };
}
