"""Connections to the tracker that come back for ever, one for each server. asyncio.

What is said on one is the registration's.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
from typing import Callable, Dict, Hashable, Optional, Set, Tuple, cast

from .. import network
from ..errors import LocalProtocolError, RemoteProtocolError
from .listing import Listing
from .lookup import Lookup
from .registration import Registration, describe_proxy

CONNECT_LIMIT_S = 10.0

_log = logging.getLogger("pytest_tvmrpc.proxy")


class Uplink:
    """Carries out what a registration says, over one connection after the other.

    Args:
        name: the tracker, as people write its address.
        lookup: its addresses.
        registration: the conversation.
        on_change: called whenever the registration has been told something.
        level: of the lines about a lost tracker in the log; one voice is enough for many.

    Attributes:
        task: what runs until the uplink is closed.
    """

    def __init__(
        self,
        name: str,
        lookup: Lookup,
        registration: Registration,
        on_change: Callable[[], None],
        level: int = logging.DEBUG,
    ) -> None:
        self.registration = registration
        self._name = name
        self._lookup = lookup
        self._on_change = on_change
        self._level = level
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._talk: Optional[_Talk] = None
        self.task = self._loop.create_task(self._run())

    def describe(self, description: str) -> None:
        """Have the tracker know the connection under another name."""
        words = self.registration.describe(description, self._loop.time())
        if words and self._talk is not None:
            self._talk.say(words)

    def taken(self, client: str) -> None:
        """The server has its client. The connection stays, so that the tracker sees it is used."""
        words = self.registration.taken(self._loop.time(), client)
        if self._talk is None:
            self.task.cancel()
        elif words:
            self._talk.say(words)

    def close(self) -> None:
        """Cut the connection, which withdraws what was offered; there will be no other."""
        self._is_closed = True
        self.task.cancel()
        if self._talk is not None:
            self._talk.abort()

    async def _run(self) -> None:
        name = self._name
        while not self.registration.is_taken:
            try:
                talk = await asyncio.wait_for(self._connect(), CONNECT_LIMIT_S)
                self._log(f"connected to the tracker at {name}")
                reason = await talk.ended
            except asyncio.TimeoutError:
                reason = f"no answer within {CONNECT_LIMIT_S:g} s"
            except OSError as error:
                reason = str(error)
            self._talk = None
            if self._is_closed:  # before 3.12, wait_for() may lose a cancellation
                return
            pause_s = self.registration.lost(self._loop.time())
            self._on_change()
            self._log(f"no tracker at {name} ({reason}); trying again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)

    async def _connect(self) -> _Talk:
        """A connection to the first of the tracker's addresses that takes one."""
        failure = OSError("its name has no address")
        found = await self._lookup.addresses()
        share_s = CONNECT_LIMIT_S / len(found)  # what comes to an address may just vanish there
        for family, kind, proto, _, address in found:
            connection = socket.socket(family, kind, proto)
            try:
                connection.setblocking(False)
                await asyncio.wait_for(self._loop.sock_connect(connection, address), share_s)
            except asyncio.TimeoutError:
                connection.close()
                failure = OSError(f"no answer within {share_s:g} s")
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
            else:
                _, talk = await self._loop.create_connection(lambda: _Talk(self), sock=connection)
                return talk
        raise failure

    def _log(self, line: str) -> None:
        _log.log(self._level, line)

    def opened(self, talk: _Talk) -> bool:
        """There is a connection; False: it is not wanted any more."""
        self._talk = talk
        return not self._is_closed

    def changed(self) -> None:
        """The registration has been told something."""
        self._on_change()


