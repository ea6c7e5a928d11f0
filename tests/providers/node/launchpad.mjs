// The other side of the suites: starts the launchpad that runs the server under test, and asks it for what the scenarios want.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { createServer } from 'node:net';
import readline from 'node:readline';

export class Launchpad {
  #process;
  #running;

  /** What it is asked goes to `log`. It ends with its standard input, so also with this process, however that ends. */
  static async begin(script, binary, testbed, log) {
    const launchpad = new Launchpad();
    const file = await open(log, 'w');
    const child = spawn('python3', [script, binary, testbed], { stdio: ['pipe', 'pipe', file.fd] });
    await file.close();
    launchpad.#process = child;
    const line = await Promise.race([
      once(readline.createInterface({ input: child.stdout }), 'line').then(([text]) => text),
      once(child, 'exit').then(([code]) => { throw new Error(`the launchpad ended with ${code} before it was ready; its log is ${log}`); }),
    ]);
    launchpad.ports = JSON.parse(line);
    return launchpad;
  }

  async end() {
    if (this.#process.exitCode !== null) return;
    this.#process.stdin.end();
    await once(this.#process, 'exit');
  }

  /** A server with this configuration; the one that runs serves the next scenario too, if nobody cut it off. */
  async serve(config) {
    if (this.#running === config) return;
    this.#running = undefined;
    await this.#ask(`/start?config=${config}`);
    this.#running = config;
  }

  async lose(seconds) {
    this.#running = undefined;
    await this.#ask(`/restart?seconds=${seconds}`);
  }

  async change() {
    await this.#ask('/change');
  }

  async #ask(path) {
    const response = await fetch(`http://127.0.0.1:${this.ports.launchpad}${path}`);
    const text = await response.text();
    if (!response.ok) throw new Error(`the launchpad answers ${path} with ${response.status}: ${text}`);
  }
}

/** A port that nobody listens to. */
export async function deafPort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
