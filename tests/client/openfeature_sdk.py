"""OpenFeature's SDK with its released providers for flagd (RPC mode) and OFREP, as an application has them: nothing here knows Yardarm.

Not `openfeature.py`: a script's own directory is searched first, and the SDK would be this file.
"""

import json
import logging
import os
import queue
import sys
import tempfile
import time

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.provider import ProviderStatus

from stand import Dev

YARDARM = sys.argv[1]
# Reached only when a test fails.
WAIT_S = 10

# As flagd has it, and nothing else: flagd's own evaluator reads it too.
FLAGD = {
    "switch": {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"},
    "greeting": {"state": "ENABLED", "variants": {"formal": "Good day", "short": "Hi"}, "defaultVariant": "formal"},
    "limit": {"state": "ENABLED", "variants": {"low": 3, "high": 9007199254740991}, "defaultVariant": "high"},
    "ratio": {"state": "ENABLED", "variants": {"half": 0.5, "third": 0.375}, "defaultVariant": "half"},
    "layout": {"state": "ENABLED", "variants": {"wide": {"columns": 3, "side": {"open": True}}, "none": {}}, "defaultVariant": "wide"},
    "nothing": {"state": "ENABLED", "variants": {"on": True, "off": False}},
    "disabled": {"state": "DISABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"},
    "dealt": {
        "state": "ENABLED",
        "variants": {"red": "#f00", "green": "#0f0", "blue": "#00f"},
        "defaultVariant": "blue",
        "targeting": {
            "if": [
                {"ends_with": [{"var": "email"}, "@example.com"]},
                "green",
                {"in": [{"var": "plan"}, ["pro", "team"]]},
                {"fractional": [["red", 50], ["green", 30], ["blue", 20]]},
            ]
        },
    },
}
# With what flagd has no word for.
OURS = {
    "stoppable": {"variants": {"on": True, "off": False}, "defaultVariant": "on", "offVariant": "off"},
    "ruled": {
        "variants": {"old": "v1", "new": "v2", "mine": "v3"},
        "defaultVariant": "old",
        "targets": [{"variant": "mine", "keys": ["ada"]}],
        "rules": [
            {"name": "large", "when": [{"attribute": "plan", "equals": "team"}, {"attribute": "seats", "atLeast": 10}], "serve": "new"},
        ],
    },
    "retired": {"state": "DISABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on", "offVariant": "off"},
    "split": {
        "variants": {"on": True, "off": False},
        "defaultVariant": "off",
        "rules": [{"name": "rollout", "split": {"weights": {"on": 50, "off": 50}}}],
    },
}
PEOPLE = [f"user-{number}" for number in range(60)]
# What an application has in its code, in no document, and of every type.
DEFAULTS = {"boolean": True, "string": "mine", "integer": -7, "float": -0.25, "object": {"mine": True}}
KEPT = [
    ("boolean", "switch", True, "on"),
    ("string", "greeting", "Good day", "formal"),
    ("integer", "limit", 9007199254740991, "high"),
    ("float", "ratio", 0.5, "half"),
    ("object", "layout", {"columns": 3, "side": {"open": True}}, "wide"),
]


class Application:
    """A client over a provider of its own; what it is told is in `events`, in order."""

    def __init__(self, name, provider):
        self.name = name
        self.client = api.get_client(domain=name)
        self.events = queue.Queue()
        for event in ProviderEvent:
            self.client.add_handler(event, lambda details, event=event: self.events.put((event, details)))
        api.set_provider_and_wait(provider, domain=name)
        self.until(ProviderEvent.PROVIDER_READY)
        self.same("its status", ProviderStatus.READY, self.client.get_provider_status())

    def ask(self, type_, flag, key=None, **attributes):
        context = EvaluationContext(targeting_key=key, attributes=attributes)
        return getattr(self.client, f"get_{type_}_details")(flag, DEFAULTS[type_], context)

    def decides(self, type_, flag, expected, key=None, **attributes):
        """Expected are value, variant and reason."""
        details = self.ask(type_, flag, key, **attributes)
        found = (details.value, details.variant, details.reason and str(details.reason))
        asked = f"{type_} {flag} for {key} {attributes}"
        self.same(asked, expected, found, details)
        self.same(f"the type of {asked}", type(expected[0]), type(found[0]), details)
        self.same(f"the error of {asked}", None, details.error_code, details)
        return details

    def fails(self, type_, flag, code, key=None, **attributes):
        """The application has what it has in its code, and the reason why."""
        details = self.ask(type_, flag, key, **attributes)
        found = (details.value, details.reason and str(details.reason), details.error_code and str(details.error_code))
        self.same(f"{type_} {flag}", (DEFAULTS[type_], "ERROR", code), found, details)

    def until(self, event, flag=None):
        """The next such event, and of a flag if one is given. Others go by."""
        end, heard = time.monotonic() + WAIT_S, []
        while True:
            try:
                heard.append(self.events.get(timeout=max(end - time.monotonic(), 0)))
            except queue.Empty:
                wanted = event.value + (f" of {flag}" if flag else "")
                raise AssertionError(f"{self.name}: expected {wanted} within {WAIT_S} s, found {heard}") from None
            came, details = heard[-1]
            if came == event and (flag is None or flag in (details.flags_changed or [])):
                return details

    def same(self, what, expected, found, details=""):
        assert found == expected, f"{self.name}: {what}: expected {expected}, found {found} {details}"


def evaluates(asker):
    """What is the same whichever way it is asked. Nothing that is STATIC: the first time and the second differ."""
    for type_, flag in [("boolean", "ruled"), ("string", "split"), ("integer", "ruled"), ("float", "ruled"), ("object", "ruled")]:
        asker.fails(type_, flag, "TYPE_MISMATCH", key="user-1")
    for type_ in DEFAULTS:
        asker.fails(type_, "no_such_flag", "FLAG_NOT_FOUND", key="user-1")

    asker.decides("string", "ruled", ("v3", "mine", "TARGETING_MATCH"), key="ada")
    asker.decides("string", "ruled", ("v2", "new", "TARGETING_MATCH"), key="ben", plan="team", seats=10)
    asker.decides("string", "ruled", ("v1", "old", "DEFAULT"), key="ben", plan="team", seats=9)
    asker.decides("string", "ruled", ("v1", "old", "DEFAULT"))
    dealt = {asker.ask("boolean", "split", person).variant for person in PEOPLE}
    asker.same("the variants that are dealt half and half", {"on", "off"}, dealt)
    # Who has no key cannot be dealt and has what is there without the feature. It is no error, as it is none of flagd's.
    asker.decides("boolean", "split", (False, "off", "TARGETING_MATCH"))
    asker.decides("boolean", "retired", (False, "off", "DISABLED"))


def targets(asker, reference):
    """Flagd's rules, and its dealing: by RPC as in the process of the application."""
    asker.decides("string", "dealt", ("#0f0", "green", "TARGETING_MATCH"), key="user-1", email="ada@example.com")
    asker.decides("string", "dealt", ("#00f", "blue", "DEFAULT"), key="user-1", plan="free")
    asker.decides("string", "dealt", ("#00f", "blue", "DEFAULT"), plan="pro")
    dealt = set()
    for person in PEOPLE:
        expected = reference.ask("string", "dealt", person, plan="pro")
        asker.decides("string", "dealt", (expected.value, expected.variant, "TARGETING_MATCH"), key=person, plan="pro")
        dealt.add(expected.variant)
    asker.same("the variants that are dealt", {"red", "green", "blue"}, dealt)


def over_rpc(dev, reference):
    host, _, port = dev.sidecar.rpartition(":")
    # Half a second is the default of a call too, and little for a machine that does other things at the same time.
    provider = FlagdProvider(
        host=host, port=int(port), resolver_type=ResolverType.RPC, deadline_ms=5000, retry_backoff_ms=200, retry_backoff_max_ms=500,
        retry_grace_period=1,
    )  # fmt: skip
    asker = Application("flagd", provider)
    # A stream begins with the name of every flag: what an earlier one left in the cache may be old.
    asker.until(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, "stoppable")
    evaluates(asker)
    targets(asker, reference)
    for type_, flag, value, variant in KEPT:
        asker.decides(type_, flag, (value, variant, "STATIC"), key="user-1")
        asker.decides(type_, flag, (value, variant, "CACHED"), key="user-2")
    # Nothing to serve: what the application has in its code, with flagd's reason.
    asker.decides("boolean", "disabled", (True, None, "DISABLED"), key="user-1")
    asker.decides("boolean", "nothing", (True, None, "DEFAULT"), key="user-1")

    asker.decides("boolean", "stoppable", (True, "on", "STATIC"))
    asker.decides("boolean", "stoppable", (True, "on", "CACHED"))
    dev.run("kill", "stoppable", "--reason", "client test", "--wait", "10s")
    asker.until(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, "stoppable")
    for _ in range(2):
        asker.decides("boolean", "stoppable", (False, "off", "TARGETING_MATCH"))
    # What did not change is kept.
    asker.decides("boolean", "switch", (True, "on", "CACHED"))
    dev.run("restore", "stoppable", "--reason", "client test", "--wait", "10s")
    asker.until(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, "stoppable")
    asker.decides("boolean", "stoppable", (True, "on", "STATIC"))
    return asker


def over_ofrep(dev, reference):
    asker = Application("OFREP", OFREPProvider(f"http://{dev.ofrep}"))
    evaluates(asker)
    targets(asker, reference)
    for type_, flag, value, variant in KEPT:
        for _ in range(2):
            asker.decides(type_, flag, (value, variant, "STATIC"), key="user-1")
    # The protocol lets variant and value be absent; this provider takes that for an error, and serves what the application has in its code.
    for flag in ("disabled", "nothing"):
        asker.same(f"the value of {flag}", True, asker.ask("boolean", flag, "user-1").value)

    asker.decides("boolean", "stoppable", (True, "on", "STATIC"))
    dev.run("kill", "stoppable", "--reason", "client test", "--wait", "10s")
    killed = asker.decides("boolean", "stoppable", (False, "off", "TARGETING_MATCH"))
    asker.same("the metadata of what was killed", "KILLED", killed.flag_metadata.get("reason"), killed)
    dev.run("restore", "stoppable", "--reason", "client test", "--wait", "10s")
    asker.decides("boolean", "stoppable", (True, "on", "STATIC"))


def main():
    for name in [name for name in os.environ if name.startswith("FLAGD_")]:
        del os.environ[name]
    os.environ["no_proxy"] = "127.0.0.1"
    # The SDK logs each failure that this asks for, with its trace.
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="yardarm-") as directory:
        for name, flags in [("flagd", FLAGD), ("flags", {**FLAGD, **OURS})]:
            with open(f"{directory}/{name}.json", "w") as file:
                json.dump({"flags": flags}, file)
        in_process = FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=f"{directory}/flagd.json")
        apply = ("--flags", f"{directory}/flags.json")
        try:
            reference = Application("flagd's own evaluator", in_process)
            with Dev(YARDARM, f"{directory}/data", *apply) as dev:
                over_ofrep(dev, reference)
                asker = over_rpc(dev, reference)
            asker.until(ProviderEvent.PROVIDER_STALE)
            asker.until(ProviderEvent.PROVIDER_ERROR)
            port = dev.sidecar.rpartition(":")[2]
            with Dev(YARDARM, f"{directory}/data", *apply, "--sidecar-port", port) as dev:
                asker.until(ProviderEvent.PROVIDER_READY)
                asker.decides("string", "greeting", ("Good day", "formal", "STATIC"))
                evaluates(asker)
        finally:
            api.shutdown()
    print("OpenFeature: types, targeting, errors, caches, kills and a restart through the released providers for flagd and OFREP")


main()
