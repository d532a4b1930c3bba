"""The server's side of the tracker, with bytes and times and without a socket."""

from __future__ import annotations

import os
import struct
from typing import Any, List, Optional

import pytest

from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol import farm
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.offering import ANSWER_LIMIT_S
from pytest_tvmrpc.protocol.pause import LAST_PAUSE_S
from pytest_tvmrpc.server.registration import (
    POLL_S,
    UNUSED_S,
    Registration,
)


def said(frames: bytes) -> List[Any]:
    """What the bytes say, as JSON values."""
    reader = wire.FrameReader()
    reader.feed(frames)
    return [wire.parse_json(body) for body in iter(reader.next_frame, None)]


def registered(now: float = 0.0, **options: Any) -> Registration:
    """A registration that the tracker knows, with its first offer."""
    registration = Registration("board", 19100, **options, entropy=os.urandom)
    registration.connected(now)
    registration.received(wire.MAGIC, now)
    registration.received(wire.SUCCESS * 3, now)
    assert registration.registered
    return registration


def polled(registration: Registration, now: float, pending: List[str]) -> bytes:
    """One poll and the tracker's answer to it; what the registration says then."""
    assert said(registration.tick(now)) == [[7]]
    return registration.received(wire.encode(pending), now)


def test_the_first_words() -> None:
    """The magic alone, then, after its echo, introduction and offer, as TVM's server says them."""
    registration = Registration("board", 19100, entropy=os.urandom)
    assert registration.connected(0) == wire.MAGIC
    answer = registration.received(wire.MAGIC, 0)
    assert said(answer) == [
        [5, {"key": "server:board", "addr": [None, 19100]}],
        [3, "board", [19100, registration.match_key], None],
        [1, {"tvmrpc": 1, "orders": True}],
    ]
    assert not registration.registered
    assert registration.received(wire.SUCCESS, 0) == b""
    assert not registration.registered
    assert registration.received(wire.SUCCESS, 0) == b""
    assert registration.registered


def test_a_client_is_faster_than_the_answer() -> None:
    """He has come and gone when the first offer is answered: the tracker knows us all the same."""
    registration = Registration("board", 19100, entropy=os.urandom)
    registration.connected(0)
    registration.received(wire.MAGIC, 0)
    registration.received(wire.SUCCESS, 0)
    registration.occupied(0)
    assert said(registration.offer(0))[0][0] == 3
    assert not registration.registered
    registration.received(wire.SUCCESS, 0)
    assert registration.registered


def test_an_address_of_its_own_is_announced() -> None:
    """The address for clients is in the introduction and in each offer."""
    registration = Registration("board", 1, custom_addr="board.example", entropy=os.urandom)
    registration.connected(0)
    info, put, _ = said(registration.received(wire.MAGIC, 0))
    assert info[1]["addr"] == ["board.example", 1]
    assert put[3] == "board.example"


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_answers_arrive_in_any_segmentation(cut: str) -> None:
    """Echo and answers may come in pieces or together."""
    registration = Registration("board", 19100, entropy=os.urandom)
    registration.connected(0)
    stream = wire.MAGIC + wire.SUCCESS * 3
    answer = b""
    if cut == "byte by byte":
        for index in range(len(stream)):
            answer += registration.received(stream[index : index + 1], 0)
    else:
        answer = registration.received(
            stream + (b"\2\0" if cut == "with trailing bytes" else b""), 0
        )
    assert len(said(answer)) == 3
    assert registration.registered
    if cut == "with trailing bytes":
        registration.tick(POLL_S)
        assert registration.received(b"\0\0[]", POLL_S) == b""


@pytest.mark.parametrize("words", [b"HTTP/1.1 400", b"\x71\xf2\x0f\x00", b"x"])
def test_who_is_no_tracker_is_found_out(words: bytes) -> None:
    """A wrong echo is an error at its first wrong byte."""
    registration = Registration("board", 19100, entropy=os.urandom)
    registration.connected(0)
    with pytest.raises(RemoteProtocolError, match="tracker"):
        registration.received(words, 0)


