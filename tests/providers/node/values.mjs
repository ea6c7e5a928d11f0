// The words of the scenarios as values: each cell of the testbed is text, with its type beside it.

const READERS = {
  Boolean: (text) => ({ true: true, false: false })[text.toLowerCase()],
  Integer: Number,
  Long: Number,
  Float: Number,
  // As it stands: `\u0000` in a cell is six characters, and the expected bucket is that of six characters.
  String: (text) => text,
  Object: JSON.parse,
  ResolverType: (text) => text.toLowerCase(),
  CacheType: (text) => text,
  StringList: (text) => text.split(',').map((item) => item.trim()).filter((item) => item !== ''),
};

export function reading(type, text) {
  const reader = READERS[type];
  if (!reader) throw new Error(`the type ${type} is not one of ${Object.keys(READERS).join(', ')}`);
  const value = reader(text);
  if (value === undefined || Number.isNaN(value)) throw new Error(`"${text}" is no ${type}`);
  return value;
}
