"""How many devices a run can have: those that are free, and those that it has itself."""

from __future__ import annotations

from typing import Callable, Dict, Iterator

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.options import Options
from pytest_tvmrpc.running import capacity
from pytest_tvmrpc.running.capacity import Capacity
from pytest_tvmrpc.running.crashes import Ledger


class Ours:
    """What the run has, as the test says."""

    def __init__(self) -> None:
        self.devices: Dict[str, int] = {}
        self.waits = False

    def held(self) -> Dict[str, int]:
        return self.devices

    def is_waiting(self) -> bool:
        return self.waits


@pytest.fixture(name="tracker")
def _tracker(wait_until: Callable[..., None]) -> Iterator[rpc.Tracker]:
    """One with two devices of key a, both of them free."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = (tracker.host, tracker.port)
        servers = [rpc.Server(port=0, key="a", tracker_addr=address, silent=True) for _ in range(2)]
        wait_until(lambda: free(tracker) == 2, "the servers are at the tracker")
        yield tracker
        for server in servers:
            server.terminate()


def free(tracker: rpc.Tracker) -> int:
    with rpc.connect_tracker("127.0.0.1", tracker.port) as session:
        queue = session.summary()["queue_info"].get("a", {"free": 0})
    return int(queue["free"])


def known(found: Capacity) -> Dict[str, int]:
    """What the tracker says by now, if it is asked now."""
    found.refresh()
    found.settle()
    return dict(found.devices)


def test_devices_of_others_do_not_count(tracker: rpc.Tracker) -> None:
    """A device that is in use counts only if this run uses it."""
    address = ("127.0.0.1", tracker.port)
    ours = Ours()
    assert known(Capacity(Options(tracker=address), ours)) == {"a": 2}
    with rpc.connect_tracker(*address) as other, other.request("a"):
        assert known(Capacity(Options(tracker=address), ours)) == {"a": 1}
        ours.devices = {"a": 1}
        assert known(Capacity(Options(tracker=address), ours)) == {"a": 2}
        ours.devices = {"a": 2, "b": 1}  # one was given back a moment ago
        assert known(Capacity(Options(tracker=address), ours)) == {"a": 2}


def test_asked_more_often_while_a_test_waits(
    tracker: rpc.Tracker, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """What somebody gave back is noticed soon if it is wanted, and rarely looked for if not."""
    monkeypatch.setattr(capacity, "AGAIN_S", 3600.0)
    monkeypatch.setattr(capacity, "WAITING_AGAIN_S", 0.0)
    address, ours = ("127.0.0.1", tracker.port), Ours()
    found = Capacity(Options(tracker=address), ours)
    with rpc.connect_tracker(*address) as other:
        session = other.request("a")
        assert known(found) == {"a": 1}
        session.close()
        wait_until(lambda: free(tracker) == 2, "the device is free")
    assert known(found) == {"a": 1}
    ours.waits = True
    assert known(found) == {"a": 2}


def test_a_tracker_that_is_gone(tracker: rpc.Tracker) -> None:
    """Nothing is known then, and nothing limited."""
    found = Capacity(Options(tracker=("127.0.0.1", tracker.port)), Ours())
    tracker.terminate()
    assert known(found) == {}


def test_servers_of_its_own() -> None:
    """Nobody else has them, and no tracker is asked."""
    found = Capacity(Options(keys=("a", "b"), servers=3), Ours())
    assert known(found) == {"a": 3, "b": 3}


def test_ledger() -> None:
    """It counts what was given to any worker and not given back, and knows if one waits."""
    ledger = Ledger()

    def hear(worker: str, what: str, key: str, device: str = "") -> None:
        fact = {"what": what, "key": key, "device": device, "nodeid": "test", "at": 1.0}
        ledger.hear({"kind": "lease", "worker": worker, **fact})

    ledger.hear({"kind": "other"})
    assert (ledger.held(), ledger.is_waiting()) == ({}, False)
    hear("gw0", "asked", "a, b")
    assert (ledger.held(), ledger.is_waiting()) == ({}, True)
    hear("gw0", "given", "b", "b@1")
    hear("gw1", "asked", "b")
    hear("gw1", "given", "b", "b@2")
    assert (ledger.held(), ledger.is_waiting()) == ({"b": 2}, False)
    hear("gw0", "returned", "b", "b@1")
    hear("gw0", "asked", "a")
    hear("gw0", "gave_up", "a")
    assert (ledger.held(), ledger.is_waiting()) == ({"b": 1}, False)
    assert [one.device for one in ledger.of("gw1")] == ["b@2"]
