"""The time line: who had each device when, and who waited for it.

A lane is an SVG of its own whose x coordinates are percentages, so that it takes whatever width
there is and its letters keep their size. Waits lie in a thin strip below: where several lie on one
another, the strip is darker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

from .markup import Attributes, Child, Markup, element, joined
from .outline import bare_name, verdict_on
from .pieces import device_name, section, share
from .wording import VERDICTS, Ticks, duration, letter, percent, plural, time_ticks

if TYPE_CHECKING:
    from ..tally import Hold, Sums
    from .outline import Lane

BAR = 22  # pixels of a row of bars
WAITS = 5  # and of the strip below
MOST_ROWS = 4  # of one device, where its holds overlap
NARROWEST = 0.0012  # of the width: about a pixel
LETTERED = 0.022  # of the width: room for a letter


def timeline(rows: list[Lane], sums: Mapping[str, Sums], start: float, end: float) -> Markup:
    """The section with a lane for each device."""
    span_s = max(end - start, 1e-3)
    ticks = time_ticks(span_s)
    marks = [share(value / span_s) for value in ticks.values]
    lanes = [_lane(row, sums[row.name], start, span_s, marks) for row in rows]
    lead = (
        f"{duration(span_s)} from the first request to the last return. Full height: the attempt "
        "did not pass. Thin strip: somebody waited, and was then given this device."
    )
    if any(hold.facts.shared for row in rows for hold in row.holds):
        lead += " Frame: held by a fixture of wider scope."
    zoom = element(
        "label",
        {"class": "zoom", "hidden": True},
        "Zoom ",
        element("input", {"type": "range", "min": 0, "max": 5, "step": 1, "value": 0}),
    )
    inner = element("div", {"class": "lanes"}, _axis(ticks, marks), *lanes)
    label = "Time line, scrolls sideways when enlarged"
    attributes: Attributes = {
        "class": "timeline",
        "role": "region",
        "aria-label": label,
        "tabindex": 0,
    }
    return section("timeline", "Time line", lead, zoom, element("div", attributes, inner))


def _axis(ticks: Ticks, marks: list[str]) -> Markup:
    labels = [
        element("text", {"x": mark, "y": 13, "class": "first" if mark == "0%" else None}, label)
        for mark, label in zip(marks, ticks.labels)
    ]
    axis = element("svg", {"class": "axis", "height": 18, "aria-hidden": "true"}, *labels)
    hint = "part of the time in which somebody had it"
    busy = element("span", {"class": "busy", "title": hint}, "busy")
    return element("div", {"class": "lane head"}, element("span", {"class": "who"}), axis, busy)


def _lane(row: Lane, sums: Sums, start: float, span_s: float, marks: list[str]) -> Markup:
    frames, bars, depth = _drawn(row, start, span_s)
    height = depth * BAR + WAITS + 3
    lines = [element("line", {"x1": mark, "x2": mark, "y1": 0, "y2": height}) for mark in marks]
    waits = [
        _wait(hold, start, span_s, depth * BAR + 1)
        for hold in row.leases
        if hold.facts.queued_s > 0.0005 * span_s
    ]
    busy = percent(sums.busy) if row.device else ""
    told = f"busy {busy}" if row.device else "all waited in vain"
    attributes: Attributes = {
        "height": height,
        "role": "img",
        "aria-label": f"{row.name}: {plural(sums.tests, 'test')}, {told}",
    }
    return element(
        "div",
        {"class": "lane", "data-d": row.device},
        _who(row),
        element("svg", attributes, *lines, *waits, *frames, *bars),
        element("span", {"class": "busy"}, busy),
    )


def _who(row: Lane) -> Markup:
    nobody = [row.key, element("small", None, "no device given")]
    name = device_name(row.device, row.key) if row.device else nobody
    return element("span", {"class": "who", "title": row.name}, *name)


def _drawn(row: Lane, start: float, span_s: float) -> tuple[list[Child], list[Child], int]:
    """Frames of shared leases, the bars of all tests, and how many rows they take."""
    if not row.device:
        return [], [], 1
    shared = [hold for hold in row.leases if hold.facts.shared]
    frames = [_frame(hold, start, span_s) for hold in shared]
    packed, depth = _pack(row.holds)
    bars: list[Child] = [_bar(hold, level, start, span_s) for hold, level in packed]
    return [*frames], bars, depth


def _frame(hold: Hold, start: float, span_s: float) -> Markup:
    box: Attributes = {
        "class": "shared",
        "x": share((hold.from_at - start) / span_s),
        "width": share(max((hold.until_at - hold.from_at) / span_s, NARROWEST)),
        "y": 1,
        "height": BAR - 2,
    }
    tip = f"held by a fixture of wider scope for {duration(hold.until_at - hold.from_at)}"
    return element("rect", box, element("title", None, tip))


def _span(hold: Hold) -> tuple[float, float]:
    """When the attempt had the device; of a shared one, when it ran."""
    if not hold.facts.shared:
        return hold.from_at, hold.until_at
    begin = max(hold.from_at, hold.attempt.started_at)
    end = hold.attempt.started_at + hold.attempt.duration_s
    return begin, max(begin, min(end, hold.until_at))


def _pack(holds: list[Hold]) -> tuple[list[tuple[Hold, int]], int]:
    """Each hold with its row, so that none covers another; and how many rows that takes."""
    ends: list[float] = []
    packed = []
    for hold in sorted(holds, key=_span):
        begin, end = _span(hold)
        level = next((n for n, until in enumerate(ends) if until <= begin + 1e-3), len(ends))
        if level >= MOST_ROWS:  # too many: the row that was free first is drawn over
            level = ends.index(min(ends))
        if level == len(ends):
            ends.append(0.0)
        ends[level] = max(ends[level], end)
        packed.append((hold, level))
    return packed, max(len(ends), 1)


def _bar(hold: Hold, level: int, start: float, span_s: float) -> Markup:
    begin, end = _span(hold)
    left = (begin - start) / span_s
    width = max((end - begin) / span_s, NARROWEST)
    verdict = verdict_on(hold.record, hold.attempt)
    known = verdict if verdict in VERDICTS else "other"
    inset = 4 if verdict in ("passed", "flaky", "skipped") else 0
    box: Attributes = {
        "class": known,
        "x": share(left),
        "width": share(width),
        "y": level * BAR + 1 + inset,
        "height": BAR - 2 - 2 * inset,
    }
    rect = element("rect", box, element("title", None, _tip(hold, verdict)))
    if width < LETTERED:
        return rect
    place: Attributes = {
        "class": f"on {known}",
        "x": share(left + width / 2),
        "y": level * BAR + BAR // 2 + 4,
    }
    return joined([rect, element("text", place, letter(verdict))])


def _wait(hold: Hold, start: float, span_s: float, top: int) -> Markup:
    facts = hold.facts
    box: Attributes = {
        "class": "wait",
        "x": share((facts.asked_at - start) / span_s),
        "width": share(max(facts.queued_s / span_s, NARROWEST)),
        "y": top,
        "height": WAITS,
    }
    tip = f"{bare_name(hold.record)}\nwaited {duration(facts.queued_s)} for {facts.key}"
    return element("rect", box, element("title", None, tip))


def _tip(hold: Hold, verdict: str) -> str:
    facts = hold.facts.within(hold.attempt.started_at, hold.attempt.duration_s)
    again = f", attempt {hold.attempt.number}" if len(hold.record.attempts) > 1 else ""
    return (
        f"{bare_name(hold.record)}\n{verdict}{again}, held {duration(facts.held_s)}, "
        f"waited {duration(facts.queued_s)}, connected in {duration(facts.connect_s)}"
    )