class _Talk(asyncio.Protocol):
    """One connection; `ended` has the reason when it is over."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._registration = uplink.registration
        self._loop = asyncio.get_running_loop()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._reason = "it closed the connection"
        self.ended: asyncio.Future[str] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        try:
            network.set_stream_options(transport.get_extra_info("socket"))
        except OSError:  # it has gone already
            self.abort()
            return
        if not self._uplink.opened(self):
            self.abort()
            return
        self.say(self._registration.connected(self._loop.time()))

    def data_received(self, received: bytes) -> None:
        try:
            words = self._registration.received(received, self._loop.time())
        except RemoteProtocolError as error:
            self._give_up(error)
            return
        self.say(words)
        self._uplink.changed()

    def say(self, words: bytes) -> None:
        """Sends it, and sets the timer for what comes next."""
        if words:
            self._transport.write(words)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakeup_s = self._registration.next_wakeup(self._loop.time())
        if wakeup_s is not None:
            self._timer = self._loop.call_later(wakeup_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self.say(self._registration.tick(self._loop.time()))
        except RemoteProtocolError as error:
            self._give_up(error)

    def _give_up(self, error: RemoteProtocolError) -> None:
        self._reason = str(error)
        self.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        self._transport.abort()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.ended.done():  # it is, when the uplink was closed while it waited
            self.ended.set_result(self._reason if exc is None else str(exc))


class Uplinks:
    """What a proxy tells its tracker: its servers, and their keys. Made in the loop.

    Args:
        tracker: host and port of the tracker.
        port: the proxy's, where clients come.

    Attributes:
        running: what runs until the uplinks have ended, which is later than they were told to.
    """

    def __init__(self, tracker: Tuple[str, int], port: int) -> None:
        self.running: Set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._name = network.format_address(*tracker)
        self._lookup = Lookup(tracker)
        self._port = port
        self._of: Dict[Hashable, Uplink] = {}
        self._listing = Listing()
        self._relist_timer: Optional[asyncio.TimerHandle] = None
        own = Registration("", port, entropy=os.urandom)
        self._own = self._open(own, _nothing, logging.INFO)

    def offer(self, server: Hashable, key: str, changed: Callable[[Registration], None]) -> str:
        """Offers a server; the match key of its client.

        Args:
            changed: called whenever its registration has been told something.

        Raises:
            LocalProtocolError: it has no key, or one that cannot be one.
        """
        if not key:
            raise LocalProtocolError("a server registers at a tracker under a key; it has none")
        # Not shown in summaries, as the name does not start with "server:"; but with a name, the
        # tracker forgets the offer when the connection closes.
        registration = Registration(f"proxied:{key}", self._port, key, entropy=os.urandom)
        self._of[server] = self._open(registration, functools.partial(changed, registration))
        if self._listing.came(key):
            self._describe()
        return registration.match_key

    def taken(self, server: Hashable, client: str) -> None:
        """A server that was offered has its client, who comes from that address."""
        if server in self._of:
            self._of[server].taken(client)

    def left(self, server: Hashable) -> None:
        """A server is gone, if it was offered."""
        uplink = self._of.pop(server, None)
        if uplink is None:
            return
        uplink.close()
        self._listing.left(uplink.registration.key, self._loop.time())
        if self._relist_timer is None:
            self._relist()

    def close(self) -> None:
        """Cuts the connection that is the proxy's own; those of its servers end with them."""
        if self._relist_timer is not None:
            self._relist_timer.cancel()
        self._own.close()

    def _describe(self) -> None:
        """Tell the tracker which keys there are behind this proxy."""
        self._own.describe(describe_proxy(self._listing.keys))

    def _relist(self) -> None:
        """Leave out the keys whose last server left some time ago; come back for the others."""
        now = self._loop.time()
        if self._listing.expire(now):
            self._describe()
        wakeup_s = self._listing.next_wakeup(now)
        self._relist_timer = None
        if wakeup_s is not None:
            self._relist_timer = self._loop.call_later(wakeup_s, self._relist)

    def _open(
        self, registration: Registration, on_change: Callable[[], None], level: int = logging.DEBUG
    ) -> Uplink:
        uplink = Uplink(self._name, self._lookup, registration, on_change, level)
        self.running.add(uplink.task)
        uplink.task.add_done_callback(self.running.discard)
        return uplink


def _nothing() -> None:
    """The proxy's own connection to the tracker has no match key that could change."""
