// What is not run and why. A scenario is left out by one of its tags or by its name; everything else of the mode runs.

const ALWAYS = [
  ['@targetURI', 'the provider has no target URI'],
  ['@providerId', 'the provider sends no id of its own'],
  ['@deprecated', 'the testbed itself replaced it by @no-default-variant'],
  ['@fractional-v1', 'nothing that is released at these versions divides as v1'],
];
const MODES = {
  rpc: [
    ['Stale and Error stage', 'the provider empties its cache as soon as the stream breaks, and serves the default of the code while it is stale'],
  ],
  'in-process': [['@fractional-v3', 'the evaluator within the provider divides as v2']],
  ofrep: [
    ['@no-default-variant', 'the provider takes an answer without a value for an error, and serves the default of the code with that reason'],
    ['@disabled', 'the provider takes an answer without a value for an error, and serves the default of the code with that reason'],
    ['@grace', 'the provider has no connection that it could lose'],
    ['@caching', 'the provider has no cache and no events'],
  ],
};
const SERVER = {
  2: [['@fractional-v3', 'this server divides as v2']],
  3: [['@fractional-v2', 'this server divides as v3']],
};

export function leftOut(pickle, mode, fractional) {
  const names = [pickle.name, ...pickle.tags.map((tag) => tag.name)];
  const server = mode === 'in-process' ? [] : SERVER[fractional];
  return [...ALWAYS, ...MODES[mode], ...server].find(([name]) => names.includes(name));
}
