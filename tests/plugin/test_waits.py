"""Who has which device and who waits, from events, and in words."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from pytest_tvmrpc.protocol.farm import Farm, FarmServer, Holder, State, Waiting
from pytest_tvmrpc.reporting.waits import (
    Holding,
    Wait,
    Watch,
    describe_farm,
    describe_summary,
    elapsed,
    user_of,
    waiting_line,
)

A1 = "jetson@10.0.0.1:9090"


def _event(what: str, key: str = "jetson", device: str = "", nodeid: str = "a.py::t") -> Any:
    return {
        "kind": "lease",
        "what": what,
        "key": key,
        "device": device,
        "nodeid": nodeid,
        "at": 0.0,
        "worker": "gw0",
    }


def test_a_lease() -> None:
    """Who asks waits, who is given a device has it, who returns it has left it free."""
    watch = Watch()
    watch.hear(_event("asked"), 1.0)
    assert watch.waits == [Wait(("jetson",), "a.py::t", "gw0", 1.0)]
    watch.hear(_event("given", device=A1), 2.0)
    assert watch.waits == []
    assert watch.devices == {A1: Holding(A1, "a.py::t", "gw0", 2.0)}
    assert watch.held == {A1}
    watch.hear(_event("returned", device=A1), 3.0)
    assert watch.devices == {A1: None}
    assert watch.held == set()


def test_several_waits() -> None:
    """The one that ends is that of the test and its keys; others go on."""
    watch = Watch()
    watch.hear(_event("asked", "jetson, rpi4"), 1.0)
    watch.hear(_event("asked", "rpi4"), 2.0)
    watch.hear(_event("asked", "jetson", nodeid="a.py::other"), 3.0)
    watch.hear(_event("asked", "jetson"), 4.0)
    watch.hear(_event("given", "jetson", A1), 5.0)
    assert [wait.since for wait in watch.waits] == [2.0, 3.0, 4.0]
    watch.hear(_event("gave_up", "jetson"), 6.0)
    assert [wait.since for wait in watch.waits] == [2.0, 3.0]
    assert {keys: len(waits) for keys, waits in watch.waits_by_keys().items()} == {
        ("rpi4",): 1,
        ("jetson",): 1,
    }
    watch.hear(_event("gave_up", "nobody asked"), 7.0)
    assert len(watch.waits) == 2


def test_the_line() -> None:
    """It says for what, why, who and how long."""
    first = Wait(("jetson",), "tests/a.py::test_conv", "", 10.0)
    farm = ["4 busy (ada@ws12 2, ci-118 2), position 3"]
    assert waiting_line([first], farm, 50.5) == (
        "waiting for jetson: 4 busy (ada@ws12 2, ci-118 2), position 3; test_conv waits for 40 s"
    )
    more = [Wait(("jetson", "rpi4"), "a.py::b", "gw1", since) for since in (2.0, 3.0)]
    assert waiting_line(more, [], 730.0) == (
        "waiting for jetson or rpi4: 2 tests wait; b waits for 12 min 8 s"
    )


def _server(number: int, state: State, user: str = "", key: str = "jetson") -> FarmServer:
    holder = Holder(user, "10.1.1.1:5", 3.0) if user else None
    return FarmServer(key, f"10.0.0.{number}", 9090, state, 3.0, holder)


def _waiting(position: int, user: str, key: str = "jetson") -> Waiting:
    return Waiting(key, user, "10.1.1.1:6", position, 1.0, 5.0)


def test_our_tracker() -> None:
    """Holders are counted by user, this run's own devices as such; other keys are left out."""
    farm = Farm(
        (
            _server(1, State.BUSY, "me@ws1 pid 7"),
            _server(2, State.BUSY, "ada@ws12 pid 1 a.py::t"),
            _server(3, State.BUSY, "ada@ws12 pid 2"),
            _server(4, State.BUSY, "ci-118"),
            _server(5, State.SILENT),
            _server(6, State.FREE, key="rpi4"),
        ),
        (
            _waiting(1, "me@ws1 pid 99 b.py::other"),
            _waiting(2, "ada@ws12 pid 3 a.py::t"),
            _waiting(3, "me@ws1 pid 8 a.py::t"),
            _waiting(4, "me@ws1 pid 9 a.py::u"),
            _waiting(1, "me@ws1 pid 9 a.py::u", "rpi4"),
        ),
    )
    assert describe_farm(farm, "jetson", {A1}, ["a.py::u", "a.py::t"], "me@ws1") == (
        "4 busy (ada@ws12 2, this run 1, ci-118 1), 1 silent, position 3"
    )
    # None of the tests is known there: the nearest place of this user is the best that is known.
    assert describe_farm(farm, "jetson", {A1}, ["a.py::v"], "me@ws1").endswith("position 1")
    assert describe_farm(farm, "rpi4", set(), ["a.py::t"], "somebody@else") == "1 free"
    assert describe_farm(farm, "absent", set(), ["a.py::t"], "me@ws1") == "no server has this key"


def test_many_users() -> None:
    """Those who have most are named, the rest is a number."""
    farm = Farm(
        tuple(_server(n, State.BUSY, f"u{n if n < 5 else 1}@h pid {n}") for n in range(1, 8)), ()
    )
    assert describe_farm(farm, "jetson", set(), [], "me") == (
        "7 busy (u1@h 4, u2@h 1, u3@h 1, others 1)"
    )


def test_tvms_tracker() -> None:
    """It knows numbers only."""
    summary: Dict[str, Any] = {
        "server_info": [{"key": "server:jetson", "addr": ["10.0.0.1", 9090]}] * 4,
        "queue_info": {"jetson": {"free": 0, "pending": 6}, "rpi4": {"free": 0, "pending": 1}},
    }
    assert describe_summary(summary, "jetson") == "0 of 4 free, 6 requests wait"
    assert describe_summary(summary, "rpi4") == "no server has this key"
    summary["queue_info"]["jetson"]["pending"] = 1
    assert describe_summary(summary, "jetson") == "0 of 4 free, 1 request waits"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ada@ws12 pid 7", "ada@ws12"),
        ("ada@ws12 pid 7 tests/a.py::test_b[x pid 3 y]", "ada@ws12"),
        ("ci-118", "ci-118"),
        ("ci 118 tests/a.py::test_b[x y::z]", "ci 118"),
        ("a pid b", "a pid b"),
        ("", ""),
    ],
)
def test_users_without_what_they_do(text: str, name: str) -> None:
    """Several processes and tests of one user are one user; the rest of the name stays."""
    assert user_of(text) == name


@pytest.mark.parametrize(
    ("duration_s", "text"), [(-1.0, "0 s"), (0.9, "0 s"), (119.9, "119 s"), (125.9, "2 min 5 s")]
)
def test_elapsed(duration_s: float, text: str) -> None:
    """What goes on is told in whole seconds."""
    assert elapsed(duration_s) == text
