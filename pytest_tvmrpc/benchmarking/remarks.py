"""What there is to say about the benchmarks of a run, in sentences. Places and colours: reporting/.

The texts hold names that tests and devices gave: whoever shows them escapes what has to be escaped.
"""

from __future__ import annotations

from typing import Sequence

from .comparison import is_between_runs
from .records import NEW, NOISY, Benchmark

MOST_LINES = 8
"""Of many lines about the same trouble, so many are shown."""

MOST_NAMES = 3
"""Of many benchmarks of which the same is said, so many are named."""


def remarks(benchmarks: Sequence[Benchmark], wanted: str = "", there: str = "") -> list[str]:
    """What is slower, has no baseline, or is too noisy to tell; nothing if nothing was compared.

    Args:
        benchmarks: of the run.
        wanted: the name of the stored run to compare with; empty for any.
        there: what to add where there is no baseline at all: what is there instead.
    """
    fail = [one for one in benchmarks if one.fails]
    new = [one for one in benchmarks if one.verdict == NEW]
    noisy = [one for one in benchmarks if one.verdict == NOISY]
    lines = []
    if fail:
        names = _some([_named(one) for one in fail])
        lines.append(f"SLOWER: {_of(fail, benchmarks)} by more than {_limit(fail[0])}: {names}")
    if new and len(new) == len(benchmarks):
        what = f"no baseline {wanted!r}" if wanted else "no baseline"
        lines.append(
            f"NOTHING WAS COMPARED: {what} for any of {count(new)}{there}; store one with "
            f"--rpc-bench-save={wanted or 'NAME'}"
        )
    elif new:
        lines.append(f"NOT COMPARED: {_of(new, benchmarks)} without a baseline")
    lines += [*_each("no baseline", new), *_each("noisy", noisy)]
    hidden = [one for one in noisy if not 0 <= one.visible <= one.limit]
    if not all(map(is_between_runs, hidden)):
        lines.append(
            f"noise hides changes of {_limit(hidden[0])}, the limit: measure with more repeats, a "
            "longer min_time_s or a cooldown_s, on a device with nothing else to do"
        )
    if any(map(is_between_runs, hidden)):
        lines.append(
            f"what differs from run to run hides changes of {_limit(hidden[0])}, the limit, and "
            "more repeats do not help: fix the clock of the device, leave it alone, or choose a "
            "limit that fits"
        )
    return lines


def count(some: Sequence[Benchmark]) -> str:
    """So many benchmarks, in words."""
    return "1 benchmark" if len(some) == 1 else f"{len(some)} benchmarks"


def _of(some: Sequence[Benchmark], every: Sequence[Benchmark]) -> str:
    return f"{count(some)} of {len(every)}"


def _limit(one: Benchmark) -> str:
    return f"{100 * one.limit:g} %"


def _each(trouble: str, some: Sequence[Benchmark]) -> list[str]:
    """A line for each thing that is to be said, with the benchmarks of which it is said."""
    said: dict[str, list[str]] = {}
    for one in some:
        said.setdefault(one.note, []).append(_named(one))
    lines = [f"{trouble}: {note}: {_some(names)}" for note, names in said.items()]
    rest = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"{trouble}: and {rest} more"] if rest > 0 else [])]


def _named(one: Benchmark) -> str:
    return f"{one.test} {one.name} ({one.key or 'no key'})"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
