"""What our trackers can be asked beyond TVM's: written, read back, and checked."""

from __future__ import annotations

from typing import Any, List

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol import farm
from pytest_tvmrpc.protocol import tracker as wire

FARM = farm.Farm(
    (
        farm.FarmServer("k", "10.0.0.5", 9001, farm.State.FREE, 2.5),
        farm.FarmServer("gerät", "::1", 9002, farm.State.BUSY, 1, farm.Holder("ada", "h:1", 1, 60)),
        farm.FarmServer("k", "h", 0, farm.State.BUSY, 1, farm.Holder("", "", 1, None)),
    ),
    (farm.Waiting("k", "bob", "h:2", 1, -2.5, 3),),
)


def value(frame: bytes) -> Any:
    return wire.parse_json(frame[4:])


def test_a_farm_is_read_back() -> None:
    """All fields of servers, holders and requests."""
    assert farm.parse_farm(value(farm.farm_reply(FARM))) == FARM
    assert FARM.servers[1].address == "[::1]:9002"


def test_the_results_of_a_kick_are_read_back() -> None:
    """Addresses and outcomes, or none."""
    results = [farm.Kicked("h:1", farm.Outcome.KICKED), farm.Kicked("h:2", farm.Outcome.DEAF)]
    assert farm.parse_kicked(value(farm.kick_reply(results))) == results
    assert farm.parse_kicked(value(farm.kick_reply([]))) == []


def test_an_order_is_no_reply() -> None:
    """It cannot be mistaken for the answer to anything."""
    order = value(farm.kick_order(farm.KickOrder("lunch", "k:0.5")))
    assert farm.is_order(order)
    assert farm.parse_order(order) == farm.KickOrder("lunch", "k:0.5")
    assert farm.parse_order({"later": "word"}) is None
    for reply in (0, -1, [], ["k:0.5"], [0, {}], value(wire.welcome())):
        assert not farm.is_order(reply)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (farm.who(), farm.Who()),
        (farm.kick("k"), farm.Kick("k", "")),
        (farm.kick("h:1", "a\nb"), farm.Kick("h:1", "a?b")),
        (wire.encode([101, "k"]), farm.Kick("k", "")),
        (wire.summary(), wire.Summary()),
    ],
)
def test_messages_become_values(frame: bytes, message: Any) -> None:
    """Ours and TVM's."""
    found = farm.parse_request(value(frame))
    assert (type(found), found) == (type(message), message)


@pytest.mark.parametrize(
    "message", [[99], [102], [101], [101, 5], [101, "k", 5], [100.0], 5, [], [[]]]
)
def test_what_is_no_message_is_refused(message: Any) -> None:
    """Unknown codes, and arguments that are missing or of the wrong type."""
    with pytest.raises(RemoteProtocolError):
        farm.parse_request(message)


SERVER = ["k", "h", 1, "free", 0, None]
WAITING = ["k", "u", "h:1", 1, 1, 0]


def changed(row: List[Any], place: int, to: Any) -> List[Any]:
    return [*row[:place], to, *row[place + 1 :]]


@pytest.mark.parametrize(
    "servers",
    [
        None,
        [5],
        [SERVER[:5]],
        *([changed(SERVER, place, {})] for place in range(6)),
        [changed(SERVER, 3, "asleep")],
        [changed(SERVER, 4, -1)],
        [changed(SERVER, 5, ["u", "p", "now", None])],
        [changed(SERVER, 5, ["u", "p", 1])],
    ],
)
def test_a_broken_farm_is_refused(servers: Any) -> None:
    """Whatever a tracker answers, its client says what was expected."""
    farm.parse_farm([0, {"servers": [SERVER], "waiting": [WAITING]}])
    with pytest.raises(RemoteProtocolError):
        farm.parse_farm([0, {"servers": servers, "waiting": []}])


@pytest.mark.parametrize("place", range(6))
def test_a_broken_queue_is_refused(place: int) -> None:
    """As for servers."""
    with pytest.raises(RemoteProtocolError):
        farm.parse_farm([0, {"servers": [], "waiting": [changed(WAITING, place, {})]}])


@pytest.mark.parametrize(
    ("parse", "reply"),
    [
        (farm.parse_farm, [0, []]),
        (farm.parse_farm, -1),
        (farm.parse_kicked, [0, []]),
        (farm.parse_kicked, [0, {"results": [["h:1", "eaten"]]}]),
        (farm.parse_kicked, [0, {"results": [["h:1"]]}]),
        (farm.parse_order, {"kick": 5}),
        (farm.parse_order, {"kick": "", "match_key": 5}),
        (wire.parse_welcome, [0, {}]),
        (wire.parse_welcome, [0, {"tvmrpc": 1, "served": 1}]),
        (wire.parse_welcome, [-1, {"tvmrpc": 1}]),
        (wire.parse_welcome, -1),
    ],
)
def test_what_is_no_reply_is_refused(parse: Any, reply: Any) -> None:
    """One error for all."""
    with pytest.raises(RemoteProtocolError):
        parse(reply)


def test_a_greeting_is_answered_by_either_tracker() -> None:
    """TVM's answers it as any ping; ours says that it is ours, and whether a key is served."""
    assert wire.parse_welcome(0) == (False, None)
    assert wire.parse_welcome(value(wire.welcome())) == (True, None)
    assert wire.parse_welcome(value(wire.welcome(served=False))) == (True, False)
