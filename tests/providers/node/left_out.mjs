// What is not run and why. A rule names a scenario or one of its tags, and rows of it by words of theirs; the rest of the mode runs.

const ALWAYS = [
  { of: '@targetURI', why: 'the provider has no target URI' },
  { of: '@providerId', why: 'the provider sends no id of its own' },
  { of: '@deprecated', why: 'the testbed itself replaced it by @no-default-variant' },
  { of: '@fractional-v1', why: 'nothing that is released at these versions divides as v1' },
];
const NO_VALUE = 'the provider takes an answer without a value for an error: the default of the code is served, with reason ERROR';
const MODES = {
  rpc: [{ of: 'Stale and Error stage', why: 'the provider empties its cache as soon as the stream breaks: the default of the code is served, not what was kept' }],
  'in-process': [{ of: '@fractional-v3', why: 'the evaluator within the provider divides as v2' }],
  ofrep: [
    { of: '@no-default-variant', why: NO_VALUE },
    { of: '@disabled', rows: 'disabled-', why: NO_VALUE },
    { of: '@disabled', rows: 'cross-flagset-flag', why: `the provider has no selector, and ${NO_VALUE}` },
    { of: '@grace', why: 'the provider has no connection that it could lose' },
    { of: '@caching', why: 'the provider has no cache and no events' },
  ],
};
const SERVER = {
  2: [{ of: '@fractional-v3', why: 'this server divides as v2' }],
  3: [{ of: '@fractional-v2', why: 'this server divides as v3' }],
};

// What the caller says that the server has not.
const WITHOUT = {
  tls: [{ of: '@customCert', rows: 'a ssl flagd provider', why: 'this server has no TLS, says so and ends' }],
};

/** By how the server divides, and `without` what it is, separated by blanks. */
export function ofServer(fractional, without) {
  return [...SERVER[fractional], ...without.split(' ').flatMap((what) => (what ? WITHOUT[what] : []))];
}

export function firstOf(rules, pickle) {
  const names = [pickle.name, ...pickle.tags.map((tag) => tag.name)];
  const steps = pickle.steps.map((step) => step.text).join('\n');
  return rules.find(({ of, rows }) => names.includes(of) && (rows === undefined || steps.includes(rows)));
}

export function leftOut(pickle, mode, { FRACTIONAL, WITHOUT: without }) {
  // In process the server divides nothing.
  const server = ofServer(FRACTIONAL, without).filter(({ of }) => mode !== 'in-process' || !of.startsWith('@fractional'));
  return firstOf([...ALWAYS, ...MODES[mode], ...server], pickle);
}
