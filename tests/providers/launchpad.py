"""The testbed's launchpad without its image: starts, stops, restarts and changes what a binary serves, at the word of a test suite.

    launchpad.py BINARY TESTBED [DIRECTORY] [--without FLAG]

Says one line of JSON when BINARY is ready: the ports of everything, and the directory it runs in (DIRECTORY, which stays, or one that goes
with the launchpad). FLAG is taken out of the testbed's. It ends with its standard input, and the binary with it. Any HTTP method:

    /start?config=NAME   ends what runs and starts it with configs/NAME.json, by default the one it had last; answers when it is ready
    /stop                ends it, as the kernel would: SIGKILL
    /restart?seconds=N   ends it, takes the flags away, answers, and starts it again N seconds later
    /change              moves the default of `changing-flag` between foo and bar

Ports are chosen once and kept over restarts. Everything listens on the loopback device, so that any number of suites run side by side.
flagd says that it is ready before it has its flags: to run a suite against it, set LAUNCHPAD_SETTLE_S to the seconds to wait after that (0.1).
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile
import time
import urllib.parse

import doors
from stand import Stand

LOOPBACK = "127.0.0.1"
READY_WITHIN_S = 10
# A suite waits for the answer with a deadline of a second, so it is not left waiting for a tick.
POLL_S = 0.01
# Yardarm is ready when it has its flags, and is not waited for.
SETTLE_S = float(os.environ.get("LAUNCHPAD_SETTLE_S", "0"))
SERVICES = ("port", "management-port", "sync-port", "ofrep-port")


def reserve():
    """A port that nobody else gets while this process lives, and that a listener with SO_REUSEADDR (every server's) can still bind.

    The option is set after the port was chosen: before, the kernel would be free to choose one that another launchpad holds in this way.
    """
    held = socket.socket()
    held.bind((LOOPBACK, 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return held


class Launchpad:
    def __init__(self, binary, stand):
        self.binary, self.stand = str(pathlib.Path(binary).resolve()), stand
        self.held = {service: reserve() for service in SERVICES}
        self.ports = {service: held.getsockname()[1] for service, held in self.held.items()}
        self.log = (stand.directory / "binary.log").open("ab")
        self.configuration, self.process, self.pending = "default", None, None
        # One command after the other; a restart that waits holds nothing.
        self.turn = asyncio.Lock()

    async def start(self, configuration=""):
        if configuration and not self.stand.has(configuration):
            raise ValueError(f"there is no configuration {configuration!r}")
        self.configuration = configuration or self.configuration
        async with self.turn:
            await self._end()
            if not self.stand.combined.exists():
                self.stand.combine()
            await self._begin()
        return f"started with {self.configuration}"

    async def stop(self):
        async with self.turn:
            await self._end()
        return "stopped"

    async def restart(self, seconds):
        async with self.turn:
            await self._end()
            self.stand.forget()
            self.pending = asyncio.create_task(self._later(seconds))
        return f"starts again in {seconds} s"

    async def change(self):
        async with self.turn:
            return f"the default is {self.stand.change()}"

    async def _later(self, seconds):
        await asyncio.sleep(seconds)
        async with self.turn:
            self.pending = None
            if not self.stand.combined.exists():
                self.stand.combine()
            await self._begin()

    async def _begin(self):
        for service in ("evaluation", "sync"):
            self.stand.socket(service).unlink(missing_ok=True)
        ports = [word for service, port in self.ports.items() for word in (f"--{service}", str(port))]
        command = [self.binary, "start", "--config", f"./configs/{self.configuration}.json", *ports]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.stand.directory,
            env={**settled(os.environ), "YARDARM_BIND_ADDRESS": LOOPBACK},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        await self._ready()

    async def _ready(self):
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until:
            if self.process.returncode is not None:
                raise RuntimeError(f"the binary ended with {self.process.returncode}; its log is {self.log.name}")
            if await get(self.ports["management-port"], "/readyz") == 200:
                return await asyncio.sleep(SETTLE_S)
            await asyncio.sleep(POLL_S)
        await self._end()
        raise RuntimeError(f"the binary was not ready within {READY_WITHIN_S} s; its log is {self.log.name}")

    async def _end(self):
        if self.pending:
            self.pending.cancel()
            self.pending = None
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def answer(self, target):
        url = urllib.parse.urlsplit(target)
        asked = dict(urllib.parse.parse_qsl(url.query))
        match url.path:
            case "/start":
                return await self.start(asked.get("config", ""))
            case "/stop":
                return await self.stop()
            case "/restart":
                return await self.restart(float(asked.get("seconds", "5")))
            case "/change":
                return await self.change()
        raise ValueError(f"there is no {url.path}")

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            try:
                status, message = "200 OK", await self.answer(target)
            except ValueError as refused:
                status, message = "400 Bad Request", str(refused)
            except RuntimeError as failed:
                status, message = "500 Internal Server Error", str(failed)
            print(target, status, message, file=sys.stderr, flush=True)
            body = json.dumps({"status": "success" if status.startswith("200") else "error", "message": message})
            headers = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}".encode())
            await writer.drain()


def settled(environment):
    """Without what somebody has set for a server of his own."""
    return {name: value for name, value in environment.items() if not name.startswith(("FLAGD_", "YARDARM_"))}


async def get(port, path):
    """The status that a server on this machine answers with; none if there is no server."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        with contextlib.closing(writer):
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            return int((await asyncio.wait_for(reader.readuntil(b"\r\n"), 0.5)).split()[1])


async def until_told():
    """Standard input's end, or a signal that asks to end."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, told.set)

    def read():
        if not os.read(0, 4096):
            loop.remove_reader(0)
            told.set()

    loop.add_reader(0, read)
    await told.wait()


async def run(binary, testbed, directory, without):
    launchpad = Launchpad(binary, Stand(testbed, directory, without))
    opened = {}
    for name, door in (
        ("launchpad", launchpad.serve),
        ("forbidden", doors.forbid),
        ("rpc_target", doors.forward(launchpad.ports["port"])),
        ("sync_target", doors.forward(launchpad.ports["sync-port"])),
    ):
        server = await asyncio.start_server(door, LOOPBACK, 0)
        opened[name] = server.sockets[0].getsockname()[1]
    try:
        await launchpad.start()
        ports = {service: launchpad.ports[key] for service, key in zip(("rpc", "management", "sync", "ofrep"), SERVICES)}
        sockets = {f"{service}_socket": str(launchpad.stand.socket(service)) for service in ("evaluation", "sync")}
        files = {"directory": str(launchpad.stand.directory), "authority": str(launchpad.stand.authority)}
        print(json.dumps({**opened, **ports, **sockets, **files}), flush=True)
        await until_told()
    finally:
        await launchpad.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("testbed")
    parser.add_argument("directory", nargs="?", type=pathlib.Path)
    parser.add_argument("--without", metavar="FLAG")
    asked = parser.parse_args()
    if asked.directory:
        return asyncio.run(run(asked.binary, asked.testbed, asked.directory.resolve(), asked.without))
    with tempfile.TemporaryDirectory(prefix="launchpad-") as temporary:
        asyncio.run(run(asked.binary, asked.testbed, pathlib.Path(temporary), asked.without))


if __name__ == "__main__":
    main()
