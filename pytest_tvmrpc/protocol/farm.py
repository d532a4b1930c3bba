"""What our trackers can be asked beyond TVM's: who has what, who waits; to end a session.

Not for a tracker that has not answered `tracker.greet` as ours do: TVM's closes the connection at
a code that it does not know.

An order is no reply: the tracker sends it to a server that takes orders whenever there is one.
"""

from __future__ import annotations

import enum
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

from . import tracker as wire
from .json_frames import encode, refuse

MAX_REASON = 256
"""Characters of why somebody was sent away."""

_MAX_TARGET = 512


class FarmCode(enum.IntEnum):
    """The first element of a message of ours; far from TVM's, which end with 7."""

    WHO = 100
    KICK = 101


class Who(NamedTuple):
    """Which servers are there, who holds them, and who waits?"""


class Kick(NamedTuple):
    """End the sessions on a server, named by its address, or on all servers of a key."""

    target: str
    reason: str


Message = Union[wire.RequestMessage, Who, Kick]


class State(str, enum.Enum):
    """What a server does, as far as its tracker can tell."""

    FREE = "free"
    OFFERED = "offered"
    """Somebody was given it, and has not connected to it yet."""
    BUSY = "busy"
    SILENT = "silent"
    """It stopped talking, and is not given to anybody until it talks again."""


class Holder(NamedTuple):
    """Who has a server.

    Fields: what the user calls himself; the address from which he asked the tracker, or, if the
    session is older than the tracker, connected to the server; for how many seconds he has it;
    the session's time limit in seconds, 0: none, None: not known.
    """

    user: str
    peer: str
    since_s: float
    limit_s: Optional[float] = None


class FarmServer(NamedTuple):
    """A server: its key and address, what it does and for how many seconds, and who has it."""

    key: str
    host: str
    port: int
    state: State
    since_s: float
    holder: Optional[Holder] = None

    @property
    def address(self) -> str:
        """``host:port``, as `Kick` takes it."""
        return address_of(self.host, self.port)


class Waiting(NamedTuple):
    """A request that waits: for which key, whose, at which place (1: the next), how long."""

    key: str
    user: str
    peer: str
    position: int
    priority: float
    since_s: float


class Farm(NamedTuple):
    """All that a tracker of ours knows, as far as its limits for an answer go."""

    servers: Tuple[FarmServer, ...]
    waiting: Tuple[Waiting, ...]


class Outcome(str, enum.Enum):
    """What came of a `Kick` at one server."""

    KICKED = "kicked"
    IDLE = "idle"
    """Nobody has it."""
    DEAF = "deaf"
    """It takes no orders, as TVM's servers and proxies do not."""


class Kicked(NamedTuple):
    """What came of a `Kick` at one server, by its address."""

    address: str
    outcome: Outcome


class KickOrder(NamedTuple):
    """End the session of this match key; None: whichever there is."""

    reason: str
    match_key: Optional[str]


def address_of(host: str, port: int) -> str:
    """The address as people write it, and as a `Kick` names it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- out ----------------------------------------------------------------------------------------


def who() -> bytes:
    return encode([FarmCode.WHO])


def kick(target: str, reason: str = "") -> bytes:
    return encode([FarmCode.KICK, target, reason])


def farm_reply(farm: Farm) -> bytes:
    return encode([0, {"servers": farm.servers, "waiting": farm.waiting}])


def kick_reply(results: Sequence[Kicked]) -> bytes:
    return encode([0, {"results": results}])


def kick_order(order: KickOrder) -> bytes:
    return encode({"kick": order.reason, "match_key": order.match_key})


# --- in -----------------------------------------------------------------------------------------


def parse_request(value: object) -> Message:
    """The message in a JSON value that a server or client sent to our tracker.

    Raises:
        RemoteProtocolError: it is none of TVM's and none of ours.
    """
    if not isinstance(value, list) or not value or type(value[0]) is not int or value[0] < 100:
        return wire.parse_request(value)
    if value[0] == FarmCode.WHO:
        return Who()
    if value[0] != FarmCode.KICK or len(value) < 2:
        refuse("a tracker message has an unknown code, or too few arguments", value)
    reason = value[2] if len(value) > 2 else ""
    return Kick(wire.clean(value[1], _MAX_TARGET), wire.clean(reason, MAX_REASON))


def is_order(value: object) -> bool:
    """Whether this is an order, and not the reply to anything."""
    return isinstance(value, dict)


def parse_order(value: Any) -> Optional[KickOrder]:
    """The order in a value that `is_order`; None: one that only later servers understand.

    Raises:
        RemoteProtocolError: it is a broken one.
    """
    if "kick" not in value:
        return None
    match_key = value.get("match_key")
    if match_key is not None and not isinstance(match_key, str):
        refuse("an order names a match key, or none", match_key)
    return KickOrder(wire.clean(value["kick"], MAX_REASON), match_key)


def parse_farm(value: object) -> Farm:
    """The reply to `Who`.

    Raises:
        RemoteProtocolError: it is something else.
    """
    content = wire.content_of(value, "who has what")
    if not isinstance(content, dict):
        refuse("a farm is an object", content)
    return Farm(
        tuple(_server(*fields) for fields in _rows(content.get("servers"), 6)),
        tuple(_waiting(*fields) for fields in _rows(content.get("waiting"), 6)),
    )


def parse_kicked(value: object) -> List[Kicked]:
    """The reply to `Kick`; empty: no server has this address or key.

    Raises:
        RemoteProtocolError: it is something else.
    """
    content = wire.content_of(value, "a kick")
    if not isinstance(content, dict):
        refuse("the results of a kick are in an object", content)
    return [
        Kicked(wire.clean(address, _MAX_TARGET), _member(Outcome, outcome))
        for address, outcome in _rows(content.get("results"), 2)
    ]


def _rows(value: object, width: int) -> Any:
    if not isinstance(value, list):
        refuse("expected an array of arrays", value)
    for row in value:
        if not isinstance(row, list) or len(row) != width:
            refuse(f"expected an array of {width}", row)
    return value


def _server(
    key: object, host: object, port: object, state: object, since_s: object, holder: object
) -> FarmServer:
    found = None if holder is None else _holder(*_rows([holder], 4)[0])
    name = wire.clean(key, wire.MAX_KEY)
    # A server that introduced itself with no address has none.
    place = (wire.clean(host, _MAX_TARGET), 0 if port == 0 else wire.port_of(port))
    return FarmServer(name, *place, _member(State, state), wire.seconds(since_s), found)


def _holder(user: object, peer: object, since_s: object, limit_s: object) -> Holder:
    return Holder(
        wire.clean(user, wire.MAX_USER),
        wire.clean(peer, _MAX_TARGET),
        wire.seconds(since_s),
        None if limit_s is None else wire.seconds(limit_s),
    )


def _waiting(
    key: object, user: object, peer: object, position: object, priority: object, since_s: object
) -> Waiting:
    if type(position) is not int or isinstance(priority, bool):
        refuse("a request that waits has a position and a priority", [position, priority])
    if not isinstance(priority, (int, float)):
        refuse("a priority is a number", priority)
    user_name, address = wire.clean(user, wire.MAX_USER), wire.clean(peer, _MAX_TARGET)
    name = wire.clean(key, wire.MAX_KEY)
    return Waiting(name, user_name, address, position, priority, wire.seconds(since_s))


def _member(kind: Any, value: object) -> Any:
    try:
        return kind(value)
    except ValueError:
        refuse(f"expected one of {', '.join(kind)}", value)
