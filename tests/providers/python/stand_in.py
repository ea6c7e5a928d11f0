"""A pytest plugin for the provider's own end-to-end tests: our launchpad where they start a container, and a count of what ran.

They come as the provider's authors released them and stay as they are; only the module that starts the image is answered for from here.
"""

import json
import os
import pathlib
import subprocess
import sys
import types

import requests

LAUNCHPAD = pathlib.Path(__file__).parent.parent / "launchpad.py"
MODE, BINARY, TESTBED = (os.environ[f"SUITE_{name}"] for name in ("MODE", "BINARY", "TESTBED"))
# The tags that choose a mode's scenarios, by the name that the suite's directory has.
TAG = {"rpc": "rpc", "inprocess": "in-process", "file": "file"}[MODE]
# Of the steps' wait for a provider to become ready; theirs is 2 s, three hundred times.
POLL_S, WITHIN_S = 0.05, 10
# Of an order to the launchpad, which answers when the server is ready. The steps give it a second, which a busy machine may need for the start
# of a process; it says nothing of a provider.
ORDER_S = 30


class FlagdContainer:
    """What the steps ask of a container, by the ports of the image."""

    def __init__(self, *_, **__):
        directory = pathlib.Path(os.environ["SUITE_STAND"])
        self.command = [sys.executable, LAUNCHPAD, BINARY, TESTBED, directory]
        # The steps take `.name` of it, relative to where they run.
        self.flagDir = types.SimpleNamespace(name=str(directory / "flags"))

    def start(self):
        log = open(os.environ["SUITE_STAND"] + ".log", "w")
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        assert line, f"the launchpad ended with {self.process.wait()}; it said: {pathlib.Path(log.name).read_text()}"
        self.ports = json.loads(line)
        return self

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(10) == 0, f"the launchpad ended with {self.process.returncode}"

    def get_port(self, resolver_type):
        return self.ports["rpc" if resolver_type.value == "rpc" else "sync"]

    def get_exposed_port(self, port):
        return self.ports[{8013: "rpc", 8014: "management", 8015: "sync", 8016: "ofrep", 8080: "launchpad", 9212: "forbidden"}[port]]

    def get_launchpad_url(self):
        return f"http://localhost:{self.ports['launchpad']}"


sys.modules["tests.e2e.flagd_container"] = sys.modules[__name__]

left_out = []
results = {}


def pytest_collection_modifyitems(config, items):
    """What the binary has not: `WITHOUT=tls` is one that leaves TLS to a proxy."""
    if os.environ.get("WITHOUT") == "tls":
        # Options for a certificate have its tag too, and want no server.
        without = [item for item in items if item.name.endswith("[ssl]")]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


def pytest_deselected(items):
    left_out.extend(item for item in items if any(mark.name == TAG for mark in item.iter_markers()))


def order(url, timeout):
    answer = requests.post(url, timeout=ORDER_S)
    assert answer.ok, f"{url}: {answer.text}"


def pytest_collection_finish(session):
    sys.modules["tests.e2e.step._utils"].wait_for.__defaults__ = (POLL_S, WITHIN_S)
    for steps in ("flag_step", "provider_steps"):
        sys.modules[f"tests.e2e.step.{steps}"].requests = types.SimpleNamespace(post=order)


def pytest_runtest_logreport(report):
    """A scenario passed if its call did and nothing around it failed."""
    if report.when == "call" or report.failed:
        results[report.nodeid] = results.get(report.nodeid, True) and report.passed


def pytest_terminal_summary(terminalreporter):
    for item in left_out:
        terminalreporter.write_line(f"not run: {item.name}: " + " ".join(sorted({mark.name for mark in item.iter_markers()})))
    passed = sum(results.values())
    terminalreporter.write_line(f"python-{TAG} passed={passed} failed={len(results) - passed} skipped={len(left_out)}")
