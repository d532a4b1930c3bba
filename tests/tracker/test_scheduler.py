"""Who gets which server, as lists of instructions."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.tracker import Granted, check_key, summary_reply
from pytest_tvmrpc.tracker import scheduler as module
from pytest_tvmrpc.tracker.scheduler import Grant, Scheduler


def resource(number: int, key: str = "k") -> Granted:
    return Granted("10.0.0.5", 9000 + number, f"{key}:0.{number}")


def queues(scheduler: Scheduler) -> Dict[str, Any]:
    found: Dict[str, Any] = scheduler.summary()["queue_info"]
    return found


def test_a_free_server_is_granted_at_once() -> None:
    """An offer waits for a request, and goes to it with its match key."""
    scheduler = Scheduler()
    assert scheduler.put("server", "k", resource(1)) == []
    assert scheduler.pending_match_keys("server") == ["k:0.1"]
    assert scheduler.request("client", "k", 1) == [Grant("client", resource(1))]
    assert scheduler.pending_match_keys("server") == []


def test_a_waiting_request_is_granted_by_an_offer() -> None:
    """A request waits for an offer, also for one of a key that nobody had."""
    scheduler = Scheduler()
    assert scheduler.request("client", "k", 1) == []
    assert queues(scheduler) == {"k": {"free": 0, "pending": 1}}
    assert scheduler.put("server", "k", resource(1)) == [Grant("client", resource(1))]
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}


def test_servers_are_granted_in_the_order_of_their_offers() -> None:
    """First offered, first granted."""
    scheduler = Scheduler()
    for number in (3, 1, 2):
        scheduler.put("server", "k", resource(number))
    granted = [scheduler.request("client", "k", 1)[0].resource for _ in range(3)]
    assert granted == [resource(3), resource(1), resource(2)]


def test_requests_are_granted_by_priority_then_arrival() -> None:
    """The higher number first, equal ones in the order of arrival; as TVM was seen to do it."""
    scheduler = Scheduler()
    for name, priority in zip("abcde", (1, 5, 1, 5, -3)):
        scheduler.request(name, "k", priority)
    served: List[object] = []
    for number in range(5):
        served += [grant.requester for grant in scheduler.put("s", "k", resource(number))]
    assert served == ["b", "d", "a", "c", "e"]


def test_keys_do_not_mix() -> None:
    """A request gets nothing of another key."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1))
    assert scheduler.request("client", "other", 1) == []
    assert queues(scheduler) == {
        "k": {"free": 1, "pending": 0},
        "other": {"free": 0, "pending": 1},
    }


def test_a_requester_that_leaves_is_not_waited_for() -> None:
    """Its requests drop at once, and the next in line gets the device."""
    scheduler = Scheduler()
    scheduler.request("first", "k", 9)
    scheduler.request("second", "k", 1)
    scheduler.closed("first")
    assert queues(scheduler) == {"k": {"free": 0, "pending": 1}}
    assert scheduler.put("server", "k", resource(1)) == [Grant("second", resource(1))]


def test_the_offers_of_a_closed_connection_vanish() -> None:
    """Nobody is sent to a server that is gone, whether it introduced itself or not."""
    scheduler = Scheduler()
    scheduler.put("gone", "k", resource(1))
    scheduler.put("here", "k", resource(2))
    scheduler.closed("gone")
    assert scheduler.request("client", "k", 1) == [Grant("client", resource(2))]


