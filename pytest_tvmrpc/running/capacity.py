"""How many devices there are for a run, as far as one can know. Leases none, and starts no server.

A tracker is asked in a thread, so that one that does not answer holds up nobody.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Mapping, NamedTuple, Protocol

import pytest

from ..options import options_of

if TYPE_CHECKING:
    from ..options import Options

AGAIN_S = 5.0  # a tracker is not asked more often,
WAITING_AGAIN_S = 1.0  # but then while a test waits for a device
PATIENCE_S = 2.0  # and not waited for longer: what is not known does not limit anything


class Farm(NamedTuple):
    """What a tracker says: devices by key, and how many of them nobody uses."""

    devices: dict[str, int]
    free: dict[str, int]


def ask(address: tuple[str, int], timeout_s: float) -> Farm:
    """What the tracker there has, ours or TVM's.

    Raises:
        RPCError: it cannot be reached, does not answer in time, or is no tracker.
    """
    from ..client.grants import served_keys
    from ..client.tracker import connect_tracker

    with connect_tracker(*address, timeout=timeout_s) as tracker:
        state = tracker.summary()
    devices = served_keys(state)
    queues = state["queue_info"]
    return Farm(devices, {key: queues[key]["free"] if key in queues else 0 for key in devices})


class Holdings(Protocol):
    """What the run itself has."""

    def held(self) -> Mapping[str, int]: ...
    def is_waiting(self) -> bool: ...


class Capacity:
    """The devices that a run can have, by key: those of its own servers, or what its tracker said.

    Args:
        options: of the run.
        ours: what it has already; the tracker does not tell whose devices are in use.

    Attributes:
        seen: the keys of which the tracker ever had a device.
    """

    def __init__(self, options: Options, ours: Holdings) -> None:
        self._ours = ours
        self._address = options.tracker
        self._timeout_s = min(options.connect_timeout_s, PATIENCE_S)
        self._devices: Mapping[str, int] = {}
        if options.tracker is None:
            self._devices = dict.fromkeys(options.keys, options.servers)
        self._thread: threading.Thread | None = None
        self._asked = 0.0
        self.seen: frozenset[str] = frozenset()

    @property
    def devices(self) -> Mapping[str, int]:
        """What is known now; a key that is missing is not known. Replaced, never changed."""
        return self._devices

    def refresh(self) -> None:
        """Have the tracker asked, if there is one and it was not asked just now. Does not wait."""
        if self._address is None:
            return
        now = time.monotonic()
        again_s = WAITING_AGAIN_S if self._ours.is_waiting() else AGAIN_S
        if self._thread and now - self._asked < again_s:
            return
        if self._thread and self._thread.is_alive():
            return
        self._asked = now
        self._thread = threading.Thread(target=self._ask, name="tvmrpc-capacity", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Wait for the answer to what is being asked, a moment at most."""
        if self._thread:
            self._thread.join(PATIENCE_S)

    def _ask(self) -> None:
        from ..errors import RPCError

        assert self._address is not None
        try:
            farm = ask(self._address, self._timeout_s)
            self.seen = self.seen.union(key for key, count in farm.devices.items() if count)
            held = self._ours.held()
            self._devices = {
                key: min(count, farm.free[key] + held.get(key, 0))
                for key, count in farm.devices.items()
            }
        except RPCError:
            self._devices = {}  # not known; the tests themselves say what is wrong with it


_auto_key = pytest.StashKey[str]()


def count_workers(config: pytest.Config) -> int | None:
    """The workers of ``-n auto``: one for each device that is free; None if that is not known.

    None, too, if the run was not told of any devices: it may not have a single remote test.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # somebody said how many
    options = options_of(config)
    if options.tracker:
        count, why = _count_free(options, options.tracker)
    elif "servers" in options.given:
        count = options.servers * len(options.keys)
        why = f"as the run has {_words(dict.fromkeys(options.keys, options.servers))}"
    else:
        return None
    most = config.getoption("maxprocesses", None)
    if count and most and most < count:
        count, why = most, f"by --maxprocesses, {why}"
    shown = f"{count} worker{'s' if count != 1 else ''}" if count else "-n auto is left to xdist"
    config.stash[_auto_key] = f"rpc: {shown}, {why}"
    return count


def auto_line(config: pytest.Config) -> str | None:
    """What ``-n auto`` became, for the header; None if we had no part in it."""
    return config.stash.get(_auto_key, None)


def _count_free(options: Options, address: tuple[str, int]) -> tuple[int | None, str]:
    from ..errors import RPCError

    try:
        farm = ask(address, options.connect_timeout_s)
    except RPCError as error:
        return None, f"as the tracker does not say what it has ({error})"
    devices = {key: farm.devices.get(key, 0) for key in options.keys}
    free = sum(farm.free.get(key, 0) for key in options.keys)
    return max(free, 1), f"as the tracker has {_words(devices)}, {free} free"


def _words(devices: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {key}" for key, count in devices.items())
