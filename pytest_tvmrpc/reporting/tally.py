"""What a run adds up to: its leases, and sums for each device, for each key, over all.

No output and no clock here: what is added up was measured elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, NamedTuple, Sequence

if TYPE_CHECKING:
    from ..records import Attempt, RemoteFacts, Run, TestRecord

NONE_GIVEN = "(none given)"
"""Stands behind a key in the name of the row for those that waited in vain."""


class Hold(NamedTuple):
    """A device that an attempt had, or for which it waited in vain."""

    record: TestRecord
    attempt: Attempt
    facts: RemoteFacts

    @property
    def from_at(self) -> float:
        """When the device was given."""
        return self.facts.asked_at + self.facts.queued_s

    @property
    def until_at(self) -> float:
        """When it was given back; of a lease that goes on, the last moment that is known."""
        return self.from_at + self.facts.connect_s + self.facts.held_s


def holds(tests: Iterable[tuple[TestRecord, Sequence[Attempt]]]) -> Iterator[Hold]:
    """Every device that these attempts of these tests had or waited for."""
    for record, attempts in tests:
        for attempt in attempts:
            for facts in attempt.devices:
                yield Hold(record, attempt, facts)


def leases(found: Iterable[Hold]) -> list[Hold]:
    """Each lease once: that of the test which waited for it, and as long as any test knows it."""
    told: dict[object, list[Hold]] = {}
    for number, hold in enumerate(found):
        facts = hold.facts
        # The worker is left out: of a test that ran again in another one, only the last is known.
        shared = (facts.key, facts.device, facts.asked_at, facts.queued_s)
        told.setdefault(shared if facts.shared else number, []).append(hold)
    return [_joined(several) for several in told.values()]


def _joined(several: Sequence[Hold]) -> Hold:
    first = min(several, key=lambda hold: hold.attempt.started_at)
    held_s = max(hold.facts.held_s for hold in several)
    return first._replace(facts=replace(first.facts, held_s=held_s))


@dataclass
class Sums:
    """What tests did on one device, or on all devices of a key.

    A test counts once, however often it had the device. It has its verdict on those devices that
    its last attempt had; on the others, it only lost attempts.

    Attributes:
        name: the device, ``key (none given)``, the key, or ``total``.
        key: the device key; empty for the total.
        tests: those that had the device, or waited for it.
        passed, failed, error, infra, skipped: tests by verdict, where the last attempt was here.
        flaky: tests that passed, but not at the first attempt, and had an earlier one here.
        lost: attempts that ended because a device dropped out. One that had several devices
            counts for each: it does not say which of them it was.
        waits: seconds in the queue, one value for each lease, in rising order.
        busy: the part of the run, from 0 to 1, in which the device was held; for several devices
            their mean.
        connect_s, upload_s, upload_nbytes, call_s, device_s, bytes_sent, bytes_received: sums.
    """

    name: str
    key: str = ""
    tests: int = 0
    passed: int = 0
    failed: int = 0
    error: int = 0
    infra: int = 0
    skipped: int = 0
    flaky: int = 0
    lost: int = 0
    waits: Sequence[float] = ()
    busy: float = 0.0
    connect_s: float = 0.0
    upload_s: float = 0.0
    upload_nbytes: int = 0
    call_s: float = 0.0
    device_s: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def wait_p50_s(self) -> float:
        """The median of the waits, as `percentile` has it."""
        return percentile(self.waits, 0.50)

    @property
    def wait_p95_s(self) -> float:
        """All but one in twenty waits were not longer."""
        return percentile(self.waits, 0.95)

    @property
    def trouble(self) -> tuple[int, int, int]:
        """The more, the sooner somebody has to look: first what the device is to blame for."""
        return (self.infra + self.lost, self.failed + self.error, self.flaky)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, with the percentiles in place of the waits."""
        waits = {"wait_p50_s": self.wait_p50_s, "wait_p95_s": self.wait_p95_s}
        values: dict[str, Any] = {}
        for name, value in asdict(self).items():
            values.update(waits if name == "waits" else {name: value})
        return values


@dataclass(frozen=True)
class Tally:
    """All sums of a run.

    Attributes:
        devices: one for each device, and one for each key for which a test was given none; those
            with trouble first, then by name.
        keys: one for each key, in the same order.
        total: over all tests that asked for a device; here each test counts once.
    """

    devices: list[Sums]
    keys: list[Sums]
    total: Sums


