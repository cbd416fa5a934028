// Writes data/hf_cases.json: ids and texts that Hugging Face tokenizers gives for variants of the
// golden fixtures' tokenizer.json.
//
// usage: npm install tokenizers@0.23.2; node make_hf_cases.js GOLDEN_DIR
const fs = require('fs');
const path = require('path');
const { Tokenizer } = require('tokenizers');

const golden = process.argv[2];
const LLAMA = 'mllama/tiny/tokenizer.json';
const GEMMA = 'gemma3/tiny/tokenizer.json';

const byteLevel = (useRegex, prefix) =>
    ({ type: 'ByteLevel', add_prefix_space: prefix, trim_offsets: true, use_regex: useRegex });
const split = (Regex, behavior = 'Isolated', invert = false) =>
    ({ type: 'Split', pattern: { Regex }, behavior, invert });
const sequence = (...pretokenizers) => ({ type: 'Sequence', pretokenizers });
const bytes = byteLevel(false, false);
const llama3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" +
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const tekken = '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*' +
    '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+' +
    '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|' +
    '\\s+(?!\\S)|\\s+';
const deepseek3 = '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|' +
    '[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|' +
    '\\s+(?!\\S)|\\s+';
const token = (id, content, flags) => ({
  id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true,
  ...flags });
const metaspace = (prepend_scheme, split) =>
    ({ type: 'Metaspace', replacement: '\u2581', prepend_scheme, split });
const legacyNormalizer = { type: 'Sequence', normalizers: [
  { type: 'Prepend', prepend: '\u2581' },
  { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' } ] };
const legacyDecoder = { type: 'Sequence', decoders: [
  { type: 'Replace', pattern: { String: '\u2581' }, content: ' ' }, { type: 'ByteFallback' },
  { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 } ] };
const flagged = [
  token(488, '<a>', { lstrip: true }), token(489, '<b>', { rstrip: true }),
  token(490, '<c>', { lstrip: true, rstrip: true }), token(491, 'the', { single_word: true }),
  token(492, '<d>', { normalized: true }), token(493, 'ab', { special: false }),
  token(494, 'abc', { special: false }), token(495, 'bcd', { special: false }),
  token(496, '\n\n', { special: false, normalized: true }) ];

const pre = (name, pre_tokenizer) => ({ name, base: LLAMA, patch: { pre_tokenizer } });
const variants = [
  pre('gpt2', byteLevel(true, false)),
  pre('gpt2 with prefix space', byteLevel(true, true)),
  pre('starcoder', sequence({ type: 'Digits', individual_digits: true }, byteLevel(true, false))),
  pre('digits together', sequence({ type: 'Digits', individual_digits: false }, bytes)),
  pre('falcon', sequence({ type: 'Punctuation', behavior: 'Contiguous' }, byteLevel(true, false),
      { type: 'Digits', individual_digits: false }, split('[0-9][0-9][0-9]'))),
  pre('whitespace', sequence({ type: 'Whitespace' }, bytes)),
  pre('whitespace split', sequence({ type: 'WhitespaceSplit' }, bytes)),
  pre('tekken', sequence(split(tekken), bytes)),
  pre('deepseek-v3', sequence(split('\\p{N}{1,3}'), split('[一-龥\u3040-ゟ゠-ヿ]+'),
      split(deepseek3), bytes)),
  pre('removed, inverted', sequence(split(llama3, 'Removed', true), bytes)),
  pre('merged with next', sequence(split(' ', 'MergedWithNext'), bytes)),
  pre('merged with previous', sequence(split('\\s', 'MergedWithPrevious'), bytes)),
  pre('contiguous', sequence(split('[aeiou]', 'Contiguous'), bytes)),
  pre('inverted', sequence(split('[a-z]+', 'MergedWithPrevious', true), bytes)),
  pre('empty matches', sequence(split('\\p{N}+'), split('(?=(\\d{3})+(?!\\d))'), bytes)),
  pre('look behind', sequence(split('(?<=[a-z])(?=[A-Z])|(?<!\\s)\\s'), bytes)),
  pre('anchors and words', sequence(split('^\\s*|\\s+$|\\bthe\\b|\\w+'), bytes)),
  pre('none', null),
  ...['NFD', 'NFKC', 'NFKD'].map(
      type => ({ name: type, base: LLAMA, patch: { normalizer: { type } } })),
  { name: 'replace by expression', base: LLAMA, patch: { normalizer: { type: 'Sequence',
    normalizers: [{ type: 'NFC' }, { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' },
                  { type: 'Prepend', prepend: '_' }] } } },
  { name: 'flags of added tokens', base: LLAMA, patch: {}, added: flagged },
  { name: 'flags of added tokens, NFKC', base: LLAMA,
    patch: { normalizer: { type: 'NFKC' } }, added: flagged },
  { name: 'llama 2, legacy', base: GEMMA, patch: { normalizer: legacyNormalizer,
    pre_tokenizer: null, decoder: legacyDecoder } },
  ...['first', 'always', 'never'].flatMap(scheme => [true, false].map(cut => ({
    name: `metaspace ${scheme} ${cut}`, base: GEMMA, patch: { normalizer: null,
      pre_tokenizer: metaspace(scheme, cut), decoder: cut ? legacyDecoder : metaspace(scheme, cut) },
  }))),
  { name: 'no byte fallback, fused', base: GEMMA, patch: {}, model: { byte_fallback: false } },
  { name: 'no byte fallback', base: GEMMA, patch: {},
    model: { byte_fallback: false, fuse_unk: false } },
];

const texts = [
  "Hello the World, don't  stop: the 'RE 1234567.89 camelCase",
  '  leading\n\n\n trailing \t \r\n x  ',
  'e\u0301 \u212b ﬁ ½² Ⅷ ٣٤ naïve Straße\u180e\u3000。、中文字かなカナ 한국어 हिन्दी ไทย',
  '👨‍👩‍👧🏽 ❤️ \u200b\ufeff\u0000\u0001 a_b\u203fc',
  'xx<a>  yy  <b>  zz  <c>  \n\n the<a>the there <d> abcd abab',
  '<|begin_of_text|> <bos>hi<|eot_id|>\n\n<end_of_turn>\n<unk> ▁▁ Ġ <0x0A>',
  ' ', '\n', '\u2581', 'the', "'ſ 's 'S",
];

(async () => {
  const cases = [];
  for (const { name, base, patch, model = {}, added = [] } of variants) {
    const json = JSON.parse(fs.readFileSync(path.join(golden, base), 'utf8'));
    Object.assign(json, patch);
    Object.assign(json.model, model);
    json.added_tokens.push(...added);
    const tokenizer = Tokenizer.fromString(JSON.stringify(json));
    const results = [];
    for (const text of texts) {
      const encoding = await tokenizer.encode(text, null, { addSpecialTokens: false });
      const ids = encoding.getIds();
      results.push({ text, ids, decoded: await tokenizer.decode(ids, true) });
    }
    cases.push({ name, base, patch, model, added, results });
  }
  const lines = cases.map(c => JSON.stringify(c));
  fs.writeFileSync(path.join(__dirname, 'data', 'hf_cases.json'), `[\n${lines.join(',\n')}\n]\n`);
})();
