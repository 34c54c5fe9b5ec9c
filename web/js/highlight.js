// A little colour for code: comments, strings, numbers and the keywords that most languages share. One pass, no grammar;
// what it does not know it leaves alone.

/** Characters beyond which code stays plain. */
const LIMIT_CHARS = 100_000;

const HASH = new Set(['python', 'py', 'bash', 'sh', 'shell', 'zsh', 'yaml', 'yml', 'toml', 'ruby', 'rb', 'r', 'perl', 'dockerfile', 'makefile', 'make', 'elixir', 'nix', 'julia', 'powershell']);
const DASHES = new Set(['sql', 'lua', 'haskell', 'hs', 'ada', 'elm']);
const PLAIN = new Set(['', 'text', 'txt', 'plain', 'plaintext', 'markdown', 'md', 'output', 'console', 'log', 'csv', 'diff', 'html', 'xml', 'svg', 'latex', 'tex']);

const KEYWORDS = new Set(
  `abstract and as assert async await base begin bool boolean break byte case catch chan char class const continue crate def default defer
  delete do done double echo elif else elsif end enum esac except export extends extern false False fi final finally float fn for foreach from
  func function global go goto guard if impl implements import in include instanceof int interface internal is lambda let local long loop match
  mod module move mut mutable namespace native new nil None not null of or override package pass private protected pub public raise readonly ref
  require return select self Self short signed sizeof static string struct super switch template then this throw throws trait true True try type
  typedef typeof undefined union unsafe unsigned use using var virtual void volatile when where while with yield
  SELECT FROM WHERE JOIN LEFT RIGHT INNER OUTER ON GROUP BY ORDER LIMIT INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE INDEX DROP ALTER AND OR NOT NULL AS DISTINCT HAVING UNION`.split(/\s+/),
);

const STRING = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/;
const NUMBER = /\b(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)\w*/;
const WORD = /[A-Za-z_$][\w$]*/;

/**
 * @param {string} code
 * @param {string} language as the fence names it
 * @returns {Array<[string, string]>} pieces of the code in order, each with its class or `''`; joined they are the code
 */
export function highlight(code, language) {
  const name = language.toLowerCase();
  if (PLAIN.has(name) || code.length > LIMIT_CHARS) return [['', code]];
  const comment = HASH.has(name) ? /#.*/ : DASHES.has(name) ? /--.*/ : name === 'json' ? /\/\/(?!.).*/ : /\/\/.*|\/\*[^]*?(?:\*\/|$)/;
  const long = HASH.has(name) ? /"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)/ : /(?!)/;
  const token = new RegExp(`(${comment.source})|(${long.source}|${STRING.source})|(${NUMBER.source})|(${WORD.source})`, 'g');
  const pieces = [];
  const add = (kind, text) => {
    if (text === '') return;
    if (pieces.at(-1)?.[0] === kind) pieces.at(-1)[1] += text;
    else pieces.push([kind, text]);
  };
  let at = 0;
  for (const match of code.matchAll(token)) {
    add('', code.slice(at, match.index));
    at = match.index + match[0].length;
    const word = match[4];
    const call = word !== undefined && code[at] === '(';
    const kind = match[1] !== undefined ? 'comment' : match[2] !== undefined ? 'string' : match[3] !== undefined ? 'number' : KEYWORDS.has(word) ? 'keyword' : call ? 'call' : '';
    add(kind, match[0]);
  }
  add('', code.slice(at));
  return pieces;
}
