"""The control plane: i32-framed JSON, one class for each message. No socket, and no scheduling.

A connection starts with the tracker's magic in both directions. Then each side sends frames: an
i32 length and as many bytes of JSON. Requests are arrays that start with a code; each has one
reply, in order, except that the reply to a `Request` may come after later ones.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Tuple, Union

from ..errors import LocalProtocolError, RemoteProtocolError
from .codes import RPC_TRACKER_MAGIC, TrackerCode

MAGIC = struct.pack("<i", RPC_TRACKER_MAGIC)

MAX_FRAME = 1 << 20
"""TVM's own limit since 0.25 (MAX_TRACKER_MSG_BYTES in python/tvm/rpc/tracker.py)."""

MAX_KEY = 256
"""Bytes of a device key, which leaves a data connection's hello room for the rest."""

MAX_INFO = 16384
"""The longest description of a connection, as JSON; every summary repeats it to everybody."""

_MAX_INFO_DEPTH = 8
_MAX_DIGITS = 20
_MAX_HOST = 255

_LENGTH = struct.Struct("<i")


class Ping(NamedTuple):
    """Are you there? Answered with success."""


class Stop(NamedTuple):
    """End the tracker, if the key is the one that only its starter knows."""

    stop_key: str


class Put(NamedTuple):
    """A server offers itself under a key; without an address, the one it connects from is meant."""

    key: str
    port: int
    match_key: str
    custom_addr: Optional[str]


class Request(NamedTuple):
    """A client wants a server with this key; a higher priority is served first."""

    key: str
    user: str
    priority: float


class UpdateInfo(NamedTuple):
    """What the summary shall say about this connection."""

    fields: Dict[str, Any]


class Summary(NamedTuple):
    """Who is there and who waits?"""


class GetPendingMatchkeys(NamedTuple):
    """Which match keys of this connection were not handed out yet?"""


class Granted(NamedTuple):
    """The reply to a `Request`: where to connect to, and with which key."""

    host: str
    port: int
    match_key: str


RequestMessage = Union[Ping, Stop, Put, Request, UpdateInfo, Summary, GetPendingMatchkeys]


# --- keys ---------------------------------------------------------------------------------------


def check_key(key: object) -> str:
    """The key, if it can be one.

    Blanks and what cannot be printed are refused, as the first words on a data connection end a
    key at a blank. Colons are fine.

    Raises:
        LocalProtocolError: it cannot be a key; the message says why.
    """
    if not isinstance(key, str):
        raise LocalProtocolError(f"a device key is text, not {type(key).__name__}")
    if not key:
        raise LocalProtocolError("a device key must not be empty")
    if not _is_word(key):
        raise LocalProtocolError(
            f"the device key {key[:80]!r} has a blank or a character that cannot be printed"
        )
    if len(key.encode()) > MAX_KEY:
        raise LocalProtocolError(
            f"the device key {key[:40]!r}... is longer than the {MAX_KEY} bytes a key may have"
        )
    return key


def _is_word(text: str) -> bool:
    """Whether it has no blanks of any kind, no control characters and no lone surrogates."""
    return text.isprintable() and " " not in text


def make_match_key(key: str, entropy: bytes) -> str:
    """The match key of these random bytes, 8 of them at least; TVM's form is KEY:0.DIGITS."""
    return f"{key}:0.{int.from_bytes(entropy, 'little') % 10**16:016d}"


def key_of(match_key: str) -> str:
    """The key to which a match key belongs: all before the last colon, as keys may have some."""
    return match_key.rpartition(":")[0]


