"""What stands in front of flagd in the testbed, where it is an envoy: a door that lets nobody in, and doors under another name."""

import asyncio
import contextlib

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, PING = 4, 1, 6
ACK, END_STREAM, END_HEADERS = 1, 1, 4
HEAD = 9
PERMISSION_DENIED = 7


def _frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(name, value):
    """A header that HPACK neither indexes nor compresses; both are shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


# ":status: 200" is entry 8 of HPACK's static table. A gRPC error is an answer that has only headers.
DENIED = b"\x88" + b"".join(
    _literal(name, value)
    for name, value in (
        (b"content-type", b"application/grpc"),
        (b"grpc-status", str(PERMISSION_DENIED).encode()),
        (b"grpc-message", b"forbidden"),
    )
)


async def forbid(reader, writer):
    """Answers every gRPC call with PERMISSION_DENIED, and whoever speaks HTTP/1.1 with 403. It has to read no header for that."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
        start = await reader.readexactly(4)
        if start != PREFACE[:4]:
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"code":"permission_denied","message":"forbidden"}'
            writer.write(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), body))
            return await writer.drain()
        await reader.readexactly(len(PREFACE) - 4)
        writer.write(_frame(SETTINGS, 0, 0))
        while True:
            head = await reader.readexactly(HEAD)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if kind in (SETTINGS, PING) and not flags & ACK:
                writer.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == HEADERS:
                writer.write(_frame(HEADERS, END_STREAM | END_HEADERS, stream, DENIED))
            await writer.drain()


def forward(port):
    """Carries each connection to `port` of this machine, whatever authority it names; a connection to nobody ends at once."""

    async def carry(reader, writer):
        with contextlib.closing(writer):
            try:
                onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            with contextlib.closing(onward_writer):
                ways = [asyncio.create_task(_copy(reader, onward_writer)), asyncio.create_task(_copy(onward_reader, writer))]
                # One end gone is both gone, as it is with a process that was killed.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()

    return carry


async def _copy(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
