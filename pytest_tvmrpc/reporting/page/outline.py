"""A run as a page orders it: what each device did, which tests need a look, what goes in a row.

No markup here: the Markdown summary stands on the same figures.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Iterable

from ...records import TROUBLE, Attempt, Run, TestRecord
from ..tally import Hold, device_name, holds, leases

LOOKED_AT = (*TROUBLE, "flaky")
"""The verdicts that come first on every page, in this order."""


@dataclass
class Lane:
    """What happened on one device.

    Attributes:
        name: as `tally.device_name` has it.
        device: empty for those that waited for the key in vain.
        key: what was asked for.
        holds: one for each attempt that had it or waited for it, in the order of time.
    """

    name: str
    device: str
    key: str
    holds: list[Hold] = field(default_factory=list)

    @property
    def leases(self) -> list[Hold]:
        """The same, with a lease that several tests shared once."""
        return leases(self.holds)


def shown_verdict(record: TestRecord) -> str:
    """The verdict of the test, or ``flaky``."""
    return "flaky" if record.flaky else record.verdict


def looked_at(run: Run) -> dict[str, list[TestRecord]]:
    """The tests that somebody should look at, by verdict, in the order of `LOOKED_AT`."""
    found: dict[str, list[TestRecord]] = {verdict: [] for verdict in LOOKED_AT}
    for record in run.tests:
        verdict = shown_verdict(record)
        if verdict in found:
            found[verdict].append(record)
        elif verdict not in ("passed", "skipped"):
            found.setdefault(verdict, []).append(record)  # a run that ended in the middle: lost
    return {verdict: records for verdict, records in found.items() if records}


def verdict_on(record: TestRecord, attempt: Attempt) -> str:
    """The verdict of an attempt, ``flaky`` for the last one of a flaky test."""
    return "flaky" if record.flaky and attempt is record.attempts[-1] else attempt.verdict


def lanes(run: Run) -> list[Lane]:
    """One for each device, by key and name; then the keys of which somebody got none."""
    found: dict[tuple[bool, str, str], Lane] = {}
    for hold in holds((record, record.attempts) for record in run.tests):
        device, key = hold.facts.device, hold.facts.key
        place = (not device, key, device)
        if place not in found:
            found[place] = Lane(device_name(hold.facts), device, key)
        found[place].holds.append(hold)
    for lane in found.values():
        lane.holds.sort(key=lambda hold: hold.facts.asked_at)
    return [found[place] for place in sorted(found, key=_natural)]


def _natural(place: tuple[bool, str, str]) -> tuple[object, ...]:
    missing, key, device = place
    parts = tuple(
        (1, int(part), "") if part.isdecimal() else (0, 0, part)
        for part in re.split(r"(\d{1,15})", device)
    )
    return (missing, key, parts)


def span(run: Run, rows: Iterable[Lane]) -> tuple[float, float]:
    """Start and end of everything that is known, for a common axis."""
    edges = [run.started_at, run.ended_at]
    for row in rows:
        edges += [hold.facts.asked_at for hold in row.holds]
        edges += [hold.until_at for hold in row.holds]
    known = [edge for edge in edges if 0 < edge < math.inf]
    return (min(known), max(known)) if known else (0.0, 0.0)


def short_device(device: str, key: str) -> str:
    """The name without its key, where the key is said beside it."""
    return device[len(key) + 1 :] if device.startswith(f"{key}@") else device


def split_name(record: TestRecord) -> tuple[str, str]:
    """The file of a test, and its name in there without the device key.

    ``--rpc-mode=each`` makes ``test_conv[rpi4-64]`` and ``test_conv[jetson-64]`` of one function:
    in a grid with a column for each device they are one row, ``test_conv[64]``.
    """
    path, _, name = record.nodeid.partition("::")
    name = name or path
    function, bracket, rest = name.partition("[")
    if not bracket or not rest.endswith("]") or len(record.keys) != 1:
        return path, name
    key = re.search(rf"(?:^|-){re.escape(record.keys[0])}(?=-|$)", rest[:-1])
    if key is None:
        return path, name
    others = (rest[: key.start()] + rest[key.end() : -1]).removeprefix("-")
    return path, f"{function}[{others}]" if others else function


def bare_name(record: TestRecord) -> str:
    """The test's name without its file, for places where there is little room."""
    return record.nodeid.rpartition("/")[2].partition("::")[2] or record.nodeid