# --- out ----------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """A JSON value as one frame, to be sent in one piece.

    TVM sends length and body apart, which costs 40 ms a message on a socket with Nagle's algorithm.
    """
    body = json.dumps(value).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def ping() -> bytes:
    return encode([TrackerCode.PING])


def put(key: str, port: int, match_key: str, custom_addr: Optional[str] = None) -> bytes:
    return encode([TrackerCode.PUT, key, [port, match_key], custom_addr])


def request(key: str, priority: float = 1) -> bytes:
    return encode([TrackerCode.REQUEST, key, "", priority])


def update_info(key: str, port: int, custom_addr: Optional[str] = None) -> bytes:
    """The frame with which a server for a key introduces itself."""
    return encode([TrackerCode.UPDATE_INFO, {"key": f"server:{key}", "addr": [custom_addr, port]}])


def summary() -> bytes:
    return encode([TrackerCode.SUMMARY])


def get_pending_matchkeys() -> bytes:
    return encode([TrackerCode.GET_PENDING_MATCHKEYS])


SUCCESS = encode(TrackerCode.SUCCESS)
FAIL = encode(TrackerCode.FAIL)


def granted(resource: Granted) -> bytes:
    return encode([TrackerCode.SUCCESS, list(resource)])


def summary_reply(state: Dict[str, Any]) -> bytes:
    return encode([TrackerCode.SUCCESS, state])


# --- in -----------------------------------------------------------------------------------------


class FrameReader:
    """Cuts a byte stream into frames; never holds more than the bytes that really came.

    Args:
        limit: the longest frame that is taken.
    """

    __slots__ = ("_limit", "_position", "_received")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._received = bytearray()
        self._position = 0

    def feed(self, received: bytes) -> None:
        """Take what came, wherever it was cut."""
        if self._position:
            del self._received[: self._position]
            self._position = 0
        self._received += received

    @property
    def is_partial(self) -> bool:
        """Whether there are bytes that no frame was cut from yet."""
        return self._position < len(self._received)

    def next_frame(self) -> Optional[bytes]:
        """The body of the next complete frame, or None until more was fed.

        Raises:
            RemoteProtocolError: a length is not positive or above the limit; there is no way on.
        """
        start = self._position + _LENGTH.size
        if len(self._received) < start:
            return None
        (length,) = _LENGTH.unpack_from(self._received, self._position)
        if not 0 < length <= self._limit:
            raise RemoteProtocolError(
                f"a tracker frame claims {length} bytes; 1 to {self._limit} were expected"
            )
        if len(self._received) < start + length:
            return None
        self._position = start + length
        return bytes(self._received[start : start + length])


def parse_json(body: bytes) -> Any:
    """The value in a frame.

    Raises:
        RemoteProtocolError: it is no JSON, is nested too deeply or has a number out of all bounds.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_int=_integer, parse_constant=_no_number)
    except RecursionError:
        raise RemoteProtocolError("a tracker message is nested too deeply") from None
    except ValueError as error:
        raise RemoteProtocolError(f"a tracker message is no JSON: {error}") from None


def parse_request(value: object) -> RequestMessage:
    """The message in a JSON value that a server or client sent.

    Raises:
        RemoteProtocolError: it is none of them.
    """
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        _refuse("a tracker message must be an array that starts with a code", value)
    code, arguments = value[0], value[1:]
    entry = _PARSERS.get(code)
    if entry is None:
        _refuse("a tracker message has an unknown code", value)
    count, parse = entry
    if len(arguments) != count:
        _refuse(f"a {TrackerCode(code).name} message has {count} arguments", value)
    try:
        message: RequestMessage = parse(*arguments)
    except LocalProtocolError as error:  # a key that cannot be one: here, the peer's fault
        raise RemoteProtocolError(str(error)) from None
    return message


def parse_status(value: object) -> None:
    """Take the reply to a message that only succeeds or fails.

    Raises:
        RemoteProtocolError: it failed, or the reply is none.
    """
    if type(value) is not int or value != TrackerCode.SUCCESS:
        _refuse("the tracker refused a message; 0 was expected", value)


def parse_granted(value: object) -> Granted:
    """The reply to a `Request`.

    Raises:
        RemoteProtocolError: it is something else.
    """
    content = _content(value, "a request")
    if not isinstance(content, list) or len(content) != 3:
        _refuse("a grant must be [host, port, match key]", content)
    return Granted(_host(content[0]), _port(content[1]), _match_key(content[2]))


def is_granted(value: object) -> bool:
    """Whether this is the reply to a `Request`, which may overtake others."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)


def parse_summary(value: object) -> Dict[str, Any]:
    """The reply to a `Summary`: ``queue_info`` and ``server_info``, in the forms TVM gives them.

    Raises:
        RemoteProtocolError: it is something else.
    """
    content = _content(value, "a summary")
    if not isinstance(content, dict):
        _refuse("a summary must be an object", content)
    queues, servers = content.get("queue_info"), content.get("server_info")
    if not isinstance(queues, dict) or not isinstance(servers, list):
        _refuse("a summary must have queue_info and server_info", content)
    for queue in queues.values():
        if not isinstance(queue, dict) or not all(
            type(queue.get(name)) is int for name in ("free", "pending")
        ):
            _refuse("a queue's summary must count free and pending", queue)
    for server in servers:
        if not isinstance(server, dict) or not isinstance(server.get("key"), str):
            _refuse("a server's summary must have a key", server)
        if not isinstance(server.get("addr"), list):
            _refuse("a server's summary must have an address", server)
    return content


def parse_pending(value: object) -> List[str]:
    """The reply to `GetPendingMatchkeys`.

    Raises:
        RemoteProtocolError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        _refuse("the pending match keys must be an array of texts", value)
    return value


