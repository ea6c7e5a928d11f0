// What is not run and why, by the rules of ../node/left_out.mjs.

import { firstOf, ofServer } from '../node/left_out.mjs';

const ALWAYS = [
  { of: '@targetURI', why: 'a page has URLs only' },
  { of: '@unixsocket', why: 'a page opens no sockets' },
  { of: '@fractional-v1', why: 'nothing that is released at these versions divides as v1' },
];
const NO_STATES = 'the provider says nothing of a lost connection: it goes on with what it holds and tries again';
const ZERO = 'in the first version of the service this is the zero of its type, which the provider takes for the value';
const MODES = {
  flagd: [
    { of: '@no-default-variant', why: 'the first version of the service does not name flags without a default: @deprecated says what a page sees' },
    { of: '@deprecated', rows: 'jobs@orange.com', why: 'the first version of the service does not name flags without a default, even if a rule serves something' },
    ...['disabled-string-flag', 'disabled-integer-flag', 'disabled-float-flag'].map((rows) => ({ of: '@disabled', rows, why: ZERO })),
    { of: '@non-existent-evaluator-ref', why: ZERO },
    { of: 'Fractional operator with nested var expression as variant name', rows: 'be "fallback"', why: ZERO },
    ...['"error-targeting-flag', '"missing-variant-targeting-flag'].map((rows) => ({ of: 'Errors and edge cases', rows, why: ZERO })),
    { of: '@forbidden', why: 'the provider has no statuses that are fatal' },
    { of: '@reconnect', why: NO_STATES },
    { of: '@grace', why: NO_STATES },
    { of: 'Provider events chain ready -> error -> ready', why: NO_STATES },
    { of: 'Flag change event', why: 'the event of the provider names no flags; page.feature has what it does say' },
  ],
  ofrep: [
    { of: '@deprecated', why: 'the testbed itself replaced it by @no-default-variant' },
    { of: '@reconnect', why: 'the provider says that it is stale and, after a grace period of its own, asks again; it is never in error and never ready again' },
    { of: '@grace', why: 'the provider says that it is stale, and never that it is ready again' },
    { of: '@customCert', why: 'flagd has no certificate on the port of OFREP' },
    { of: 'Provider events chain ready -> error -> ready', why: 'the provider is never in error after it was ready' },
    { of: 'Returns no metadata', why: 'an answer of ours says its revision and its reason in the metadata, on purpose' },
  ],
};

export function leftOut(pickle, mode, { FRACTIONAL, WITHOUT }) {
  return firstOf([...ALWAYS, ...MODES[mode], ...ofServer(FRACTIONAL, WITHOUT)], pickle);
}
