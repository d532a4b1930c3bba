"""The checks of a server: from its name to calls, copies and the end of the session."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Tuple

from .. import network
from ..client.session import RPCSession
from ..errors import ConnectionLostError, DeadlineError, RemoteProtocolError
from ..protocol.codes import HandshakeReply
from ..protocol.handshake import ReplyReader, encode_client_hello
from ..runtime.tensor import empty
from ..session.channel import SocketChannel
from ..session.endpoint import Endpoint
from .asking import duration
from .checks import Check, FailedCheckError, Found, Hop, SkippedCheckError
from .console import is_loopback
from .probing import Peer, identify, known_by

if TYPE_CHECKING:
    from .tracker_checks import TrackerChecks

SESSION_S = 300
"""After how long the server ends a session of ours that hangs. A whole number: TVM's server in C++
dies of another."""

_FILE = "tvmrpc-doctor.bin"
_FILE_BYTES = 4096
_CALLS = 200
_CALLS_S = 1.0
_SIZES = (128 << 10, 512 << 10, 2 << 20, 8 << 20)
_ENOUGH_S = 0.3
"""A copy that takes longer is not followed by a larger one."""

_TRIALS: Tuple[Tuple[str, Tuple[Any, ...], Any], ...] = (
    ("rpc.test.addone", (41,), 42),
    ("testing.echo", (42,), 42),
    ("tvm.rpc.server.workpath", (_FILE,), None),
)
"""Functions that servers have, what to call them with, and what they return; None: anything.
TVM's server in C++ has the last one only."""

_DIALECTS = {"ffi": "that of TVM 0.21 and later", "legacy": "that of TVM 0.8 to 0.20"}


