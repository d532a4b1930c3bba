"""One attempt of a test while it goes on: what it has, what it had, what became of its phases.

Decides nothing; that is attempts.py. There is at most one at a time in a process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Callable, NamedTuple

import pytest

from ..records import RemoteFacts
from .selection import Wish, chosen_keys, wish_of

if TYPE_CHECKING:
    from ..client.session import RPCSession
    from ..options import Options
    from .logs import SessionLog

    Emit = Callable[[str, str, str, str], None]
    """Told what happened (asked, given, returned, gave_up), a key, a device, a node id."""


class Lease:
    """A device that a test has, or had.

    Args:
        key, device, session: what was given.
        asked_at: when it was asked for, in seconds since the epoch.
        log: what its server's log says of it.
        shared: whether a fixture of wider scope holds it.
    """

    def __init__(
        self,
        key: str,
        device: str,
        session: RPCSession,
        asked_at: float,
        log: SessionLog,
        shared: bool,
    ) -> None:
        self.key = key
        self.device = device
        self.session = session
        self.asked_at = asked_at
        self.queued_s = session.queued_s
        self.log = log
        self.output_at = 0
        self.shared = shared
        self._taken = time.monotonic()
        self._held_s: float | None = None
        self._was_over = False  # when it was given back

    def close(self) -> bool:
        """Give the device back; whether this is the first time."""
        if self._held_s is not None:
            return False
        self._was_over = self.session.closed
        self.session.close()
        self._held_s = time.monotonic() - self._taken
        return True

    @property
    def connect_s(self) -> float:
        """How many seconds connection and handshake took."""
        return self.session.connect_s

    @property
    def held_s(self) -> float:
        """For how many seconds it was, or has been, held."""
        return time.monotonic() - self._taken if self._held_s is None else self._held_s

    @property
    def is_lost(self) -> bool:
        """Whether the session ended, and not because it was closed."""
        return self.session.lost

    @property
    def is_over(self) -> bool:
        """Whether the session ended before it was given back: lost, or at one of its limits."""
        return self.session.closed if self._held_s is None else self._was_over

    def facts(self) -> RemoteFacts:
        """What was measured so far."""
        meter = self.session.meter
        return RemoteFacts(
            self.key,
            self.device,
            self.asked_at,
            self.queued_s,
            self.connect_s,
            self.held_s,
            meter.upload_s,
            meter.upload_nbytes,
            meter.calls,
            meter.call_s,
            meter.device_s,
            meter.bytes_sent,
            meter.bytes_received,
            self.shared,
        )

    def facts_since(self, before: RemoteFacts | None) -> RemoteFacts:
        """The lease as one of the tests that share it tells of it.

        Waits, and the time for which it has been held, are those of the lease; what was done on the
        device is only what this test did.

        Args:
            before: the facts at the beginning of the test; None if it had no such lease then.
        """
        now = self.facts()
        if before is None:
            return now
        done = {name: getattr(now, name) - getattr(before, name) for name in _DONE}
        return replace(now, **done)


_DONE = (
    *("upload_s", "upload_nbytes", "calls", "call_s", "device_s"),
    *("bytes_sent", "bytes_received"),
)


@dataclass
class Trial:
    """One attempt of a test.

    Attributes:
        item: the test.
        wish: what it asks for.
        number: 1 for the first attempt.
        tried: devices on which earlier attempts dropped out.
        losses: how many earlier attempts ended so.
        leases: those of the test alone, also those that were given back.
        shared: those of wider scope that it may use, each with its facts from the beginning.
        waits: the facts of waits that led to no device.
        outcomes: of the phases that are over, as they are reported.
        decided: the outcomes that we gave to phases, whatever others make of them.
        output: what the devices printed.
        folder: where what is kept of this attempt goes; empty if there is no such place yet.
        notes: what went wrong with hooks and files, and is said at the end of the run.
        follows: whether the attempt before it is told of in reports.
        is_lost: the device dropped out, and the test is to be run again.
        is_infra: the farm is to blame, and the test is not run again.
        is_over: its teardown has been reported.
    """

    item: pytest.Item
    wish: Wish
    number: int = 1
    tried: tuple[str, ...] = ()
    losses: int = 0
    started_at: float = field(default_factory=time.time)
    leases: list[Lease] = field(default_factory=list)
    shared: list[tuple[Lease, RemoteFacts | None]] = field(default_factory=list)
    waits: list[RemoteFacts] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    decided: dict[str, str] = field(default_factory=dict)
    duration_s: float = 0.0
    message: str = ""
    details: str = ""
    output: str = ""
    folder: str = ""
    notes: list[str] = field(default_factory=list)
    follows: bool = False
    is_lost: bool = False
    is_infra: bool = False
    is_over: bool = False

    @property
    def held(self) -> list[Lease]:
        """All leases, those of its own first."""
        return [*self.leases, *(lease for lease, _ in self.shared)]

    @property
    def has_devices(self) -> bool:
        """Whether it asked for a device."""
        return bool(self.leases or self.shared or self.waits)

    @property
    def is_told(self) -> bool:
        """Whether reports tell of it: an attempt may do without a device after one that had one."""
        return self.follows or self.has_devices

    def facts(self) -> list[RemoteFacts]:
        """What happened on its devices, in the order in which they were asked for."""
        own = [*self.waits, *(lease.facts() for lease in self.leases)]
        return [
            *sorted(own, key=lambda facts: facts.asked_at),
            *(lease.facts_since(before) for lease, before in self.shared),
        ]


trial_key = pytest.StashKey[Trial]()
"""On an item: the attempt that goes on, or the last one."""


class Earlier(NamedTuple):
    """What there was of a test in other workers: attempts, those that were lost, and on what."""

    attempts: int = 0
    losses: int = 0
    tried: tuple[str, ...] = ()


earlier_key = pytest.StashKey["dict[str, Earlier]"]()
"""On the config of a worker: the tests whose worker crashed, by node id."""


def begin(item: pytest.Item, options: Options) -> Trial:
    """The next attempt of a test."""
    before = item.stash.get(trial_key, None)
    trial = Trial(item, wish_of(item, options, chosen_keys(item, options)))
    if before is None:
        earlier = item.config.stash.get(earlier_key, {}).get(item.nodeid, Earlier())
        trial.number, trial.losses, trial.tried = earlier.attempts + 1, *earlier[1:]
        trial.follows = earlier.attempts > 0
    else:
        lost = [lease.device for lease in before.held if lease.is_lost] if before.is_lost else []
        if before.is_lost and not lost:  # a hook says so, of sessions that still stand
            lost = [lease.device for lease in before.leases]
        trial.number = before.number + 1
        if before.is_lost:  # also what could not even be opened
            lost += [facts.device for facts in before.waits if facts.device]
        trial.follows = before.is_told
        trial.tried = tuple(dict.fromkeys([*before.tried, *lost]))
        trial.losses = before.losses + before.is_lost
    item.stash[trial_key] = trial
    return trial


def trial_of(item: pytest.Item, options: Options) -> Trial:
    """The attempt of a test that goes on; it begins now if it did not begin before."""
    trial = item.stash.get(trial_key, None)
    return begin(item, options) if trial is None or trial.is_over else trial
