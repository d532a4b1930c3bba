"""JSON in frames: an i32 length, and as many bytes of text. Knows no messages.

Whatever comes is a value or a `RemoteProtocolError`, in bounded time and memory.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NoReturn, Optional

from ..errors import RemoteProtocolError

MAX_FRAME = 1 << 20
"""TVM's own limit since 0.25 (MAX_TRACKER_MSG_BYTES in python/tvm/rpc/tracker.py)."""

_MAX_DIGITS = 20
_LENGTH = struct.Struct("<i")


def encode(value: object) -> bytes:
    """A JSON value as one frame, to be sent in one piece.

    TVM sends length and body apart, which costs 40 ms a message on a socket with Nagle's algorithm.
    """
    body = json.dumps(value).encode("ascii")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames; never holds more than the bytes that really came.

    Args:
        limit: the longest frame that is taken.
    """

    __slots__ = ("_limit", "_position", "_received")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._received = bytearray()
        self._position = 0

    def feed(self, received: bytes) -> None:
        """Take what came, wherever it was cut."""
        if self._position:
            del self._received[: self._position]
            self._position = 0
        self._received += received

    @property
    def left_nbytes(self) -> int:
        """How many bytes there are that no frame was cut from yet."""
        return len(self._received) - self._position

    def next_frame(self) -> Optional[bytes]:
        """The body of the next complete frame, or None until more was fed.

        Raises:
            RemoteProtocolError: a length is not positive or above the limit; there is no way on.
        """
        start = self._position + _LENGTH.size
        if len(self._received) < start:
            return None
        (length,) = _LENGTH.unpack_from(self._received, self._position)
        if not 0 < length <= self._limit:
            raise RemoteProtocolError(
                f"a tracker frame claims {length} bytes; 1 to {self._limit} were expected"
            )
        if len(self._received) < start + length:
            return None
        self._position = start + length
        return bytes(self._received[start : start + length])


def parse_json(body: bytes) -> Any:
    """The value in a frame.

    Raises:
        RemoteProtocolError: it is no JSON, is nested too deeply or has a number out of all bounds.
    """
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except RecursionError:
        raise RemoteProtocolError("a tracker message is nested too deeply") from None
    except ValueError as error:
        raise RemoteProtocolError(f"a tracker message is no JSON: {error}") from None


def _integer(text: str) -> int:
    # int() takes seconds for a megabyte of digits.
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


# Made once: with hooks, json.loads() would make a decoder for each message.
_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_no_number)


def refuse(rule: str, value: object) -> NoReturn:
    """Raise: a peer's value broke a rule.

    Raises:
        RemoteProtocolError: always.
    """
    try:
        shown = repr(value)[:80]
    except RecursionError:
        shown = "something nested deeply"
    raise RemoteProtocolError(f"{rule}; got {shown}")