class ServerChecks:
    """A server, as far as the checks have come; to be closed.

    Args:
        host, port, key: its address and key; unless the tracker gives them.
        limit_s: seconds for each check.
        tracker: the one that was asked for the device, if one was.
    """

    def __init__(
        self, host: str, port: int, key: str, limit_s: float, tracker: Optional[TrackerChecks]
    ) -> None:
        self._hop = Hop("the server (tvmrpc server)", host, port, limit_s)
        self._match_key = key
        self._limit_s = limit_s
        self._tracker = tracker
        self._connection: Optional[socket.socket] = None
        self._is_ours = False
        self._is_cut = False
        self._remote: Optional[RPCSession] = None
        self._trial: Optional[Callable[[], object]] = None

    def checks(self) -> List[Check]:
        """In order."""
        crashed = "look at the server's output; a kernel or driver may have crashed there"
        return [
            Check("server name", self._name),
            Check("server port", self._port),
            Check("handshake", self._handshake, crashed),
            Check("session", self._session, crashed),
            Check("cpu", self._limited(self._cpu), crashed),
            Check("files", self._limited(self._files), "see whether the server's disk is full"),
            Check("call", self._limited(self._call), crashed),
            Check("round trip", self._limited(self._round_trip), crashed),
            Check("bandwidth", self._limited(self._bandwidth), crashed),
            Check("clean-up", self._clean_up, "restart the server", tidies=True),
        ]

    def close(self) -> None:
        """Ends the session, if there is one."""
        self._trial = None
        if self._remote is not None:
            self._remote.close()
        if self._connection is not None:
            self._connection.close()

    # --- connection ---------------------------------------------------------------------------

    def _name(self) -> Found:
        if self._tracker is not None:
            granted = self._tracker.granted
            assert granted is not None
            self._hop.host, self._hop.port = granted.host, granted.port
            self._match_key = granted.match_key
            if is_loopback(granted.host) and not self._is_tracker_here():
                raise FailedCheckError(
                    f"the tracker gives {granted.host} as the server's address, which is this "
                    "machine's own",
                    "the server reached its tracker by 127.0.0.1: start it with --custom-addr and "
                    "the address under which this machine reaches it",
                )
        return self._hop.find()

    def _is_tracker_here(self) -> bool:
        assert self._tracker is not None
        place = self._tracker.hop.place
        return place is not None and is_loopback(str(place[1][0]))

    def _port(self) -> Found:
        try:
            self._connection = self._hop.connect()
        except FailedCheckError as error:
            if self._tracker is None:
                raise
            raise FailedCheckError(
                f"{error}; that is the address that the tracker gives for this server",
                f"{error.advice}. If the server is behind a router (NAT) or has several addresses: "
                "start it with --custom-addr and the one under which it is reached from here, or "
                "let it wait at a proxy, with --through-proxy",
                **error.values,
            ) from None
        return self._hop.reached()

    def _handshake(self) -> Found:
        assert self._connection is not None
        reader, received = ReplyReader(), b""
        deadline = network.Deadline(self._limit_s, "the server's answer", "--timeout")
        try:
            self._connection.settimeout(deadline.left())
            self._connection.sendall(encode_client_hello(self._match_key, SESSION_S))
            while reader.needed:
                self._connection.settimeout(deadline.left())
                part = self._connection.recv(reader.needed)
                if not part:
                    raise self._no_server(received)
                received += part
                reader.feed(part)
            self._connection.settimeout(None)
        except RemoteProtocolError:
            raise self._no_server(received + self._more()) from None
        except (socket.timeout, DeadlineError):
            raise self._no_answer() from None
        except OSError:
            raise self._no_server(received) from None
        if reader.reply is not HandshakeReply.SUCCESS:
            raise self._refused()
        self._is_ours = reader.is_ours
        whose = "of pytest-tvmrpc" if reader.is_ours else "of TVM, or of its kind,"
        values = {"server": "tvmrpc" if reader.is_ours else "tvm", "key": reader.server_key}
        return Found(f"a server {whose} with the key {reader.server_key!r}", values)

    def _more(self) -> bytes:
        """What else a stranger says."""
        assert self._connection is not None
        with contextlib.suppress(OSError):
            self._connection.settimeout(min(0.3, self._limit_s))
            return self._connection.recv(60)
        return b""

    def _no_server(self, received: bytes) -> FailedCheckError:
        peer = known_by(received) or self._peer()
        name = self._hop.name
        if peer.kind == "tracker":
            return FailedCheckError(
                f"{name} is a tracker, not a server",
                f"ask it for a device: tvmrpc doctor --tracker {name}; in Python, connect_tracker "
                "in place of connect",
                peer=peer.kind,
            )
        if peer.kind == "server":
            return FailedCheckError(
                f"{name} is a server, and closed the connection in the handshake",
                "look at its output, and restart it",
                peer=peer.kind,
            )
        return FailedCheckError(
            f"{name} is {peer.text}, not an RPC server",
            "correct the port: a server's is 9090 or one of the next, as it printed; behind a "
            "router, see where it forwards this port to",
            peer=peer.kind,
        )

    def _no_answer(self) -> FailedCheckError:
        peer = self._peer()
        if peer.kind in ("stranger", "tracker"):
            return self._no_server(b"")
        return FailedCheckError(
            f"{self._hop.name} accepts connections, and did not answer within {self._limit_s:g} s",
            "it serves somebody else: wait, with a longer --timeout; it is a proxy without a "
            "server of this key; or it hangs, as TVM's server does after a crash: restart it",
        )

    def _peer(self) -> Peer:
        assert self._hop.place is not None
        assert self._connection is not None
        self._connection.close()  # it may talk to one peer at a time
        return identify(self._hop.place, self._limit_s)

    def _refused(self) -> FailedCheckError:
        if self._tracker is not None:
            return FailedCheckError(
                "the server refuses the match key that the tracker gave",
                "somebody else used it up: try again; or the address leads to another server, "
                "because a router forwards the port elsewhere: see --custom-addr of the server",
            )
        given = f"the key {self._match_key!r}" if self._match_key else "a client without a key"
        return FailedCheckError(
            f"the server refuses {given}",
            "give the key that it was started with: --key KEY. A server that belongs to a tracker "
            "takes only whom the tracker sends: tvmrpc doctor --tracker HOST:PORT --key KEY",
        )

    # --- session ------------------------------------------------------------------------------

    def _session(self) -> Found:
        assert self._connection is not None
        channel = SocketChannel(
            self._connection, f"the RPC server {self._hop.name}", self._limit_s, "--timeout"
        )
        with self._cut_off():
            endpoint = Endpoint(channel)
            endpoint.init_server()
        self._remote = RPCSession(endpoint, (self._hop.host, self._hop.port))
        dialect = endpoint.dialect.name
        text = f"open; its dialect is {dialect}, {_DIALECTS[dialect]}"
        if self._is_ours:
            text = f"open; it speaks both dialects, and {dialect} with us"
        return Found(text, {"dialect": dialect})

    @property
    def _open(self) -> RPCSession:
        assert self._remote is not None
        return self._remote

    def _limited(self, make: Callable[[], Found]) -> Callable[[], Found]:
        def limited() -> Found:
            with self._cut_off():
                return make()

        return limited

    @contextlib.contextmanager
    def _cut_off(self) -> Iterator[None]:
        """Cuts the connection when the check takes too long, even if the peer makes progress."""
        import threading

        timer = threading.Timer(self._limit_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (ConnectionLostError, DeadlineError):
            if not self._is_cut:
                raise
            raise FailedCheckError(
                f"not done within {self._limit_s:g} s",
                "the network is slow, or the server hangs: set a longer --timeout, or look at the "
                "server's output",
            ) from None
        finally:
            timer.cancel()
            timer.join()

    def _cut(self) -> None:
        self._is_cut = True
        if self._connection is not None:
            with contextlib.suppress(OSError):  # gone already
                self._connection.shutdown(socket.SHUT_RDWR)

    def _cpu(self) -> Found:
        if not self._open.cpu(0).exist:
            raise FailedCheckError(
                "the server says that it has no CPU device", "it was built without: build it anew"
            )
        return Found("cpu(0) is there")

    def _files(self) -> Found:
        sent = os.urandom(_FILE_BYTES)
        try:
            self._open.upload(sent, _FILE)
            received = self._open.download(_FILE)
            self._open.remove(_FILE)
        except AttributeError as error:
            raise SkippedCheckError(str(error)) from None
        _compare(sent, received)
        return Found(f"{_FILE_BYTES} bytes uploaded, downloaded and removed")

    def _call(self) -> Found:
        for name, arguments, expected in _TRIALS:
            try:
                function = self._open.get_function(name)
            except AttributeError:
                continue
            result = function(*arguments)
            shown = f"{name}({', '.join(map(repr, arguments))}) is {result!r}"
            if expected is not None and result != expected:
                raise FailedCheckError(
                    f"{shown}; expected {expected!r}", "the server is broken: install it anew"
                )
            self._trial = lambda: function(*arguments)  # noqa: B023 -- it is the last one
            return Found(shown, {"function": name})
        raise SkippedCheckError(
            f"the server has none of {', '.join(name for name, _, _ in _TRIALS)}"
        )

    def _round_trip(self) -> Found:
        ask = self._trial or self._open.cpu(0).sync
        took: List[float] = []
        started = time.perf_counter()
        while len(took) < _CALLS and time.perf_counter() - started < min(_CALLS_S, self._limit_s):
            before = time.perf_counter()
            ask()
            took.append(time.perf_counter() - before)
        median, longest = statistics.median(took), max(took)
        return Found(
            f"{duration(median)} in the middle, {duration(longest)} at most, of {len(took)} calls",
            {"median_s": median, "max_s": longest, "calls": len(took)},
        )

    def _bandwidth(self) -> Found:
        device = self._open.cpu(0)
        for nbytes in _SIZES:
            sent, received = os.urandom(nbytes), bytearray(nbytes)
            tensor = empty((nbytes,), "uint8", device)
            started = time.perf_counter()
            device.api.copy_from_host(memoryview(sent), tensor)
            turned = time.perf_counter()
            device.api.copy_to_host(tensor, memoryview(received))
            ended = time.perf_counter()
            _compare(sent, received)
            if ended - started > _ENOUGH_S:
                break
        up, down = nbytes / (turned - started), nbytes / (ended - turned)
        return Found(
            f"{_rate(up)} up, {_rate(down)} down, with {nbytes >> 10} KiB",
            {"up_bytes_per_s": up, "down_bytes_per_s": down, "nbytes": nbytes},
        )

    # --- end ----------------------------------------------------------------------------------

    def _clean_up(self) -> Found:
        is_open = self._remote is not None and not self._remote.closed
        self.close()
        if not is_open:
            raise SkippedCheckError
        if self._tracker is None:
            return Found("the session is closed")
        return Found(f"the session is closed, and {self._tracker.await_release()}")


def _compare(sent: bytes, received: bytearray) -> None:
    if sent != received:
        raise FailedCheckError(
            f"{len(sent)} bytes came back changed",
            "memory or network card of one of the two machines is broken: use neither of them",
        )


def _rate(bytes_per_s: float) -> str:
    if bytes_per_s >= 0.995 * (1 << 30):
        return f"{bytes_per_s / (1 << 30):.1f} GiB/s"
    return f"{bytes_per_s / (1 << 20):.3g} MiB/s"
