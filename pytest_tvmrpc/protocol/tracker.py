"""The control plane: i32-framed JSON, one class for each message. No socket, and no scheduling.

These are TVM's messages, with what ours add where TVM's tracker does not look: elements behind
those that it reads. What a TVM tracker would not understand is in `farm.py`.

A connection starts with the tracker's magic in both directions. Then each side sends frames: an
i32 length and as many bytes of JSON. Requests are arrays that start with a code; each has one
reply, in order, except that the reply to a `Request` may come after later ones.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from ..errors import LocalProtocolError, RemoteProtocolError
from .codes import RPC_TRACKER_MAGIC, TrackerCode
from .json_frames import FrameReader as FrameReader
from .json_frames import encode as encode
from .json_frames import parse_json as parse_json
from .json_frames import refuse

MAGIC = struct.pack("<i", RPC_TRACKER_MAGIC)

MAX_KEY = 256
"""Bytes of a device key, which leaves a data connection's hello room for the rest."""

MAX_REQUEST = 1 << 16
"""The longest message to a tracker. None needs more than `MAX_INFO` and a few words."""

MAX_INFO = 16384
"""The longest description of a connection, as JSON; every summary repeats it to everybody."""

GREETING = "tvmrpc"
"""The word by which ours know each other."""

MAX_USER = 128
"""Characters of what a user is called."""

_MAX_INFO_DEPTH = 8
_MAX_HOST = 255


class Serving(NamedTuple):
    """A session that a server already had when it introduced itself, and since how many seconds."""

    peer: str
    since_s: float


class Ping(NamedTuple):
    """Are you there? Answered with success; a greeting among ours with `welcome`.

    Fields: whether it is a greeting; whether the sender takes orders; the session it serves;
    a key of which the sender wants to know whether any server has it.
    """

    greets: bool = False
    takes_orders: bool = False
    serving: Optional[Serving] = None
    key: Optional[str] = None


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
    session_timeout: float = 0


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


# --- out ----------------------------------------------------------------------------------------


def ping() -> bytes:
    return encode([TrackerCode.PING])


def put(key: str, port: int, match_key: str, custom_addr: Optional[str] = None) -> bytes:
    return encode([TrackerCode.PUT, key, [port, match_key], custom_addr])


def greet(
    *, takes_orders: bool = False, serving: Optional[Serving] = None, key: Optional[str] = None
) -> bytes:
    """A `Ping` by which ours find out each other: TVM's tracker answers it as any other."""
    words: Dict[str, Any] = {GREETING: 1}
    if takes_orders:
        words["orders"] = True
    if serving is not None:
        words["serving"] = list(serving)
    if key is not None:
        words["key"] = key
    return encode([TrackerCode.PING, words])


def welcome(served: Optional[bool] = None) -> bytes:
    """The reply to a greeting, and to its question whether a key is served."""
    words: Dict[str, Any] = {GREETING: 1}
    if served is not None:
        words["served"] = served
    return encode([TrackerCode.SUCCESS, words])


def request(key: str, priority: float = 1, user: str = "", session_timeout: float = 0) -> bytes:
    """TVM's tracker takes the user and ignores it, and does not look at what is behind it."""
    limit_s = session_timeout if 0 < session_timeout < 1e300 else 0
    return encode([TrackerCode.REQUEST, key, user, priority, limit_s])


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


def parse_request(value: object) -> RequestMessage:
    """The message in a JSON value that a server or client sent.

    Raises:
        RemoteProtocolError: it is none of them.
    """
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        refuse("a tracker message must be an array that starts with a code", value)
    code, arguments = value[0], value[1:]
    entry = _PARSERS.get(code)
    if entry is None:
        refuse("a tracker message has an unknown code", value)
    least, most, parse = entry
    if len(arguments) < least:
        refuse(f"a {TrackerCode(code).name} message has {least} arguments", value)
    try:
        message: RequestMessage = parse(*arguments[:most])  # as TVM's, blind for what is behind
    except LocalProtocolError as error:  # a key that cannot be one: here, the peer's fault
        raise RemoteProtocolError(str(error)) from None
    return message


def parse_status(value: object) -> None:
    """Take the reply to a message that only succeeds or fails.

    Raises:
        RemoteProtocolError: it failed, or the reply is none.
    """
    if type(value) is not int or value != TrackerCode.SUCCESS:
        refuse("the tracker refused a message; 0 was expected", value)


def parse_granted(value: object) -> Granted:
    """The reply to a `Request`.

    Raises:
        RemoteProtocolError: it is something else.
    """
    content = content_of(value, "a request")
    if not isinstance(content, list) or len(content) != 3:
        refuse("a grant must be [host, port, match key]", content)
    return Granted(host_of(content[0]), port_of(content[1]), _match_key(content[2]))


def parse_welcome(value: object) -> Tuple[bool, Optional[bool]]:
    """The reply to a greeting: whether this tracker is one of ours, and whether the key is served.

    Raises:
        RemoteProtocolError: it is no reply to a `Ping` at all.
    """
    if not isinstance(value, list):
        parse_status(value)
        return False, None
    words = content_of(value, "a greeting")
    if not isinstance(words, dict) or GREETING not in words:
        refuse("the reply to a greeting is an object", words)
    served = words.get("served")
    if served is not None and not isinstance(served, bool):
        refuse("a key is served or not", served)
    return True, served


