"""flagd's own engine in Python, in process, over what the sync service sends: it serves what the sidecar serves.

Generated flags, native ones and flagd's, are asked in generated contexts, in the engine and of the sidecar. Then the released provider in its
in-process mode: ready, right, and told of a kill and of a change.
"""

import json
import logging
import os
import queue
import random
import sys
import tempfile
import time

import grpc
from google.protobuf.struct_pb2 import Struct
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import OpenFeatureError
from openfeature.schemas.protobuf.flagd.evaluation.v2 import evaluation_pb2, evaluation_pb2_grpc
from openfeature.schemas.protobuf.flagd.sync.v1 import sync_pb2, sync_pb2_grpc

from stand import Dev

YARDARM = sys.argv[1]
SEED = 20261126
FLAGS = 120
CONTEXTS = 25
# Reached only when a test fails.
WAIT_S = 10

VARIANTS = {"a": "value of a", "b": "value of b", "c": "value of c"}
ATTRIBUTES = ["plan", "seats", "beta", "tags", "version", "org"]
TEXTS = ["pro", "team", "free", "1", "true", "", "Ünï", "pro-team", "0.5"]
NUMBERS = [0, 1, 2, -3, 10, 0.5, 2.25, 1e12]
VERSIONS = ["1.2.3", "2.0.0-rc.1", "v2.1", "3", "1.2", "2.0.0", "x.y", "1.0.0+build"]
KEYS = [f"user-{number}" for number in range(8)]


