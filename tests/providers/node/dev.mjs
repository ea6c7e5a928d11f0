// A `yardarm dev` on free ports over a directory of its own, and the kills that every provider must see.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';
import { Heard } from './heard.mjs';

// Reached only when a test fails.
const DEADLINE_MS = 30_000;
const KEPT = 'kept-flag';
const ARMED = 'armed-flag';
const FLAGS = {
  // Providers may keep the answer: nothing says that it is meant to be killed.
  [KEPT]: { variants: { new: 'two', old: 'one' }, defaultVariant: 'new', offVariant: 'old' },
  [ARMED]: { variants: { new: 'two', old: 'one', safe: 'none' }, defaultVariant: 'new', offVariant: 'old', killVariant: 'safe' },
};

function environment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(YARDARM_|FLAGD_|CLICOLOR|NO_COLOR)/.test(name)));
}

export class Dev {
  static async begin(binary, directory, flags) {
    const dev = Object.assign(new Dev(), { binary });
    const file = path.join(directory, 'flags.json');
    await writeFile(file, JSON.stringify({ flags }));
    const options = ['--output', 'json', '--port-base', '0', '--data', path.join(directory, 'data'), '--flags', file];
    dev.process = spawn(binary, ['dev', ...options], { stdio: ['ignore', 'pipe', 'inherit'], env: environment() });
    const line = await Promise.race([
      once(readline.createInterface({ input: dev.process.stdout }), 'line').then(([text]) => text),
      once(dev.process, 'exit').then(([code]) => { throw new Error(`dev ended with ${code} before it was ready`); }),
    ]);
    const { control, sidecars } = JSON.parse(line);
    const [{ tcp, ofrep, sync }] = sidecars;
    return Object.assign(dev, { control: `http://${control.grpc}`, sidecar: tcp, ofrep, sync });
  }

  async run(...command) {
    const more = ['--output', 'json', '--control-plane', this.control];
    await promisify(execFile)(this.binary, [...command, ...more], { timeout: DEADLINE_MS, env: environment() });
  }

  async end() {
    if (this.process.exitCode !== null) return;
    this.process.kill('SIGTERM');
    await once(this.process, 'exit');
  }
}

/**
 * Plays the kills through what `connect` makes of a `dev` and of who hears of changes: `ask` for the details of a string flag, `cached` for the
 * reason of an answer that is asked for again, `names` if its events name the flags, `told` if a new stream begins with such an event. Who
 * decides in its own process has reasons of its own, and is asked for none.
 */
export async function kills(suite, binary, connect) {
  const counted = { passed: 0, failed: 0 };
  const directory = await mkdtemp(path.join(tmpdir(), 'yardarm-'));
  const dev = await Dev.begin(binary, directory, FLAGS);
  let application;
  try {
    const heard = new Heard();
    application = await connect(dev, (details) => heard.add('change', details));

    const changed = async (flag) => {
      for (;;) {
        const details = await heard.next('change', DEADLINE_MS);
        if (!application.names || details.flagsChanged?.includes(flag)) return;
      }
    };
    const decides = async (flag, value, variant, reason) => {
      const details = await application.ask(flag);
      assert.deepEqual([details.value, details.variant], [value, variant], JSON.stringify(details));
      if (application.cached) assert.equal(details.reason, reason, JSON.stringify(details));
    };
    const scenario = async (name, play) => {
      try {
        await play();
        counted.passed += 1;
      } catch (error) {
        counted.failed += 1;
        console.log(`${suite}: FAILED ${name}: ${error.stack}`);
      }
    };
    const killed = async (flag, value, variant) => {
      heard.forget();
      await dev.run('kill', flag, '--reason', 'provider suite', '--wait', '10s');
      await changed(flag);
      for (let time = 0; time < 2; time += 1) await decides(flag, value, variant, 'TARGETING_MATCH');
      heard.forget();
      await dev.run('restore', flag, '--reason', 'provider suite', '--wait', '10s');
      await changed(flag);
    };

    // What a provider kept from an earlier stream may be old, so a stream begins with the name of every flag.
    if (application.told) await changed(KEPT);
    await scenario('a flag that the provider has kept is killed and restored', async () => {
      await decides(KEPT, 'two', 'new', 'STATIC');
      await decides(KEPT, 'two', 'new', application.cached);
      await killed(KEPT, 'one', 'old');
      await decides(KEPT, 'two', 'new', 'STATIC');
    });
    await scenario('a flag with a kill variant is never kept, and serves that variant when it is killed', async () => {
      for (let time = 0; time < 2; time += 1) await decides(ARMED, 'two', 'new', 'DEFAULT');
      await killed(ARMED, 'none', 'safe');
      await decides(ARMED, 'two', 'new', 'DEFAULT');
    });
  } finally {
    await application?.end();
    await dev.end();
    await rm(directory, { recursive: true });
  }
  console.log(`${suite} passed=${counted.passed} failed=${counted.failed} skipped=0`);
  if (counted.failed > 0) process.exitCode = 1;
}
