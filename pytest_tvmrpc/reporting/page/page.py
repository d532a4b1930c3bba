"""The page as a whole: its head, its sections in their order, and the file it becomes.

Every section is made by a module of its own.
"""

from __future__ import annotations

import shlex
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Iterable

from ..files import write_whole
from ..tally import tally
from .benchmarks import benchmarks
from .breakdown import breakdown
from .grid import grid
from .markup import Allowance, Attributes, Child, Markup, element
from .outline import lanes, shown_verdict, span
from .pieces import chip, fold, section, when
from .timeline import timeline
from .trouble import trouble
from .wording import VERDICTS, duration, plural

if TYPE_CHECKING:
    import os

    from ...benchmarking.store import Series
    from ...records import Run

SCHEMA = 1

LOGS = 700_000  # characters of tracebacks and output in all, as they stand in the file
EACH_LOG = 24_000

NAMES = {
    "trouble": "Trouble",
    "tests": "Tests",
    "timeline": "Time line",
    "times": "Times",
    "benchmarks": "Benchmarks",
}


def write_html(run: Run, path: str | os.PathLike[str], baselines: Iterable[Series] = ()) -> None:
    """Write the page of a run; folders that are missing are made.

    Args:
        run: what is known of it; it may still be going on.
        path: the file, which appears whole or not at all; see `write_whole`.
        baselines: the stored runs of its benchmarks, as benchmarking/store.py's `history` has them.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(path, html(run, baselines))


def html(run: Run, baselines: Iterable[Series] = ()) -> str:
    """The page as a text."""
    rows = lanes(run)
    sums = {row.name: row for row in tally(run).devices}
    start, end = span(run, rows)
    parts: dict[str, Child] = {
        "trouble": trouble(run, Allowance(LOGS, EACH_LOG)),
        "tests": grid(run, rows) if run.tests else None,
        "timeline": timeline(rows, sums, start, end) if rows else None,
        "times": breakdown(run, rows, sums) if rows else None,
        "benchmarks": benchmarks(run, baselines),
    }
    names = [name for name, part in parts.items() if part]
    body = element(
        "body",
        None,
        element("a", {"class": "skip", "href": "#main"}, "To the results"),
        _head(run, sum(bool(row.device) for row in rows)),
        _bar(run, names),
        element("main", {"id": "main"}, *parts.values(), _skipped(run)),
        _foot(),
        _script(),
    )
    page = element("html", {"lang": "en"}, _metadata(run), body)
    return f"<!DOCTYPE html>\n{page}\n"


def _metadata(run: Run) -> Markup:
    title, _ = _headline(run)
    return element(
        "head",
        None,
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("meta", {"name": "generator", "content": f"pytest-tvmrpc {_version()}"}),
        element("title", None, f"{title} · remote tests"),
        element("style", None, _own("style.css")),
    )


def _own(name: str) -> Markup:
    """A file of ours that stands in the page as it is."""
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _script() -> Markup:
    return element("script", None, _own("script.js"))


def _version() -> str:
    from ... import __version__

    return __version__


def _headline(run: Run) -> tuple[str, str]:
    """The result in a few words, and the verdict that colours it."""
    found = Counter(map(shown_verdict, run.tests))
    bad = [verdict for verdict in ("failed", "error", "infra") if found[verdict]]
    if bad:
        need = sum(found[verdict] for verdict in bad)
        verb = "needs" if need == 1 else "need"
        return f"{need:,} of {plural(len(run.tests), 'test')} {verb} a look", bad[0]
    if run.exitstatus > 0 and run.exitstatus != 5:
        return f"pytest ended with status {run.exitstatus}; no remote test failed", "failed"
    if not run.tests:
        return "No remote tests", "skipped"
    passed = found["passed"] + found["flaky"]
    if not passed:
        return f"{plural(len(run.tests), 'test')}, none of them passed", "skipped"
    flaky = f", {found['flaky']:,} of them not at once" if found["flaky"] else ""
    every = "All " if passed == len(run.tests) and passed > 1 else ""
    return f"{every}{plural(passed, 'test')} passed{flaky}", "flaky" if flaky else "passed"


def _head(run: Run, devices: int) -> Markup:
    title, verdict = _headline(run)
    found = Counter(map(shown_verdict, run.tests))
    names = [name for name in ("passed", "failed", "error", "infra", "flaky", "skipped")]
    names += [name for name in found if name not in names]
    counts = [
        element(
            "li",
            {"class": None if found[name] else "zero"},
            chip(name),
            element("b", None, f"{found[name]:,}"),
            " ",
            name,
        )
        for name in names
    ]
    return element(
        "header",
        {"class": f"top {verdict}"},
        element("p", {"class": "kicker"}, "Remote tests"),
        element("h1", None, title),
        element("ul", {"class": "counts", "aria-label": "Tests by result"}, *counts),
        _proportions(found, len(run.tests)),
        _facts(run, devices),
        *(element("p", {"class": "note"}, note) for note in run.notes),
    )


def _proportions(found: Counter[str], total: int) -> Child:
    if not total:
        return None
    left, parts = 0.0, []
    for verdict in VERDICTS:
        width = 100 * found[verdict] / total
        if width:
            box: Attributes = {
                "class": verdict,
                "x": f"{left:.2f}%",
                "width": f"{width:.2f}%",
                "height": 8,
            }
            parts.append(element("rect", box))
        left += width
    return element("svg", {"class": "proportions", "height": 8, "aria-hidden": "true"}, *parts)


def _facts(run: Run, devices: int) -> Markup:
    every = ", ".join(f"{count:,} {name}" for name, count in run.outcomes.items() if count)
    took = duration(run.duration_s) if run.ended_at else "still going on"
    facts: list[tuple[str, Child]] = [
        ("When", when(run.started_at)),
        ("Duration", took),
        ("Devices", f"{devices:,}" if devices else None),
        ("Keys", ", ".join(run.keys) or None),
        ("Tracker", run.tracker or "of this run alone"),
        ("All tests", every or None),
        ("Exit status", str(run.exitstatus) if run.exitstatus >= 0 else None),
        ("Command", _command(run.command)),
    ]
    pairs = [
        element("div", None, element("dt", None, name), element("dd", None, value))
        for name, value in facts
        if value
    ]
    return element("dl", {"class": "facts"}, *pairs)


def _command(arguments: list[str]) -> Child:
    return element("code", None, f"pytest {shlex.join(arguments)}".strip())


def _bar(run: Run, names: list[str]) -> Markup:
    """Links to the sections, and the filter, which only a script can show."""
    links = [element("li", None, element("a", {"href": f"#{name}"}, NAMES[name])) for name in names]
    used = Counter(map(shown_verdict, run.tests))
    buttons = [
        element(
            "button",
            {"type": "button", "data-s": verdict, "aria-pressed": "false", "title": verdict},
            chip(verdict),
            element("span", {"class": "unseen"}, ": show only these"),
        )
        for verdict in VERDICTS
        if used[verdict]
    ]
    devices = sorted({name for test in run.tests for a in test.attempts for name in a.names})
    options = [element("option", {"value": name}, name) for name in devices]
    search = {"type": "search", "placeholder": "Filter tests", "aria-label": "Filter tests by text"}
    tools = element(
        "div",
        {"class": "tools", "hidden": True},
        element("input", search),
        element(
            "select",
            {"aria-label": "Filter tests by device"},
            element("option", {"value": ""}, "all devices"),
            *options,
        ),
        element("span", {"class": "verdicts", "role": "group", "aria-label": "Results"}, *buttons),
        element("span", {"class": "shown", "role": "status"}),
        element("button", {"type": "button", "class": "theme"}, "Theme"),
    )
    links_list = element("nav", {"aria-label": "Sections"}, element("ul", None, *links))
    return element("div", {"class": "sticky"}, links_list, tools)


def _skipped(run: Run) -> Child:
    reasons: dict[str, list[str]] = {}
    for record in run.tests:
        if record.verdict == "skipped":
            reasons.setdefault(record.attempts[-1].message, []).append(record.nodeid)
    if not reasons:
        return None
    items = [
        fold(
            [reason or "no reason given", " ", element("span", {"class": "count"}, len(names))],
            element("ul", {"class": "names"}, *(element("li", None, name) for name in names)),
        )
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    return section("skipped", "Skipped", "By reason.", *items)


def _foot() -> Markup:
    return element("footer", None, f"Made by pytest-tvmrpc {_version()} · page schema {SCHEMA}")
