"""What a session has printed on its server: asked for, and read. Shows nothing."""

from __future__ import annotations

import operator
import struct
from typing import NamedTuple, Optional, Tuple

from ..errors import RemoteProtocolError
from ..session.interface import OUTPUT

_END = struct.Struct("<Q")


class RemoteOutput(NamedTuple):
    """A part of what a session has printed; it reaches to the end.

    Attributes:
        content: the bytes, as they were printed.
        end: how much was printed in all, which is where the next part begins.
        dropped: bytes of what was asked for that stood before the content, and are not in it.
    """

    content: bytes
    end: int
    dropped: int = 0

    @property
    def text(self) -> str:
        """The content as text; bytes that are none are replaced."""
        return self.content.decode("utf-8", "replace")


def bounds(since: int, limit: Optional[int]) -> Tuple[int, Optional[int]]:
    """The arguments of the function.

    Raises:
        ValueError: one of them is negative.
    """
    since = operator.index(since)
    limit = None if limit is None else operator.index(limit)
    if since < 0 or (limit or 0) < 0:
        raise ValueError(f"since={since}, limit={limit}: these are bytes; expected 0 or more")
    return since, limit


def read(answer: bytes, since: int) -> RemoteOutput:
    """What the function returned.

    Raises:
        RemoteProtocolError: that is something else.
    """
    if not isinstance(answer, (bytes, bytearray)) or len(answer) < _END.size:
        raise RemoteProtocolError(
            f"{OUTPUT} returned {repr(answer)[:80]}; expected bytes that begin with a length"
        )
    (end,) = _END.unpack_from(answer)
    content = bytes(answer[_END.size :])
    return RemoteOutput(content, end, max(end - len(content) - since, 0))
