// The released providers for Node: flagd's in both modes and OFREP's. MODE is rpc, in-process or ofrep.

import assert from 'node:assert/strict';
import { Given, Then, When, World, setWorldConstructor } from '@cucumber/cucumber';
import { FlagdProvider } from '@openfeature/flagd-provider';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature, ProviderEvents, ProviderStatus } from '@openfeature/server-sdk';
import { deafPort } from './launchpad.mjs';
import { leftOut } from './left_out.mjs';
import { configuration, optionName } from './options.mjs';
import { CONFIGS, launchpad, suite } from './scenario.mjs';
import { reading } from './values.mjs';

const { MODE } = process.env;
const IN_PROCESS = MODE === 'in-process';
// The grace period is part of what the scenarios expect. A loss of one second must end within it, so the provider tries again after 1.5 s:
// a try after one second meets a server that is just starting, and gRPC waits another second then.
const OPTIONS = { resolverType: MODE, host: 'localhost', deadlineMs: 15_000, retryGracePeriod: 2, retryBackoffMs: 100, retryBackoffMaxMs: 1_500 };

class Node extends World {
  evaluate(ask, key, fallback) {
    return this.client[ask](key, fallback, this.context);
  }
}

setWorldConstructor(Node);

suite({
  leftOut: (pickle) => leftOut(pickle, MODE, process.env),
  events: { ready: ProviderEvents.Ready, error: ProviderEvents.Error, stale: ProviderEvents.Stale, change: ProviderEvents.ConfigurationChanged },
  end: () => OpenFeature.clearProviders(),
});

Given(/^an? (\w+) flagd provider$/, async function (kind) {
  const { ports } = launchpad;
  const options = { ...OPTIONS, port: IN_PROCESS ? ports.sync : ports.rpc, ...this.options };
  if (kind === 'ssl') Object.assign(options, { tls: true, certPath: ports.authority });
  if (kind === 'socket') options.socketPath = IN_PROCESS ? ports.sync_socket : ports.evaluation_socket;
  if (kind === 'unavailable') options.port = await deafPort();
  if (kind === 'forbidden') options.port = ports.forbidden;

  const served = !['unavailable', 'forbidden'].includes(kind);
  if (served) {
    assert.ok(kind in CONFIGS, `there is no provider that is ${kind}`);
    await launchpad.serve(CONFIGS[kind]);
  }
  const provider = MODE === 'ofrep' ? new OFREPProvider({ baseUrl: `http://localhost:${ports.ofrep}` }) : new FlagdProvider(options);
  if (served) await OpenFeature.setProviderAndWait(provider);
  else OpenFeature.setProvider(provider);
  this.client = OpenFeature.getClient();
});

Then('the client should be in {word} state', function (state) {
  assert.equal(this.client.providerStatus, ProviderStatus[state.toUpperCase()]);
});

Given('an environment variable {string} with value {string}', (name, value) => {
  process.env[name] = value;
});

When('a config was initialized', async function () {
  const options = Object.entries(this.options).map(([name, value]) => [optionName(name), value]);
  this.config = await configuration(Object.fromEntries(options));
});

Then('the option {string} of type {string} should have the value {string}', function (name, type, text) {
  const found = this.config[optionName(name)];
  if (text === 'null') assert.ok(found === undefined || found === '', `${name} should not be set and is ${found}`);
  // A list that is not set is an empty one.
  else if (type === 'StringList') assert.deepEqual(found ?? [], reading(type, text));
  else assert.deepEqual(found, reading(type, text));
});
