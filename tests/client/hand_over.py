"""Restarts a sidecar under the load of released OpenFeature providers, with --hand-over: who asks must not notice.

    hand_over.py YARDARM            what is promised: at most one failed request for each connection and restart
    hand_over.py YARDARM --plain    the same without handing over, for comparison: nothing is promised and figures are printed
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import CacheType, ResolverType
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

from stand import DEADLINE_S, environment

YARDARM, PLAIN = sys.argv[1], "--plain" in sys.argv[2:]
RESTARTS = 5
# Of each way. Every provider has a connection of its own.
CLIENTS = 3
# Asked for so long around each restart.
AFTER_S = 1.5
FLAGS = {
    "flags": {
        "ruled": {
            "state": "ENABLED",
            "variants": {"old": "v1", "new": "v2"},
            "defaultVariant": "old",
            # Read of the context, so that nothing of it is kept by a provider.
            "targeting": {"if": [{"==": [{"var": "plan"}, "team"]}, "new"]},
        }
    }
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sidecar:
    """One process on ports that the next one takes over."""

    def __init__(self, directory, ports, number):
        self.ready_file = os.path.join(directory, f"ready.{number}")
        evaluation, ofrep = ports
        command = [
            YARDARM, "start", "--uri", f"file:{directory}/flags.json", "--ready-file", self.ready_file,
            "--port", str(evaluation), "--ofrep-port", str(ofrep), "--management-port", "0", "--sync-port", "0",
        ]  # fmt: skip
        if not PLAIN:
            command.append("--hand-over")
        self.log = open(os.path.join(directory, f"log.{number}"), "w+")
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self.log, env=environment(YARDARM_BIND_ADDRESS="127.0.0.1")
        )

    def ready(self):
        """When it serves, by the clock of the clients; it writes its file after that."""
        end = time.monotonic() + DEADLINE_S
        while not os.path.exists(self.ready_file):
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.001)
        return time.monotonic()

    def leave(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        assert code == 0, f"it ended with {code}: {self.said()}"

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Load(threading.Thread):
    """Asks over and over, and notes when it was answered and when it was not."""

    def __init__(self, name, provider):
        super().__init__(name=name, daemon=True)
        api.set_provider_and_wait(provider, domain=name)
        self.client = api.get_client(domain=name)
        self.answered, self.failed, self.done = [], [], threading.Event()

    def run(self):
        context = EvaluationContext(targeting_key="ana", attributes={"plan": "team"})
        while not self.done.is_set():
            details = self.client.get_string_details("ruled", "the code's", context)
            if details.value == "v2" and details.error_code is None:
                self.answered.append(time.monotonic())
            else:
                self.failed.append((time.monotonic(), details.error_code, details.error_message))
            time.sleep(0.001)

    def failures(self, since, until):
        return [failure for failure in self.failed if since <= failure[0] < until]

    def back(self, ready):
        """Seconds from `ready` to the first answer that came after it."""
        return next(when for when in self.answered if when >= ready) - ready

    def silence(self, since, until):
        """The longest time without an answer."""
        times = [when for when in self.answered if since <= when < until]
        return max(later - earlier for earlier, later in zip(times, times[1:]))


def rpc(port):
    return FlagdProvider(
        host="127.0.0.1", port=port, resolver_type=ResolverType.RPC, cache=CacheType.DISABLED, deadline_ms=5000,
    )  # fmt: skip


def restart(old, directory, ports, number):
    """The next sidecar, and when it was ready."""
    if PLAIN:
        old.leave()
        new = Sidecar(directory, ports, number)
        return new, new.ready()
    new = Sidecar(directory, ports, number)
    ready = new.ready()
    old.leave()
    return new, ready


def main():
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "flags.json"), "w") as file:
            json.dump(FLAGS, file)
        ports = (free_port(), free_port())
        sidecar = Sidecar(directory, ports, 0)
        sidecars = [sidecar]
        try:
            sidecar.ready()
            loads = [Load(f"rpc {number}", rpc(ports[0])) for number in range(CLIENTS)]
            loads += [Load(f"ofrep {number}", OFREPProvider(f"http://127.0.0.1:{ports[1]}")) for number in range(CLIENTS)]
            for load in loads:
                load.start()
            time.sleep(AFTER_S)
            for number in range(1, RESTARTS + 1):
                began = time.monotonic()
                sidecar, ready = restart(sidecar, directory, ports, number)
                sidecars.append(sidecar)
                time.sleep(AFTER_S)
                until = time.monotonic()
                for load in loads:
                    failures = load.failures(began, until)
                    print(
                        f"restart {number}, {load.name}: {len(failures)} failed, answered {1000 * load.back(ready):.1f} ms after the next was"
                        f" ready, longest time without an answer {1000 * load.silence(began, until):.0f} ms"
                    )
                    assert PLAIN or len(failures) <= 1, f"{load.name}: {failures}\n{sidecar.said()}"
            for load in loads:
                load.done.set()
                load.join(DEADLINE_S)
            asked = sum(len(load.answered) for load in loads)
            failed = sum(len(load.failed) for load in loads)
            assert asked > 0
            print(f"{RESTARTS} restarts, {len(loads)} clients: {asked} requests answered, {failed} failed")
            api.shutdown()
        finally:
            for one in sidecars:
                one.kill()


if __name__ == "__main__":
    main()
