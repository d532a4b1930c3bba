"""connect(): from an address to an RPCSession. Asks no tracker."""

from __future__ import annotations

import socket
import time
from typing import Any, Optional, Sequence

from .. import network
from ..errors import (
    ConnectionLostError,
    DeadlineError,
    DuplicateKeyError,
    HandshakeError,
    KeyMismatchError,
    RemoteProtocolError,
)
from ..protocol import packets
from ..protocol.codes import HandshakeReply
from ..protocol.dialect import FFI
from ..protocol.handshake import ReplyReader, encode_client_hello
from ..session.channel import SocketChannel
from ..session.endpoint import Endpoint
from .session import RPCSession


def connect(
    url: str,
    port: int,
    key: str = "",
    session_timeout: float = 0,
    session_constructor_args: Optional[Sequence[Any]] = None,
    enable_logging: bool = False,
    *,
    connect_timeout: Optional[float] = 10.0,
    call_timeout: Optional[float] = 600.0,
) -> RPCSession:
    """Opens a session with a server.

    Args:
        url: the server's host.
        port: the server's port.
        key: the server's key, or the match key that its tracker gave.
        session_timeout: seconds after which the server ends the session; 0: never.
        session_constructor_args: name and arguments of another session for the server to open
            and pass us on to, e.g. ``["rpc.Connect", host, port, key, False]``.
        enable_logging: accepted as TVM's clients pass it; there is no log.
        connect_timeout: seconds for connection, handshake and opening the session together; a
            server that serves somebody else lets us wait. None: for ever.
        call_timeout: seconds that any later call may take without an answer. None: for ever.

    Returns:
        The session; close it, or use it with ``with``.

    Raises:
        ConnectError: nobody answers at the address.
        KeyMismatchError: the server goes by another key.
        HandshakeError: what answers is no RPC server.
        DeadlineError: it did not answer in time.
    """
    constructor = _constructor(session_constructor_args)
    started = time.monotonic()
    name = network.format_address(url, port)
    deadline = network.Deadline(
        connect_timeout, f"connecting to the RPC server {name}", "connect_timeout"
    )
    # InitServer goes out with the hello, which saves a round trip. A proxy refuses words that
    # come before it has a partner for us; then they come one after the other.
    early = b"".join(packets.init_server(FFI, constructor))
    try:
        connection = _greeted(url, int(port), key, session_timeout, deadline, early)
    except _TooEarlyError:
        early = b""
        connection = _greeted(url, int(port), key, session_timeout, deadline, early)
    try:
        channel = SocketChannel(
            connection, f"the RPC server {name}", deadline.left(), "connect_timeout"
        )
        endpoint = Endpoint(channel)
        endpoint.init_server(constructor, is_sent=bool(early))
        channel.limit(call_timeout, "call_timeout")
    except BaseException:
        connection.close()
        raise
    session = RPCSession(endpoint, (url, int(port)))
    session.connect_s = time.monotonic() - started
    return session


def _constructor(arguments: Optional[Sequence[Any]]) -> Sequence[Any]:
    if arguments is None:
        return ()
    if not isinstance(arguments, (list, tuple)):
        raise TypeError("Expect the session constructor to be a list or tuple")
    return arguments


class _TooEarlyError(ConnectionLostError):
    """The connection was closed after a hello with more words behind it."""


def _greeted(
    host: str,
    port: int,
    key: str,
    session_timeout: float,
    deadline: network.Deadline,
    early: bytes,
) -> socket.socket:
    """A connection whose handshake is done, blocking; `early` went out with the first words."""
    connection = network.dial(host, port, deadline)
    try:
        name = network.format_address(host, port)
        _shake_hands(connection, name, key, session_timeout, deadline, early)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def _shake_hands(
    connection: socket.socket,
    name: str,
    key: str,
    session_timeout: float,
    deadline: network.Deadline,
    early: bytes,
) -> None:
    """The first words; the server's answer has to be yes."""
    reader = ReplyReader()
    try:
        connection.sendall(encode_client_hello(key, session_timeout) + early)
        while reader.needed:
            connection.settimeout(deadline.left())
            received = connection.recv(reader.needed)
            if not received:
                if early and reader.reply is None:
                    raise _TooEarlyError
                raise HandshakeError(
                    f"{name} closed the connection in the handshake; it is no RPC server, "
                    "or it is going down"
                )
            reader.feed(received)
    except (DeadlineError, _TooEarlyError):
        raise
    except socket.timeout:
        raise deadline.error() from None
    except RemoteProtocolError as error:
        raise HandshakeError(f"URL {name} is not TVM RPC server: {error}") from None
    except OSError as error:
        if early and reader.reply is None:
            raise _TooEarlyError from error
        raise ConnectionLostError(
            f"{name} broke the connection in the handshake ({error.strerror or error}); "
            "it is no RPC server, or it is going down"
        ) from error
    if reader.reply is HandshakeReply.MISMATCH:
        raise KeyMismatchError(
            f"URL {name} cannot find server that matches key=client:{key}; "
            "check the key, or ask the tracker for a new match key"
        )
    if reader.reply is HandshakeReply.DUPLICATE:
        raise DuplicateKeyError(f"URL {name} server already have key=client:{key}")
