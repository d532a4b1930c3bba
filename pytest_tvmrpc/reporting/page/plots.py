"""The pictures of a benchmark: its median over the stored runs, and the samples of this one.

SVG with a fixed grid of coordinates, drawn in the page's colours; the figures stand in the table.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

from .markup import Attributes, Child, Markup, element
from .wording import day, duration

WIDTH, HEIGHT = 320, 132
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 22
LOG_FROM = 50.0
"""A scale is logarithmic where the largest value is more than so many times the smallest."""

MOST_SAMPLES = 120
MOST_POINTS = 50


class Point(NamedTuple):
    """One run in a trend."""

    at: float
    median_s: float
    low_s: float
    high_s: float
    label: str = ""
    is_current: bool = False


class Scale(NamedTuple):
    """From values to coordinates, along one axis."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Scale:
        """A scale on which all these values lie, with a little room at both ends."""
        low, high = min(values), max(values)
        positive = [value for value in values if value > 0]
        if positive and low > 0 and high / low > LOG_FROM:
            return cls(low / 1.2, high * 1.2, start, end, True)
        room = (high - low) * 0.12 or abs(high) * 0.1 or 1e-9
        return cls(max(low - room, 0.0) if low >= 0 else low - room, high + room, start, end, False)

    def place(self, value: float) -> float:
        """The coordinate of a value, to a tenth."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Three or so round values."""
        if self.is_log:
            lowest, highest = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            every = max(1, math.ceil((highest - lowest + 1) / 4))
            return [10.0**exponent for exponent in range(lowest, highest + 1, every)]
        rough = (self.high - self.low) / 3
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step) + 1)]


def trend(points: Sequence[Point], label: str) -> Markup:
    """The median of each run with the quartiles as a band; the current run is marked."""
    points = points[-MOST_POINTS:]
    values = [v for point in points for v in (point.median_s, point.low_s, point.high_s)]
    y = Scale.over(values, HEIGHT - BOTTOM, TOP)
    inner = WIDTH - LEFT - RIGHT - 12
    x = [round(LEFT + 6 + inner * n / max(len(points) - 1, 1), 1) for n in range(len(points))]
    upper = [f"{px},{y.place(p.high_s)}" for px, p in zip(x, points)]
    lower = [f"{px},{y.place(p.low_s)}" for px, p in zip(x, points)]
    middle = [f"{px},{y.place(p.median_s)}" for px, p in zip(x, points)]
    dots = [_dot(px, y.place(p.median_s), p) for px, p in zip(x, points)]
    return _picture(
        label,
        _lines(y),
        element("polygon", {"class": "band", "points": " ".join([*upper, *reversed(lower)])}),
        element("polyline", {"class": "median", "points": " ".join(middle)}),
        *dots,
        *_ends(points),
    )


def _dot(x: float, y: float, point: Point) -> Markup:
    box: Attributes = {
        "class": "now" if point.is_current else "past",
        "cx": f"{x:g}",
        "cy": f"{y:g}",
        "r": "4" if point.is_current else "2.5",
    }
    tip = (
        f"{duration(point.median_s)}, quartiles {duration(point.low_s)} to {duration(point.high_s)}"
    )
    name = "this run" if point.is_current else point.label
    title = "\n".join(part for part in (name, day(point.at), tip) if part)
    return element("circle", box, element("title", None, title))


def _ends(points: Sequence[Point]) -> list[Child]:
    """The dates below the first and the last run."""
    place: Attributes = {"class": "tick", "y": HEIGHT - 6}
    last = "this run" if points[-1].is_current else day(points[-1].at)
    first = element("text", {**place, "x": LEFT}, day(points[0].at)) if len(points) > 1 else None
    return [first, element("text", {**place, "x": WIDTH - RIGHT, "text-anchor": "end"}, last)]


def strip(samples: Sequence[float], median_s: float, label: str) -> Markup:
    """Every sample of this run as a point, in the order of measuring, and their median."""
    step = max(1, math.ceil(len(samples) / MOST_SAMPLES))
    shown = samples[::step]
    y = Scale.over([*shown, median_s], HEIGHT - BOTTOM, TOP)
    inner = WIDTH - LEFT - RIGHT - 12
    places = [
        f"M{LEFT + 6 + inner * n / max(len(shown) - 1, 1):.1f},{y.place(value):g}h0"
        for n, value in enumerate(shown)
    ]
    dots = element("path", {"class": "samples", "d": "".join(places)})
    level = f"{y.place(median_s):g}"
    line: Attributes = {
        "class": "median",
        "x1": LEFT,
        "x2": WIDTH - RIGHT,
        "y1": level,
        "y2": level,
    }
    count = f"{len(samples)} samples" if step == 1 else f"{len(shown)} of {len(samples)} samples"
    place: Attributes = {"class": "tick", "x": WIDTH - RIGHT, "y": HEIGHT - 6, "text-anchor": "end"}
    return _picture(label, _lines(y), element("line", line), dots, element("text", place, count))


def _lines(y: Scale) -> list[Child]:
    found: list[Child] = []
    for value in y.ticks():
        level = y.place(value)
        line: Attributes = {"class": "rule", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": f"{level:g}"}
        place: Attributes = {
            "class": "tick",
            "x": LEFT - 6,
            "y": f"{level + 3.5:g}",
            "text-anchor": "end",
        }
        found.append(element("line", {**line, "y2": f"{level:g}"}))
        found.append(element("text", place, duration(value)))
    return found


def _picture(label: str, *children: Child) -> Markup:
    attributes: Attributes = {
        "class": "plot",
        "viewBox": f"0 0 {WIDTH} {HEIGHT}",
        "role": "img",
        "aria-label": label,
    }
    return element("svg", attributes, *children)
