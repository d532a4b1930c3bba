"""The tracker's connections: bytes to messages for the scheduler, its grants to bytes. asyncio.

Decides nothing about who gets what. A peer that breaks a rule loses its connection; one that does
not read its answers is not read from; neither is noticed by the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from typing import Callable, List, Optional, Set, cast

from .. import network
from ..errors import RemoteProtocolError
from ..protocol import tracker as wire
from .scheduler import Grant, Scheduler

HELLO_LIMIT_S = 10.0
"""How long a peer may take to say that it means a tracker."""

MAX_OUTGOING = 1 << 20
"""A peer that has more than this yet to read, and causes more, is cut off."""

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)

_MESSAGES_A_TURN = 64
"""After so many messages of one peer, the others have their turn."""

_log = logging.getLogger("pytest_tvmrpc.tracker")


class TrackerService:
    """What the connections of one tracker share: the scheduler, and the summary as bytes.

    Args:
        hello_limit_s: how long a peer may take to say its first word.
    """

    def __init__(self, hello_limit_s: float = HELLO_LIMIT_S) -> None:
        self.hello_limit_s = hello_limit_s
        self.scheduler = Scheduler()
        self.connections: Set[TrackerConnection] = set()
        self._summary = b""
        self._summary_version = -1

    def connection(self) -> TrackerConnection:
        """What asyncio shall make for each peer."""
        return TrackerConnection(self)

    def summary(self) -> bytes:
        """The reply to SUMMARY, made anew only after something changed."""
        if self._summary_version != self.scheduler.version:
            self._summary = wire.summary_reply(self.scheduler.summary())
            self._summary_version = self.scheduler.version
        return self._summary

    def close(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.abort()


class TrackerConnection(asyncio.Protocol):
    """One peer: a server, a client, or somebody who took the wrong door."""

    def __init__(self, service: TrackerService) -> None:
        self._service = service
        self._reader = wire.FrameReader()
        self._hello = b""
        self._hello_limit: Optional[asyncio.TimerHandle] = None
        self._host = ""
        self._peer = ""
        self._is_choked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._service.connections.add(self)
        address = transport.get_extra_info("peername") or ("", 0)
        # An IPv4 peer of a dual-stack listener; nobody could connect to the address in that form.
        self._host = address[0][7:] if address[0].startswith("::ffff:") else address[0]
        self._peer = network.format_address(self._host, address[1])
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket = transport.get_extra_info("socket")
        try:
            network.set_stream_options(self._socket)
        except OSError:  # it has gone already
            self.abort()
            return
        self._hello_limit = self._loop.call_later(self._service.hello_limit_s, self._hello_missed)

    def _hello_missed(self) -> None:
        _log.warning("closing %s: it did not say the tracker's magic in time", self._peer)
        self.abort()

    def data_received(self, received: bytes) -> None:
        if self._hello_limit is None:
            self._reader.feed(received)
        elif not self._greet(received):
            return
        self._work()

    def _greet(self, received: bytes) -> bool:
        """Whether the magic is complete; what came behind it is the first frames."""
        self._hello += received
        if self._hello[:4] != wire.MAGIC[: len(self._hello)]:
            self._refuse("it is no peer of a tracker")
            return False
        if len(self._hello) < len(wire.MAGIC):
            return False
        assert self._hello_limit is not None
        self._hello_limit.cancel()
        self._hello_limit = None
        self._transport.write(wire.MAGIC)
        self._reader.feed(self._hello[len(wire.MAGIC) :])
        self._hello = b""
        return True

    def _work(self) -> None:
        """Answer what came, as long as the answers are read and others need not wait."""
        for _ in range(_MESSAGES_A_TURN):
            if self._is_choked or self._transport.is_closing():
                return
            try:
                frame = self._reader.next_frame()
                if frame is None:
                    self._transport.resume_reading()
                    if self._reader.is_partial:
                        self._acknowledge()
                    return
                self._answer(wire.parse_request(wire.parse_json(frame)))
            except RemoteProtocolError as error:
                self._refuse(str(error))
                return
        self._transport.pause_reading()
        self._loop.call_soon(self._work)

    def _acknowledge(self) -> None:
        """Acknowledge now: TVM's peers send a frame in two pieces, and wait 40 ms between them."""
        if _QUICKACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _answer(self, message: wire.RequestMessage) -> None:
        scheduler = self._service.scheduler
        if isinstance(message, wire.Put):
            host = message.custom_addr
            if host is None or host in network.WILDCARDS:  # to listen on, not to connect to
                host = self._host
            resource = wire.Granted(host, message.port, message.match_key)
            grants = scheduler.put(self, message.key, resource)
            self.send(wire.SUCCESS)
            _hand_out(grants)
        elif isinstance(message, wire.Request):
            _hand_out(scheduler.request(self, message.key, message.priority))
        elif isinstance(message, wire.GetPendingMatchkeys):
            self.send(wire.encode(scheduler.pending_match_keys(self)))
        elif isinstance(message, wire.Summary):
            self.send(self._service.summary())
        elif isinstance(message, wire.UpdateInfo):
            scheduler.update_info(self, message.fields, self._host)
            self.send(wire.SUCCESS)
        elif isinstance(message, wire.Stop):
            self.send(wire.FAIL)  # whoever started this tracker ends its process
        else:
            self.send(wire.SUCCESS)

    def send(self, frame: bytes) -> None:
        """Have a frame written, unless the peer has left too many unread."""
        if self._transport.get_write_buffer_size() > MAX_OUTGOING:
            _log.warning("closing %s: it does not read its answers", self._peer)
            self.abort()
        else:
            self._transport.write(frame)

    def pause_writing(self) -> None:
        self._is_choked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_choked = False
        self._work()

    def _refuse(self, reason: str) -> None:
        _log.warning("closing %s: %s", self._peer, reason)
        if self._hello_limit is None and not self._transport.get_write_buffer_size():
            self._transport.write(wire.FAIL)
            self._transport.close()
            self._forget()
        else:
            self.abort()  # to close() would wait for the peer to read

    def abort(self) -> None:
        """Cut the connection now."""
        self._transport.abort()
        self._forget()

    def eof_received(self) -> None:
        self._forget()  # now, and not only when all answers are written: others are waiting

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._service.connections.discard(self)
        self._forget()

    def _forget(self) -> None:
        self._service.scheduler.closed(self)
        if self._hello_limit is not None:
            self._hello_limit.cancel()


def _hand_out(grants: List[Grant]) -> None:
    for grant in grants:
        cast("TrackerConnection", grant.requester).send(wire.granted(grant.resource))


def serve(
    listener: socket.socket, on_ready: Callable[[], None], *, parent_fd: Optional[int] = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until `parent_fd` is at its end. Closes the listener."""
    _raise_descriptor_limit()
    loop = asyncio.new_event_loop()
    service = TrackerService()
    stopped = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    def watch_parent() -> None:
        assert parent_fd is not None
        if not os.read(parent_fd, 1):
            loop.remove_reader(parent_fd)
            stop()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if parent_fd is not None:
            loop.add_reader(parent_fd, watch_parent)
        server = loop.run_until_complete(
            loop.create_server(service.connection, sock=listener, backlog=1024)
        )
        on_ready()
        loop.run_until_complete(stopped)
        server.close()
        service.close()
        loop.run_until_complete(asyncio.sleep(0))  # let connection_lost() be called
    finally:
        loop.close()
        listener.close()


def _raise_descriptor_limit() -> None:
    """A thousand connections are more than many systems allow a process by default."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
