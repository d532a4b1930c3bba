"""A look at a tracker from outside, the same for ours and TVM's. Not a client of either stack.

TVM's tracker writes each answer in two pieces and waits for our acknowledgement between them
(Nagle). An acknowledgement at once (TCP_QUICKACK) saves the 40 ms that would blur our figures.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .peers import Address

MAGIC = struct.pack("<i", 0x2F271)
LENGTH = struct.Struct("<i")
SUMMARY = b"[6]"
POLL_S = 0.0003
LIMIT_S = 30.0


class TrackerWatch:
    """One connection to a tracker that asks for its summary."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(MAGIC)
        if self._receive(len(MAGIC)) != MAGIC:
            raise ValueError("not a tracker: it did not repeat the magic number")

    def __enter__(self) -> TrackerWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def free(self, key: str) -> int:
        """How many devices with a key are free."""
        self._socket.sendall(LENGTH.pack(len(SUMMARY)) + SUMMARY)
        (size,) = LENGTH.unpack(self._receive(LENGTH.size))
        _, summary = json.loads(self._receive(size))
        queues: dict[str, Any] = summary["queue_info"]
        return int(queues[key]["free"]) if key in queues else 0

    def wait_free(self, key: str, limit_s: float = LIMIT_S) -> None:
        """Returns when a device with a key is free; looks some thousand times a second."""
        until = time.monotonic() + limit_s
        while not self.free(key):
            if time.monotonic() > until:
                raise TimeoutError(f"no device with key {key} became free within {limit_s:g} s")
            time.sleep(POLL_S)

    def _receive(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            part = self._socket.recv(size - len(parts))
            if not part:
                raise ConnectionError("the tracker closed the connection")
            parts += part
        return parts
