"""Where the time went: stacked bars, with their numbers, of each device and of the slowest tests.

A bar has the parts that a user can do something about; the numbers beside it are sorted by a click.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping, NamedTuple

from .markup import Attributes, Child, Markup, element
from .outline import bare_name, shown_verdict
from .pieces import chip, column, device_name, number, section, share, table, time
from .wording import duration, percent, size

if TYPE_CHECKING:
    from ...records import RemoteFacts, Run, TestRecord
    from ..tally import Sums
    from .outline import Lane

SLOWEST = 10
HEIGHT = 14

PARTS = {
    "queue": "waiting until the tracker gave a device",
    "connect": "until the session stood",
    "upload": "files sent and fetched",
    "call": "waiting for answers, without uploads and measurements",
    "device": "measured on the device by time_evaluator",
    "own": "had the device and asked it nothing: the test's own work",
}


class Times(NamedTuple):
    """Seconds in each of `PARTS`; they do not overlap."""

    queue: float = 0.0
    connect: float = 0.0
    upload: float = 0.0
    call: float = 0.0
    device: float = 0.0
    own: float = 0.0


def times_of_device(lane: Lane, sums: Sums) -> Times:
    """The sums of a device; a shared lease counts once."""
    held_s = sum(hold.facts.held_s for hold in lane.leases)
    own_s = max(held_s - sums.call_s, 0.0)
    return _apart(sum(sums.waits), sums.connect_s, sums.upload_s, sums.call_s, sums.device_s, own_s)


def times_of_test(record: TestRecord) -> Times:
    """The sums of all attempts of a test; of a shared lease, what lay within them."""
    found = [_times(facts) for attempt in record.attempts for facts in attempt.shares]
    return Times(*map(sum, zip(*found))) if found else Times()


def _times(facts: RemoteFacts) -> Times:
    own_s = max(facts.held_s - facts.call_s, 0.0)
    waits = (facts.queued_s, facts.connect_s)
    return _apart(*waits, facts.upload_s, facts.call_s, facts.device_s, own_s)


def _apart(
    queue: float, connect: float, upload: float, call: float, device: float, own: float
) -> Times:
    """What lies within the calls is taken out of them."""
    upload = min(upload, call)
    device = min(device, call - upload)
    return Times(queue, connect, upload, call - upload - device, device, own)


def breakdown(run: Run, lanes: list[Lane], sums: Mapping[str, Sums]) -> Markup:
    """The section with both tables."""
    slowest = sorted(run.tests, key=_total_s, reverse=True)[:SLOWEST]
    slowest = [record for record in slowest if _total_s(record) > 0]
    return section(
        "times",
        "Where the time went",
        "Bars share one scale in each table.",
        _key(),
        _device_table([lane for lane in lanes if lane.device], sums),
        element("h3", None, f"Slowest {len(slowest)} tests") if slowest else None,
        _test_table(slowest) if slowest else None,
    )


def _total_s(record: TestRecord) -> float:
    return sum(times_of_test(record))


def _key() -> Markup:
    items = [
        element(
            "li",
            {"title": meaning},
            element(
                "svg",
                {"class": "swatch", "width": 12, "height": 12, "aria-hidden": "true"},
                element("rect", {"class": f"t-{name}", "width": 12, "height": 12}),
            ),
            name,
        )
        for name, meaning in PARTS.items()
    ]
    return element("ul", {"class": "legend", "aria-label": "Parts of the bars"}, *items)


def _bar(times: Times, longest_s: float) -> Markup:
    left, parts = 0.0, []
    for name, value in zip(PARTS, times):
        width = value / longest_s if longest_s else 0.0
        if width > 0.0005:
            box: Attributes = {
                "class": f"t-{name}",
                "x": share(left),
                "width": share(width),
                "height": HEIGHT,
            }
            tip = element("title", None, f"{name}: {duration(value)}\n{PARTS[name]}")
            parts.append(element("rect", box, tip))
        left += width
    svg = element("svg", {"height": HEIGHT, "aria-hidden": "true"}, *parts)
    return element("td", {"class": "bar"}, svg)


def _numbers(times: Times) -> list[Markup]:
    return [number(element("b", None, duration(sum(times))), sum(times)), *map(time, times)]


def _heads() -> list[Child]:
    return [column("Total"), *(column(name.title(), hint=text) for name, text in PARTS.items())]


def _device_table(lanes: list[Lane], sums: Mapping[str, Sums]) -> Child:
    if not lanes:
        return element("p", {"class": "none"}, "No test was given a device.")
    times = [times_of_device(lane, sums[lane.name]) for lane in lanes]
    longest_s = max(map(sum, times))
    heads = [
        column("Device", numeric=False),
        column("Share", numeric=False),
        *_heads(),
        column("Busy", hint="part of the run in which somebody had it"),
        column("Wait p50", hint="half of the attempts waited no longer"),
        column("p95", hint="19 of 20 attempts waited no longer"),
        column("Sent"),
        column("Received"),
    ]
    lines = [
        _device_line(lane, sums[lane.name], spent, longest_s) for lane, spent in zip(lanes, times)
    ]
    return table("times sortable", "Time of each device", heads, lines)


def _device_line(lane: Lane, row: Sums, spent: Times, longest_s: float) -> Markup:
    return element(
        "tr",
        None,
        element("th", {"scope": "row"}, *device_name(lane.device, lane.key)),
        _bar(spent, longest_s),
        *_numbers(spent),
        number(percent(row.busy), row.busy),
        time(row.wait_p50_s),
        time(row.wait_p95_s),
        number(size(row.bytes_sent), row.bytes_sent),
        number(size(row.bytes_received), row.bytes_received),
    )


def _test_head(record: TestRecord) -> Markup:
    path = record.nodeid.partition("::")[0]
    name = element("span", None, bare_name(record), element("small", None, path))
    return element(
        "th", {"scope": "row", "title": record.nodeid}, chip(shown_verdict(record)), name
    )


def _test_table(records: list[TestRecord]) -> Markup:
    longest_s = _total_s(records[0])
    heads = [column("Test", numeric=False), column("Share", numeric=False), *_heads()]
    lines = [
        element(
            "tr",
            None,
            _test_head(record),
            _bar(times_of_test(record), longest_s),
            *_numbers(times_of_test(record)),
        )
        for record in records
    ]
    return table("times sortable", "Slowest tests", heads, lines)
