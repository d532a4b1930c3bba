"""The benchmarks of the run: a table with the comparison, and two plots for each of them.

What was measured and compared stands in the attempts, as benchmarking/records.py writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

from .markup import Child, Markup, element
from .outline import short_device
from .pieces import column, number, section, table
from .plots import Point, strip, trend
from .wording import ABSENT, change, day, duration, plural, rate

if TYPE_CHECKING:
    from ...benchmarking.store import Series
    from ...records import Run

MOST_FIGURES = 80

SIGNS = {"slower": "▲", "noisy": "≈", "new": "+", "faster": "▼", "same": "="}
"""The sign of each verdict of a comparison, what needs a look first."""

Benchmark = Mapping[str, Any]


def found_in(run: Run) -> list[Benchmark]:
    """The benchmarks of the last attempt of each test: failures first, then the slower ones."""
    every = [one for record in run.tests for one in record.attempts[-1].benchmarks]
    return sorted(every, key=_urgency)


def _urgency(one: Benchmark) -> tuple[bool, int, float]:
    verdicts = list(SIGNS)
    verdict = one.get("verdict", "")
    place = verdicts.index(verdict) if verdict in verdicts else len(verdicts)
    return not one.get("fails"), place, -abs(one.get("change") or 0.0)


def benchmarks(run: Run, baselines: Iterable[Series]) -> Markup | None:
    """The section; nothing if nothing was measured."""
    found = found_in(run)
    if not found:
        return None
    stored = {(one.test, one.name, one.model, one.key): one for one in baselines}
    figures = [_figure(one, stored.get(_identity(one)), run) for one in found[:MOST_FIGURES]]
    left_out = len(found) - len(figures)
    note = f"{plural(left_out, 'more benchmark')} without plots." if left_out > 0 else None
    return section(
        "benchmarks",
        "Benchmarks",
        "Seconds for one call, measured on the device. Less is better, but for the rates.",
        _table(found),
        element("div", {"class": "figures"}, *figures),
        element("p", {"class": "muted"}, note) if note else None,
    )


def _identity(one: Benchmark) -> tuple[str, str, str, str]:
    return one.get("test", ""), one["name"], one.get("model", ""), one["key"]


def _table(found: Sequence[Benchmark]) -> Markup:
    heads = [
        column("Benchmark", numeric=False),
        column("Device", numeric=False),
        column("Median"),
        column("MAD", hint="median distance from the median: half of the samples are nearer"),
        column("IQR", hint="distance between the quartiles"),
        column("Samples", hint="samples, and calls in each"),
        column("GFLOP/s"),
        column("GB/s"),
        column("Before"),
        column("Change"),
        column("Result", numeric=False),
    ]
    return table("benches sortable", "Benchmarks", heads, map(_line, found))


def _line(one: Benchmark) -> Markup:
    median_s = one["median_s"]
    before_s = one.get("baseline_median_s") or 0.0
    compared = bool(before_s)
    spread = [one[name] / median_s if median_s else None for name in ("mad_s", "iqr_s")]
    return element(
        "tr",
        None,
        element("th", {"scope": "row"}, one["name"], element("small", None, one.get("test"))),
        element("td", {"title": one.get("device")}, _device(one)),
        number(element("b", None, duration(median_s)), median_s),
        *(number(_fine(part), part) for part in spread),
        number(_samples(one), len(one["samples_s"])),
        number(rate(one.get("gflops")), one.get("gflops") or 0.0),
        number(rate(one.get("gbps")), one.get("gbps") or 0.0),
        number(_before(one) if compared else ABSENT, before_s),
        number(change(one.get("change")) if compared else ABSENT, one.get("change") or 0.0),
        element("td", {"title": one.get("note") or None}, *_result(one)),
    )


def _before(one: Benchmark) -> Child:
    hint = f"{one.get('baseline') or 'stored run'}, {day(one.get('baseline_at') or 0.0)}"
    return element("span", {"title": hint}, duration(one["baseline_median_s"]))


def _samples(one: Benchmark) -> str:
    return f"{len(one['samples_s'])} \N{MULTIPLICATION SIGN} {one['number']}"


def _fine(part: float | None) -> str:
    return ABSENT if part is None else f"{part * 100:.1f} %"


def _device(one: Benchmark) -> Child:
    where = short_device(one.get("device", ""), one["key"])
    return [one["key"], element("small", None, one.get("model") or where)]


def _result(one: Benchmark) -> list[Child]:
    verdict = one.get("verdict") or ""
    if not verdict:
        return [element("span", {"class": "dim"}, "not compared")]
    known = verdict if verdict in SIGNS else "other"
    name = "bench " + known + (" fails" if one.get("fails") else "")
    result = element("span", {"class": name}, element("b", None, SIGNS.get(verdict, "?")), verdict)
    likely = one.get("p_value")
    if verdict in ("slower", "faster") and likely is not None:
        chance = f"p {likely:.2g}" if likely >= 1e-4 else "p < 0.0001"
        return [result, element("small", None, chance)]
    return [result]


def _figure(one: Benchmark, series: Series | None, run: Run) -> Markup:
    points = _points(one, series, run)
    where = f"{one['name']} on {one.get('model') or one['key']}"
    medians = f"from {duration(points[0].median_s)} to {duration(points[-1].median_s)}"
    caption = element(
        "figcaption",
        None,
        element("b", None, one["name"]),
        " ",
        element("span", {"class": "muted"}, one["key"], " · ", one.get("model") or one["device"]),
        element("span", {"class": "right"}, *_result(one)) if one.get("verdict") else None,
    )
    over = (
        element(
            "div",
            None,
            element("h4", None, f"{len(points) - 1} stored runs and this one"),
            trend(points, f"{where}, median of {len(points)} runs, {medians}"),
        )
        if len(points) > 1
        else None
    )
    median_s = one["median_s"]
    label = f"{where}, {len(one['samples_s'])} samples of this run, median {duration(median_s)}"
    within = element(
        "div",
        None,
        element("h4", None, "Samples of this run"),
        strip(one["samples_s"], median_s, label),
    )
    return element("figure", None, caption, over, within)


def _points(one: Benchmark, series: Series | None, run: Run) -> list[Point]:
    """The stored runs, without this one if it has been stored already, and then this one."""
    now = run.ended_at or run.started_at
    stored = [
        Point(point.saved_at, point.median_s, point.q1_s, point.q3_s, point.run)
        for point in (series.points if series else ())
        if abs(point.saved_at - now) > 1e-3
    ]
    low, high = one.get("q1_s", one["median_s"]), one.get("q3_s", one["median_s"])
    return [*stored, Point(now, one["median_s"], low, high, "", True)]
