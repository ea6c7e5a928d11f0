"""What the command line does on a terminal only: colours, progress, questions. And a change that comes while somebody thinks."""

import os
import pty
import re
import select
import subprocess
import sys
import tempfile

from stand import DEADLINE_S, Dev, environment

YARDARM = sys.argv[1]
FLAG = "new_checkout_flow"
ESCAPE = "\x1b["


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments, stdout=None, **more):
        self.master, slave = pty.openpty()
        said = environment(TERM="xterm-256color", **more)
        self.process = subprocess.Popen([YARDARM, *arguments], stdin=slave, stdout=stdout or slave, stderr=slave, env=said)
        os.close(slave)
        self.said = ""

    def until(self, text):
        while text not in self.plain():
            assert self.read(), f"{text!r} did not come: {self.said!r}"

    def answer(self, text):
        os.write(self.master, f"{text}\n".encode())

    def end(self):
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(DEADLINE_S)

    def read(self):
        ready, _, _ = select.select([self.master], [], [], DEADLINE_S)
        assert ready, f"nothing came for {DEADLINE_S} s after {self.said!r}"
        try:
            piece = os.read(self.master, 4096)
        except OSError:  # Linux says EIO when the other side is closed.
            return False
        self.said += piece.decode()
        return bool(piece)

    def plain(self):
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.said).replace("\r\n", "\n")


def colours(dev):
    for more, coloured in [({}, True), ({"NO_COLOR": "1"}, False)]:
        terminal = Terminal("flag", "list", "--control-plane", dev.control, **more)
        assert terminal.end() == 0 and (ESCAPE in terminal.said) == coloured, (more, terminal.said)
    json = Terminal("flag", "list", "--control-plane", dev.control, "--output", "json")
    assert json.end() == 0 and ESCAPE not in json.said, json.said


def questions(dev, file):
    """No is no, an empty line is no, yes is yes."""
    apply = ["flag", "apply", "-f", file, "--control-plane", dev.control]
    # With JSON for a program, whoever is asked sees the difference all the same.
    with tempfile.TemporaryFile() as answers:
        terminal = Terminal(*apply, "--output", "json", stdout=answers)
        terminal.until("Apply 1 change to environment default? [y/N] ")
        assert "- owner: payments" in terminal.plain() and "+ owner: shop" in terminal.plain(), terminal.said
        terminal.answer("n")
        assert terminal.end() == 1 and os.fstat(answers.fileno()).st_size == 0, terminal.said
    for answer, code in [("n", 1), ("", 1), ("yes", 0)]:
        terminal = Terminal(*apply)
        terminal.until("Apply 1 change to environment default? [y/N] ")
        assert "- owner: payments" in terminal.plain() and "+ owner: shop" in terminal.plain(), terminal.said
        terminal.answer(answer)
        assert terminal.end() == code, terminal.said
        assert ("declined; nothing was changed" in terminal.plain()) == (code == 1), terminal.said


def conflict(dev, file, other):
    """What was shown is not what would be changed any more: it is refused, and the new difference is shown."""
    terminal = Terminal("flag", "apply", "-f", file, "--control-plane", dev.control)
    terminal.until("[y/N] ")
    dev.run("flag", "apply", "-f", other, "--yes", "--actor", "ben")
    terminal.answer("y")
    assert terminal.end() == 1, terminal.said
    said = terminal.plain()
    assert "somebody else changed" in said and "ben" in said and "what it would change now:" in said, said
    assert "- owner: ops" in said.split("what it would change now:")[1], said
    (kept,) = dev.run("flag", "list", FLAG)["flags"]
    assert kept["definition"]["owner"] == "ops", kept


def progress(dev):
    terminal = Terminal("kill", FLAG, "--reason", "x", "--wait", "10s", "--control-plane", dev.control)
    assert terminal.end() == 0, terminal.said
    assert " of 1 pods, " in terminal.plain().split("killed new_checkout_flow")[0], terminal.said
    assert re.search(r"killed new_checkout_flow at revision \d+: applied on 1 of 1 pods, p50 ", terminal.plain()), terminal.said


def main():
    with tempfile.TemporaryDirectory(prefix="yardarm-") as directory, Dev(YARDARM, f"{directory}/data") as dev:

        def document(owner):
            command = [YARDARM, "flag", "get", FLAG, "--control-plane", dev.control]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
            path = f"{directory}/{owner}.yaml"
            with open(path, "w") as file:
                file.write(re.sub(r"owner: \w+", f"owner: {owner}", done.stdout))
            return path

        colours(dev)
        questions(dev, document("shop"))
        conflict(dev, document("payments"), document("ops"))
        progress(dev)
    print("terminal: colours, questions, a conflict and progress")


main()
