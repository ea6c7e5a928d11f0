"""A client in another language: generated from `proto/`, it evaluates and watches, over TCP and over the Unix socket."""

import sys
import tempfile

import grpc

from generated import generate
from stand import DEADLINE_S, Dev

YARDARM = sys.argv[1]
FLAG = "new_checkout_flow"


def evaluates(stub, pb):
    def evaluate(flag, key, **more):
        request = pb.EvaluateRequest(flag_key=flag, context=pb.Context(targeting_key=key), **more)
        return stub.Evaluate(request, timeout=DEADLINE_S).decision

    decision = evaluate(FLAG, "user-1")
    assert decision.reason == pb.REASON_SPLIT and decision.HasField("bucket"), decision
    assert evaluate(FLAG, "user-1").variant == decision.variant

    default = {"default_value": {"string_value": "mine"}}
    missing = evaluate("no_such_flag", "user-1", **default)
    assert (missing.value.string_value, missing.error_code) == ("mine", pb.ERROR_CODE_FLAG_NOT_FOUND), missing
    mistyped = evaluate(FLAG, "user-1", **default)
    assert (mistyped.value.string_value, mistyped.error_code) == ("mine", pb.ERROR_CODE_TYPE_MISMATCH), mistyped

    batch = stub.EvaluateBatch(pb.EvaluateBatchRequest(context=pb.Context(targeting_key="user-1")), timeout=DEADLINE_S)
    keys = [decision.flag_key for decision in batch.decisions]
    assert FLAG in keys and keys == sorted(keys) and batch.position.revision > 0, keys

    asked = (pb.EvaluateStreamRequest(id=id, request=pb.EvaluateRequest(flag_key=FLAG)) for id in (7, 8))
    assert sorted(answer.id for answer in stub.EvaluateStream(asked, timeout=DEADLINE_S)) == [7, 8]

    big = pb.Context(targeting_key="user-1")
    big.attributes.update({f"attribute-{number}": True for number in range(300)})
    try:
        stub.Evaluate(pb.EvaluateRequest(flag_key=FLAG, context=big), timeout=DEADLINE_S)
        raise AssertionError("300 attributes were taken")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error


def watches(stub, pb, dev):
    """A kill and a restore arrive as they happen, after a snapshot of what stands."""
    events = stub.WatchFlags(pb.WatchFlagsRequest(selector=pb.FlagSelector(keys=[FLAG])), timeout=DEADLINE_S)

    def next_of(kind):
        return next(getattr(event, kind) for event in events if event.HasField(kind))

    snapshot = next_of("snapshot")
    assert [flag.key for flag in snapshot.flags] == [FLAG] and snapshot.last, snapshot
    for command, type_, reason in [
        ("kill", pb.FlagChange.TYPE_KILLED, pb.REASON_KILLED),
        ("restore", pb.FlagChange.TYPE_RESTORED, pb.REASON_SPLIT),
    ]:
        dev.run(command, FLAG, "--reason", "client test", "--wait", "10s")
        change = next_of("change")
        assert (change.type, change.flag.key) == (type_, FLAG), change
        assert change.flag.revision > snapshot.position.revision and change.origin_time.seconds > 0, change
        decision = stub.Evaluate(pb.EvaluateRequest(flag_key=FLAG, context=pb.Context(targeting_key="user-1"))).decision
        assert decision.reason == reason, decision
    events.cancel()


def main():
    with tempfile.TemporaryDirectory(prefix="yardarm-") as directory:
        pb, services = generate(directory)
        with Dev(YARDARM, f"{directory}/data") as dev:
            for kind, target in (("TCP", dev.sidecar), ("the Unix socket", f"unix:{dev.socket}")):
                with grpc.insecure_channel(target) as channel:
                    stub = services.EvaluationStub(channel)
                    evaluates(stub, pb)
                    watches(stub, pb, dev)
                print(f"client: evaluated and watched over {kind}")


main()
