"""Finding out what listens at an address: each of our peers, or a stranger by its first bytes.

Opens no session: whatever answers is left after its first words.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from .. import network
from ..errors import DeadlineError
from ..protocol import tracker as wire
from ..protocol.handshake import encode_client_hello

_KEY = "tvmrpc-doctor"
"""A key that no server has: it says that it is a server by refusing it."""

_HTTP = b"GET / HTTP/1.0\r\n\r\n"


Place = Tuple[int, Any]
"""An address family, and what the kernel connects to."""


class Peer(NamedTuple):
    """What listens at an address: ``tracker``, ``server``, ``stranger`` or ``silent``; in words."""

    kind: str
    text: str


class Attempt(NamedTuple):
    """What came of connecting to one address."""

    address: str
    outcome: str
    """``connected``, ``refused``, ``timeout``, ``unreachable`` or ``error``."""
    text: str


def connect_to(
    places: Sequence[Place], deadline: network.Deadline
) -> Tuple[Optional[socket.socket], List[Attempt]]:
    """A connection to the first of these places that takes it, and how each of them answered.

    Args:
        places: as `look_up` gives them. They share the time that is left.
    """
    attempts: List[Attempt] = []
    for number, (family, address) in enumerate(places):
        left = (deadline.left() or 0.0) / (len(places) - number)
        name = network.format_address(*address[:2])
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(left)
            connection.connect(address)
        except OSError as error:
            connection.close()
            attempts.append(Attempt(name, *_reason(error, left)))
        except BaseException:
            connection.close()
            raise
        else:
            connection.settimeout(None)
            network.set_stream_options(connection)
            return connection, [*attempts, Attempt(name, "connected", "connected")]
    return None, attempts


def _reason(error: OSError, limit_s: float) -> Tuple[str, str]:
    if isinstance(error, ConnectionRefusedError):
        return "refused", "refused"
    if isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT:
        return "timeout", f"no answer within {limit_s:.3g} s"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return "unreachable", f"unreachable ({error.strerror})"
    return "error", str(error.strerror or error)


def first_words(connection: socket.socket, said: bytes, deadline: network.Deadline) -> bytes:
    """What comes after something was said, four bytes or more; fewer if no more come in time."""
    received = b""
    try:
        connection.settimeout(deadline.left())
        connection.sendall(said)
        while len(received) < 4:
            connection.settimeout(deadline.left())
            part = connection.recv(64)
            if not part:
                break
            received += part
    except (OSError, DeadlineError):
        pass  # closed, reset or silent: what has come so far is all there is
    return received


def known_by(received: bytes) -> Optional[Peer]:
    """What says such first words; None if that cannot be told."""
    if received.startswith(wire.MAGIC):
        return Peer("tracker", "an RPC tracker")
    if len(received) >= 4 and received[1:4] == b"\xf2\x0f\x00" and 0x71 <= received[0] <= 0x73:
        return Peer("server", "an RPC server or proxy")
    if received.startswith(b"SSH-"):
        return Peer("stranger", f"an SSH server ({_shown(received)})")
    if received.startswith((b"HTTP/", b"<!DOCTYPE", b"<html")):
        return Peer("stranger", "an HTTP server")
    if received[:2] in (b"\x15\x03", b"\x16\x03"):
        return Peer("stranger", "a TLS server")
    if received:
        return Peer("stranger", f"something else (it says {_shown(received)})")
    return None


def _shown(received: bytes) -> str:
    text = received.splitlines()[0][:40].decode("ascii", "replace")
    return text if text.isprintable() and "\ufffd" not in text else repr(received[:16])


def identify(place: Place, limit_s: float) -> Peer:
    """What listens there, asked as a tracker, as a server and as a web server in turn.

    For a place that did not answer as it should: a server of TVM takes strangers badly.
    """
    for said in (wire.MAGIC, encode_client_hello(_KEY), _HTTP):
        deadline = network.Deadline(limit_s / 3, "an answer")
        connection, _ = connect_to([place], deadline)
        if connection is None:
            continue
        with connection:
            peer = known_by(first_words(connection, said, deadline))
        if peer is not None:
            return peer
    return Peer("silent", "something that accepts connections and does not answer")


def numeric(host: str) -> Optional[int]:
    """The address family if this is a number already and no name; else None."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None


def look_up(host: str, port: int, limit_s: float) -> List[Place]:
    """The places behind a name, in the order in which they would be tried.

    The system's resolver knows no limit and no Ctrl-C, so that it runs in a thread, which is left
    alone if it takes too long.

    Raises:
        ConnectError: there are none.
        DeadlineError: it took too long.
    """
    family = numeric(host)
    if family is not None:
        return [(family, (host, port))]
    import threading

    outcome: List[object] = []

    def resolve() -> None:
        try:
            outcome.append(network.resolve(host, port))
        except Exception as error:  # raised in the other thread, whatever it is
            outcome.append(error)

    deadline = network.Deadline(limit_s, f"looking up the name {host!r}", "--timeout")
    thread = threading.Thread(target=resolve, name="look-up", daemon=True)
    thread.start()
    started = time.monotonic()
    while not outcome and time.monotonic() - started < limit_s:
        thread.join(0.05)  # in steps, as Windows lets no Ctrl-C into a wait
    if not outcome:
        raise deadline.error()
    (found,) = outcome
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, list)
    return [(entry[0], entry[4]) for entry in found]
