"""The Python client that README shows, generated and run as it stands there."""

import os
import pathlib
import re
import select
import subprocess
import sys
import tempfile

from stand import DEADLINE_S, Dev

YARDARM = sys.argv[1]
ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def block(language, part):
    """The one block of a language that has this in it."""
    (text,) = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if part in text]
    return text


def line_of(process):
    """The next line that the client prints, or a failure after the deadline. Its output is not buffered here, so that select sees it."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
        piece = os.read(process.stdout.fileno(), 1) if ready else b""
        assert piece, f"the client said nothing more than {line!r}"
        line += piece
    return line.decode().strip()


with tempfile.TemporaryDirectory(prefix="yardarm-") as directory:
    os.symlink(ROOT / "proto", f"{directory}/proto")
    # tests/run has made such an environment, and installed into it what the second line installs.
    prepared = ("python3 -m venv ", "pip install ")
    generate = [line for line in block("sh", "grpc_tools").splitlines() if not line.startswith(prepared)]
    assert len(generate) == 1, generate
    subprocess.run(["sh", "-c", generate[0]], cwd=directory, check=True)
    with Dev(YARDARM, f"{directory}/data") as dev:
        shown = block("python", "EvaluationStub")
        (over_tcp,) = re.findall(r"^flags = rpc.EvaluationStub\((.*)\)$", shown, re.MULTILINE)
        (over_socket,) = re.findall(r"^# Over the socket: (.*)$", shown, re.MULTILINE)
        for channel in (over_tcp.replace("127.0.0.1:8013", dev.sidecar), over_socket.replace(".yardarm/dev-1.sock", dev.socket)):
            script = shown.replace(f"EvaluationStub({over_tcp})", f"EvaluationStub({channel})")
            assert script != shown, "README does not show the address of a sidecar"
            client = subprocess.Popen([sys.executable, "-c", script], cwd=directory, stdout=subprocess.PIPE)
            try:
                assert line_of(client) == "True on REASON_SPLIT"
                assert line_of(client) == "watching 5 flags"
                dev.run("kill", "new_checkout_flow", "--reason", "as in README")
                assert line_of(client) == "new_checkout_flow TYPE_KILLED"
            finally:
                client.kill()
                client.wait()
            dev.run("restore", "new_checkout_flow", "--reason", "once more", "--wait", "10s")

print("readme: generated, evaluated and watched as README shows")
