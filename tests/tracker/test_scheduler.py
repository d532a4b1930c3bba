"""Who gets which server, as lists of instructions."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.farm import (
    Farm,
    FarmServer,
    Holder,
    Kicked,
    KickOrder,
    Outcome,
    State,
    Waiting,
)
from pytest_tvmrpc.protocol.tracker import Granted, Ping, Serving, check_key, summary_reply
from pytest_tvmrpc.tracker import scheduler as module
from pytest_tvmrpc.tracker.connection import UNUSED_S
from pytest_tvmrpc.tracker.queue import Asker
from pytest_tvmrpc.tracker.scheduler import QUIET_S, Grant, Order, Scheduler


def resource(number: int, key: str = "k") -> Granted:
    return Granted("10.0.0.5", 9000 + number, f"{key}:0.{number}")


def queues(scheduler: Scheduler) -> Dict[str, Any]:
    found: Dict[str, Any] = scheduler.summary()["queue_info"]
    return found


def forget_keys(scheduler: Scheduler, now: float) -> None:
    """Lets the time pass for which keys without servers are kept."""
    scheduler.expire(now)
    scheduler.expire(now + module.KEPT_S)


def test_a_free_server_is_granted_at_once() -> None:
    """An offer waits for a request, and goes to it with its match key."""
    scheduler = Scheduler()
    assert scheduler.put("server", "k", resource(1), 0) == []
    assert scheduler.pending_match_keys("server") == ["k:0.1"]
    assert scheduler.request("client", "k", 1, 0) == [Grant("client", resource(1))]
    assert scheduler.pending_match_keys("server") == []


def test_a_waiting_request_is_granted_by_an_offer() -> None:
    """A request waits for an offer, also for one of a key that nobody had."""
    scheduler = Scheduler()
    assert scheduler.request("client", "k", 1, 0) == []
    assert queues(scheduler) == {"k": {"free": 0, "pending": 1}}
    assert scheduler.put("server", "k", resource(1), 0) == [Grant("client", resource(1))]
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}


def test_servers_are_granted_in_the_order_of_their_offers() -> None:
    """First offered, first granted."""
    scheduler = Scheduler()
    for number in (3, 1, 2):
        scheduler.put("server", "k", resource(number), 0)
    granted = [scheduler.request("client", "k", 1, 0)[0].resource for _ in range(3)]
    assert granted == [resource(3), resource(1), resource(2)]


def test_requests_are_granted_by_priority_then_arrival() -> None:
    """The higher number first, equal ones in the order of arrival; as TVM was seen to do it."""
    scheduler = Scheduler()
    for name, priority in zip("abcde", (1, 5, 1, 5, -3)):
        scheduler.request(name, "k", priority, 0)
    served: List[object] = []
    for number in range(5):
        served += [grant.requester for grant in scheduler.put("s", "k", resource(number), 0)]
    assert served == ["b", "d", "a", "c", "e"]


def test_keys_do_not_mix() -> None:
    """A request gets nothing of another key."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1), 0)
    assert scheduler.request("client", "other", 1, 0) == []
    assert queues(scheduler) == {
        "k": {"free": 1, "pending": 0},
        "other": {"free": 0, "pending": 1},
    }


def test_a_requester_that_leaves_is_not_waited_for() -> None:
    """Its requests drop at once, and the next in line gets the device."""
    scheduler = Scheduler()
    scheduler.request("first", "k", 9, 0)
    scheduler.request("second", "k", 1, 0)
    scheduler.closed("first")
    assert queues(scheduler) == {"k": {"free": 0, "pending": 1}}
    assert scheduler.put("server", "k", resource(1), 0) == [Grant("second", resource(1))]


def test_the_offers_of_a_closed_connection_vanish() -> None:
    """Nobody is sent to a server that is gone, whether it introduced itself or not."""
    scheduler = Scheduler()
    scheduler.put("gone", "k", resource(1), 0)
    scheduler.put("here", "k", resource(2), 0)
    scheduler.closed("gone")
    assert scheduler.request("client", "k", 1, 0) == [Grant("client", resource(2))]


