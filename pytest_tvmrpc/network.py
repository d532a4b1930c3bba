"""Dialling and binding: addresses, ports, socket options, deadlines, forks. Knows no protocol."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
import weakref
from collections import deque
from typing import Any, List, Optional, Sequence, Tuple, cast

from .errors import ConnectError, DeadlineError, RPCError

LOOPBACK = "127.0.0.1"
WILDCARDS = ("0.0.0.0", "::", "")
VANISHED_S = 60
"""After so long, a machine that says nothing at all is taken to be gone."""

_NEXT_S = 0.25
"""After so long without an answer, the next address of a name is tried, too (RFC 8305)."""

_LONGEST_KERNEL_TIMEOUT_S = 1_000_000  # eleven days; every kernel's fields hold it


class Deadline:
    """A point in time that ends a wait of several steps.

    Args:
        limit_s: seconds from now; None means that the wait has no end.
        what: what is waited for, and `argument`: what sets the limit; both for the message.
    """

    __slots__ = ("argument", "at", "limit_s", "what")

    def __init__(self, limit_s: Optional[float], what: str, argument: str = "") -> None:
        self.limit_s = limit_s
        self.what = what
        self.argument = argument
        self.at = None if limit_s is None else time.monotonic() + limit_s

    def left(self) -> Optional[float]:
        """Seconds that are left, or None without a limit.

        Raises:
            DeadlineError: nothing is left.
        """
        if self.at is None:
            return None
        left = self.at - time.monotonic()
        if left <= 0:
            raise self.error()
        return left

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.at is not None and time.monotonic() >= self.at

    def error(self) -> DeadlineError:
        """What to raise when the wait is over."""
        hint = f"; set {self.argument} to wait longer" if self.argument else ""
        error = DeadlineError(f"{self.what} took longer than {self.limit_s:g} s{hint}")
        error.argument = self.argument
        return error


def is_interrupt(error: BaseException) -> bool:
    """Whether this OSError comes from a signal handler, which raised it within a wait.

    What the system says of a connection has an errno, and what this package says is an
    `RPCError`. A handler's ``raise TimeoutError("too slow")`` is neither: it says nothing about the
    connection, and has to reach whoever set the alarm.

    The `socket.timeout` of Python's own ``settimeout`` has no errno either: who calls that asks for
    it first.
    """
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, RPCError)


_OWNERS: weakref.WeakSet[Any] = weakref.WeakSet()


def forget_in_forks(owner: Any) -> None:
    """Has ``owner.forget()`` called in each process that this one forks, as long as it lives.

    For what belongs to one process: a conversation of which two processes read the answers, or the
    end of a pipe that says whether its owner lives. A fork by C code is not noticed.
    """
    _OWNERS.add(owner)


def _forget() -> None:
    for owner in list(_OWNERS):
        owner.forget()


os.register_at_fork(after_in_child=_forget)


def parse_address(text: str, default_port: int = 0) -> Tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as a pair.

    Raises:
        ValueError: the text has no port and there is no default, or the port is no number.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):
        host, port = text, ""
    if not port and default_port:
        port = str(default_port)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no address; expected HOST:PORT, for example 127.0.0.1:9190")
    return host.strip("[]") or LOOPBACK, int(port)


def format_address(host: str, port: int) -> str:
    """The address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str, port: int) -> List[Any]:
    """The addresses of a name, as ``getaddrinfo`` gives them.

    Raises:
        ConnectError: it has none.
    """
    # As bytes: a str is put through the IDNA codec, which takes a megabyte for its tables.
    name: Any = host.encode() if host.isascii() else host
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: not even the form of a name
        if is_interrupt(error):
            raise
        raise ConnectError(f"the host name {host!r} cannot be resolved: {error}") from error