@pytest.mark.parametrize(
    "answer",
    [
        wire.FAIL,
        wire.encode([0]),
        struct.pack("<i", -1),
        struct.pack("<i", 2**30),
        struct.pack("<i", 1) + b"?",
        wire.SUCCESS * 4,
        wire.SUCCESS * 2 + wire.encode([0, {}]),
        wire.encode({"kick": 5}),
    ],
)
def test_a_refusal_or_nonsense_is_an_error(answer: bytes) -> None:
    """Whatever is not the answer that was due ends the connection."""
    registration = Registration("board", 19100, entropy=os.urandom)
    registration.connected(0)
    registration.received(wire.MAGIC, 0)
    with pytest.raises(RemoteProtocolError):
        registration.received(answer, 0)


def test_a_pending_answer_of_the_wrong_kind_is_an_error() -> None:
    """A poll is answered with an array of texts, and with nothing else."""
    registration = registered()
    registration.tick(POLL_S)
    with pytest.raises(RemoteProtocolError):
        registration.received(wire.SUCCESS, POLL_S)


def test_the_match_key_is_good_for_one_client() -> None:
    """Used up when it was shown; idle again, there is a new one, and old ones stay refused."""
    registration = registered()
    first = registration.match_key
    assert registration.accepts(first)
    assert not registration.accepts("board")
    assert not registration.accepts("")
    registration.occupied(1)
    assert not registration.accepts(first)
    assert not registration.accepts("")
    (put,) = said(registration.offer(2))
    assert put == [3, "board", [19100, registration.match_key], None]
    assert registration.match_key != first
    assert not registration.accepts(first)
    assert registration.accepts(registration.match_key)


def test_an_idle_server_watches_its_match_key() -> None:
    """It asks twice a second; as long as the key is pending, nothing changes."""
    registration = registered()
    match_key = registration.match_key
    assert registration.next_wakeup(0) == pytest.approx(POLL_S)
    assert registration.tick(0.9 * POLL_S) == b""
    now = 0.0
    for _ in range(20):
        now += POLL_S
        assert polled(registration, now, [match_key]) == b""
    assert registration.match_key == match_key
    assert registration.next_wakeup(now) == pytest.approx(POLL_S)


def test_only_one_poll_is_out_at_a_time() -> None:
    """A slow tracker is not asked again before it has answered."""
    registration = registered()
    assert said(registration.tick(POLL_S)) == [[7]]
    assert registration.tick(2 * POLL_S) == b""


def test_a_grant_that_nobody_takes_up_is_replaced() -> None:
    """Handed out, and no client for 2 s: a new match key is offered, the old one refused."""
    registration = registered()
    old = registration.match_key
    now, answer = 0.0, b""
    while not answer:
        now += POLL_S
        assert now < 2 * UNUSED_S
        answer = polled(registration, now, [])
    assert now >= UNUSED_S
    (put,) = said(answer)
    assert put[2] == [19100, registration.match_key]
    assert not registration.accepts(old)


def test_the_2_seconds_start_anew_with_each_key() -> None:
    """A key that comes back to the list, or a new one, has its whole time."""
    registration = registered()
    match_key = registration.match_key
    now = 0.0
    for pending in ([], [], [match_key], [], []):
        now += UNUSED_S / 2
        assert polled(registration, now, pending) == b""
    registration.occupied(now)
    registration.offer(now)
    registration.received(wire.SUCCESS * 2, now)
    assert polled(registration, now + UNUSED_S, []) == b""


def test_an_answer_about_an_old_key_says_nothing() -> None:
    """A poll that was on its way while a client came and went is ignored."""
    registration = registered()
    registration.tick(POLL_S)
    registration.occupied(POLL_S)
    registration.offer(POLL_S)
    assert registration.received(wire.encode([]) + wire.SUCCESS * 2, 99) == b""
    assert polled(registration, 100, []) == b""


