import path from 'node:path';

// A formatter for cucumber: each scenario that failed, each that was left out with its reason, and one line with the numbers.

const ORDER = ['PASSED', 'SKIPPED', 'PENDING', 'UNDEFINED', 'AMBIGUOUS', 'FAILED'];

/** What was expected and found, without where in the steps that was. */
function wanted(message) {
  const lines = message.split('\n').filter((line) => line.trim() !== '');
  const stack = lines.findIndex((line) => line.trimStart().startsWith('at '));
  return (stack < 0 ? lines : lines.slice(0, stack)).join('\n    ');
}

class Report {
  constructor(suite, write) {
    Object.assign(this, { suite, write, pickles: new Map(), cases: new Map(), running: new Map() });
    this.counted = { passed: 0, failed: 0, skipped: 0 };
    this.reasons = new Map();
    this.began = Date.now();
  }

  pickle(pickle) {
    this.pickles.set(pickle.id, pickle);
  }

  testCase(testCase) {
    this.cases.set(testCase.id, testCase);
  }

  testCaseStarted({ id, testCaseId }) {
    const { pickleId, testSteps } = this.cases.get(testCaseId);
    this.running.set(id, { pickle: this.pickles.get(pickleId), testSteps, worst: 'PASSED', said: [] });
  }

  attachment({ testCaseStartedId, body }) {
    this.running.get(testCaseStartedId)?.said.push(body);
  }

  testStepFinished({ testCaseStartedId, testStepId, testStepResult }) {
    const run = this.running.get(testCaseStartedId);
    const { status, message } = testStepResult;
    if (ORDER.indexOf(status) <= ORDER.indexOf(run.worst)) return;
    const { pickleStepId } = run.testSteps.find((step) => step.id === testStepId);
    const step = run.pickle.steps.find(({ id }) => id === pickleStepId);
    Object.assign(run, { worst: status, at: step?.text ?? 'a hook', message });
  }

  testCaseFinished({ testCaseStartedId }) {
    const run = this.running.get(testCaseStartedId);
    this.running.delete(testCaseStartedId);
    const { pickle, worst } = run;
    if (worst === 'PASSED') {
      this.counted.passed += 1;
    } else if (worst === 'SKIPPED') {
      this.counted.skipped += 1;
      const why = run.said.join(' ') || 'no reason was given';
      this.reasons.set(why, (this.reasons.get(why) ?? 0) + 1);
    } else {
      this.counted.failed += 1;
      const steps = pickle.steps.map(({ text }) => `    ${text}`).join('\n');
      this.write(`${this.suite}: FAILED ${path.basename(pickle.uri)}: ${pickle.name}\n${steps}\n  at "${run.at}": ${worst} ${wanted(run.message ?? '')}\n`);
    }
  }

  testRunFinished({ success, message }) {
    const { passed, failed, skipped } = this.counted;
    for (const [why, times] of this.reasons) this.write(`${this.suite}: left out ${times}: ${why}\n`);
    if (!success && failed === 0) this.write(`${this.suite}: cucumber failed outside of a scenario: ${message ?? ''}\n`);
    this.write(`${this.suite}: ${Math.round((Date.now() - this.began) / 1000)} s\n`);
    this.write(`${this.suite} passed=${passed} failed=${failed} skipped=${skipped}\n`);
  }
}

export default {
  type: 'formatter',
  formatter({ on, write }) {
    const report = new Report(process.env.SUITE, write);
    on('message', (envelope) => {
      for (const [kind, message] of Object.entries(envelope)) report[kind]?.(message);
    });
  },
};
