"""`yardarm dev` as somebody uses it on the first day: start, evaluate, kill, stop, start again, restore."""

import sys
import tempfile

from stand import Dev

YARDARM = sys.argv[1]
FLAG = "new_checkout_flow"

with tempfile.TemporaryDirectory(prefix="yardarm-") as data:
    with Dev(YARDARM, data) as dev:
        people = [f"user-{number}" for number in range(40)]
        before = [dev.evaluate(FLAG, person)["variant"] for person in people]
        assert len(set(before)) == 2, f"at 20 % all of 40 people are served {before[0]}"
        killed = dev.run("kill", FLAG, "--reason", "smoke test", "--wait", "10s")
        assert dev.evaluate(FLAG, "user-1")["reason"] == "KILLED", killed
        (pod,) = dev.run("pods")["pods"]
        assert pod["revision"] == dev.evaluate(FLAG, "user-1")["revision"] and not pod["rejected"], pod

    with Dev(YARDARM, data) as dev:
        assert dev.evaluate(FLAG, "user-1")["reason"] == "KILLED", "the kill did not outlive the restart"
        dev.run("restore", FLAG, "--reason", "smoke test", "--wait", "10s")
        after = [dev.evaluate(FLAG, person)["variant"] for person in people]
        assert after == before, "after the restore other people are in"

print("dev: started, evaluated, killed, stopped, started again, restored")