def test_an_offer_said_twice_counts_once() -> None:
    """Two clients are never sent to one server with one match key."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1), 0)
    scheduler.put("server", "k", resource(1), 0)
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}


def test_tables_are_empty_when_everybody_left() -> None:
    """After many keys, cycles and departures nothing is kept."""
    scheduler = Scheduler()
    for number in range(2000):
        key = f"k{number}"
        scheduler.put(("server", number), key, resource(number, key), 0)
        scheduler.request(("client", number), key, 1, 0)
        scheduler.request(("waiting", number), key, 1, 0)
    for number in range(2000):
        for kind in ("client", "server", "waiting"):
            scheduler.closed((kind, number))
    forget_keys(scheduler, 1)
    assert scheduler.summary() == {"queue_info": {}, "server_info": []}
    assert not scheduler._queues
    assert not scheduler._connections


def test_the_places_of_requesters_that_left_are_not_kept() -> None:
    """A queue's order stays as small as the number that wait."""
    scheduler = Scheduler()
    scheduler.request("patient", "k", 1, 0)
    for number in range(1000):
        scheduler.request(number, "k", 2, 0)
        scheduler.closed(number)
    assert scheduler._queues["k"].places < 50
    assert scheduler.put("server", "k", resource(1), 0) == [Grant("patient", resource(1))]


def test_a_busy_server_keeps_its_queue_in_the_summary() -> None:
    """A key whose only server is in use is shown with nothing free, and a while after it left."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1), 0)
    scheduler.request("client", "k", 1, 0)
    scheduler.closed("client")
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}
    scheduler.closed("server")
    scheduler.expire(1)
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}
    assert not scheduler.is_served("k")
    scheduler.expire(module.KEPT_S + 0.9)
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}
    scheduler.expire(module.KEPT_S + 1)
    assert queues(scheduler) == {}


def test_a_key_that_comes_back_is_not_forgotten() -> None:
    """Nor is one for which somebody waits; who leaves then takes it along."""
    scheduler = Scheduler()
    for key in ("back", "wanted"):
        scheduler.put(key, key, resource(1, key), 0)
        scheduler.closed(key)
    scheduler.put("again", "back", resource(2, "back"), 1)
    scheduler.request("client", "wanted", 1, 1)
    forget_keys(scheduler, 1)
    assert queues(scheduler) == {
        "back": {"free": 1, "pending": 0},
        "wanted": {"free": 0, "pending": 1},
    }
    scheduler.closed("client")
    assert queues(scheduler) == {"back": {"free": 1, "pending": 0}}


def test_keys_without_servers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; keys that were only asked for are not kept at all."""
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    scheduler = Scheduler()
    for number in range(4):
        scheduler.put(number, f"k{number}", resource(1, f"k{number}"), 0)
        scheduler.request(("client", number), f"wanted{number}", 1, 0)
        scheduler.closed(number)
        scheduler.closed(("client", number))
    assert sorted(queues(scheduler)) == ["k2", "k3"]


def place(scheduler: Scheduler, name: str, key: str, host: Any, port: Any) -> List[Any]:
    """Lets a server introduce itself from 10.0.0.5, and offer itself."""
    fields = {"key": key, "addr": [host, port]}
    older = scheduler.update_info(name, fields, "10.0.0.5", 0)
    offer = Granted(host or "10.0.0.5", int(port), f"{key}:{name}")
    scheduler.put(name, key.partition(":")[2], offer, 0)
    return older


def test_a_server_that_was_started_again_has_its_place() -> None:
    """Its old connection may seem to live; who is granted the key gets the new server."""
    scheduler = Scheduler()
    assert place(scheduler, "old", "server:k", None, 9001) == []
    assert place(scheduler, "new", "server:k", None, 9001) == ["old"]
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}
    assert len(scheduler.summary()["server_info"]) == 1
    (grant,) = scheduler.request("client", "k", 1, 0)
    assert grant.resource.match_key == "server:k:new"
    scheduler.closed("old")
    assert place(scheduler, "newest", "server:k", None, 9001) == ["new"]
    scheduler.closed("newest")
    assert place(scheduler, "next", "server:k", None, 9001) == []


