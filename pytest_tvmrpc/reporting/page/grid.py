"""The grid of tests by devices: a row for each test, a cell for each device that ran it.

Where there are more devices than fit beside one another, the columns are their keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from .markup import Child, Markup, element
from .outline import shown_verdict, split_name, verdict_on
from .pieces import chip, column, device_name, legend, section
from .wording import VERDICTS, duration, letter, plural

if TYPE_CHECKING:
    from ...records import Attempt, Run, TestRecord
    from .outline import Lane

WIDEST = 12  # devices side by side; beyond them, keys


def grid(run: Run, rows: list[Lane]) -> Markup:
    """The section with all tests."""
    real = [row for row in rows if row.device]
    by_key = len(real) > WIDEST
    keys = list(dict.fromkeys([*(row.key for row in rows), *run.keys]))
    heads = (
        [column(key, hint=f"all devices of {key}") for key in keys]
        if by_key
        else [_device_head(row) for row in real]
    )
    names = keys if by_key else [row.device for row in real]
    by = "by key, as there are too many devices for a column each" if by_key else "by device"
    lead = f"{plural(len(run.tests), 'remote test')}: verdict and duration of each attempt, {by}."
    used = {verdict_on(record, attempt) for record in run.tests for attempt in record.attempts}
    return section(
        "tests",
        "Tests",
        lead,
        legend([verdict for verdict in VERDICTS if verdict in used]),
        element(
            "div",
            {"class": "scroll tall", "role": "region", "aria-label": "Tests", "tabindex": 0},
            _table(run, names, heads, by_key),
        ),
        element("p", {"class": "none", "hidden": True}, "No test matches the filter."),
    )


def _device_head(row: Lane) -> Markup:
    return column(device_name(row.device, row.key), hint=row.device)


def _table(run: Run, names: list[str], heads: list[Markup], by_key: bool) -> Markup:
    head = element(
        "tr",
        None,
        column("Test", numeric=False),
        column("Result", numeric=False),
        *heads,
        column("Total", hint="all attempts together"),
    )
    bodies = []
    for path, rows in _by_file(run.tests):
        title = element("th", {"colspan": len(names) + 3, "scope": "rowgroup"}, path)
        first = element("tr", {"class": "file"}, title)
        lines = [_line(name, records, names, by_key) for name, records in rows]
        bodies.append(element("tbody", None, first, *lines))
    return element("table", {"class": "grid"}, element("thead", None, head), *bodies)


def _by_file(
    tests: Iterable[TestRecord],
) -> Iterable[tuple[str, Iterable[tuple[str, list[TestRecord]]]]]:
    files: dict[str, dict[str, list[TestRecord]]] = {}
    for record in tests:
        path, name = split_name(record)
        files.setdefault(path, {}).setdefault(name, []).append(record)
    return [(path, list(rows.items())) for path, rows in files.items()]


def _line(name: str, records: list[TestRecord], names: list[str], by_key: bool) -> Markup:
    cells: dict[str, list[Child]] = {}
    total_s = 0.0
    for record in records:
        for attempt in record.attempts:
            total_s += attempt.duration_s
            places = [facts.key for facts in attempt.devices] if by_key else list(attempt.names)
            for place in dict.fromkeys(places):
                cells.setdefault(place, []).append(_outcome(record, attempt, by_key))
    order = list(VERDICTS)
    found = {shown_verdict(record) for record in records}
    verdicts = sorted(found, key=lambda verdict: order.index(verdict) if verdict in order else 0)
    return element(
        "tr",
        {"data-s": " ".join(verdicts), "data-d": _devices(records)},
        element("th", {"scope": "row"}, name),
        element(
            "td",
            {"data-v": order.index(verdicts[0]) if verdicts[0] in order else -1},
            *map(chip, verdicts),
        ),
        *(
            element("td", {"class": "n"} if place in cells else None, *cells.get(place, ()))
            for place in names
        ),
        element("td", {"class": "n", "data-v": f"{total_s:.4g}"}, duration(total_s)),
    )


def _devices(records: list[TestRecord]) -> str:
    """The devices of a row as the filter compares them, one in a line."""
    names = (name for record in records for attempt in record.attempts for name in attempt.names)
    return "\n".join(dict.fromkeys(names))


def _outcome(record: TestRecord, attempt: Attempt, by_key: bool) -> Markup:
    verdict = verdict_on(record, attempt)
    where = ", ".join(attempt.names) or "no device"
    hint = f"{verdict} on {where}" if by_key else None
    known = verdict if verdict in VERDICTS else "other"
    mark = element("i", {"class": f"mark {known}", "title": hint or verdict}, letter(verdict))
    return element("span", {"class": "o"}, mark, duration(attempt.duration_s))
