// The steps that are the same for every provider of JavaScript: a flag, a context, what came of it, events. A suite brings the provider:
// its `Given a … flagd provider` sets `client`, and its world has `evaluate` and `begin`.

import assert from 'node:assert/strict';
import { After, AfterAll, Before, BeforeAll, Given, Then, When, setDefaultTimeout } from '@cucumber/cucumber';
import { Heard } from './heard.mjs';
import { Launchpad } from './launchpad.mjs';
import { reading } from './values.mjs';

const { SUITE, LAUNCHPAD, BINARY, TESTBED } = process.env;
// Reached only when a scenario fails.
export const EVENT_MS = 20_000;
const ASK = { Boolean: 'getBooleanDetails', String: 'getStringDetails', Integer: 'getNumberDetails', Float: 'getNumberDetails', Object: 'getObjectDetails' };

setDefaultTimeout(60_000);

export let launchpad;

/** `leftOut` gives of a scenario by which name and why it is not run, `end` lets go of the providers. */
export function suite({ leftOut, events, end }) {
  let environment;

  BeforeAll(async () => {
    environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('FLAGD_')));
    launchpad = await Launchpad.begin(LAUNCHPAD, BINARY, TESTBED, `${SUITE}.launchpad.log`);
  });

  AfterAll(() => launchpad?.end());

  Before(function ({ pickle }) {
    const rule = leftOut(pickle);
    if (rule) {
      this.log(`${rule.of}${rule.rows ? ` (${rule.rows})` : ''}: ${rule.why}`);
      return 'skipped';
    }
    process.env = { ...environment };
    Object.assign(this, { options: {}, context: {}, heard: new Heard() });
  });

  After(async () => {
    process.env = { ...environment };
    await end();
  });

  Given(/^an? (ready|error|stale|change) event handler$/, function (type) {
    this.client.addHandler(events[type], (details) => this.heard.add(type, details));
  });
}

/** Which of a testbed's servers a provider wants. */
export const CONFIGS = { stable: 'default', socket: 'socket', ssl: 'ssl', metadata: 'metadata', syncpayload: 'sync-payload' };

Given(/^an option "(.*)" of type "(.*)" with value "(.*)"$/, function (name, type, text) {
  this.options[name] = reading(type, text);
});

Given(/^an? (\w+)-flag with key "(.*)" and a default value "(.*)"$/, function (type, key, text) {
  this.flag = { type, key, fallback: reading(type, text) };
});

Given(/^a context containing a key "(.*)", with type "(.*)" and with value "(.*)"$/, function (key, type, text) {
  this.context[key] = reading(type, text);
});

Given(/^a context containing a nested property with outer key "(.*)" and inner key "(.*)", with value "(.*)"$/, function (outer, inner, text) {
  this.context[outer] = { ...this.context[outer], [inner]: text };
});

Given(/^a context containing a targeting key with value "(.*)"$/, function (key) {
  this.context.targetingKey = key;
});

When('the flag was evaluated with details', async function () {
  const { type, key, fallback } = this.flag;
  this.details = await this.evaluate(ASK[type], key, fallback);
});

When('the connection is lost for {int}s', async function (seconds) {
  this.heard.forget();
  await launchpad.lose(seconds);
  this.calls?.forget();
});

When('the flag was modified', async function () {
  this.heard.forget();
  await launchpad.change();
});

When(/^an? (ready|error|stale|change) event was fired$/, async function (type) {
  this.event = await this.heard.next(type, EVENT_MS);
});

Then(/^the (ready|error|stale|change) event handler should have been executed$/, async function (type) {
  this.event = await this.heard.next(type, EVENT_MS);
});

Then(/^the (ready|error|stale|change) event handler should have been executed within (\d+)ms$/, async function (type, ms) {
  this.event = await this.heard.next(type, Number(ms));
});

Then(/^the (ready|error|stale|change) event handler should not have been executed$/, function (type) {
  assert.ok(!this.heard.ever(type), `${type} was heard`);
});

Then('the flag should be part of the event payload', function () {
  assert.ok(this.event.flagsChanged?.includes(this.flag.key), `${this.flag.key} is not among ${this.event.flagsChanged}`);
});

Then(/^the resolved details value should be "(.*)"$/, function (text) {
  assert.deepEqual(this.details.value, reading(this.flag.type, text), JSON.stringify(this.details));
});

Then('the reason should be {string}', function (reason) {
  assert.equal(this.details.reason, reason, JSON.stringify(this.details));
});

Then('the variant should be {string}', function (variant) {
  assert.equal(this.details.variant, variant, JSON.stringify(this.details));
});

Then('the error-code should be {string}', function (code) {
  assert.equal(this.details.errorCode ?? '', code, JSON.stringify(this.details));
});

Then('the resolved metadata should contain', function (table) {
  for (const { key, metadata_type: type, value } of table.hashes()) {
    assert.equal(this.details.flagMetadata[key], reading(type, value), `${key} of ${JSON.stringify(this.details.flagMetadata)}`);
  }
});

Then('the resolved metadata is empty', function () {
  assert.deepEqual(this.details.flagMetadata, {});
});
