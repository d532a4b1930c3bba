"""Quantities and verdicts as people read them: durations, rates, times of day, letters.

Plain text, no markup: the page and the Markdown summary say the same things in the same words.
How numbers are rounded is the matter of the package's own wording.py.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

from ... import wording

ABSENT = "\N{EN DASH}"
DIGITS = 3

VERDICTS = {
    "failed": "F",
    "error": "E",
    "infra": "I",
    "flaky": "~",
    "lost": "L",
    "passed": "P",
    "skipped": "S",
}
"""The letter of each verdict, the worst first; colour alone tells nothing to many."""

MEANING = {
    "failed": "the test failed",
    "error": "its set-up or teardown failed",
    "infra": "no device, or every device was lost",
    "flaky": "passed, but not at the first attempt",
    "lost": "an attempt whose device dropped out",
    "passed": "passed at the first attempt",
    "skipped": "was not run",
}


def letter(verdict: str) -> str:
    """One character for a verdict; a question mark for one of another plugin."""
    return VERDICTS.get(verdict, "?")


def duration(value_s: float | None) -> str:
    """Three digits and a unit: ``14.2 µs``, ``1.24 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if value_s is None or not math.isfinite(value_s):
        return ABSENT
    if value_s < 0:
        return f"\N{MINUS SIGN}{duration(-value_s)}"
    if value_s < 0.5e-9:
        return "0 s"
    if value_s >= 119.5:
        return wording.minutes(value_s)
    return wording.seconds(value_s, DIGITS, micro="µ")


def digits(value: float) -> str:
    """A number with three significant digits and no exponent."""
    return wording.significant(value, DIGITS)


def rate(value: float | None) -> str:
    """GFLOP/s or GB/s without the unit, which stands in the head of the column."""
    if not value or not math.isfinite(value):
        return ABSENT
    return digits(value) if value >= 0.0995 else f"{value:.2g}"


def size(count: float) -> str:
    """A number of bytes: ``512 B``, ``12.3 MiB``."""
    return wording.size(count, DIGITS)


def change(fraction: float | None) -> str:
    """``+5.2 %``, with a real minus; a dash if there is nothing to compare with."""
    if fraction is None or not math.isfinite(fraction):
        return ABSENT
    sign = "+" if fraction >= 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(fraction) * 100:.1f} %"


def percent(fraction: float | None) -> str:
    """``43 %``; a dash if unknown."""
    return ABSENT if fraction is None else wording.percent(fraction, digits=0)


def moment(at: float) -> str:
    """A time of day here, with its date and its distance from UTC."""
    when = _local(at)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC%z") if when else ABSENT


def day(at: float) -> str:
    """The date alone."""
    when = _local(at)
    return when.strftime("%Y-%m-%d") if when else ABSENT


def iso(at: float) -> str | None:
    """The same for machines; None if it is no time."""
    when = _local(at)
    return when.isoformat(timespec="seconds") if when else None


def _local(at: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(at).astimezone() if at > 0 else None
    except (OverflowError, ValueError, OSError):  # what some file or clock says need not be one
        return None


def plural(count: int, noun: str) -> str:
    """``1 test``, ``2 tests``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Ticks(NamedTuple):
    """Where an axis has marks, and what they are called."""

    values: tuple[float, ...]
    labels: tuple[str, ...]


STEPS_S = (
    *(1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200),
)


def time_ticks(span_s: float, at_most: int = 8) -> Ticks:
    """Marks from 0 to the span, at distances that people count in."""
    days = 86400 * max(1, math.ceil(span_s / 86400 / at_most))
    step = next((step for step in STEPS_S if span_s / step <= at_most), days)
    values = tuple(step * number for number in range(int(span_s / step) + 1))
    return Ticks(values, tuple(_elapsed(value, step) for value in values))


def _elapsed(value_s: float, step_s: float) -> str:
    if value_s == 0:
        return "0"
    if step_s < 1:
        return f"{round(value_s, 3):g} s"
    if step_s >= 86400:
        return f"{value_s / 86400:g} d"
    whole = round(value_s)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