def tally(run: Run) -> Tally:
    """Add up a run, or what there is of it so far."""
    return Tally(_rows(run, device_name), _rows(run, lambda facts: facts.key), _total(run))


def device_name(facts: RemoteFacts) -> str:
    """The device, or that there was none."""
    return facts.device or f"{facts.key} {NONE_GIVEN}"


def percentile(ordered: Sequence[float], part: float) -> float:
    """The nearest rank: the smallest value that at least this part of all does not exceed.

    It is always a value that was measured; 0 if there is none.
    """
    if not ordered:
        return 0.0
    return ordered[max(math.ceil(part * len(ordered)), 1) - 1]


def _rows(run: Run, name_of: Callable[[RemoteFacts], str]) -> list[Sums]:
    parts: dict[str, list[tuple[TestRecord, list[Attempt]]]] = {}
    for record in run.tests:
        for name, attempts in _parted(record, name_of).items():
            parts.setdefault(name, []).append((record, attempts))
    rows = [_sums(name, several, _duration_s(run)) for name, several in parts.items()]
    return sorted(rows, key=lambda row: (*(-count for count in row.trouble), row.name))


def _total(run: Run) -> Sums:
    every = [(record, record.attempts) for record in run.tests]
    return replace(_sums("total", every, _duration_s(run)), key="")


def _parted(record: TestRecord, name_of: Callable[[RemoteFacts], str]) -> dict[str, list[Attempt]]:
    """The attempts of a test by the name of what they had, each with that part of its facts."""
    found: dict[str, list[Attempt]] = {}
    for attempt in record.attempts:
        names = dict.fromkeys(map(name_of, attempt.devices))
        for name in names:
            own = [facts for facts in attempt.devices if name_of(facts) == name]
            found.setdefault(name, []).append(replace(attempt, devices=own))
    return found


def _sums(
    name: str, parts: Sequence[tuple[TestRecord, Sequence[Attempt]]], duration_s: float
) -> Sums:
    row = Sums(name, tests=len(parts))
    for record, attempts in parts:
        _count(row, record, attempts)
    found = list(holds(parts))
    for _, _, facts in found:
        row.key = facts.key
        _add(row, facts)
    each = leases(found)
    row.waits = sorted(lease.facts.queued_s for lease in each)
    row.connect_s = sum(lease.facts.connect_s for lease in each)
    row.busy = _busy(each, duration_s)
    return row


def _count(row: Sums, record: TestRecord, attempts: Sequence[Attempt]) -> None:
    last = record.attempts[-1].number
    row.lost += sum(attempt.verdict == "lost" for attempt in attempts)
    row.flaky += record.flaky and attempts[0].number != last
    if attempts[-1].number != last:
        return  # it ended elsewhere
    here = attempts[-1].devices
    if record.verdict != "infra" and here and all(facts.error for facts in here):
        return  # the same: no session could be opened here
    verdict = record.verdict
    row.passed += verdict == "passed"
    row.failed += verdict == "failed"
    row.error += verdict == "error"
    row.infra += verdict == "infra"
    row.skipped += verdict == "skipped"


def _add(row: Sums, facts: RemoteFacts) -> None:
    row.upload_s += facts.upload_s
    row.upload_nbytes += facts.upload_nbytes
    row.call_s += facts.call_s
    row.device_s += facts.device_s
    row.bytes_sent += facts.bytes_sent
    row.bytes_received += facts.bytes_received


def _busy(each: Iterable[Hold], duration_s: float) -> float:
    """The part of the run in which the devices were held, their mean if there are several."""
    held: dict[str, list[tuple[float, float]]] = {}
    for lease in each:
        if lease.facts.device:
            held.setdefault(lease.facts.device, []).append((lease.from_at, lease.until_at))
    if not held or duration_s <= 0:
        return 0.0
    busy_s = sum(min(_covered(spans), duration_s) for spans in held.values())
    return round(busy_s / (len(held) * duration_s), 6)  # times of day have no more digits


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one span goes on."""
    total_s, until = 0.0, -math.inf
    for start, end in sorted(spans):
        if end > until:
            total_s += end - max(start, until)
            until = end
    return total_s


def _duration_s(run: Run) -> float:
    """How long the run took; of one that goes on or was killed, what its tests tell."""
    if run.ended_at:
        return run.duration_s
    ends = [a.started_at + a.duration_s for test in run.tests for a in test.attempts]
    return max(max(ends, default=0.0) - run.started_at, 0.0)