def test_an_offer_said_twice_counts_once() -> None:
    """Two clients are never sent to one server with one match key."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1))
    scheduler.put("server", "k", resource(1))
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}


def test_tables_are_empty_when_everybody_left() -> None:
    """After many keys, cycles and departures nothing is kept."""
    scheduler = Scheduler()
    for number in range(2000):
        key = f"k{number}"
        scheduler.put(("server", number), key, resource(number, key))
        scheduler.request(("client", number), key, 1)
        scheduler.request(("waiting", number), key, 1)
    for number in range(2000):
        for kind in ("client", "server", "waiting"):
            scheduler.closed((kind, number))
    assert scheduler.summary() == {"queue_info": {}, "server_info": []}
    assert not scheduler._queues
    assert not scheduler._connections


def test_the_places_of_requesters_that_left_are_not_kept() -> None:
    """A queue's order stays as small as the number that wait."""
    scheduler = Scheduler()
    scheduler.request("patient", "k", 1)
    for number in range(1000):
        scheduler.request(number, "k", 2)
        scheduler.closed(number)
    assert len(scheduler._queues["k"].order) < 50
    assert scheduler.put("server", "k", resource(1)) == [Grant("patient", resource(1))]


def test_a_busy_server_keeps_its_queue_in_the_summary() -> None:
    """A key whose only server is in use is shown with nothing free, until the server leaves."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1))
    scheduler.request("client", "k", 1)
    scheduler.closed("client")
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}
    scheduler.closed("server")
    assert queues(scheduler) == {}


def test_the_summary_shows_servers_with_their_address() -> None:
    """A null address becomes the peer's; extra fields are repeated; clients are not shown."""
    scheduler = Scheduler()
    scheduler.update_info("server", {"key": "server:k", "addr": [None, 9]}, "10.0.0.5")
    scheduler.update_info("server", {"cores": 4}, "10.0.0.5")
    scheduler.update_info("old server", {"key": "server:k"}, "10.0.0.6")
    scheduler.update_info("client", {"key": "client:k"}, "10.0.0.7")
    assert scheduler.summary()["server_info"] == [
        {"key": "server:k", "addr": ["10.0.0.5", 9], "cores": 4},
        {"key": "server:k", "addr": ["10.0.0.6", None]},
    ]


def test_a_summary_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keys others ask for, it shows the queues that have servers, and stays readable."""
    monkeypatch.setattr(module, "MAX_QUEUES", 3)
    monkeypatch.setattr(module, "MAX_DESCRIPTIONS", 1000)
    scheduler = Scheduler()
    for number in range(5):
        scheduler.request("client", f"wanted{number}", 1)
        scheduler.update_info(number, {"key": "server:k", "text": "x" * 400}, "10.0.0.5")
    scheduler.update_info("small", {"key": "server:small"}, "10.0.0.5")
    scheduler.put("server", "k", resource(1))
    assert queues(scheduler) == {
        "k": {"free": 1, "pending": 0},
        "wanted0": {"free": 0, "pending": 1},
        "wanted1": {"free": 0, "pending": 1},
    }
    servers = scheduler.summary()["server_info"]
    assert [server["key"] for server in servers] == ["server:k", "server:k", "server:small"]


def test_the_largest_summary() -> None:
    """With the limits as they are, the longest keys leave it well below what clients take."""
    scheduler = Scheduler()
    letters = "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 80
    for number in range(module.MAX_QUEUES + 1000):
        key = f"{number}:{letters}"
        assert check_key(key) == key
        scheduler.request(number // module.MAX_HELD, key, 1)
    assert len(summary_reply(scheduler.summary())) < 16 << 20


def test_one_connection_cannot_hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers, requests and descriptions of one connection are bounded."""
    monkeypatch.setattr(module, "MAX_HELD", 3)
    scheduler = Scheduler()
    for number in range(3):
        scheduler.put("server", "k", resource(number))
        scheduler.request("client", "other", 1)
    with pytest.raises(RemoteProtocolError, match="offers"):
        scheduler.put("server", "k", resource(4))
    with pytest.raises(RemoteProtocolError, match="requests"):
        scheduler.request("client", "other", 1)
    scheduler.update_info("server", {"a": "x" * 16000}, "10.0.0.5")
    with pytest.raises(RemoteProtocolError, match="description"):
        scheduler.update_info("server", {"b": "x" * 16000}, "10.0.0.5")
