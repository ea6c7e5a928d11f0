"""A `yardarm dev` for a test: on free ports, over a directory that the test owns, ended whatever happens."""

import json
import os
import select
import signal
import subprocess

# Reached only when a test fails.
DEADLINE_S = 30


def environment(**more):
    """That of the test, without what it says of settings and colours: the tests say those themselves."""
    ours = ("YARDARM_", "CLICOLOR", "NO_COLOR")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(ours)}, **more}


class Dev:
    """Runs from `with` to the end of the block; a second one over the same directory finds its data again."""

    def __init__(self, yardarm, data, *more):
        self.yardarm = yardarm
        self.command = [yardarm, "dev", "--output", "json", "--port-base", "0", "--data", data, *more]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, env=environment())
        try:
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
            line = self.process.stdout.readline() if ready else ""
            assert line, f"{' '.join(self.command)} said nothing; it ended with {self.process.poll()}"
            addresses = json.loads(line)
        except BaseException:
            self.process.kill()
            raise
        self.control = "http://" + addresses["control"]["grpc"]
        self.sidecar = addresses["sidecars"][0]["tcp"]
        self.socket = addresses["sidecars"][0]["socket"]
        self.ofrep = addresses["sidecars"][0]["ofrep"]
        self.sync = addresses["sidecars"][0]["sync"]
        return self

    def __exit__(self, failure, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
        assert failure or code == 0, f"dev ended with {code} on SIGTERM"

    def run(self, *arguments, code=0):
        """Runs a command of the executable against this `dev` and returns what it said, read as JSON."""
        command = [self.yardarm, *arguments, "--output", "json", "--control-plane", self.control]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment())
        assert done.returncode == code, f"{' '.join(command)} ended with {done.returncode}, not {code}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None

    def evaluate(self, flag, key):
        return self.run("eval", flag, "--key", key, "--sidecar", self.sidecar)["decision"]
