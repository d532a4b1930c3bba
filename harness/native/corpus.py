"""What the fuzzers begin with: golden packets in their form, and what earlier runs kept.

The kept inputs of a fuzzer are a text file in corpus/, one input in hexadecimal on each line.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tvmrpc.protocol.codes import RPCCode

from ..chaos.mutation import golden

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = Path(__file__).parent / "corpus"
SOURCES = Path(__file__).parents[2] / "pytest_tvmrpc" / "native"

LONGEST = 400
"""Bytes of an input that is kept; longer ones show nothing that shorter ones do not."""

KEYS = (
    *("client:board:0.7956352009146216 -timeout=2.5", "client:a -x -timeout=1_0e-3 -timeout=.5"),
    *("client:\u00e9\u20ac\U0001f600\u2003-timeout=+1.", "server:board", "client:\0 -timeout=nan"),
)

HEAD, VALUES_FFI, VALUES_LEGACY, RECORD_FFI, RECORD_LEGACY, DIALECT, HELLO, KEY, TEXT = range(9)
"""What the first byte of an input of fuzz_wire.c chooses."""


def wire_seeds() -> Iterator[bytes]:
    """Inputs of fuzz_wire.c: every golden packet for each function that may read a part of it."""
    for packet in golden():
        (code,) = struct.unpack_from("<i", packet, 8)
        body = packet[12:]
        yield bytes([HEAD]) + packet[:12]
        yield bytes([DIALECT, code + 1, 1]) + body
        if code in (RPCCode.COPY_FROM_REMOTE, RPCCode.COPY_TO_REMOTE):
            yield bytes([RECORD_FFI]) + body
            yield bytes([RECORD_LEGACY]) + body
        elif code != RPCCode.COPY_ACK:
            start = {RPCCode.CALL_FUNC: 8, RPCCode.INIT_SERVER: 13}.get(RPCCode(code), 0)
            for choice in (VALUES_FFI, VALUES_LEGACY):
                yield bytes([choice, 0, 3]) + body[start:]
    for hello in golden("handshake"):
        yield bytes([HELLO]) + hello
    for key in map(str.encode, KEYS):
        yield bytes([HELLO]) + struct.pack("<ii", 0xFF271, len(key)) + key
        yield bytes([KEY]) + key
        yield bytes([TEXT]) + key


def kept(name: str) -> list[bytes]:
    """The inputs that earlier runs of a fuzzer kept."""
    path = FOLDER / f"{name}.txt"
    return (
        [bytes.fromhex(line) for line in path.read_text("ascii").split()] if path.exists() else []
    )


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Writes the inputs to be kept from now on; returns how many."""
    lines = sorted({one.hex() for one in inputs if 0 < len(one) <= LONGEST}, key=_size)
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")
    return len(lines)


def _size(line: str) -> tuple[int, str]:
    return len(line), line