class Maker:
    """Flags and contexts, the same ones in each run."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, choices):
        return self.random.choice(choices)

    def some(self, choices, least=1, most=3):
        return self.random.sample(choices, self.random.randint(least, min(most, len(choices))))

    def scalar(self):
        return self.pick([self.pick(TEXTS), self.pick(NUMBERS), self.pick([True, False])])

    def operator(self):
        full = [text for text in TEXTS if text]
        return self.pick(
            [
                {"equals": self.scalar()},
                {"in": [self.scalar() for _ in range(self.random.randint(0, 5))]},
                {"startsWith": self.some(full)},
                {"endsWith": self.some(full)},
                {"contains": self.some(full)},
                {self.pick(["lessThan", "atMost", "greaterThan", "atLeast"]): self.pick(NUMBERS)},
                {"semver": self.pick([">=1.2.3", "<2.0.0, !=1.0.0", "=2.0.0", ">2.0.0-rc.0"])},
                {"exists": self.pick([True, False])},
            ]
        )

    def condition(self):
        if self.random.random() < 0.15:
            return {"segment": "insiders", "not": self.pick([True, False])}
        return {"attribute": self.pick([*ATTRIBUTES, "targetingKey"]), **self.operator(), "not": self.pick([True, False])}

    def split(self):
        split = {"hash": "murmur3", "weights": {name: self.random.randint(1, 50) for name in self.some(list(VARIANTS), 2)}}
        if self.random.random() < 0.4:
            split["by"] = self.pick(["plan", "seats", "org"])
        if self.random.random() < 0.4:
            split["salt"] = self.pick(["layer", "Ünï", "1"])
        return split

    def native(self):
        flag = {"variants": VARIANTS, "rules": []}
        if self.random.random() < 0.8:
            flag["defaultVariant"] = self.pick(list(VARIANTS))
        if self.random.random() < 0.5:
            flag["offVariant"] = self.pick(list(VARIANTS))
        if self.random.random() < 0.1:
            flag["state"] = "DISABLED"
        if self.random.random() < 0.3:
            flag["targets"] = [{"variant": self.pick(list(VARIANTS)), "keys": self.some(KEYS)}]
        for _ in range(self.random.randint(0, 3)):
            served = {"split": self.split()} if self.random.random() < 0.3 else {"serve": self.pick(list(VARIANTS))}
            flag["rules"].append({"when": [self.condition() for _ in range(self.random.randint(1, 3))], **served})
        if self.random.random() < 0.2:
            flag["defaultSplit"] = self.split()
        return flag

    def flagd(self):
        unit = self.pick([[], [{"var": "plan"}], [{"cat": [{"var": "$flagd.flagKey"}, {"var": "plan"}]}], [{"var": "seats"}]])
        dealt = {"fractional": [*unit, *([name, self.random.randint(1, 50)] for name in self.some(list(VARIANTS)))]}
        holds = self.pick(
            [
                {"in": [{"var": "plan"}, self.some(TEXTS)]},
                {"===": [{"var": "plan"}, self.pick(TEXTS)]},
                {"starts_with": [{"var": "plan"}, "pro"]},
                {"ends_with": [{"var": "plan"}, "team"]},
                {"sem_ver": [{"var": "version"}, self.pick(["=", "!=", "<", "<=", ">", ">=", "^", "~"]), "2.0.0"]},
                {"!": [{"var": "beta"}]},
            ]
        )
        return {
            "state": "ENABLED",
            "variants": VARIANTS,
            "defaultVariant": self.pick(list(VARIANTS)),
            "targeting": {"if": [holds, self.pick([*VARIANTS, dealt]), self.pick([None, dealt])]},
            "metadata": {"team": "payments", "number": 3, "beta": True},
        }

    def context(self):
        attributes = {
            "plan": self.pick(TEXTS),
            "seats": self.pick(NUMBERS),
            "beta": self.pick([True, False]),
            "tags": self.pick([[], ["pro"], [1, "free", True], [["pro"], {"x": 1}], ["team", 0]]),
            "version": self.pick(VERSIONS),
            "org": self.pick(["acme", {"id": 1}, {}, 7]),
        }
        for name in self.some(ATTRIBUTES, 0, 3):
            # Missing, or of another type.
            attributes.pop(name)
            if self.random.random() < 0.6:
                attributes[name] = self.pick([self.scalar(), [self.scalar(), self.scalar()], [[3]], {"x": self.scalar()}])
        return self.pick([*KEYS, "", None]), attributes


# What flagd's format has no word for, one of each.
UNSAID = {
    "by_metro": {"variants": VARIANTS, "defaultVariant": "a", "defaultSplit": {"weights": {"a": 1, "b": 1}}},
    "by_regex": {"variants": VARIANTS, "defaultVariant": "a", "rules": [{"when": [{"attribute": "plan", "matches": "^p"}], "serve": "b"}]},
    "by_network": {"variants": VARIANTS, "defaultVariant": "a", "rules": [{"when": [{"attribute": "ip", "cidr": "10.0.0.0/8"}], "serve": "b"}]},
    "by_age": {"variants": VARIANTS, "defaultVariant": "a", "maxStaleness": {"after": "1h", "serve": "b"}},
}  # fmt: skip
DEPENDS = {
    "depends": {
        "variants": VARIANTS,
        "defaultVariant": "a",
        "offVariant": "c",
        "prerequisites": [{"flag": "stoppable", "variants": ["a"]}],
    },
    "stoppable": {
        "variants": VARIANTS,
        "defaultVariant": "a",
        "killVariant": "b",
        "targets": [{"variant": "c", "keys": ["user-1"]}],
    },
}
SEGMENTS = {"insiders": {"included": KEYS[:2], "excluded": KEYS[2:4], "when": [{"attribute": "plan", "in": ["pro", "1"]}]}}


def in_engine(engine, flag, key, attributes):
    try:
        return engine.resolve_string_value(flag, "mine", EvaluationContext(key, attributes)).variant
    except OpenFeatureError as error:
        return f"error {error.error_code.value}"


def of_sidecar(stub, flag, key, attributes):
    context = Struct()
    context.update(attributes if key is None else {**attributes, "targetingKey": key})
    try:
        answer = stub.ResolveString(evaluation_pb2.ResolveStringRequest(flag_key=flag, context=context))
        return answer.variant or None
    except grpc.RpcError as error:
        return {grpc.StatusCode.INTERNAL: "error GENERAL"}.get(error.code(), f"error {error.code()}")


def compare(dev, maker, flags):
    sync = sync_pb2_grpc.FlagSyncServiceStub(grpc.insecure_channel(dev.sync))
    stub = evaluation_pb2_grpc.ServiceStub(grpc.insecure_channel(dev.sidecar))
    document = sync.FetchAllFlags(sync_pb2.FetchAllFlagsRequest()).flag_configuration
    sent = set(json.loads(document)["flags"])
    assert sent == set(flags) - set(UNSAID), f"sent and not generated, or not sent: {sent ^ (set(flags) - set(UNSAID))}"
    metadata = sync.GetMetadata(sync_pb2.GetMetadataRequest())
    assert metadata.HasField("metadata"), "the metadata are not there"
    left_out = metadata.metadata["yardarm.leftOut"].split(",")
    assert left_out == sorted(UNSAID), f"left out: {left_out}"
    engine = FlagdCore()
    engine.set_flags(document)
    served = {}
    for _ in range(CONTEXTS):
        key, asked = maker.context()
        # A rule of flagd's own is sent as it is, and each engine makes something else of an object as text and of a number among texts.
        tame = {**asked, "plan": maker.pick(TEXTS), "seats": maker.pick(NUMBERS)}
        for flag in sorted(sent):
            attributes = tame if flag.startswith("flagd-") else asked
            expected, found = of_sidecar(stub, flag, key, attributes), in_engine(engine, flag, key, attributes)
            told = f"{flag} for {key!r} {attributes}: the sidecar serves {expected}, the engine {found}\n{json.loads(document)['flags'][flag]}"
            assert found == expected, told
            served[expected] = served.get(expected, 0) + 1
    assert all(served.get(name, 0) > 100 for name in VARIANTS), f"hardly anything was served: {served}"
    return sum(served.values())


def follow(dev):
    """A kill is in the stream, with what depends on the flag."""
    sync = sync_pb2_grpc.FlagSyncServiceStub(grpc.insecure_channel(dev.sync))
    stream = sync.SyncFlags(sync_pb2.SyncFlagsRequest(provider_id="test"), timeout=WAIT_S)
    first = next(stream)
    assert first.HasField("sync_context"), "the context is not there"
    before = json.loads(first.flag_configuration)["flags"]
    dev.run("kill", "stoppable", "--reason", "client test", "--wait", "10s")
    killed = json.loads(next(stream).flag_configuration)["flags"]
    assert (killed["stoppable"]["defaultVariant"], killed["stoppable"].get("targeting")) == ("b", None), killed["stoppable"]
    assert (killed["depends"]["defaultVariant"], killed["depends"].get("targeting")) == ("c", None), killed["depends"]
    dev.run("restore", "stoppable", "--reason", "client test", "--wait", "10s")
    assert json.loads(next(stream).flag_configuration)["flags"] == before
    stream.cancel()


class Application:
    """A client over the released provider, in process; what it is told is in `events`."""

    def __init__(self, dev):
        self.dev = dev
        host, _, port = dev.sync.rpartition(":")
        self.client = api.get_client(domain="in-process")
        self.events = queue.Queue()
        for event in ProviderEvent:
            self.client.add_handler(event, lambda details, event=event: self.events.put((event, details)))
        provider = FlagdProvider(
            host=host, port=int(port), resolver_type=ResolverType.IN_PROCESS, deadline_ms=10_000, retry_backoff_ms=200, retry_grace_period=1
        )  # fmt: skip
        api.set_provider_and_wait(provider, domain="in-process")
        self.until(ProviderEvent.PROVIDER_READY)

    def until(self, event, flag=None):
        end = time.monotonic() + WAIT_S
        while True:
            came, details = self.events.get(timeout=max(end - time.monotonic(), 0.001))
            if came == event and (flag is None or flag in (details.flags_changed or [])):
                return

    def told(self, flag, *command):
        """Runs a command and waits for the event that it leads to; what was told before, as the first document, is passed by."""
        while not self.events.empty():
            self.events.get()
        self.dev.run(*command, "--reason", "client test")
        self.until(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, flag)

    def serves(self, flag, variant, key):
        details = self.client.get_string_details(flag, "mine", EvaluationContext(key))
        assert details.variant == variant, f"{flag} for {key}: expected {variant}, found {details}"


def through_provider(dev, directory):
    application = Application(dev)
    application.serves("stoppable", "c", "user-1")
    application.serves("stoppable", "a", "user-2")
    application.serves("depends", "c", "user-1")
    application.told("stoppable", "kill", "stoppable", "--wait", "10s")
    application.serves("stoppable", "b", "user-1")
    application.serves("depends", "c", "user-2")
    application.told("stoppable", "restore", "stoppable", "--wait", "10s")
    application.serves("stoppable", "c", "user-1")
    with open(f"{directory}/new.json", "w") as file:
        json.dump({"flags": {"new": {"variants": VARIANTS, "defaultVariant": "b"}}}, file)
    application.told("new", "flag", "apply", "-f", f"{directory}/new.json", "--yes")
    application.serves("new", "b", "user-1")


def main():
    for name in [name for name in os.environ if name.startswith("FLAGD_")]:
        del os.environ[name]
    os.environ["no_proxy"] = "127.0.0.1"
    # The engine logs each version that is none.
    logging.disable(logging.CRITICAL)
    maker = Maker(SEED)
    generated = {f"native-{number}": maker.native() for number in range(FLAGS)}
    generated |= {f"flagd-{number}": maker.flagd() for number in range(FLAGS // 3)}
    flags = {**generated, **UNSAID, **DEPENDS}
    with tempfile.TemporaryDirectory(prefix="yardarm-") as directory:
        with open(f"{directory}/flags.json", "w") as file:
            json.dump({"flags": flags, "segments": SEGMENTS}, file)
        try:
            with Dev(YARDARM, f"{directory}/data", "--flags", f"{directory}/flags.json") as dev:
                compared = compare(dev, maker, flags)
                follow(dev)
                through_provider(dev, directory)
        finally:
            api.shutdown()
    print(f"flagd's engine in process: {compared} answers are those of the sidecar; kills and changes reach the released provider")


main()
