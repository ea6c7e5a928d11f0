"""The decision log, asked in SQL: people are served by `yardarm dev`, and DuckDB counts them through the views that are shipped."""

import json
import pathlib
import subprocess
import sys
import tempfile

import duckdb
import grpc

from generated import ROOT, generate
from stand import DEADLINE_S, Dev, environment

YARDARM = sys.argv[1]
FLAG = "new_checkout_flow"
PEOPLE = [f"user-{number}" for number in range(200)]

# Word for word as they were asked for.
USERS = "SELECT COUNT(DISTINCT user_id) AS user_count FROM feature_flag_logs WHERE feature = 'new_checkout_flow' AND enabled = true;"
ERRORS = (
    "SELECT feature, enabled, error_rate FROM (SELECT feature, enabled, COUNT(*) AS total, COUNT(*) FILTER (WHERE error = true) AS errors, "
    "COUNT(*) FILTER (WHERE error = true)::FLOAT / COUNT(*) AS error_rate FROM logs GROUP BY feature, enabled) WHERE error_rate > 0.01;"
)


def serve(data, pb, services):
    """Serves everybody twice, and a few who ask wrongly. Answers with those who got the feature."""
    with Dev(YARDARM, data) as dev, grpc.insecure_channel(dev.sidecar) as channel:
        stub = services.EvaluationStub(channel)

        def evaluate(flag, key, **more):
            request = pb.EvaluateRequest(flag_key=flag, context=pb.Context(targeting_key=key), **more)
            return stub.Evaluate(request, timeout=DEADLINE_S).decision

        inside = {key for _ in range(2) for key in PEOPLE if evaluate(FLAG, key).value.bool_value}
        context = pb.Context(targeting_key="user-0")
        stub.EvaluateBatch(pb.EvaluateBatchRequest(context=context, selector=pb.FlagSelector(keys=[FLAG])), timeout=DEADLINE_S)
        evaluate(FLAG, "user-1", default_value={"string_value": "mine"})
        evaluate("no_such_flag", "user-1")
        # An answer that no application gets.
        assert dev.evaluate(FLAG, "user-at-a-terminal")["reason"] == "SPLIT"
    return inside


def tell_outcomes(log):
    """What another pod would have written of outcomes: 3 of 200 fail with the feature and 4 of 500 without it."""
    pod = pathlib.Path(log) / "another-pod"
    pod.mkdir()
    with open(pod / "decisions-20261121T013012Z-000001.ndjson", "w") as file:
        for variant, enabled, total, errors in (("on", True, 200, 3), ("off", False, 500, 4)):
            for number in range(total):
                line = {
                    "time": "2026-11-21T01:30:12.250000Z", "kind": "outcome", "flag": FLAG, "variant": variant, "enabled": enabled,
                    "metric": "request", "value": 1.0, "error": number < errors, "pod": "another-pod", "environment": "default",
                }  # fmt: skip
                print(json.dumps(line), file=file)
        # As a process leaves it that is killed while it writes.
        file.write('{"time":"2026-11-21T01:30:12.250000Z","kind":"outc')


def report(log, *arguments, code=0):
    command = [YARDARM, "report", *arguments, "--log", log, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment())
    assert done.returncode == code, f"{' '.join(command)} ended with {done.returncode}, not {code}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def main():
    with tempfile.TemporaryDirectory(prefix="yardarm-") as directory:
        pb, services = generate(directory)
        log = f"{directory}/data/decisions"
        inside = serve(f"{directory}/data", pb, services)
        assert 0 < len(inside) < len(PEOPLE), f"at 20 % {len(inside)} of {len(PEOPLE)} people are in"
        tell_outcomes(log)

        sql = duckdb.connect()
        sql.execute(f"SET VARIABLE decision_log = '{log}/**/*.ndjson'")
        sql.execute((ROOT / "deploy/sql/views.sql").read_text())
        assert sql.execute(USERS).fetchall() == [(len(inside),)]
        # 5 of 501 without the feature, one of them an evaluation that failed, are below the bound.
        rates = sorted((feature, enabled, round(rate, 6)) for feature, enabled, rate in sql.execute(ERRORS).fetchall())
        assert rates == [(FLAG, True, 0.015), ("no_such_flag", False, 1.0)], rates
        # Everybody once, however often they asked, and the one who asked wrongly.
        assert sql.execute(f"SELECT COUNT(*) FROM feature_flag_logs WHERE feature = '{FLAG}'").fetchall() == [(len(PEOPLE) + 1,)]
        (names,) = sql.execute("SELECT list(DISTINCT user_id) FROM feature_flag_logs").fetchone()
        assert len(names) == len(PEOPLE) and all(len(name) == 32 for name in names), "people are named, not told apart, or were not served"

        users = report(log, "users", FLAG)
        assert users["enabled"]["count"] == len(inside) and users["people"] == {"count": 200, "exact": True, "low": 200, "high": 200}, users
        errors = report(log, "errors", "--above", "0.01", code=1)
        found = [(rate["flag"], rate["variant"], rate["enabled"], rate["errors"], rate["total"]) for rate in errors["rates"]]
        # By variant, and the evaluation that failed has none.
        assert found == [(FLAG, None, False, 1, 1), (FLAG, "on", True, 3, 200), ("no_such_flag", None, False, 1, 1)], found
        person = sorted(inside)[0]
        (decision,) = report(log, "decisions", FLAG, "--unit", person)["decisions"]
        assert decision["enabled"] and decision["reason"] == "SPLIT" and decision["bucket"] is not None, decision
        report_of_nobody = [YARDARM, "report", "decisions", FLAG, "--unit", "nobody", "--log", log]
        assert subprocess.run(report_of_nobody, capture_output=True, env=environment(), timeout=DEADLINE_S).returncode == 1
    print("decision log: both queries gave the exact counts, and the reports agree")


main()
