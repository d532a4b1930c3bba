"""connect(): from an address to an RPCSession. Asks no tracker."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Optional, Sequence

from ..session.opening import Wanted, open_session
from .session import RPCSession

if TYPE_CHECKING:
    from ..protocol.dialect import Dialect


def connect(
    url: str,
    port: int,
    key: str = "",
    session_timeout: float = 0,
    session_constructor_args: Optional[Sequence[Any]] = None,
    enable_logging: bool = False,
    *,
    connect_timeout: Optional[float] = 10.0,
    handshake_timeout: Optional[float] = 10.0,
    call_timeout: Optional[float] = 600.0,
) -> RPCSession:
    """Opens a session with a server.

    Args:
        url: the server's host.
        port: the server's port.
        key: the server's key, or the match key that its tracker gave.
        session_timeout: seconds after which the server ends the session; 0: never.
        session_constructor_args: name and arguments of another session for the server to open
            and pass us on to: ``["rpc.Connect", host, port, key, False]`` for one that the server
            reaches and we do not (append the next constructor for one more hop);
            ``["rpc.PopenSession", program]`` for a program that the server starts, by its path
            there or as bytes, with what stands in its command line behind that; or
            ``["rpc.LocalSession"]``.
        enable_logging: each packet becomes a line in the log ``pytest_tvmrpc.session``, at DEBUG.
        connect_timeout: seconds until the connection stands. None: for ever.
        handshake_timeout: seconds from then on until the session is open; a server that serves
            somebody else lets us wait. None: for ever.
        call_timeout: seconds that any later call may take without an answer. None: for ever.

    Returns:
        The session; close it, or use it with ``with``.

    Raises:
        ValueError: the key is no single word, or the time limit is none.
        ConnectError: nobody answers at the address.
        KeyMismatchError: the server goes by another key.
        HandshakeError: what answers is no RPC server.
        RemoteError: the server cannot open the session that was asked for.
        DeadlineError: it did not answer in time.
    """
    if not 0 <= session_timeout < math.inf:
        raise ValueError(
            f"session_timeout={session_timeout!r}: give the seconds that the session may last, "
            "or 0 for no limit"
        )
    if key.split() not in ([], [key]) or "\0" in key:
        raise ValueError(f"the key {key!r} has a blank in it; keys are single words")
    wanted = Wanted(
        url, port, key, session_timeout, connect_timeout, handshake_timeout, enable_logging
    )
    return open_rpc_session(wanted, session_constructor_args, call_timeout)


def open_rpc_session(
    wanted: Wanted,
    session_constructor_args: Optional[Sequence[Any]],
    call_timeout: Optional[float],
    dialect: Optional[Dialect] = None,
) -> RPCSession:
    """The session of `connect`; who knows the server's dialect says so."""
    started = time.monotonic()
    endpoint = open_session(wanted, _constructor(session_constructor_args), dialect)
    endpoint.channel.limit(call_timeout, "call_timeout")
    session = RPCSession(endpoint, (wanted.host, int(wanted.port)))
    session.key = wanted.key.rpartition(":")[0] or wanted.key  # of a match key, the key
    session.connect_s = time.monotonic() - started
    return session


def _constructor(arguments: Optional[Sequence[Any]]) -> Sequence[Any]:
    if arguments is None:
        return ()
    if not isinstance(arguments, (list, tuple)):
        raise TypeError("Expect the session constructor to be a list or tuple")
    return arguments
