// The events of one provider in their order. Waiting for one uses up what came before it, so that no event answers for a later one.

export class Heard {
  #all = [];
  #next = 0;
  #waiting = [];

  add(type, details) {
    this.#all.push({ type, details });
    this.#waiting.splice(0).forEach((look) => look());
  }

  /** What was heard until now belongs to the time before. */
  forget() {
    this.#next = this.#all.length;
  }

  ever(type) {
    return this.#all.some((event) => event.type === type);
  }

  async next(type, withinMs) {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#waiting.splice(0).forEach((look) => look());
    }, withinMs);
    try {
      for (;;) {
        const found = this.#all.findIndex((event, at) => at >= this.#next && event.type === type);
        if (found >= 0) {
          this.#next = found + 1;
          return this.#all[found].details;
        }
        if (late) throw new Error(`expected ${type} within ${withinMs} ms, heard ${this.#all.map((event) => event.type).join(', ') || 'nothing'}`);
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
