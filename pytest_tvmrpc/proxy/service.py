"""The proxy's connections: hellos to the matchmaker, then bytes from side to side. asyncio.

Decides nothing about who talks to whom, and reads nothing of what they say. A peer that breaks a
rule loses its connection; one that does not read is not read for; neither is noticed by others.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Callable, List, Optional, Set, Tuple, cast

from .. import network
from ..accepting import Acceptor, stoppable
from ..errors import LocalProtocolError, RemoteProtocolError
from ..protocol.codes import HandshakeReply
from ..protocol.handshake import (
    PeerHello,
    encode_partner,
    encode_server_reply,
    parse_peer_key,
    take_key,
)
from .matchmaker import Decision, Matchmaker, Pair
from .uplink import Uplinks

if TYPE_CHECKING:
    import socket

    from .registration import Registration

HELLO_LIMIT_S = 10.0
"""How long a peer may take to say its key."""

MAX_EARLY = 1 << 16
"""Bytes behind a hello that are kept until there is somebody to read them."""

LINGER_LIMIT_S = 60.0
"""How long one side may go on when the other has ended."""

BUFFER_SIZE = 1 << 18
"""Bytes that are read at once, and the most that is kept for a side that does not read."""

_log = logging.getLogger("pytest_tvmrpc.proxy")


class ProxyService:
    """What the connections of one proxy share.

    Args:
        port: the proxy's port, which the tracker is told.
        timeout_client_s: how long a client waits for its server.
        timeout_server_s: how long a server waits for its client.
        tracker: host and port of the tracker to offer the servers to.
        hello_limit_s: how long a peer may take to say its key.
        linger_limit_s: how long one side may go on when the other has ended.
    """

    def __init__(
        self,
        port: int,
        timeout_client_s: float,
        timeout_server_s: float,
        tracker: Optional[Tuple[str, int]] = None,
        hello_limit_s: float = HELLO_LIMIT_S,
        linger_limit_s: float = LINGER_LIMIT_S,
    ) -> None:
        self.hello_limit_s = hello_limit_s
        self.linger_limit_s = linger_limit_s
        self.connections: Set[PeerConnection] = set()
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self._port = port
        self._tracker = tracker
        self._matchmaker = Matchmaker(timeout_client_s, timeout_server_s)
        self._uplinks: Optional[Uplinks] = None
        self._running: Set[asyncio.Task[None]] = set()
        self._timer: Optional[asyncio.TimerHandle] = None

    def start(self) -> None:
        """Connect to the tracker, if there is one. Call it in the loop."""
        self._loop = asyncio.get_running_loop()
        if self._tracker is not None:
            self._uplinks = Uplinks(self._tracker, self._port)

    def listen(self, listener: socket.socket) -> Acceptor:
        """Let peers in, until the acceptor is closed. Call it in the loop, after `start`."""
        return Acceptor(self._loop, listener, self._let_in, _log.error)

    def _let_in(self, connection: socket.socket, address: object) -> None:
        made = self._loop.create_task(self._make_peer(connection))
        self._running.add(made)
        made.add_done_callback(self._running.discard)

    async def _make_peer(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: PeerConnection(self), connection)
        except BaseException:
            connection.close()
            raise

    def renew_buffer(self) -> None:
        """Whoever has bytes left to send keeps the buffer; the next ones are read into another."""
        self.buffer = memoryview(bytearray(BUFFER_SIZE))

    def arrived(self, peer: PeerConnection, hello: PeerHello) -> None:
        """A peer has said its key."""
        now = self._loop.time()
        match_key = hello.match_key
        if self._uplinks is not None and hello.is_server:
            try:
                match_key = self._offer(self._uplinks, peer, match_key)
            except LocalProtocolError as error:
                peer.refuse(HandshakeReply.MISMATCH, str(error))
                return
        waits = self._uplinks is None or hello.is_server
        self._follow(self._matchmaker.arrived(peer, hello.is_server, match_key, now, waits=waits))

    def _offer(self, uplinks: Uplinks, server: PeerConnection, key: str) -> str:
        """Offers a server to the tracker; the match key of its client."""

        def changed(registration: Registration) -> None:
            self._matchmaker.rename(server, registration.match_key)
            kick = registration.take_kick()
            if kick is not None:
                _log.info("ending the session on %s, kicked: %s", server.name, kick)
                server.abort()

        return uplinks.offer(server, key, changed)

    def left(self, peer: PeerConnection) -> None:
        """A peer is gone, whether it waited or not."""
        self._matchmaker.left(peer)
        if self._uplinks is not None:
            self._uplinks.left(peer)

    def _follow(self, decisions: List[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Pair):
                first = cast("PeerConnection", decision.first)
                second = cast("PeerConnection", decision.second)
                if self._uplinks is not None:
                    self._uplinks.taken(first, second.address)
                    self._uplinks.taken(second, first.address)
                first.join(second)
            else:
                cast("PeerConnection", decision.peer).refuse(decision.reply, decision.reason)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wakeup_s = self._matchmaker.next_wakeup(self._loop.time())
        self._timer = None if wakeup_s is None else self._loop.call_later(wakeup_s, self._tick)

    def _tick(self) -> None:
        self._follow(self._matchmaker.tick(self._loop.time()))

    async def close(self) -> None:
        """Cut every connection; returns when all is over."""
        if self._timer is not None:
            self._timer.cancel()
        running = self._running
        if self._uplinks is not None:
            self._uplinks.close()
            running = running | self._uplinks.running
        for connection in list(self.connections):
            connection.abort()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # let connection_lost() be called


class PeerConnection(asyncio.BufferedProtocol):
    """One peer: a server, a client, or one that speaks another protocol."""

    def __init__(self, service: ProxyService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._hello: Optional[PeerHello] = None
        self._early = bytearray()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._partner: Optional[PeerConnection] = None
        self._has_ended = False
        self._is_closing = False
        self.address = ""
        self.name = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._service.connections.add(self)
        address = transport.get_extra_info("peername") or ("", 0)
        self.name = self.address = network.format_address(*address[:2])
        self._socket: socket.socket = transport.get_extra_info("socket")
        # Whatever cannot be sent at once stops the other side: no more than one buffer is kept.
        self._transport.set_write_buffer_limits(high=0)
        try:
            network.set_stream_options(self._socket)
        except OSError:  # it has gone already
            self.abort()
            return
        self._timer = self._loop.call_later(self._service.hello_limit_s, self._hello_missed)

    def _hello_missed(self) -> None:
        _log.warning("closing %s: it did not say its key in time", self.name)
        self.abort()

    # --- before there is a partner ---

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._service.buffer  # filled and handed to us before anybody else's turn

    def buffer_updated(self, nbytes: int) -> None:
        received = self._service.buffer[:nbytes]
        if self._partner is not None:
            self._partner.send(received)
        elif not self._is_closing:
            self._early += received
            self._listen()

    def _listen(self) -> None:
        if self._hello is None:
            try:
                text = take_key(self._early)
                if text is None:
                    return
                self._hello = parse_peer_key(text)
                self._set_options(self._hello)
            except (RemoteProtocolError, OSError) as error:
                _log.warning("closing %s: %s", self.name, error)
                self.abort()
                return
            self._stop_timer()
            self.name += f" ({text[:80].decode(errors='replace')!r})"
            _log.info("ready: %s", self.name)
            self._service.arrived(self, self._hello)
        if self._partner is None and len(self._early) > MAX_EARLY:
            _log.warning("closing %s: it says too much before it has a partner", self.name)
            self.abort()

    def _set_options(self, hello: PeerHello) -> None:
        """A client that takes nothing for long is gone; a server may be in a long call."""
        if not hello.is_server:
            network.set_keepalive(self._socket)

    def refuse(self, reply: HandshakeReply, reason: str) -> None:
        """Say no and close."""
        _log.info("refusing %s: %s", self.name, reason)
        self._transport.write(encode_server_reply(reply))
        self._close()

    # --- with a partner ---

    def join(self, partner: PeerConnection) -> None:
        """Pair up: each is told who the other is, and gets what the other has said so far."""
        _log.info("pairing %s and %s", self.name, partner.name)
        self._partner, partner._partner = partner, self
        for peer, other in ((self, partner), (partner, self)):
            assert other._hello is not None
            peer.send(encode_partner(other._hello.text) + other._early)
            other._early = bytearray()

    def send(self, received: "bytes | bytearray | memoryview") -> None:
        """Send what the partner said; `pause_writing` stops it if that cannot be done at once."""
        self._transport.write(received)
        if self._transport.get_write_buffer_size():
            self._service.renew_buffer()  # since 3.12, asyncio keeps it instead of copying

    def pause_writing(self) -> None:
        if self._partner is not None:
            self._partner._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._partner is not None:
            self._partner._transport.resume_reading()

    def eof_received(self) -> bool:
        """The peer says no more; it may still listen, so the partner may finish its answer."""
        partner = self._partner
        if partner is None:
            self._close()
            return False
        self._has_ended = True
        if partner._has_ended:
            self._close()
            partner._close()
            return True
        try:
            partner._transport.write_eof()
            partner._linger()
        except OSError:  # it is gone, too, and we have not been told yet
            partner.abort()
        return True

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._service.connections.discard(self)
        self._is_closing = True
        self._stop_timer()
        self._service.left(self)
        partner, self._partner = self._partner, None
        if self._hello is not None:
            _log.info("closed %s%s", self.name, f": {exc}" if exc else "")
        if partner is not None:
            partner._partner = None
            partner._close()

    def _close(self) -> None:
        """Close as soon as all is sent that is to be sent."""
        self._is_closing = True
        self._service.left(self)
        self._transport.close()
        self._linger()

    def _linger(self) -> None:
        """From now on there is a limit to what may still go on here."""
        if self._timer is None and self in self._service.connections:
            self._timer = self._loop.call_later(self._service.linger_limit_s, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        """Cut the connection now."""
        self._is_closing = True
        self._service.left(self)
        self._transport.abort()


def serve(
    listener: socket.socket,
    on_ready: Callable[[], None],
    *,
    timeout_client_s: float,
    timeout_server_s: float,
    tracker: Optional[Tuple[str, int]] = None,
    parent_fd: Optional[int] = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until `parent_fd` is at its end. Closes the listener."""
    network.raise_descriptor_limit()
    port = listener.getsockname()[1]
    with listener, stoppable(asyncio.new_event_loop(), parent_fd) as (loop, stopped, _):

        async def run() -> None:
            service = ProxyService(port, timeout_client_s, timeout_server_s, tracker)
            service.start()
            acceptor = service.listen(listener)
            on_ready()
            await stopped
            acceptor.close()
            await service.close()

        loop.run_until_complete(run())
