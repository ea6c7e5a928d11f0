// The released providers for browsers, over the `fetch` of Node: flagd's (Connect as JSON) and OFREP's (with SSE). MODE is flagd or ofrep.

import assert from 'node:assert/strict';
import { Given, Then, When, World, setWorldConstructor } from '@cucumber/cucumber';
import { FlagdWebProvider } from '@openfeature/flagd-web-provider';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents, ProviderStatus } from '@openfeature/web-sdk';
import { EventSource } from 'eventsource';
import { Heard } from '../node/heard.mjs';
import { deafPort } from '../node/launchpad.mjs';
import { CONFIGS, EVENT_MS, launchpad, suite } from '../node/scenario.mjs';
import { leftOut } from './left_out.mjs';

const { MODE } = process.env;
const POLL_MS = 50;

// Every browser has one; Node of these versions does not.
globalThis.EventSource = EventSource;

// A page logs a promise that nobody waits for and goes on, where Node ends. The provider has such a one when its server goes away while it asks.
process.on('unhandledRejection', (reason) => console.error('nobody waits for', reason));

/** An application in a browser: its context is one for all flags, and only another context makes the provider ask again. */
class Page extends World {
  #told = {};

  async evaluate(ask, key, fallback) {
    const context = { ...this.context };
    try {
      assert.deepEqual(context, this.#told);
    } catch {
      await OpenFeature.setContext(context);
      this.#told = context;
    }
    return this.client[ask](key, fallback);
  }
}

setWorldConstructor(Page);

suite({
  leftOut: (pickle) => leftOut(pickle, MODE, process.env),
  events: { ready: ProviderEvents.Ready, error: ProviderEvents.Error, stale: ProviderEvents.Stale, change: ProviderEvents.ConfigurationChanged },
  end: async () => {
    await OpenFeature.clearProviders();
    await OpenFeature.clearContext();
  },
});

function flagd(kind, { selector }, port, calls) {
  const select = (next) => async (request) => {
    if (selector) request.header.set('flagd-selector', selector);
    const answer = await next(request);
    calls.add(request.method.name);
    return answer;
  };
  // By default it tries again for ever, and it does so after it was closed too: only where a scenario wants that it does.
  const maxRetries = kind === 'lasting' ? 0 : -1;
  return new FlagdWebProvider({ host: 'localhost', port, tls: kind === 'ssl', maxRetries, maxDelay: 500, interceptors: [select] });
}

function ofrep(kind, { selector }, port, calls) {
  const fetchImplementation = async (request) => {
    const answer = await fetch(request);
    calls.add(String(answer.status));
    return answer;
  };
  return new OFREPWebProvider({
    baseUrl: `${kind === 'ssl' ? 'https' : 'http'}://localhost:${port}`,
    headers: selector ? [['flagd-selector', selector]] : [],
    cacheMode: 'disabled',
    fetchImplementation,
    ...(kind === 'polling' ? { changeDetection: 'polling', pollInterval: POLL_MS } : {}),
  });
}

Given(/^an? (\w+) flagd provider$/, async function (kind) {
  const { ports } = launchpad;
  const served = !['unavailable', 'forbidden'].includes(kind);
  if (served) {
    assert.ok(kind in CONFIGS || kind === 'polling' || kind === 'lasting', `there is no provider that is ${kind}`);
    await launchpad.serve(CONFIGS[kind] ?? 'default');
  }
  let port = MODE === 'ofrep' ? ports.ofrep : ports.rpc;
  if (kind === 'unavailable') port = await deafPort();
  if (kind === 'forbidden') port = ports.forbidden;
  this.calls = new Heard();
  const provider = (MODE === 'ofrep' ? ofrep : flagd)(kind, this.options, port, this.calls);
  if (served) await OpenFeature.setProviderAndWait(provider);
  else OpenFeature.setProvider(provider);
  this.client = OpenFeature.getClient();
});

Then('the client should be in {word} state', function (state) {
  assert.equal(this.client.providerStatus, ProviderStatus[state.toUpperCase()]);
});

When('the provider has asked for all flags again', async function () {
  await this.calls.next(MODE === 'ofrep' ? '200' : 'ResolveAll', EVENT_MS);
});

When('the provider is told that nothing changed', async function () {
  await this.calls.next('304', EVENT_MS);
});

// A stream may begin with a change that names every flag, and that one can come late.
Then('after a change event the flag should have another value', async function () {
  const before = this.details;
  assert.equal(before.errorCode, undefined, JSON.stringify(before));
  do {
    this.event = await this.heard.next('change', EVENT_MS);
    this.details = await this.evaluate('getStringDetails', this.flag.key, this.flag.fallback);
  } while (this.details.value === before.value);
  assert.equal(this.details.errorCode, undefined, JSON.stringify(this.details));
});
