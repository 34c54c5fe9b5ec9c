// Runs of `*`, `_` and `~~` to nested spans: CommonMark's rules for which run closes which.

/** Spans inside each other; what is deeper loses its mark but not its text. */
const NEST_LIMIT = 24;

/**
 * Pairs the runs among `nodes` (those with a `mark`): fills in `opens` and `closes` and lowers `count` by what was used.
 *
 * Returns the runs that could still open something. Time grows with the number of runs: what a search has passed without
 * success is not searched again for the same kind of closer.
 */
export function matchEmphasis(nodes) {
  const stack = [];
  const bottoms = new Map();
  for (const closer of nodes) {
    if (closer.mark === undefined) continue;
    while (closer.canClose && closer.count > 0) {
      const kind = `${closer.mark}${closer.canOpen}${closer.length % 3}`;
      let at = stack.length - 1;
      const bottom = Math.min(bottoms.get(kind) ?? 0, stack.length);
      while (at >= bottom && !pairs(stack[at], closer)) at -= 1;
      if (at < bottom) {
        bottoms.set(kind, stack.length);
        break;
      }
      const opener = stack[at];
      const size = Math.min(opener.count, closer.count) >= 2 ? 2 : 1;
      const type = closer.mark === '~' ? 'del' : size === 2 ? 'strong' : 'em';
      opener.opens.push(type);
      closer.closes.push(type);
      opener.count -= size;
      closer.count -= size;
      stack.length = opener.count > 0 ? at + 1 : at;
      for (const [key, value] of bottoms) bottoms.set(key, Math.min(value, stack.length));
    }
    if (closer.canOpen && closer.count > 0) stack.push(closer);
  }
  return stack;
}

function pairs(opener, closer) {
  if (opener.mark !== closer.mark) return false;
  const both = opener.canClose || closer.canOpen;
  return !(both && (opener.length + closer.length) % 3 === 0 && (opener.length % 3 !== 0 || closer.length % 3 !== 0));
}

/** The nodes as a tree, neighbouring texts joined. */
export function spanTree(nodes) {
  const root = [];
  const levels = [root];
  let tooDeep = 0;
  const addText = (text) => {
    const level = levels.at(-1);
    if (level.at(-1)?.type === 'text') level.at(-1).text += text;
    else level.push({ type: 'text', text });
  };
  for (const node of nodes) {
    if (node.mark === undefined) {
      if (node.type === 'text') addText(node.text);
      else levels.at(-1).push(node);
      continue;
    }
    for (let n = node.closes.length; n > 0; n -= 1) {
      if (tooDeep > 0) tooDeep -= 1;
      else levels.pop();
    }
    if (node.count > 0) addText(node.mark.repeat(node.count));
    // The pair that was made last is the outermost one.
    for (const type of [...node.opens].reverse()) {
      if (levels.length > NEST_LIMIT) {
        tooDeep += 1;
        continue;
      }
      const span = { type, children: [] };
      levels.at(-1).push(span);
      levels.push(span.children);
    }
  }
  return root;
}