def test_two_servers_that_claim_one_place() -> None:
    """The older one keeps it as long as it asks for its match keys; then the other one has it."""
    scheduler = Scheduler()
    assert place(scheduler, "older", "server:k", None, 9001) == []
    scheduler.heard("older", 1)
    assert place(scheduler, "newer", "server:k", None, 9001) == []
    assert scheduler.rival("newer") == "older"
    assert scheduler.rival("older") is None
    scheduler.heard("older", 1)
    assert queues(scheduler) == {"k": {"free": 2, "pending": 0}}
    scheduler.heard("newer", QUIET_S)
    assert scheduler.expire(1 + QUIET_S) == []
    assert scheduler.expire(2 + QUIET_S) == [("older", "newer")]
    assert scheduler.rival("newer") is None
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}


def test_a_place_in_doubt_is_not_handed_out() -> None:
    """The older one may be the same server's lost connection, until it asks again."""
    scheduler = Scheduler()
    place(scheduler, "older", "server:k", None, 9001)
    scheduler.heard("older", 1)
    place(scheduler, "newer", "server:k", None, 9001)
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}
    (grant,) = scheduler.request("client", "k", 1, 2)
    assert grant.resource.match_key == "server:k:newer"
    assert scheduler.request("next", "k", 1, 2) == []
    (grant,) = scheduler.heard("older", 3)
    assert (grant.requester, grant.resource.match_key) == ("next", "server:k:older")
    scheduler.put("older", "k", resource(2), 4)
    assert scheduler.expire(5) == []
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}


def test_several_who_wait_for_one_place() -> None:
    """It has one new owner, who is left the time to ask for its match keys as well."""
    scheduler = Scheduler()
    place(scheduler, "a", "server:k", None, 9001)
    scheduler.heard("a", 1)
    for name in ("b", "c"):
        place(scheduler, name, "server:k", None, 9001)
    assert scheduler.expire(2 + QUIET_S) == [("a", "b")]
    assert (scheduler.rival("b"), scheduler.rival("c")) == (None, "b")
    scheduler.heard("b", 2.5 + QUIET_S)
    assert scheduler.expire(3 + QUIET_S) == []
    assert scheduler.expire(3 + 2 * QUIET_S) == [("b", "c")]


def test_who_has_just_come_is_left_the_place() -> None:
    """An owner that has not asked yet is judged by when it came."""
    scheduler = Scheduler()
    place(scheduler, "a", "server:k", None, 9001)
    scheduler.heard("a", 1)
    for name in ("b", "c"):
        scheduler.update_info(name, {"key": "server:k", "addr": [None, 9001]}, "10.0.0.5", 3)
    scheduler.closed("a")
    assert scheduler.expire(3) == []
    assert (scheduler.rival("b"), scheduler.rival("c")) == (None, "b")
    assert scheduler.expire(3 + QUIET_S) == []
    assert scheduler.expire(4 + QUIET_S) == [("b", "c")]


def test_a_place_that_is_left_is_taken() -> None:
    """By the server that claimed it, too; nobody is closed for that."""
    scheduler = Scheduler()
    place(scheduler, "older", "server:k", None, 9001)
    scheduler.heard("older", 0)
    place(scheduler, "newer", "server:k", None, 9001)
    scheduler.closed("older")
    assert scheduler.expire(0) == []
    scheduler.heard("newer", 0)
    assert place(scheduler, "third", "server:k", None, 9001) == []
    assert scheduler.rival("third") == "newer"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("server:k", None, 9001), ("server:other", None, 9001)),
        (("server:k", None, 9001), ("server:k", None, 9002)),
        (("server:k", "farm", 9001), ("server:k", "farm", 9002)),
        (("server:k", "a", 9001), ("server:k", "b", 9001)),
        (("server:proxy[k]", None, 9001), ("server:proxy[k]", None, 9001)),
        (("proxied:k", None, 9001), ("proxied:k", None, 9001)),
        (("client:k", None, 9001), ("client:k", None, 9001)),
    ],
    ids=repr,
)
def test_servers_that_are_not_the_same(one: Any, other: Any) -> None:
    """Another key, port or address of its own; servers behind one proxy; who is no server."""
    scheduler = Scheduler()
    assert place(scheduler, "one", *one) == []
    assert place(scheduler, "other", *other) == []
    assert sum(queue["free"] for queue in queues(scheduler).values()) == 2


