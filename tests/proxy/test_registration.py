"""What the proxy tells a tracker about a server behind it: bytes in, bytes out, our own clock."""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any, List

import pytest

from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.offering import ANSWER_LIMIT_S
from pytest_tvmrpc.protocol.pause import LAST_PAUSE_S
from pytest_tvmrpc.proxy.registration import (
    POLL_S,
    UNUSED_S,
    Registration,
    describe_proxy,
)


def entropy() -> Any:
    """Bytes that differ each time."""
    counter = itertools.count(1)
    return lambda size: bytes([next(counter) % 256]) * size


def make(key: str = "phone") -> Registration:
    return Registration(f"proxied:{key}", 9090, key, entropy=entropy())


def messages(words: bytes) -> List[Any]:
    """The frames in these bytes."""
    found = []
    while words:
        (length,) = struct.unpack_from("<i", words)
        found.append(json.loads(words[4 : 4 + length]))
        words = words[4 + length :]
    return found


def reply(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return struct.pack("<i", len(body)) + body


def opened(registration: Registration, now: float = 0) -> None:
    """Connected, introduced, offered, and all of it answered."""
    assert registration.connected(now) == wire.MAGIC
    words = registration.received(wire.MAGIC, now)
    for _ in messages(words):
        assert registration.received(reply(0), now) == b""  # as TVM's tracker does


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_the_first_words(cut: str) -> None:
    """Magic; after its echo who we are and what we offer, however the echo is cut."""
    registration = make()
    assert registration.connected(0) == wire.MAGIC
    stream = wire.MAGIC + (reply(0) + b"\1" if cut == "with trailing bytes" else b"")
    if cut == "byte by byte":
        words = b"".join(registration.received(bytes([byte]), 0) for byte in stream)
    else:
        words = registration.received(stream, 0)
    assert messages(words) == [
        [5, {"key": "proxied:phone", "addr": [None, 9090]}],
        [3, "phone", [9090, registration.match_key], None],
        [1, {"tvmrpc": 1, "orders": True}],
    ]


def test_a_key_handed_out_and_not_used_is_replaced_under_the_right_key() -> None:
    """The new match key is of the same device key, as often as that happens."""
    registration = make()
    opened(registration)
    now = 0.0
    for _ in range(3):
        old = registration.match_key
        words = b""
        absent_since = None
        while not words:
            now += POLL_S
            assert messages(registration.tick(now)) == [[7]]
            words = registration.received(reply([]), now)
            absent_since = now if absent_since is None else absent_since
        assert UNUSED_S <= now - absent_since < UNUSED_S + POLL_S
        assert registration.match_key != old
        assert registration.match_key.startswith("phone:0.")
        assert messages(words) == [[3, "phone", [9090, registration.match_key], None]]
        assert registration.received(reply(0), now) == b""


def test_a_key_that_is_still_offered_stays() -> None:
    """The polls go on; a short absence, or an answer about the key before, changes nothing."""
    registration = make()
    opened(registration)
    match_key = registration.match_key
    for step in range(1, 50):
        now = step * POLL_S
        assert registration.tick(now - 0.01) == b""
        assert messages(registration.tick(now)) == [[7]]
        absent = step % 3 == 0
        assert registration.received(reply([] if absent else [match_key, "x:1"]), now) == b""
    assert registration.match_key == match_key


def test_a_taken_server_is_not_asked_about() -> None:
    """No polls, no new match key, and no further connection is wanted."""
    registration = make()
    opened(registration)
    match_key = registration.match_key
    registration.tick(POLL_S)
    assert messages(registration.taken(1, "10.0.0.9:5")) == [
        [1, {"tvmrpc": 1, "orders": True, "serving": ["10.0.0.9:5", 0.0]}]
    ]
    assert registration.received(reply([]) + reply(0), 2) == b""
    assert registration.next_wakeup(100) is None
    assert registration.tick(100) == b""
    registration.lost(100)
    assert registration.is_taken
    assert registration.match_key == match_key


def test_an_order_to_end_the_session() -> None:
    """It is passed on once; one that means another session, or none there is, changes nothing."""
    registration = make()
    opened(registration)
    match_key = registration.match_key
    registration.taken(1)
    assert registration.received(reply({"kick": "x", "match_key": "phone:0.9"}), 1) == b""
    assert registration.take_kick() is None
    assert registration.received(reply({"kick": "lunch", "match_key": match_key}), 1) == b""
    assert registration.take_kick() == "lunch"
    assert registration.take_kick() is None
    assert registration.received(reply({"later": 1}), 1) == b""


def test_an_order_before_the_client_came() -> None:
    """His match key is replaced."""
    registration = make()
    opened(registration)
    old = registration.match_key
    words = registration.received(reply({"kick": "", "match_key": old}), 1)
    assert registration.match_key != old
    assert messages(words) == [[3, "phone", [9090, registration.match_key], None]]
    assert registration.take_kick() is None


def test_a_lost_tracker() -> None:
    """The match key is another one; the pauses grow to their limit, and begin anew with success."""
    registration = make()
    seen = {registration.match_key}
    pauses = []
    for _ in range(12):
        pauses.append(registration.lost(0))
        seen.add(registration.match_key)
    assert len(seen) == 13
    assert pauses[0] <= 0.1
    assert LAST_PAUSE_S / 2 <= pauses[-1] <= LAST_PAUSE_S
    opened(registration)
    assert registration.lost(0) <= 0.1
    registration.connected(0)
    words = messages(registration.received(wire.MAGIC, 0))
    assert words[1] == [3, "phone", [9090, registration.match_key], None]


@pytest.mark.parametrize(
    "words",
    [b"HTTP/1.1 400", wire.MAGIC + reply(-1), wire.MAGIC + reply(0) * 4, wire.MAGIC + reply([9])],
    ids=["no tracker", "refused", "not asked", "no status"],
)
def test_nonsense_is_an_error(words: bytes) -> None:
    """Whoever owns the connection closes it then."""
    registration = make()
    registration.connected(0)
    with pytest.raises(RemoteProtocolError):
        registration.received(words, 0)


def test_silence_is_an_error() -> None:
    """To the magic as to any message; the wake-up is just then."""
    registration = make()
    registration.connected(0)
    assert registration.next_wakeup(0) == ANSWER_LIMIT_S
    with pytest.raises(RemoteProtocolError, match="did not answer"):
        registration.tick(ANSWER_LIMIT_S)
    registration.lost(20)
    registration.connected(20)
    registration.received(wire.MAGIC, 20)
    assert registration.next_wakeup(20) == POLL_S
    with pytest.raises(RemoteProtocolError, match="did not answer"):
        registration.tick(20 + ANSWER_LIMIT_S)


def test_the_proxys_own_connection() -> None:
    """Says nothing about itself before there is something to say, and never offers or asks."""
    own = Registration("", 9090, entropy=entropy())
    assert own.describe(describe_proxy(["a"]), 0) == b""
    opened(own)
    assert own.next_wakeup(0) is None
    words = own.describe(describe_proxy(["b", "a"]), 1)
    assert messages(words) == [[5, {"key": "server:proxy[a,b]", "addr": [None, 9090]}]]
    assert own.received(reply(0), 1) == b""
    quiet = Registration("", 9090, entropy=entropy())
    quiet.connected(0)
    assert quiet.received(wire.MAGIC, 0) == b""


def test_a_description_is_short_enough() -> None:
    """Whatever keys there are, a tracker takes it."""
    many = describe_proxy([f"{number:04}" + "\U0001f600" * 20 for number in range(5000)])
    wire.check_info({"key": many, "addr": [None, 65535]})
    assert many.startswith("server:proxy[0000")
    assert many.endswith(",...]")


def test_a_key_that_cannot_be_one() -> None:
    """Is refused before a tracker hears of it."""
    with pytest.raises(LocalProtocolError):
        make("x" * 300)