def dial(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connected blocking TCP socket to one of the addresses of the name.

    Raises:
        ConnectError: refused or unreachable; the message names each address and its error.
        DeadlineError: no answer in time.
        ValueError: the port is no port.
    """
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port to connect to; expected 1 to 65535")
    if host in WILDCARDS:
        raise ConnectError(
            f"{host or '(empty)'} is an address to listen on, not to connect to; "
            f"give the server's own address, or {LOOPBACK} on this machine"
        )
    tried: List[str] = []
    connection = _first_of(resolve(host, port), deadline, tried)
    if connection is None:
        raise ConnectError(
            f"cannot connect to {format_address(host, port)}: tried {', '.join(tried)}"
        )
    connection.setblocking(True)
    set_stream_options(connection)
    return connection


def _first_of(
    found: Sequence[Any], deadline: Deadline, tried: List[str]
) -> Optional[socket.socket]:
    """A connection to the address that answers first, or None when each has refused.

    The next one is tried when one has refused, and also when one says nothing for a moment: what
    comes to an address may just vanish there.

    Args:
        found: as `resolve` gives them.
        tried: takes the addresses that refused, with their reasons.
    """
    import selectors  # not for those who are only connected to

    rest = deque(found)
    with selectors.DefaultSelector() as waiting:
        try:
            while rest or waiting.get_map():
                left = deadline.left()
                if rest:
                    family, kind, proto, _, address = rest.popleft()
                    connection, refused = _begin(family, kind, proto, address)
                    if connection is None:
                        tried.append(f"{format_address(*address[:2])} ({refused})")
                        continue
                    waiting.register(connection, selectors.EVENT_WRITE, address)
                    left = _NEXT_S if rest and (left is None or left > _NEXT_S) else left
                for key, _ in waiting.select(left):
                    connection = cast("socket.socket", key.fileobj)
                    waiting.unregister(connection)
                    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return connection
                    connection.close()
                    tried.append(f"{format_address(*key.data[:2])} ({os.strerror(code)})")
        finally:
            for key in list(waiting.get_map().values()):
                cast("socket.socket", key.fileobj).close()
    return None


def _begin(family: int, kind: int, proto: int, address: Any) -> Tuple[Optional[socket.socket], str]:
    """A socket that is being connected; None and the reason if that is refused at once."""
    try:
        connection = socket.socket(family, kind, proto)
    except OSError as error:  # no descriptor is left, or no such family here
        if is_interrupt(error):
            raise
        return None, error.strerror or str(error)
    connection.setblocking(False)
    code = connection.connect_ex(address)
    if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        return connection, ""
    connection.close()
    return None, os.strerror(code)


def set_stream_options(connection: socket.socket, vanished_s: int = VANISHED_S) -> None:
    """No delay for small packets; notice so soon that the peer's machine is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    fifth = vanished_s // 5
    for name, value in (("TCP_KEEPIDLE", 2 * fifth), ("TCP_KEEPINTVL", fifth), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def set_keepalive(connection: socket.socket, vanished_s: int = VANISHED_S) -> None:
    """For whoever serves: `set_stream_options`, and the same limit for what the peer has not taken.

    Keepalive is about silence; what is unacknowledged, the kernel repeats for a quarter of an
    hour. Not for clients: a server that is busy takes nothing, either. What a listener accepts
    inherits its options.
    """
    set_stream_options(connection, vanished_s)
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, 1000 * vanished_s)


def set_kernel_timeouts(
    connection: socket.socket, receive_s: Optional[float], send_s: Optional[float]
) -> None:
    """Let the kernel end a blocking receive or send that makes no progress for so long.

    Python's own ``settimeout`` adds a poll() to each call (measured: 1.4 us of a 17 us round
    trip). A wait that ends so raises BlockingIOError. None means no limit.
    """
    for option, limit_s in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
        micros = 0  # which means no limit to the kernel; a short limit may not become that
        if limit_s is not None:
            micros = int(min(max(limit_s, 1e-6), _LONGEST_KERNEL_TIMEOUT_S) * 1_000_000)
        if os.name == "nt":
            value = struct.pack("=L", -(-micros // 1000))
        else:
            value = struct.pack("@ll", *divmod(micros, 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, option, value)


def kernel_send_limit_ms(connection: socket.socket) -> Optional[int]:
    """The limit for a send that `set_kernel_timeouts` has set; None if there is none."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.calcsize("@ll"))
    seconds, micros = struct.unpack("@ll", packed)
    return int(seconds) * 1000 + -(-int(micros) // 1000) or None


def raise_descriptor_limit() -> None:
    """A thousand connections are more than many systems allow a process by default."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(
    host: str, port: int, port_end: Optional[int] = None, *, reuse_addr: bool = True
) -> socket.socket:
    """A listening socket on the first free port of ``[port, port_end)``; port 0 asks the system.

    With `reuse_addr`, a port whose last connections the kernel still remembers is free. What it
    accepts inherits `set_stream_options`, also of those who came before anybody accepts.

    Raises:
        ConnectError: no port of the range is free, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = range(port, max(port_end or 0, port + 1)) if port else range(1)
    last: Optional[OSError] = None
    for candidate in candidates:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            # On Windows, the option would let two programs share a port.
            if reuse_addr and os.name != "nt":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, candidate))
            with contextlib.suppress(OSError):  # without them, it is slower
                set_stream_options(listener)
            listener.listen(1024)
            return listener
        except (OSError, OverflowError, TypeError, ValueError) as error:  # of the name, the port
            listener.close()
            last = error if isinstance(error, OSError) else OSError(str(error))
            if getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
                break
    ports = f"port {port}" if len(candidates) == 1 else f"any port in [{port}, {candidates.stop})"
    raise ConnectError(
        f"cannot bind to {ports} on {host}: {(last and last.strerror) or last}; "
        "give another port, or 0 to let the system choose one"
    ) from last
