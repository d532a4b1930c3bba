"""What this session's process has printed, as its supervisor keeps it. Prints nothing.

The process cannot know by itself: what it printed is in a pipe that the supervisor reads. So it
asks, over the connection between the two; by then the supervisor has taken all that came before.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Optional, Tuple

from .kept import ANSWER, AT_THE_END, QUESTION

_LIMIT_S = 2.0
"""How long the supervisor may take in all; it does nothing that takes long."""

_END = struct.Struct("<Q")


def printed(lifeline: int, since: int, limit: Optional[int]) -> bytes:
    """What is left of the output from an offset on: eight bytes with the end's, then the text.

    The text is what stands right before the end: where some of it is gone, that is the beginning.

    Args:
        lifeline: the connection to the supervisor.
        since: offset in all that was printed.
        limit: bytes of text at most; None for all there is.

    Raises:
        ValueError: these are no numbers of bytes.
        TimeoutError: the supervisor does not answer.
    """
    for number in (since, limit):
        if number is not None and not (type(number) is int and 0 <= number < AT_THE_END):
            raise ValueError(f"{number!r} is no number of bytes; expected 0 or more")
    with socket.socket(fileno=os.dup(lifeline)) as connection:
        supervisor = _Supervisor(connection)
        _, end, _ = supervisor.ask(AT_THE_END)
        offset = since if limit is None else max(since, end - limit)
        text = bytearray()
        while offset < end:
            begin, _, content = supervisor.ask(offset)
            if begin != offset:
                text.clear()  # it was overtaken by what is printed meanwhile
            text += content[: max(end - begin, 0)]
            offset = begin + len(content)
    return _END.pack(end) + text


class _Supervisor:
    """The other end of the connection.

    Args:
        connection: to it; gets a limit of time.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + _LIMIT_S

    def ask(self, offset: int) -> Tuple[int, int, bytes]:
        """Where the content begins, where the output ends, and the content.

        Raises:
            TimeoutError: there is no answer in time.
            ConnectionError: the supervisor has ended.
        """
        number = time.monotonic_ns()  # no other question of this process has it
        self._connection.settimeout(_LIMIT_S)
        self._connection.sendall(QUESTION.pack(number, offset))
        while True:
            answered, begin, end, nbytes = ANSWER.unpack(self._exactly(ANSWER.size))
            content = self._exactly(nbytes)
            if answered == number:  # and not to a question that was given up
                return begin, end, content

    def _exactly(self, nbytes: int) -> bytes:
        content = bytearray()
        while len(content) < nbytes:
            self._connection.settimeout(max(self._until - time.monotonic(), 0.001))
            try:
                part = self._connection.recv(nbytes - len(content))
            except OSError as error:
                if not isinstance(error, socket.timeout):
                    raise
                raise TimeoutError(
                    f"the server's process did not say within {_LIMIT_S:g} s what was printed; "
                    "it may be stopped; try again"
                ) from None
            if not part:
                raise ConnectionError("the server's process has ended")
            content += part
        return bytes(content)
