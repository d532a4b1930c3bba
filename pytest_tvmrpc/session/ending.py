"""How a conversation ends: which errors are the connection's, and what was said of it there."""

from __future__ import annotations

import errno
import threading
from typing import NoReturn, Optional, Union

from .. import network
from ..errors import (
    ConnectionLostError,
    LocalProtocolError,
    ProtocolError,
    RemoteError,
    RemoteProtocolError,
    RPCError,
    remote_error,
)
from ..protocol.dialect import of_server
from ..protocol.packets import trailing_exception
from ..protocol.requests import State, illegal
from .later import ENDS

Buffer = Union[bytes, bytearray, memoryview]

LOSSES = (ConnectionLostError, RemoteProtocolError)
"""What ends a session that this side would have gone on with."""

CLOSED_THERE = (errno.EPIPE, errno.ECONNRESET)
"""Numbers of errors of a connection that the other side has closed."""

EXITING = "the interpreter ends"
"""Why a session is over at the end of the program."""

CODE_AT = 8
"""Where the code of a packet of ours is; it is below 256."""


def of_connection(error: BaseException) -> Optional[OSError]:
    """The error, if it says that the connection is over, or makes no progress.

    Not so an `OSError` that a function raised over there, or a signal handler here.
    """
    if isinstance(error, ConnectionLostError) and not isinstance(error, RemoteError):
        return error
    if not isinstance(error, OSError) or isinstance(error, RPCError) or network.is_interrupt(error):
        return None
    return error


def said_at_the_end(last_bytes: bytes) -> Optional[Exception]:
    """What a server said at the end of an answer of which the rest is missing."""
    body = trailing_exception(last_bytes)
    if body is None:
        return None
    try:
        (text,) = of_server(body).decode_values(body, 0, len(body))
    except (ProtocolError, ValueError):
        return None
    error = remote_error(str(text))
    return error if isinstance(error, ENDS) else None


def refuse(peer: str, because: str, packet: object = None) -> NoReturn:
    """What sending is once the session is over."""
    if because == EXITING and threading.current_thread().daemon:
        raise SystemExit  # which ends a thread without a word
    raise ConnectionLostError(f"the session with {peer} is over: {because}")


def refuse_early(packet: Buffer) -> NoReturn:
    """What sending is before the session is open: InitServer does not go this way."""
    raise LocalProtocolError(illegal(State.OPENED, packet[CODE_AT]))
