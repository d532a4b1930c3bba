"""The tracker's connections: bytes to messages for the scheduler, its grants to bytes. asyncio.

Decides nothing about who gets what. A peer that breaks a rule loses its connection; one that does
not read its answers is not read from; neither is noticed by the others.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import socket
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple, cast

from .. import network
from ..accepting import Acceptor, stoppable
from ..errors import RemoteProtocolError
from ..protocol import farm
from ..protocol import tracker as wire
from .queue import Asker
from .scheduler import Grant, Scheduler
from .stream import Stream

HELLO_LIMIT_S = 10.0
"""How long a peer may take to say that it means a tracker."""

MAX_OUTGOING = 1 << 20
"""A peer that has more than this yet to read, and causes more, is cut off."""

MAX_PARTIAL = 16 << 20
"""Bytes of unfinished messages that are kept in all; over it, who has most of them is cut off."""

EXPIRE_EVERY_S = 1.0
"""How often to look for servers that have stopped talking."""

VANISHED_S = 25
"""A machine is gone so soon: a tracker hands out devices as long as it believes in them."""

YOUNG_S = 15.0
"""So long after a tracker was restarted, its servers are back: they try every ten seconds."""

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)

_MESSAGES_A_TURN = 64
"""After so many messages of one peer, the others have their turn."""

_LONG_ANSWERS = (wire.Summary, farm.Who, farm.Kick)
"""To answer one of these, all servers are gone through: the others have their turn after it."""

_LONG_S = 0.002
"""An answer that is made faster than this is always made anew."""

_SMALL = 4096
"""Bytes of an unfinished message that are not counted; any peer may have so many."""

_log = logging.getLogger("pytest_tvmrpc.tracker")


class TrackerService:
    """What the connections of one tracker share: the scheduler, and long answers as bytes.

    Args:
        loop: where it lives.
        hello_limit_s: how long a peer may take to say its first word.
        stop_key: the secret of whoever may end the tracker with a message; empty: nobody may.
        stop: called when somebody did, and when nobody was connected for `unused_s`.
        unused_s: 0: it serves for ever.
        young_s: for so long it does not say that a key has no servers: they may be on their way
            back to a tracker that was restarted.

    Attributes:
        unfinished: what its connections have of unfinished messages.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        hello_limit_s: float = HELLO_LIMIT_S,
        stop_key: str = "",
        stop: Callable[[], None] = lambda: None,
        unused_s: float = 0.0,
        young_s: float = 0.0,
    ) -> None:
        self.loop = loop
        self.hello_limit_s = hello_limit_s
        self.stop = stop
        self.scheduler = Scheduler()
        self.connections: Set[TrackerConnection] = set()
        self._summary = Kept(
            lambda: wire.summary_reply(self.scheduler.summary()),
            loop.time,
            lambda: self.scheduler.version,
        )
        self._who = Kept(lambda: farm.farm_reply(self.scheduler.who(loop.time())), loop.time)
        self._stop_key = stop_key.encode()
        self._unused_s = unused_s
        self._used_at = loop.time()
        self._grown_up_at = loop.time() + young_s
        self.unfinished = Unfinished()

    def listen(self, listener: socket.socket) -> Acceptor:
        """Let peers in, until the acceptor is closed."""
        self._watch()
        let_in = functools.partial(TrackerConnection, self, self.loop)
        return Acceptor(self.loop, listener, let_in, _log.error)

    def is_served(self, key: str) -> Optional[bool]:
        """Whether any server has this key; None: that cannot be told yet."""
        if self.scheduler.is_served(key):
            return True
        return None if self.loop.time() < self._grown_up_at else False

    def summary(self) -> bytes:
        """The reply to SUMMARY, made anew only after something changed."""
        self._summary.renew()
        return self._summary.answer

    def who(self) -> bytes:
        """The reply to WHO, which changes with every second."""
        self._who.renew()
        return self._who.answer

    def may_stop(self, stop_key: str) -> bool:
        """Whether this is the secret; takes as long for a good guess as for a bad one."""
        return bool(self._stop_key) and hmac.compare_digest(stop_key.encode(), self._stop_key)

    def _watch(self) -> None:
        """Look for what is over because of the time, now and as long as the loop runs."""
        now = self.loop.time()
        for older, newer in self.scheduler.expire(now):
            cast("TrackerConnection", older).give_way(cast("TrackerConnection", newer).peer)
        if self.connections:
            self._used_at = now
        elif self._unused_s and now - self._used_at >= self._unused_s:
            _log.info("ending: nobody was connected for %g s", self._unused_s)
            self.stop()
        self.loop.call_later(EXPIRE_EVERY_S, self._watch)

    def left(self, connection: TrackerConnection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self.unfinished.keep(connection, 0)
        self._used_at = self.loop.time()
        self.scheduler.closed(connection)

    def close(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.abort()


class Unfinished:
    """Bytes of unfinished messages, of which the connections together may have so many.

    Attributes:
        nbytes: how many there are.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._of: Dict[TrackerConnection, int] = {}

    def keep(self, connection: TrackerConnection, nbytes: int) -> None:
        """A connection has so many now; over the limit, the one that has most is refused."""
        counted = nbytes if nbytes > _SMALL else 0
        self.nbytes += counted - self._of.pop(connection, 0)
        if counted:
            self._of[connection] = counted
        if self.nbytes > MAX_PARTIAL:
            greedy = max(self._of, key=self._of.__getitem__)
            greedy.refuse("there are too many unfinished messages, and it has most of them")


class Kept:
    """A long answer as bytes, made anew now and then, but not all the time.

    One that took long to make is good for ten times as long, whatever happens meanwhile: however
    many ask, and however large the farm is, the tracker spends a tenth of its time on them.

    Args:
        make: makes it.
        clock: seconds.
        version: of what it is made from: as long as that is the same, so is the answer; None: it
            may always be another one.

    Attributes:
        answer: as it was made last.
    """

    def __init__(
        self,
        make: Callable[[], bytes],
        clock: Callable[[], float],
        version: Optional[Callable[[], int]] = None,
    ) -> None:
        self.answer = b""
        self._make = make
        self._clock = clock
        self._version = version
        self._made_of: Optional[int] = None
        self._good_until = 0.0

    def renew(self) -> bool:
        """Make it anew, unless nothing has changed or it is too early for that."""
        version = None if self._version is None else self._version()
        if version is not None and version == self._made_of:
            return False
        started = self._clock()
        if started < self._good_until:
            return False
        self.answer = self._make()
        self._made_of = version
        ended = self._clock()
        if ended - started > _LONG_S:
            self._good_until = ended + 10 * (ended - started)
        return True


class TrackerConnection(Stream):
    """One peer: a server, a client, or one that speaks another protocol.

    Attributes:
        peer: its address as people write it.
    """

    def __init__(
        self,
        service: TrackerService,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        address: Tuple[str, int],
    ) -> None:
        super().__init__(loop, connection)
        self._service = service
        self._reader = wire.FrameReader(wire.MAX_REQUEST)
        self._turn: Optional[asyncio.Handle] = None
        self._hello = b""
        self._hello_limit: Optional[asyncio.TimerHandle] = loop.call_later(
            service.hello_limit_s, self._hello_missed
        )
        # An IPv4 peer of a dual-stack listener; nobody could connect to the address in that form.
        self._host = address[0][7:] if address[0].startswith("::ffff:") else address[0]
        self.peer = network.format_address(self._host, address[1])
        service.connections.add(self)

    def _hello_missed(self) -> None:
        _log.warning("closing %s: it did not say the tracker's magic in time", self.peer)
        self.abort()

    def received(self, received: bytes) -> None:
        """The magic, or frames."""
        if self._hello_limit is None:
            self._reader.feed(received)
        elif not self._greet(received):
            return
        self._work()

    def _greet(self, received: bytes) -> bool:
        """Whether the magic is complete; what came behind it is the first frames."""
        self._hello += received
        if self._hello[:4] != wire.MAGIC[: len(self._hello)]:
            self.refuse("it is no peer of a tracker")
            return False
        if len(self._hello) < len(wire.MAGIC):
            return False
        assert self._hello_limit is not None
        self._hello_limit.cancel()
        self._hello_limit = None
        self.write(wire.MAGIC)
        self._reader.feed(self._hello[len(wire.MAGIC) :])
        self._hello = b""
        return True

    def _work(self) -> None:
        """Answer what came, as long as the answers are read and others need not wait."""
        self._turn = None
        for _ in range(_MESSAGES_A_TURN):
            if self.is_choked or self.is_closing:
                self._service.unfinished.keep(
                    self, 0 if self.is_closing else self._reader.left_nbytes
                )
                return
            try:
                frame = self._reader.next_frame()
                if frame is None:
                    self.resume_reading()
                    self._wait_for_more()
                    return
                message = farm.parse_request(wire.parse_json(frame))
                self._answer(message)
            except RemoteProtocolError as error:
                self.refuse(str(error))
                return
            if isinstance(message, _LONG_ANSWERS):
                break
        self.pause_reading()
        self._turn = self._loop.call_soon(self._work)

    def _wait_for_more(self) -> None:
        """Acknowledge now: TVM's peers send a frame in two pieces, and wait 40 ms between them."""
        nbytes = self._reader.left_nbytes
        self._service.unfinished.keep(self, nbytes)
        if nbytes and not self.is_closing and _QUICKACK is not None:
            self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _answer(self, message: farm.Message) -> None:
        scheduler, now = self._service.scheduler, self._loop.time()
        if isinstance(message, wire.GetPendingMatchkeys):
            grants = scheduler.heard(self, now)
            self.send(wire.encode(scheduler.pending_match_keys(self)))
            _hand_out(grants)
        elif isinstance(message, wire.Put):
            host = message.custom_addr
            if host is None or host in network.WILDCARDS:  # to listen on, not to connect to
                host = self._host
            resource = wire.Granted(host, message.port, message.match_key)
            grants = scheduler.put(self, message.key, resource, now)
            self.send(wire.SUCCESS)
            _hand_out(grants)
        elif isinstance(message, wire.Request):
            asker = Asker(message.user, self.peer, message.session_timeout)
            _hand_out(scheduler.request(self, message.key, message.priority, now, asker))
        elif isinstance(message, wire.Ping):
            self._greet_back(message, now)
        elif isinstance(message, wire.Summary):
            self.send(self._service.summary())
        elif isinstance(message, wire.UpdateInfo):
            for older in scheduler.update_info(self, message.fields, self._host, now):
                cast("TrackerConnection", older).give_way(self.peer)
            self._warn_of(scheduler.rival(self), message.fields)
            self.send(wire.SUCCESS)
        elif isinstance(message, farm.Who):
            self.send(self._service.who())
        elif isinstance(message, farm.Kick):
            self._kick(message, now)
        elif self._service.may_stop(message.stop_key):
            self.send(wire.SUCCESS)
            self.close()  # and not abort(): the answer shall arrive
            self._service.stop()
        else:
            self.send(wire.FAIL)

    def _warn_of(self, rival: Any, fields: Mapping[str, Any]) -> None:
        if rival is not None:
            _log.warning(
                "two servers claim the address %.200s with the key %.200s: %s and %s; "
                "give each one of its own with --custom-addr or --port",
                fields.get("addr"),
                fields.get("key"),
                rival.peer,
                self.peer,
            )

    def _greet_back(self, ping: wire.Ping, now: float) -> None:
        if not ping.greets:
            self.send(wire.SUCCESS)
            return
        self._service.scheduler.greeted(self, ping, now)
        served = None if ping.key is None else self._service.is_served(ping.key)
        self.send(wire.welcome(served))

    def _kick(self, kick: farm.Kick, now: float) -> None:
        results, orders = self._service.scheduler.kick(kick.target, kick.reason, now)
        for server, order in orders:
            cast("TrackerConnection", server).send(farm.kick_order(order))
        _log.info("%s kicked %s: %d sessions", self.peer, kick.target, len(orders))
        self.send(farm.kick_reply(results))

    def send(self, frame: bytes) -> None:
        """Have a frame written, unless the peer has left too many unread."""
        if self.unsent_bytes > MAX_OUTGOING:
            _log.warning("closing %s: it does not read its answers", self.peer)
            self.abort()
        else:
            self.write(frame)

    def give_way(self, newer: str) -> None:
        """The server has another connection; this one is dead, as a rule, and nobody noticed."""
        _log.info("closing %s: its server is %s now", self.peer, newer)
        self.abort()

    def drained(self) -> None:
        """Answer what came meanwhile."""
        if self._turn is None:
            self._work()

    def refuse(self, reason: str) -> None:
        _log.warning("closing %s: %s", self.peer, reason)
        if self._hello_limit is None and not self.unsent_bytes:
            self.write(wire.FAIL)
            self.close()
        else:
            self.abort()  # to close() would wait for the peer to read

    def ended(self) -> None:
        """Forget the peer now, and not only when it has read everything: others are waiting."""
        self._service.left(self)
        if self._hello_limit is not None:
            self._hello_limit.cancel()


def _hand_out(grants: List[Grant]) -> None:
    for grant in grants:
        cast("TrackerConnection", grant.requester).send(wire.granted(grant.resource))


def serve(
    listener: socket.socket,
    on_ready: Callable[[], None],
    *,
    parent_fd: Optional[int] = None,
    stop_key: str = "",
    unused_s: float = 0.0,
    young_s: float = 0.0,
) -> None:
    """Serve until SIGTERM or SIGINT, a STOP with `stop_key`, or until `parent_fd` is at its end.

    Closes the listener.

    Args:
        unused_s, young_s: as for `TrackerService`.
    """
    network.raise_descriptor_limit()
    network.set_keepalive(listener, VANISHED_S)
    with listener, stoppable(asyncio.new_event_loop(), parent_fd) as (loop, stopped, stop):
        service = TrackerService(
            loop, stop_key=stop_key, stop=stop, unused_s=unused_s, young_s=young_s
        )
        acceptor = service.listen(listener)
        on_ready()
        loop.run_until_complete(stopped)
        acceptor.close()
        service.close()