def _content(value: object, what: str) -> Any:
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        _refuse(f"the reply to {what} must be an array that starts with a code", value)
    if value[0] != TrackerCode.SUCCESS or len(value) != 2:
        _refuse(f"the tracker refused {what}", value)
    return value[1]


def _put(key: object, place: object, custom_addr: object) -> Put:
    if not isinstance(place, list) or len(place) != 2:
        _refuse("a server offers itself with [port, match key]", place)
    address = None if custom_addr is None else _host(custom_addr)
    return Put(check_key(key), _port(place[0]), _match_key(place[1]), address)


def _request(key: object, user: object, priority: object) -> Request:
    if user is not None and not isinstance(user, str):
        _refuse("a user is text", user)
    if isinstance(priority, bool) or not isinstance(priority, (int, float)):
        _refuse("a priority is a number", priority)
    if priority - priority != 0:  # 1e999 is JSON for infinity
        _refuse("a priority is a finite number", priority)
    return Request(check_key(key), (user or "")[:_MAX_HOST], priority)


def check_info(fields: object) -> Dict[str, Any]:
    """The description of a connection, if others can bear to have it in their summaries.

    Raises:
        RemoteProtocolError: it is too long, nested too deeply, or has a bad key or address.
    """
    if not isinstance(fields, dict):
        _refuse("the description of a connection is an object", fields)
    if _is_deeper(fields, _MAX_INFO_DEPTH):
        _refuse("the description of a connection is not nested deeply", fields)
    if len(json.dumps(fields)) > MAX_INFO:
        _refuse(f"the description of a connection has at most {MAX_INFO} bytes", fields)
    key = fields.get("key", "")
    if not isinstance(key, str) or not _is_word(key):
        _refuse("the key of a connection is a text without blanks", key)
    if "addr" in fields:
        _check_address(fields["addr"])
    return fields


def _check_address(address: object) -> None:
    if not isinstance(address, list) or len(address) != 2:
        _refuse("an address is [host or null, port]", address)
    host, port = address
    if host is not None:
        _host(host)
    if isinstance(port, str):  # the C++ server quotes its port here
        _port(int(port) if port.isdecimal() and len(port) < 6 else -1)
    else:
        _port(port)


def _update_info(fields: object) -> UpdateInfo:
    return UpdateInfo(check_info(fields))


def _is_deeper(value: object, limit: int) -> bool:
    if isinstance(value, dict):
        inner: Any = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return limit == 0 or any(_is_deeper(part, limit - 1) for part in inner)


def _stop(stop_key: object) -> Stop:
    if not isinstance(stop_key, str):
        _refuse("a stop key is text", stop_key)
    return Stop(stop_key)


_PARSERS: Dict[int, Tuple[int, Any]] = {
    TrackerCode.PING: (0, Ping),
    TrackerCode.STOP: (1, _stop),
    TrackerCode.PUT: (3, _put),
    TrackerCode.REQUEST: (3, _request),
    TrackerCode.UPDATE_INFO: (1, _update_info),
    TrackerCode.SUMMARY: (0, Summary),
    TrackerCode.GET_PENDING_MATCHKEYS: (0, GetPendingMatchkeys),
}
"""For each code, the number of its arguments and what makes the message of them."""


def _host(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_HOST:
        _refuse("a host is a short text", value)
    if not _is_word(value):
        _refuse("a host has no blanks and is printable", value)
    return value


def _port(value: object) -> int:
    if type(value) is not int or not 0 < value < 65536:
        _refuse("a port is a number from 1 to 65535", value)
    return value


def _match_key(value: object) -> str:
    if not isinstance(value, str) or ":" not in value or len(value) > 2 * MAX_KEY:
        _refuse("a match key is a text of the form KEY:RANDOM", value)
    if not _is_word(value):
        _refuse("a match key has no blanks and is printable", value)
    return value


def _integer(text: str) -> int:
    # int() takes seconds for a megabyte of digits.
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _refuse(rule: str, value: object) -> NoReturn:
    try:
        shown = repr(value)[:80]
    except RecursionError:
        shown = "something nested deeply"
    raise RemoteProtocolError(f"{rule}; got {shown}")