def test_who_describes_himself_again_keeps_his_place() -> None:
    """In the same place or in another; what was left is free for others."""
    scheduler = Scheduler()
    for port in (9001, "9001", 9002):
        assert place(scheduler, "server", "server:k", None, port) == []
    assert place(scheduler, "other", "server:k", None, 9001) == []
    assert place(scheduler, "third", "server:k", None, 9002) == ["server"]


def test_the_summary_shows_servers_with_their_address() -> None:
    """A null address becomes the peer's; extra fields are repeated; clients are not shown."""
    scheduler = Scheduler()
    scheduler.update_info("server", {"key": "server:k", "addr": [None, 9]}, "10.0.0.5", 0)
    scheduler.update_info("server", {"cores": 4}, "10.0.0.5", 0)
    scheduler.update_info("old server", {"key": "server:k"}, "10.0.0.6", 0)
    scheduler.update_info("client", {"key": "client:k"}, "10.0.0.7", 0)
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
        scheduler.request("client", f"wanted{number}", 1, 0)
        scheduler.update_info(number, {"key": "server:k", "text": "x" * 400}, "10.0.0.5", 0)
    scheduler.update_info("small", {"key": "server:small"}, "10.0.0.5", 0)
    scheduler.put("server", "k", resource(1), 0)
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
        scheduler.request(number // module.MAX_REQUESTS, key, 1, 0)
    assert len(summary_reply(scheduler.summary())) < 16 << 20


def test_one_connection_cannot_hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers, requests and descriptions of one connection are bounded."""
    monkeypatch.setattr(module, "MAX_OFFERS", 3)
    monkeypatch.setattr(module, "MAX_REQUESTS", 3)
    scheduler = Scheduler()
    for number in range(3):
        scheduler.put("server", "k", resource(number), 0)
        scheduler.request("client", "other", 1, 0)
    with pytest.raises(RemoteProtocolError, match="offers"):
        scheduler.put("server", "k", resource(4), 0)
    with pytest.raises(RemoteProtocolError, match="requests"):
        scheduler.request("client", "other", 1, 0)
    scheduler.update_info("server", {"a": "x" * 16000}, "10.0.0.5", 0)
    with pytest.raises(RemoteProtocolError, match="description"):
        scheduler.update_info("server", {"b": "x" * 16000}, "10.0.0.5", 0)


def test_many_cycles_and_keys_leave_nothing() -> None:
    """After 10^5 keys and 10^5 grants nothing is counted, queued or remembered."""
    scheduler = Scheduler()
    for number in range(100_000):
        key = f"k{number}"
        scheduler.put("server", "board", resource(number % 1000, f"board{number}"), number)
        assert scheduler.request("client", "board", 1, number)
        scheduler.request(("typo", number), key, 1, number)
        scheduler.closed(("typo", number))
    assert len(scheduler._connections["server"].lent) == 1
    scheduler.closed("server")
    scheduler.closed("client")
    forget_keys(scheduler, 1)
    assert not scheduler._kept
    assert not scheduler._queues
    assert not scheduler._connections
    assert not scheduler._introduced
    assert scheduler._held == 0


def test_all_together_cannot_hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers and requests are bounded in all, whoever makes them; who leaves makes room."""
    monkeypatch.setattr(module, "MAX_HELD", 4)
    scheduler = Scheduler()
    for number in range(2):
        scheduler.put(number, "k", resource(number), 0)
        scheduler.request(("client", number), "other", 1, 0)
    with pytest.raises(RemoteProtocolError, match="in all"):
        scheduler.put("third", "k", resource(3), 0)
    with pytest.raises(RemoteProtocolError, match="in all"):
        scheduler.request("third", "other", 1, 0)
    assert scheduler.request("third", "k", 1, 0) == [Grant("third", resource(0))]
    assert scheduler.request("third", "other", 1, 0) == []
    scheduler.closed(("client", 0))
    assert scheduler.request("fourth", "other", 1, 0) == []


def test_a_proxy_may_have_many_keys_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys whose servers have left the proxy are forgotten when there is no room for more."""
    monkeypatch.setattr(module, "MAX_OFFERS", 3)
    scheduler = Scheduler()
    scheduler.update_info("proxy", {"key": "server:proxy[a]", "addr": [None, 9]}, "10.0.0.5", 0)
    for number in range(10):
        key = f"k{number}"
        assert scheduler.put("proxy", key, resource(number, key), number) == []
        assert scheduler.request("client", key, 1, number)
        assert scheduler.put("proxy", key, resource(100 + number, key), number) == []
        assert scheduler.request("client", key, 1, number)
        scheduler._connections["proxy"].lent.clear()  # their sessions are over
    assert len(queues(scheduler)) <= 3


# --- who has what -------------------------------------------------------------------------------


def introduced(scheduler: Scheduler, name: str, key: str = "k", now: float = 0) -> None:
    scheduler.update_info(name, {"key": f"server:{key}", "addr": [None, 9001]}, "10.0.0.5", now)


def test_a_loan_is_remembered_until_the_server_offers_itself_again() -> None:
    """Who has it and since when; then it is free, and nobody has it."""
    scheduler = Scheduler()
    introduced(scheduler, "server")
    scheduler.put("server", "k", resource(1), 1)
    (free,) = scheduler.who(3).servers
    assert free == FarmServer("k", "10.0.0.5", 9001, State.FREE, 2)
    scheduler.request("client", "k", 1, 4, Asker("ada@desk pid 1", "10.0.0.9:555", 60))
    scheduler.closed("client")  # the session goes on without its connection to the tracker
    (busy,) = scheduler.who(10).servers
    assert (busy.state, busy.since_s) == (State.BUSY, 6)
    assert busy.holder == Holder("ada@desk pid 1", "10.0.0.9:555", 6, 60)
    scheduler.put("server", "k", resource(2), 11)
    (again,) = scheduler.who(11).servers
    assert (again.state, again.holder, again.since_s) == (State.FREE, None, 0)


def test_a_loan_ends_with_the_servers_connection() -> None:
    """A server that is gone is not shown, and nobody has it."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1), 0)
    scheduler.request("client", "k", 1, 0)
    scheduler.closed("server")
    assert scheduler.who(1) == Farm((), ())


def test_a_grant_that_was_not_taken_up_is_shown_as_such() -> None:
    """A server that still asks for its match keys has no client yet; one that is quiet has."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1), 0)
    scheduler.heard("server", 1)
    scheduler.request("client", "k", 1, 2)
    assert scheduler.who(2).servers[0].state == State.BUSY
    scheduler.heard("server", 3)
    assert scheduler.who(3).servers[0].state == State.OFFERED
    assert scheduler.who(3).servers[0].holder is not None


def test_a_proxy_has_several_loans() -> None:
    """An offer of one of its keys ends the oldest loan of that key, and no other."""
    scheduler = Scheduler()
    scheduler.update_info("proxy", {"key": "server:proxy[a,b]", "addr": [None, 9]}, "10.0.0.5", 0)
    for number, key in enumerate(("a", "a", "b")):
        scheduler.put("proxy", key, resource(number, key), number)
    for number, key in enumerate(("a", "a", "b")):
        scheduler.request("client", key, 1, 10 + number, Asker(f"user {number}"))
    scheduler.put("proxy", "a", resource(7, "a"), 20)
    shown = [
        (server.key, server.state, server.holder and server.holder.user)
        for server in scheduler.who(20).servers
    ]
    assert shown == [
        ("a", State.FREE, None),
        ("a", State.BUSY, "user 1"),
        ("b", State.BUSY, "user 2"),
    ]


def test_who_waits_is_told_with_his_place() -> None:
    """In the order of their turns: priority, then arrival."""
    scheduler = Scheduler()
    for number, (name, priority) in enumerate((("a", 1), ("b", 5), ("c", 1))):
        scheduler.request(name, "k", priority, number, Asker(name, f"10.0.0.{number}:1"))
    assert scheduler.who(10).waiting == (
        Waiting("k", "b", "10.0.0.1:1", 1, 5, 9),
        Waiting("k", "a", "10.0.0.0:1", 2, 1, 10),
        Waiting("k", "c", "10.0.0.2:1", 3, 1, 8),
    )


def test_a_session_older_than_the_tracker_is_known() -> None:
    """A server that comes back in a session says whose it is; a silent one of TVM's is busy."""
    scheduler = Scheduler()
    introduced(scheduler, "ours")
    scheduler.greeted("ours", Ping(True, True, Serving("10.0.0.9:5", 30), None), 100)
    scheduler.update_info("tvm", {"key": "server:k", "addr": ["10.0.0.7", "9090"]}, "10.0.0.7", 99)
    ours, tvm = scheduler.who(110).servers
    assert ours.holder == Holder("", "10.0.0.9:5", 40)
    assert ours.state == tvm.state == State.BUSY
    assert (tvm.address, tvm.since_s, tvm.holder) == ("10.0.0.7:9090", 11, None)
    scheduler.put("ours", "k", resource(1), 120)
    assert scheduler.who(120).servers[0].holder is None


def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many servers and requests there are."""
    monkeypatch.setattr(module, "MAX_SHOWN", 3)
    scheduler = Scheduler()
    for number in range(10):
        scheduler.put(number, "k", resource(number), 0)
        scheduler.request(("client", number), "other", 1, 0)
    assert [len(part) for part in scheduler.who(0)] == [3, 3]
    assert len(scheduler.kick("k", "", 0)[0]) == 3


def test_which_keys_are_served() -> None:
    """Offered or introduced, also behind a proxy, and not after the last server left."""
    scheduler = Scheduler()
    assert not scheduler.is_served("k")
    scheduler.request("client", "k", 1, 0)
    assert not scheduler.is_served("k")
    scheduler.put("server", "k", resource(1), 0)
    introduced(scheduler, "busy", "b")
    introduced(scheduler, "proxy", "proxy[x,y]")
    assert [scheduler.is_served(key) for key in ("k", "b", "x", "y", "proxy[x,y]")] == [
        True
    ] * 4 + [False]
    introduced(scheduler, "proxy", "proxy[y]")
    assert not scheduler.is_served("x")
    for name in ("server", "busy", "proxy"):
        scheduler.closed(name)
    assert not any(scheduler.is_served(key) for key in ("k", "b", "y"))


# --- silence ------------------------------------------------------------------------------------


def test_a_server_that_stopped_talking_is_not_handed_out() -> None:
    """Its offers are withheld after 10 s, and go to whoever waits when it talks again."""
    scheduler = Scheduler()
    introduced(scheduler, "server")
    scheduler.put("server", "k", resource(1), 0)
    scheduler.heard("server", 1)
    scheduler.expire(1 + module.SILENT_S)
    assert queues(scheduler) == {"k": {"free": 1, "pending": 0}}
    version = scheduler.version
    scheduler.expire(1.1 + module.SILENT_S)
    assert scheduler.version != version
    assert queues(scheduler) == {"k": {"free": 0, "pending": 0}}
    assert scheduler.who(21).servers[0].state == State.SILENT
    assert scheduler.who(21).servers[0].since_s == 20
    assert scheduler.pending_match_keys("server") == ["k:0.1"]
    assert scheduler.request("client", "k", 1, 22) == []
    assert scheduler.heard("server", 30) == [Grant("client", resource(1))]
    assert scheduler.pending_match_keys("server") == []


def test_a_server_that_comes_back_is_free_again() -> None:
    """Without anybody waiting it is the last in the line."""
    scheduler = Scheduler()
    scheduler.put("frozen", "k", resource(1), 0)
    scheduler.heard("frozen", 0)
    scheduler.put("other", "k", resource(2), 0)
    scheduler.expire(11)
    assert scheduler.put("frozen", "k", resource(1), 12) == []  # said twice
    assert scheduler.heard("frozen", 12) == []
    assert scheduler.request("client", "k", 1, 12) == [Grant("client", resource(2))]
    assert scheduler.request("client", "k", 1, 12) == [Grant("client", resource(1))]


def test_who_never_talked_is_not_judged() -> None:
    """Neither a server that never asked for its match keys nor one in a session is silent."""
    scheduler = Scheduler()
    scheduler.put("quiet", "k", resource(1), 0)
    scheduler.put("busy", "b", resource(2, "b"), 0)
    scheduler.heard("busy", 1)
    scheduler.request("client", "b", 1, 1)
    scheduler.expire(1000)
    assert queues(scheduler)["k"]["free"] == 1
    assert {server.state for server in scheduler.who(1000).servers} == {State.FREE, State.BUSY}
    scheduler.put("busy", "b", resource(3, "b"), 1000)
    scheduler.expire(1001)
    assert queues(scheduler)["b"]["free"] == 1


def test_a_silent_server_that_leaves_leaves_nothing() -> None:
    """Withheld offers go with their connection."""
    scheduler = Scheduler()
    scheduler.put("server", "k", resource(1), 0)
    scheduler.heard("server", 0)
    scheduler.expire(11)
    scheduler.closed("server")
    forget_keys(scheduler, 12)
    assert not scheduler._queues
    assert scheduler._held == 0


# --- kick ---------------------------------------------------------------------------------------


def test_a_kick_orders_the_server_to_end_that_session() -> None:
    """By key or by address; the order names the match key, so that the next session is spared."""
    for target in ("k", "10.0.0.5:9001"):
        scheduler = Scheduler()
        scheduler.greeted("server", Ping(True, True), 0)
        scheduler.put("server", "k", resource(1), 0)
        scheduler.request("client", "k", 1, 0)
        results, orders = scheduler.kick(target, "lunch", 1)
        assert results == [Kicked("10.0.0.5:9001", Outcome.KICKED)]
        assert orders == [Order("server", KickOrder("lunch", "k:0.1"))]


def test_a_kick_of_a_session_older_than_the_tracker() -> None:
    """Whichever session the server has."""
    scheduler = Scheduler()
    introduced(scheduler, "server")
    scheduler.greeted("server", Ping(True, True, Serving("10.0.0.9:5", 30)), 0)
    _, orders = scheduler.kick("k", "", 1)
    assert orders == [Order("server", KickOrder("", None))]


def test_what_cannot_be_kicked_is_said() -> None:
    """Nobody there, nobody has it, or a server that takes no orders."""
    scheduler = Scheduler()
    assert scheduler.kick("k", "", 0) == ([], [])
    scheduler.put("tvm", "k", resource(1), 0)
    assert scheduler.kick("k", "", 0) == ([Kicked("10.0.0.5:9001", Outcome.IDLE)], [])
    scheduler.request("client", "k", 1, 0)
    assert scheduler.kick("k", "", 0) == ([Kicked("10.0.0.5:9001", Outcome.DEAF)], [])


# --- whose client has come ----------------------------------------------------------------------


def lent(polled_at: float) -> Scheduler:
    """A server that was lent at 1, and asked for its match keys at `polled_at`."""
    scheduler = Scheduler()
    scheduler.put("server", "k", Granted("h", 1, "k:0.1"), 0)
    scheduler.request("client", "k", 1, 1)
    scheduler.heard("server", polled_at)
    return scheduler


def state(scheduler: Scheduler, now: float) -> State:
    (server,) = scheduler.who(now).servers
    return server.state


def test_a_client_who_comes_after_a_question() -> None:
    """The server says that it has him: it is busy, and no longer offered."""
    scheduler = lent(polled_at=1.5)
    assert state(scheduler, 2) == State.OFFERED
    scheduler.greeted("server", Ping(True, True, Serving("10.0.0.9:5", 0)), 2)
    assert state(scheduler, 2) == State.BUSY
    (server,) = scheduler.who(5).servers
    assert server.holder is not None
    assert server.holder.since_s == 4  # as before: since he was given it
    scheduler.put("server", "k", Granted("h", 1, "k:0.2"), 6)
    assert state(scheduler, 6) == State.FREE


def test_a_client_of_a_server_that_does_not_say_so() -> None:
    """TVM's server stops asking when its client has come, which shows some seconds later."""
    scheduler = lent(polled_at=1.5)
    assert state(scheduler, 1.5 + UNUSED_S - 0.1) == State.OFFERED
    assert state(scheduler, 1.5 + UNUSED_S) == State.BUSY


def test_a_proxy_without_servers_has_no_keys() -> None:
    """``proxy[]`` is not a proxy of a key that is empty."""
    scheduler = Scheduler()
    scheduler.update_info("proxy", {"key": "server:proxy[a,b]", "addr": ["h", 1]}, "h", 0)
    assert scheduler.is_served("a")
    scheduler.update_info("proxy", {"key": "server:proxy[]", "addr": ["h", 1]}, "h", 0)
    assert not any(map(scheduler.is_served, ("", "a", "b")))
