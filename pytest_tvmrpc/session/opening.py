"""From an address to an endpoint: connection, handshake, InitServer. Asks no tracker.

InitServer goes out with the hello, which saves a round trip, and means the same in both dialects
as long as it names no session constructor. A constructor has to be written in the server's
dialect, and a server of TVM that is sent the wrong one may never serve again. A server of ours
reads both, and says in its hello that it is one; of others the dialect is learned first, in a
session that is closed again.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple, Optional, Sequence

from .. import network
from ..errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    DialectLearnedError,
    DuplicateKeyError,
    HandshakeError,
    KeyMismatchError,
    RemoteProtocolError,
    SessionCrashedError,
    SessionKickedError,
)
from ..protocol import packets
from ..protocol.codes import HandshakeReply
from ..protocol.dialect import FFI, Dialect
from ..protocol.handshake import ReplyReader, encode_client_hello
from .channel import SocketChannel
from .endpoint import Endpoint
from .logged import LoggedChannel

_INIT_SERVER = b"".join(packets.init_server(FFI))


class Wanted(NamedTuple):
    """A server, as whoever wants a session with it knows it, and how long that may take.

    Attributes:
        host, port: its address.
        key: its key, or the match key that its tracker gave, good for one connection.
        session_timeout: seconds after which it shall end the session; 0: never.
        connect_timeout: seconds until the connection stands; None: for ever.
        handshake_timeout: seconds from then on until the session is open. A server that serves
            somebody else does not answer before.
        is_logged: whether each packet shall be logged.
        is_early: whether InitServer may go out with the hello. A proxy of TVM closes then; the
            match key is used up by that.
    """

    host: str
    port: int
    key: str = ""
    session_timeout: float = 0
    connect_timeout: Optional[float] = 10.0
    handshake_timeout: Optional[float] = 10.0
    is_logged: bool = False
    is_early: bool = True

    @property
    def name(self) -> str:
        """The address as people write it."""
        return network.format_address(self.host, self.port)


class _Greeted(NamedTuple):
    """A connection whose handshake is done, and by when the session has to be open."""

    connection: socket.socket
    is_ours: bool
    deadline: network.Deadline


def open_session(
    wanted: Wanted, constructor: Sequence[Any] = (), dialect: Optional[Dialect] = None
) -> Endpoint:
    """A session with a server.

    Args:
        constructor: name and arguments of the session that the server shall open.
        dialect: the server's, if it is known.

    Raises:
        ConnectError: nobody answers at the address.
        KeyMismatchError: the server goes by another key.
        HandshakeError: what answers is no RPC server.
        DialectLearnedError: the match key was needed to learn the dialect; another one has to
            be asked for.
        DeadlineError: it did not answer in time.
    """
    if not constructor:
        try:
            if wanted.is_early:
                return _open_on(_greet(wanted, _INIT_SERVER), wanted, is_sent=True)
        except _TooEarlyError:
            pass  # a proxy of TVM, which has no partner for us yet
        except (ConnectError, SessionCrashedError, SessionKickedError):
            raise
        except ConnectionLostError:  # or one that had, and was told more than the hello
            if ":" in wanted.key:
                raise
        return _open_on(_greet(wanted), wanted)
    greeted = _greet(wanted)
    if greeted.is_ours:
        return _open_on(greeted, wanted, constructor)
    if dialect is None:
        probe = _open_on(greeted, wanted)
        dialect = probe.dialect
        probe.close("its dialect is known now")
        if ":" in wanted.key:
            raise DialectLearnedError(
                f"the match key {wanted.key!r} was used up to learn that {wanted.name} speaks "
                f"the dialect {dialect.name!r}; ask the tracker for another one",
                dialect,
            )
        greeted = _greet(wanted)
    return _open_on(greeted, wanted, constructor, dialect=dialect)


def _open_on(
    greeted: _Greeted,
    wanted: Wanted,
    constructor: Sequence[Any] = (),
    *,
    is_sent: bool = False,
    dialect: Optional[Dialect] = None,
) -> Endpoint:
    connection, deadline = greeted.connection, greeted.deadline
    try:
        make = LoggedChannel if wanted.is_logged else SocketChannel
        channel = make(
            connection, f"the RPC server {wanted.name}", deadline.left(), deadline.argument
        )
        endpoint = Endpoint(channel)
        endpoint.init_server(constructor, is_sent=is_sent, dialect=dialect)
        endpoint.takes_handles = greeted.is_ours and not constructor
    except BaseException:
        connection.close()
        raise
    return endpoint


class _TooEarlyError(ConnectionLostError):
    """The connection was closed after a hello with more words behind it."""


def _greet(wanted: Wanted, early: bytes = b"") -> _Greeted:
    """A blocking connection to a server that agreed; `early` went out with the first words."""
    name = wanted.name
    connection = network.dial(
        wanted.host,
        int(wanted.port),
        network.Deadline(
            wanted.connect_timeout, f"connecting to the RPC server {name}", "connect_timeout"
        ),
    )
    deadline = network.Deadline(
        wanted.handshake_timeout,
        f"the answer of the RPC server {name}, which may be serving somebody else,",
        "handshake_timeout",
    )
    try:
        reader = _shake_hands(connection, wanted, deadline, early)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return _Greeted(connection, reader.is_ours, deadline)


def _shake_hands(
    connection: socket.socket, wanted: Wanted, deadline: network.Deadline, early: bytes
) -> ReplyReader:
    """The first words; the server's answer has to be yes."""
    reader = ReplyReader()
    try:
        connection.sendall(encode_client_hello(wanted.key, wanted.session_timeout) + early)
        while reader.needed:
            connection.settimeout(deadline.left())
            received = connection.recv(reader.needed)
            if not received:
                if early and reader.reply is None:
                    raise _TooEarlyError
                raise HandshakeError(
                    f"{wanted.name} closed the connection in the handshake; it is no RPC server, "
                    "or it is going down"
                )
            reader.feed(received)
    except (DeadlineError, _TooEarlyError):
        raise
    except RemoteProtocolError as error:
        raise HandshakeError(f"URL {wanted.name} is not TVM RPC server: {error}") from None
    except OSError as error:
        if isinstance(error, socket.timeout) and deadline.is_over:
            raise deadline.error() from None
        if network.is_interrupt(error):
            raise
        if early and reader.reply is None:
            raise _TooEarlyError from error
        raise ConnectionLostError(
            f"{wanted.name} broke the connection in the handshake ({error.strerror or error}); "
            "it is no RPC server, or it is going down"
        ) from error
    if reader.reply is HandshakeReply.MISMATCH:
        raise KeyMismatchError(
            f"URL {wanted.name} cannot find server that matches key=client:{wanted.key}; "
            "check the key, or ask the tracker for a new match key"
        )
    if reader.reply is HandshakeReply.DUPLICATE:
        raise DuplicateKeyError(f"URL {wanted.name} server already have key=client:{wanted.key}")
    return reader