@pytest.mark.parametrize("asked", ["answered", "on its way", "never"])
def test_the_tracker_is_told_that_the_client_has_come(asked: str) -> None:
    """Only if a question after the grant made it believe that he has not."""
    registration = registered()
    if asked == "answered":
        assert polled(registration, POLL_S, []) == b""
    elif asked == "on its way":
        registration.tick(POLL_S)
    words = registration.occupied(1, "10.0.0.9:5")
    if asked == "never":
        assert words == b""
        return
    assert said(words) == [[1, {"tvmrpc": 1, "orders": True, "serving": ["10.0.0.9:5", 0.0]}]]
    answers = (wire.encode([]) if asked == "on its way" else b"") + wire.welcome()
    assert registration.received(answers, 2) == b""
    assert registration.next_wakeup(100) is None


def test_an_occupied_server_is_quiet() -> None:
    """While a client is served nothing is asked, and there is nothing to wake up for."""
    registration = registered()
    registration.occupied(1)
    assert registration.tick(100) == b""
    assert registration.next_wakeup(100) is None
    assert registration.registered


def test_an_offer_without_a_tracker_is_made_on_connection() -> None:
    """Idle or busy, connected or not: what is true when the tracker answers is said to it."""
    registration = Registration("board", 19100, entropy=os.urandom)
    assert registration.offer(0) == b""
    registration.occupied(0)
    registration.connected(1)
    assert [message[0] for message in said(registration.received(wire.MAGIC, 1))] == [5, 1]
    registration.received(wire.SUCCESS * 2, 1)
    assert registration.registered
    assert [message[0] for message in said(registration.offer(2))] == [3]


def test_a_lost_tracker_is_told_a_fresh_key() -> None:
    """After a reconnection the server introduces itself again, and no old key is good."""
    registration = registered()
    old = registration.match_key
    registration.lost(5)
    assert not registration.registered
    assert registration.next_wakeup(5) is None
    assert registration.tick(6) == b""
    assert registration.accepts(old)
    assert registration.connected(6) == wire.MAGIC
    info, put, _ = said(registration.received(wire.MAGIC, 6))
    assert info[1]["key"] == "server:board"
    assert put[2][1] == registration.match_key != old


def test_half_an_answer_does_not_survive_its_connection() -> None:
    """A frame that was cut off is not continued by the next connection."""
    registration = registered()
    registration.tick(POLL_S)
    registration.received(b"\x10\0\0\0[", POLL_S)
    registration.lost(1)
    registration.connected(1)
    registration.received(wire.MAGIC + wire.SUCCESS * 3, 1)
    assert registration.registered


def test_the_pause_between_attempts_grows_to_a_limit() -> None:
    """From 0.1 s, doubled up to 10 s, with jitter; as short as at first after a good start."""
    registration = Registration("board", 19100, entropy=os.urandom)
    expected = 0.1
    for _ in range(12):
        pause_s = registration.lost(0)
        assert 0.5 * expected <= pause_s <= expected
        expected = min(2 * expected, LAST_PAUSE_S)
    registration.connected(0)
    registration.received(wire.MAGIC + wire.SUCCESS * 3, 0)
    assert registration.lost(0) <= 0.1


def test_pauses_of_many_servers_differ() -> None:
    """A thousand servers that lost one tracker do not return at one moment."""
    assert len({Registration("board", 1, entropy=os.urandom).lost(0) for _ in range(20)}) > 10