def is_granted(value: object) -> bool:
    """Whether this is the reply to a `Request`, which may overtake others."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)


def parse_summary(value: object) -> Dict[str, Any]:
    """The reply to a `Summary`: ``queue_info`` and ``server_info``, in the forms TVM gives them.

    Raises:
        RemoteProtocolError: it is something else.
    """
    content = content_of(value, "a summary")
    if not isinstance(content, dict):
        refuse("a summary must be an object", content)
    queues, servers = content.get("queue_info"), content.get("server_info")
    if not isinstance(queues, dict) or not isinstance(servers, list):
        refuse("a summary must have queue_info and server_info", content)
    for queue in queues.values():
        if not isinstance(queue, dict) or not all(
            type(queue.get(name)) is int for name in ("free", "pending")
        ):
            refuse("a queue's summary must count free and pending", queue)
    for server in servers:
        if not isinstance(server, dict) or not isinstance(server.get("key"), str):
            refuse("a server's summary must have a key", server)
        if not isinstance(server.get("addr"), list):
            refuse("a server's summary must have an address", server)
    return content


def parse_pending(value: object) -> List[str]:
    """The reply to `GetPendingMatchkeys`.

    Raises:
        RemoteProtocolError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        refuse("the pending match keys must be an array of texts", value)
    return value


def content_of(value: object, what: str) -> Any:
    """What a reply brings besides success.

    Raises:
        RemoteProtocolError: it failed, or it brings nothing.
    """
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        refuse(f"the reply to {what} must be an array that starts with a code", value)
    if value[0] != TrackerCode.SUCCESS or len(value) != 2:
        refuse(f"the tracker refused {what}", value)
    return value[1]


def _ping(words: object = None) -> Ping:
    if not isinstance(words, dict) or GREETING not in words:
        return Ping()  # whatever it is, TVM's tracker answers it
    key, serving = words.get("key"), words.get("serving")
    return Ping(
        True,
        words.get("orders") is True,
        None if serving is None else _serving(serving),
        None if key is None else check_key(key),
    )


def _serving(value: object) -> Serving:
    if not isinstance(value, list) or len(value) != 2:
        refuse("a session is [peer, seconds]", value)
    return Serving(clean(value[0], MAX_USER), seconds(value[1]))


def clean(text: object, limit: int) -> str:
    """A text that can be shown to others: no control characters, and not longer than `limit`.

    Raises:
        RemoteProtocolError: it is no text.
    """
    if not isinstance(text, str):
        refuse("expected a text", text)
    return "".join(letter if letter.isprintable() else "?" for letter in text[:limit])


def seconds(value: object) -> float:
    """A duration, not negative.

    Raises:
        RemoteProtocolError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e300:
        refuse("a duration is a number of seconds, not negative", value)
    return float(value)


def _put(key: object, place: object, custom_addr: object = None) -> Put:
    if not isinstance(place, list) or len(place) != 2:
        refuse("a server offers itself with [port, match key]", place)
    address = None if custom_addr is None else host_of(custom_addr)
    return Put(check_key(key), port_of(place[0]), _match_key(place[1]), address)


def _request(
    key: object, user: object, priority: object, session_timeout: object = None
) -> Request:
    if isinstance(priority, bool) or not isinstance(priority, (int, float)):
        refuse("a priority is a number", priority)
    if priority - priority != 0:  # 1e999 is JSON for infinity
        refuse("a priority is a finite number", priority)
    name = clean("" if user is None else user, MAX_USER)
    limit_s = 0.0 if session_timeout is None else seconds(session_timeout)
    return Request(check_key(key), name, priority, limit_s)


def check_info(fields: object) -> Dict[str, Any]:
    """The description of a connection, if others can bear to have it in their summaries.

    Raises:
        RemoteProtocolError: it is too long, nested too deeply, or has a bad key or address.
    """
    if not isinstance(fields, dict):
        refuse("the description of a connection is an object", fields)
    if _is_deeper(fields, _MAX_INFO_DEPTH):
        refuse("the description of a connection is not nested deeply", fields)
    if len(json.dumps(fields)) > MAX_INFO:
        refuse(f"the description of a connection has at most {MAX_INFO} bytes", fields)
    key = fields.get("key", "")
    if not isinstance(key, str) or not _is_word(key):
        refuse("the key of a connection is a text without blanks", key)
    if "addr" in fields:
        _check_address(fields["addr"])
    return fields


def _check_address(address: object) -> None:
    if not isinstance(address, list) or len(address) != 2:
        refuse("an address is [host or null, port]", address)
    host, port = address
    if host is not None:
        host_of(host)
    if isinstance(port, str):  # the C++ server quotes its port here
        port_of(int(port) if port.isdecimal() and len(port) < 6 else -1)
    else:
        port_of(port)


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
        refuse("a stop key is text", stop_key)
    return Stop(stop_key)


_PARSERS: Dict[int, Tuple[int, int, Any]] = {
    TrackerCode.PING: (0, 1, _ping),
    TrackerCode.STOP: (1, 1, _stop),
    TrackerCode.PUT: (2, 3, _put),
    TrackerCode.REQUEST: (3, 4, _request),
    TrackerCode.UPDATE_INFO: (1, 1, _update_info),
    TrackerCode.SUMMARY: (0, 0, Summary),
    TrackerCode.GET_PENDING_MATCHKEYS: (0, 0, GetPendingMatchkeys),
}
"""For each code: how few arguments it has, how many are read, what makes the message of them."""


def host_of(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_HOST:
        refuse("a host is a short text", value)
    if not _is_word(value):
        refuse("a host has no blanks and is printable", value)
    return value


def port_of(value: object) -> int:
    if type(value) is not int or not 0 < value < 65536:
        refuse("a port is a number from 1 to 65535", value)
    return value


def _match_key(value: object) -> str:
    if not isinstance(value, str) or ":" not in value or len(value) > 2 * MAX_KEY:
        refuse("a match key is a text of the form KEY:RANDOM", value)
    if not _is_word(value):
        refuse("a match key has no blanks and is printable", value)
    return value