def test_a_tracker_that_does_not_answer_is_given_up() -> None:
    """Neither the echo nor an answer is waited for without a limit, and the limit wakes us."""
    registration = Registration("board", 19100, entropy=os.urandom)
    registration.connected(0)
    assert registration.next_wakeup(1) == pytest.approx(ANSWER_LIMIT_S - 1)
    with pytest.raises(RemoteProtocolError, match="10 s"):
        registration.tick(ANSWER_LIMIT_S)
    registration = registered()
    registration.occupied(0)
    registration.offer(20)
    registration.occupied(20)
    assert registration.next_wakeup(20) == pytest.approx(ANSWER_LIMIT_S)
    with pytest.raises(RemoteProtocolError, match="10 s"):
        registration.tick(20 + ANSWER_LIMIT_S)


@pytest.mark.parametrize("key", ["", "a b"])
def test_a_key_that_cannot_be_is_refused_at_once(key: str) -> None:
    """Before anything is started or connected."""
    with pytest.raises(LocalProtocolError, match="device key"):
        Registration(key, 1, entropy=os.urandom)


def test_a_key_may_have_colons() -> None:
    """The match key still leads back to it."""
    registration = Registration("192.168.0.143:5555", 1, entropy=os.urandom)
    assert registration.match_key.startswith("192.168.0.143:5555:0.")


# --- orders -------------------------------------------------------------------------------------


def serving(now: float = 1.0) -> Registration:
    """A registration at a tracker of ours, in a session with 10.0.0.9:5."""
    registration = Registration("board", 19100, entropy=os.urandom)
    registration.connected(0)
    registration.received(wire.MAGIC, 0)
    registration.received(wire.SUCCESS * 2 + wire.welcome(), 0)
    registration.occupied(now, "10.0.0.9:5")
    return registration


def order(reason: str, match_key: Optional[str]) -> bytes:
    return farm.kick_order(farm.KickOrder(reason, match_key))


def test_a_session_is_ended_by_order() -> None:
    """What comes during a session is read; the reason is said once."""
    registration = registered()
    match_key = registration.match_key
    registration.occupied(1)
    assert registration.take_kick() is None
    assert registration.received(order("lunch", match_key), 2) == b""
    assert registration.take_kick() == "lunch"
    assert registration.take_kick() is None
    registration.received(order("", match_key), 2)
    assert registration.take_kick() == ""


def test_an_order_for_another_session_is_not_obeyed() -> None:
    """The one it meant is over; neither the next session nor an idle server is its victim."""
    registration = registered()
    first = registration.match_key
    registration.occupied(1)
    registration.offer(2)
    assert registration.received(wire.SUCCESS + order("late", first), 2) == b""
    assert registration.take_kick() is None
    registration.occupied(3)
    registration.received(order("late", first), 3)
    assert registration.take_kick() is None
    registration.received(order("whoever it is", None), 3)
    registration.offer(4)
    assert registration.take_kick() is None  # it ended by itself


def test_who_is_kicked_before_he_came_does_not_get_in() -> None:
    """His match key is good no more, and the server is offered anew."""
    registration = registered()
    old = registration.match_key
    (put,) = said(registration.received(order("", old), 1))
    assert put == [3, "board", [19100, registration.match_key], None]
    assert not registration.accepts(old)
    assert registration.take_kick() is None


def test_an_order_of_the_future_is_ignored() -> None:
    """A later tracker may say what this server does not know."""
    registration = serving()
    assert registration.received(wire.encode({"dance": 1}), 2) == b""
    assert registration.take_kick() is None


def test_a_tracker_that_comes_back_is_told_about_the_session() -> None:
    """Who is served, and for how long; nothing is offered, and the session can be kicked."""
    registration = serving(now=1)
    registration.lost(5)
    registration.connected(11)
    assert said(registration.received(wire.MAGIC, 11)) == [
        [5, {"key": "server:board", "addr": [None, 19100]}],
        [1, {"tvmrpc": 1, "orders": True, "serving": ["10.0.0.9:5", 10]}],
    ]
    registration.received(wire.SUCCESS + wire.welcome() + order("now", None), 11)
    assert registration.registered
    assert registration.take_kick() == "now"
