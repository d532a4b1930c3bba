"""The HTML page of a run: what it says, that nothing hostile gets in, that a browser likes it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import fields, is_dataclass
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any, Iterator

import pytest

from pytest_tvmrpc.records import Attempt, RemoteFacts, Run, TestRecord
from pytest_tvmrpc.reporting.page import html, write_html
from pytest_tvmrpc.reporting.page.breakdown import times_of_device, times_of_test
from pytest_tvmrpc.reporting.page.markup import VOID, Allowance, Markup, clean, element, joined
from pytest_tvmrpc.reporting.page.outline import lanes, span, split_name
from pytest_tvmrpc.reporting.page.plots import Point, Scale, trend
from pytest_tvmrpc.reporting.page.timeline import timeline
from pytest_tvmrpc.reporting.page.wording import duration, time_ticks
from pytest_tvmrpc.reporting.tally import tally

from .sample_run import START, Series, large_run, sample_history, sample_run
from .sample_run import Point as StoredPoint

MARKUP = "<script>alert(1)</script><img src=x onerror=y>]]>&lt;"
HOSTILE = f"\"'>{MARKUP}\0\ud800\x1b[31mred\x1b[0m\u202e"


class Reader(HTMLParser):
    """Takes a page apart, and complains where a tag is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that can be read."""
        return " ".join(self.texts)

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        """The attributes of each element of this tag and, if given, class."""
        return [a for t, a in self.tags if t == tag and name in (a.get("class") or "").split()] or [
            a for t, a in self.tags if t == tag and not name
        ]


def texts_of(thing: Any) -> Iterator[tuple[Any, str]]:
    """Every text field of the records below, as an object and the field's name."""
    for spot in fields(thing):
        value = getattr(thing, spot.name)
        if isinstance(value, str):
            yield thing, spot.name
        elif isinstance(value, list):
            for item in value:
                if is_dataclass(item):
                    yield from texts_of(item)


@pytest.fixture(name="page", scope="module")
def _page() -> str:
    run = sample_run()
    return html(run, sample_history(run))


def test_well_formed(page):
    """Every tag is closed in its order, no identifier stands twice, every label has its target."""
    found = Reader(page)
    identifiers = [a["id"] for _, a in found.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert {a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a} <= {*identifiers}
    assert {a["href"][1:] for _, a in found.tags if "href" in a} <= {*identifiers}
    assert page.startswith("<!DOCTYPE html>\n<html lang=")


def test_self_contained(page):
    """Nothing is loaded from anywhere: no address, no import, no source."""
    found = Reader(page)
    assert not [a for _, a in found.tags if "src" in a or "srcset" in a or "data" in a]
    assert all(a["href"].startswith("#") for _, a in found.tags if "href" in a)
    assert not re.search(r"https?://|//\w+\.\w+/|@import|url\(", page)


def test_headings(page):
    """One first heading; below it, no level is jumped over."""
    levels = [int(tag[1]) for tag, _ in Reader(page).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 or after == 4 for before, after in zip(levels, levels[1:]))


def test_says_what_happened(page):
    """Counts, trouble with each attempt, device output, notes on waits, benchmarks: all as text."""
    text = Reader(page).text
    for expected in (
        "3 of 40 tests need a look",
        "farm.example:9190",
        "pytest -n 4 --rpc-key=jetson,rpi4",
        "162 passed, 1 failed, 1 error, 1 infra, 7 skipped",
        "AssertionError: Not equal to tolerance",
        "[softmax] warning: denormals flushed",
        "waited 20.0 s for hexagon in vain",
        "the connection to jetson@10.0.0.12:9090 was lost after 3.1 s",
        "no device `mali` is served",
        "61 C",
        "+17.1 %",
        "NVIDIA Jetson Orin NX",
        "18 stored runs and this one",
    ):
        assert expected in text
    assert "\x1b" not in page
    assert "[33m" not in page


def test_trouble_comes_in_order(page):
    """Failed tests first, then errors, infra, flaky ones; a flaky one shows both attempts."""
    cards = re.findall(r'<article class="test" data-s="(\w+)".*?</article>', page, flags=re.S)
    assert cards == ["failed", "error", "infra", "flaky", "flaky"]
    flaky = re.findall(r"<article.*?</article>", page, flags=re.S)[-1]
    verdicts = re.findall(r'class="name">(\w+)<', flaky)
    devices = re.findall(r'class="device">([^<]+)<', flaky)
    assert verdicts == ["lost", "passed"]
    assert devices == ["jetson@10.0.0.12:9090", "jetson@10.0.0.11:9090"]


def test_nothing_hostile_gets_in():
    """Markup in any text of a run comes out as text: the same elements, no new attributes."""
    run = sample_run()
    harmless = Reader(html(run, sample_history(run)))
    tags = {tag for tag, _ in harmless.tags}
    names = {name for _, a in harmless.tags for name in a}
    for thing, name in list(texts_of(run)):
        object.__setattr__(thing, name, f"{getattr(thing, name)}{HOSTILE}")  # also if frozen
    run.keys, run.command, run.notes = [HOSTILE], [HOSTILE], [HOSTILE]
    run.outcomes = {HOSTILE: 3}
    for record in run.tests:
        for one in record.attempts[-1].benchmarks:
            for name in ("test", "name", "key", "model", "device", "verdict", "baseline", "note"):
                one[name] = HOSTILE
        record.attempts[-1].extra = {HOSTILE: {HOSTILE: HOSTILE}}
    points = [StoredPoint(9, HOSTILE, 1, 1, 1)]
    page = html(run, [Series(HOSTILE, HOSTILE, HOSTILE, HOSTILE, points)])
    found = Reader(page)
    assert {tag for tag, _ in found.tags} <= tags
    assert len([tag for tag, _ in found.tags if tag == "script"]) == 1
    assert {name for _, a in found.tags for name in a} <= names
    assert MARKUP in found.text
    assert not re.search("[\0\x1b\u202e\ud800-\udfff]", page)
    page.encode()


@pytest.mark.parametrize("field", ["details", "output", "message"])
@pytest.mark.parametrize(
    "text", ["</pre>", "</script>", "]]>", "<!--", "a\0b", "\ud83d", "\x9b31m"]
)
def test_hostile_logs(field, text):
    """What ends elements elsewhere does not end them in a log."""
    attempt = Attempt(1, "failed", START, 1.0, **{field: f"before {text} after"})
    page = html(Run(tests=[TestRecord("t.py::t", "", [attempt])]))
    assert f"before {clean(text)} after" in Reader(page).text
    page.encode()


def test_only_the_markup_module_makes_markup():
    """Nobody else turns a text into `Markup`, but for two files of ours that are in the page."""
    made = []
    folder = Path(str(resources.files("pytest_tvmrpc.reporting.page")))
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Markup"):
                made.append(path.name)
    assert sorted(set(made)) == ["markup.py", "page.py"]
    assert made.count("page.py") == 1


def test_markup_escapes():
    """Texts are escaped, in attributes as well; markup is not escaped again; a sum is text."""
    inner = element("b", {"title": '"<'}, "a < b")
    assert inner == '<b title="&quot;&lt;">a &lt; b</b>'
    assert element("i", None, inner, None, ["&", 3]) == f"<i>{inner}&amp;3</i>"
    assert element("p", None, inner + "<") != f"<p>{inner}&lt;</p>"
    assert "<b" not in element("p", None, inner + "<")
    assert element("a", {"hidden": True, "open": False, "x": None}) == "<a hidden></a>"
    assert isinstance(joined(["<"]), Markup)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\text", "text"),
        ("10%\r50%\r\ndone", "10%\n50%\ndone"),
        ("a\tb\n", "a\tb\n"),
        ("\0\x07\x9b\ufffe", "\ufffd" * 4),
        ("\x1b(B\x1bMx\x1b", "x"),
        ("ä€😀", "ä€😀"),
    ],
)
def test_clean(raw, shown):
    """Escape sequences of terminals go; what no page may hold is replaced; the rest stays."""
    assert clean(raw) == shown


def test_allowance():
    """Long logs keep both ends and say what is missing; when the page is full, only that."""
    allowance = Allowance(3000, 1000)
    cut = allowance.cut("A" * 5000 + "Z" * 5000)
    assert cut.startswith("A" * 250 + "\n[... 9,000 characters")
    assert cut.endswith("Z" * 750)
    assert allowance.cut("short") == "short"
    for _ in range(3):
        last = allowance.cut("<" * 900)
    assert last.startswith("[... 900 characters are left out here")


def test_large_run(tmp_path):
    """1,000 tests with two attempts each: 3 MB at most, and the time grows as the tests do."""
    for text, devices in (("", 3), ("", 40), ("x" * 200 + "\n" + "y<&>\n" * 4000, 3)):
        path = tmp_path / "page.html"
        runs = {tests: large_run(tests, devices, text) for tests in (100, 1000)}
        seconds: dict[int, list[float]] = {tests: [] for tests in runs}
        for _ in range(2):
            for tests, spent in seconds.items():
                start = time.process_time()
                write_html(runs[tests], path)
                spent.append(time.process_time() - start)
        assert path.stat().st_size < 3_000_000
        assert min(seconds[1000]) < 30 * min(seconds[100])


def test_file(tmp_path):
    """The folder is made, nothing else is left in it, and a second page replaces the first."""
    path = tmp_path / "deep" / "page.html"
    write_html(Run(), path)
    write_html(sample_run(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]
    assert "3 of 40 tests" in path.read_text(encoding="utf-8")


def test_page_of_nothing():
    """A run without remote tests, one that goes on, and one whose local tests failed say so."""
    assert "No remote tests" in Reader(html(Run())).text
    attempt = Attempt(1, "passed", START, 1.0, devices=[RemoteFacts("a", "a@h:1", START)])
    run = Run(started_at=START, tests=[TestRecord("t.py::t", "", [attempt])])
    assert "still going on" in Reader(html(run)).text
    assert "1 test passed" in Reader(html(run)).text
    run.exitstatus = 1
    assert "pytest ended with status 1; no remote test failed" in Reader(html(run)).text


def test_unknown_verdicts_and_times():
    """A verdict of another plugin, and clocks that tell nonsense, do not stop the page."""
    facts = RemoteFacts("k", "odd name", asked_at=1e18, queued_s=-3.0, held_s=float("inf"))
    attempt = Attempt(1, "exotic", 1e18, float("nan"), devices=[facts])
    page = html(Run(started_at=1e18, ended_at=2.0, tests=[TestRecord("t", "", [attempt])]))
    assert "exotic" in Reader(page).text


def test_grid_has_a_row_for_each_test(page):
    """A test that ran once for each key is one row, with its result on each device."""
    grid = re.search(r'<table class="grid">.*?</table>', page, flags=re.S)
    assert grid is not None
    rows = {
        Reader(row).texts[0]: row for row in re.findall(r"<tr data-s.*?</tr>", grid[0], flags=re.S)
    }
    softmax = re.findall(r'class="mark (\w+)"', rows["test_softmax"])
    assert sorted(softmax) == ["failed", "passed"]
    assert "test_conv2d[1x1-NCHW]" in rows
    assert re.findall(r'class="mark (\w+)"', rows["test_gemm[256]"]) == ["flaky", "lost", "passed"]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("a.py::test[rpi4]", "test"),
        ("a.py::test[rpi4-3]", "test[3]"),
        ("a.py::test[3-rpi4]", "test[3]"),
        ("a.py::test[1-rpi4-x]", "test[1-x]"),
        ("a.py::test[rpi40]", "test[rpi40]"),
        ("a.py::test", "test"),
    ],
)
def test_row_names(name, row):
    """The key is taken out of a test's parameters, wherever it stands among them."""
    attempt = Attempt(1, "passed", devices=[RemoteFacts("rpi4", "rpi4@h:1")])
    assert split_name(TestRecord(name, "", [attempt])) == ("a.py", row)


def test_grid_of_many_devices_is_by_key():
    """With more devices than fit, a column stands for a key; the cell says which device it was."""
    page = html(large_run(60, 40))
    heads = re.findall(r'<table class="grid"><thead>(.*?)</thead>', page, flags=re.S)[0]
    assert [name for name in Reader(heads).texts if name in ("jetson", "rpi4", "pixel")]
    assert "10.0.39.1" not in heads
    assert 'title="lost on jetson@10.0.0.1:9090"' in page


def lane_of(run: Run) -> list[dict[str, str | None]]:
    """The bars and waits of a run's time line."""
    rows = lanes(run)
    start, end = span(run, rows)
    drawn = timeline(rows, {row.name: row for row in tally(run).devices}, start, end)
    return [a for tag, a in Reader(drawn).tags if tag == "rect"]


def run_of(*attempts: Attempt, ended_at: float = START + 100.0) -> Run:
    tests = [TestRecord(f"t.py::t{n}", "gw0", [a]) for n, a in enumerate(attempts)]
    return Run(started_at=START, ended_at=ended_at, tests=tests)


def test_timeline_places():
    """A bar goes from the end of the wait to the return; the wait lies below and before it."""
    facts = RemoteFacts("k", "k@h:1", START + 10.0, queued_s=20.0, connect_s=1.0, held_s=29.0)
    wait, bar = lane_of(run_of(Attempt(1, "failed", START + 10.0, 50.0, devices=[facts])))
    assert (wait["class"], wait["x"], wait["width"]) == ("wait", "10%", "20%")
    assert (bar["class"], bar["x"], bar["width"]) == ("failed", "30%", "30%")
    assert int(wait["y"]) >= int(bar["y"]) + int(bar["height"])


def test_timeline_of_a_shared_lease():
    """Tests that share a lease lie within its frame, each where it ran, beside one another."""
    run = run_of(*sharing((0.0, 25.0), (40.0, 45.0)))
    wait, frame, *bars = lane_of(run)
    assert (wait["class"], wait["x"], wait["width"]) == ("wait", "0%", "4%")
    assert (frame["class"], frame["x"], frame["width"]) == ("shared", "4%", "41%")
    assert [(bar["x"], bar["width"], bar["y"]) for bar in bars] == [
        ("4%", "21%", "5"),
        ("40%", "5%", "5"),
    ]
    page = html(run)
    assert page.count("waited 4.00 s for k<") == 1
    assert "t0\nwaited 4.00 s for k<" in page
    assert "t1\npassed, held 5.00 s, waited 0 s, connected in 0 s" in page


def sharing(*spans: tuple[float, float]) -> list[Attempt]:
    """Attempts from and to, in seconds from the start, that share what the first of them took."""
    return [
        Attempt(
            1,
            "passed",
            START + begin,
            end - begin,
            devices=[RemoteFacts("k", "k@h:1", START, 4.0, 6.0, end - 10.0, shared=True)],
        )
        for begin, end in spans
    ]


def test_times_of_a_shared_lease():
    """The device was held all the time; of the tests only the first waited."""
    run = run_of(*sharing((0.0, 25.0), (40.0, 45.0)))
    first, second = map(times_of_test, run.tests)
    assert first == (4.0, 6.0, 0.0, 0.0, 0.0, 15.0)
    assert second == (0.0, 0.0, 0.0, 0.0, 0.0, 5.0)
    (lane,) = lanes(run)
    assert times_of_device(lane, tally(run).devices[0]) == (4.0, 6.0, 0.0, 0.0, 0.0, 35.0)


@pytest.mark.parametrize(("device", "count"), [("k (left)", 1), ("", 0)])
def test_devices_are_counted(device, count):
    """Whatever their names end in; a key of which nobody got a device is none."""
    attempt = Attempt(1, "passed", START, 1.0, devices=[RemoteFacts("k", device, START)])
    facts = re.findall(r"<dt>Devices</dt><dd>(\d+)</dd>", html(run_of(attempt)))
    assert facts == [str(count)] * bool(count)


def test_overlapping_holds_lie_below_one_another():
    """Two tests that have one device at a time are two rows of its lane."""
    attempts = [
        Attempt(1, "failed", START, 50.0, devices=[RemoteFacts("k", "k@h:1", START, held_s=50.0)])
        for _ in range(2)
    ]
    first, second = lane_of(run_of(*attempts))
    assert first["x"] == second["x"]
    assert int(second["y"]) >= int(first["y"]) + int(first["height"])


@pytest.mark.parametrize("span_s", [0.004, 0.7, 5, 59, 61, 600, 5 * 3600, 30 * 3600, 9 * 86400])
def test_time_ticks(span_s):
    """Between 2 and 9 marks, at distances that people count in, whatever the span."""
    ticks = time_ticks(span_s)
    assert 2 <= len(ticks.values) <= 9
    assert ticks.labels[0] == "0"
    assert len(set(ticks.labels)) == len(ticks.labels)
    assert ticks.values[-1] <= span_s


def test_time_labels():
    """Hours and minutes are not written as seconds."""
    assert time_ticks(5 * 3600).labels == ("0", "1 h", "2 h", "3 h", "4 h", "5 h")
    assert time_ticks(33).labels[:3] == ("0", "5 s", "10 s")
    assert "1 min 30 s" in time_ticks(200).labels


def test_times_do_not_overlap():
    """The parts of a bar add up to queue, connection and the time held; calls hold no upload."""
    facts = RemoteFacts("k", "k@h:1", START, 2.0, 0.5, 10.0, upload_s=1.0, call_s=6.0, device_s=3.0)
    run = run_of(Attempt(1, "passed", START, 12.5, devices=[facts]))
    expected = (2.0, 0.5, 1.0, 2.0, 3.0, 4.0)
    assert times_of_test(run.tests[0]) == pytest.approx(expected)
    (lane,) = lanes(run)
    (sums,) = tally(run).devices
    assert times_of_device(lane, sums) == pytest.approx(expected)


def test_scale():
    """A scale holds all values; it is logarithmic only where they are far apart."""
    near = Scale.over([1.0, 2.0], 100.0, 0.0)
    assert not near.is_log
    assert 0.0 < near.place(2.0) < near.place(1.0) < 100.0
    far = Scale.over([1e-6, 1e-3], 100.0, 0.0)
    assert far.is_log
    assert far.ticks() == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3])
    same = Scale.over([5.0, 5.0], 100.0, 0.0)
    assert same.place(5.0) == 50.0
    assert Scale.over([0.0, 0.0], 100.0, 0.0).place(0.0) >= 0.0


def test_trend():
    """The current run is marked, the others are points; the band has two sides."""
    points = [Point(START, v, v * 0.9, v * 1.1, f"run {v}", v == 3.0) for v in (1.0, 2.0, 3.0)]
    found = Reader(trend(points, "label"))
    assert [a["class"] for a in found.all("circle")] == ["past", "past", "now"]
    (band,) = found.all("polygon")
    assert len(band["points"].split()) == 6
    assert found.all("svg")[0]["aria-label"] == "label"


def test_a_stored_run_is_not_drawn_twice():
    """When this run has been stored before the page is made, its point is there once."""
    run = sample_run()
    (history, *_) = sample_history(run, 3)
    again = StoredPoint(run.ended_at, "this", 1.0, 1.0, 1.0)
    page = html(run, [history._replace(points=[*history.points, again])])
    assert "3 stored runs and this one" in page


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 s"),
        (3.2e-9, "3.20 ns"),
        (14.24e-6, "14.2 µs"),
        (0.9996e-3, "1.00 ms"),
        (0.124, "124 ms"),
        (59.96, "60.0 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (725, "12 min 5 s"),
        (3599.7, "1 h"),
        (12000, "3 h 20 min"),
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        (-2, "\N{MINUS SIGN}2.00 s"),
    ],
)
def test_duration(value, words):
    """Three digits and the unit that fits."""
    assert duration(value) == words


def colours() -> list[dict[str, str]]:
    """The colours of the light page and of both ways to the dark one."""
    style = resources.files("pytest_tvmrpc.reporting.page").joinpath("style.css").read_text("utf-8")
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", style)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    return [block for block in found if len(block) > 20]


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast():
    """Texts have a contrast of 4.5 with what they stand on, bars one of 3, in both themes."""
    light, *dark = colours()
    assert len(dark) == 2
    assert dark[0] == dark[1]
    for theme in (light, dark[0]):
        pairs = [
            (ink, ground, 4.5)
            for ink in ("ink", "muted", "link")
            for ground in ("page", "surface", "raised")
        ]
        for verdict in ("passed", "failed", "error", "infra", "flaky", "lost", "skipped"):
            pairs.append((verdict, f"{verdict}-tint", 4.5))
            pairs.append((verdict, "surface", 4.5))
            pairs.append(("on-bar", f"{verdict}-bar", 4.5))
            pairs.append((f"{verdict}-bar", "surface", 3.0))
        low = [
            f"{a} on {b}: {contrast(theme[a], theme[b]):.2f}"
            for a, b, least in pairs
            if contrast(theme[a], theme[b]) < least
        ]
        assert not low


def test_files_are_in_the_package():
    """Style and script are read from the installed package, and hold no end of their element."""
    for name, end in (("style.css", "</style"), ("script.js", "</script")):
        text = resources.files("pytest_tvmrpc.reporting.page").joinpath(name).read_text("utf-8")
        assert len(text) > 1000
        assert end not in text


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000"),
]

PROBE = """<script>addEventListener("load", () => {
  const one = (s) => document.querySelector(s), all = (s) => [...document.querySelectorAll(s)];
  const rows = () => all(".grid tr[data-s]").filter((row) => !row.hidden && !row.parentNode.hidden);
  const names = () => rows().map((row) => row.cells[0].textContent);
  const found = { wide: document.documentElement.scrollWidth - innerWidth, before: rows().length };
  const input = one(".tools input"), select = one(".tools select");
  const enter = (field, value) => {
    field.value = value;
    field.dispatchEvent(new Event(field === select ? "change" : "input"));
  };
  enter(input, "GEMM 64");
  found.text = names();
  enter(input, "");
  enter(select, "jetson@10.0.0.12:9090");
  found.device = rows().length;
  enter(select, "");
  const flaky = one('.verdicts [data-s="flaky"]');
  flaky.click();
  found.flaky = names();
  found.cards = all(".test").filter((card) => !card.hidden).length;
  found.shown = one(".shown").textContent;
  flaky.click();
  const heads = all(".grid thead button"), press = heads[heads.length - 1];
  const original = names();
  press.click();
  found.slowest = names()[0];
  press.click();
  found.fastest = names()[0];
  press.click();
  found.restored = JSON.stringify(names()) === JSON.stringify(original);
  found.titles = all("svg title").length;
  const bar = one(".lane rect.failed");
  bar.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  found.tip = one(".tip").hidden ? "" : one(".tip").textContent;
  found.background = getComputedStyle(document.body).backgroundColor;
  one(".theme").click();
  found.theme = document.documentElement.dataset.theme || "auto";
  document.title = JSON.stringify(found);
});</script>"""


def browse(
    page: str, folder: Path, deadline_s: float, *flags: str, mark: str = ""
) -> tuple[str, str]:
    """The page after its scripts, as Chromium has it, and what Chromium wrote about it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not looked at in a browser")
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, *flags, "--dump-dom", f"{path.as_uri()}{mark}"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        out, log = process.communicate(timeout=6 * deadline_s)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it is gone, and everything with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "<html" in out, log
    return out, log


def probed(page: str) -> dict[str, Any]:
    """What the probe found."""
    title = re.search(r"<title>(.*?)</title>", page, flags=re.S)
    assert title is not None
    found: dict[str, Any] = json.loads(title[1].replace("&lt;", "<").replace("&amp;", "&"))
    return found


def test_in_a_browser(page, tmp_path, deadline_s):
    """Filter, sorting, tooltips and theme work, the light page is light, and nothing complains."""
    out, log = browse(page + PROBE, tmp_path, deadline_s, "--window-size=1400,1000", mark="#light")
    assert "CONSOLE" not in log
    found = probed(out)
    assert found["wide"] <= 0
    assert found["before"] == 24
    assert found["text"] == ["test_gemm[64]"]
    assert 0 < found["device"] < found["before"]
    assert sorted(found["flaky"]) == ["test_conv2d[3x3-NCHW]", "test_gemm[256]"]
    assert (found["cards"], found["shown"]) == (2, "2 of 24")
    assert (found["slowest"], found["fastest"]) == ("test_vector_add", "test_blit")
    assert found["restored"]
    assert found["titles"] == 0
    assert found["tip"].startswith("test_softmax[jetson]")
    assert found["background"] == "rgb(245, 246, 248)"
    assert found["theme"] == "dark"


def test_narrow_and_dark_in_a_browser(page, tmp_path, deadline_s):
    """A system that prefers dark gets it without being asked; a phone need not scroll sideways."""
    flags = ("--window-size=400,800", "--blink-settings=preferredColorScheme=0")
    out, log = browse(page + PROBE, tmp_path, deadline_s, *flags)
    assert "CONSOLE" not in log
    found = probed(out)
    assert found["wide"] <= 0
    assert found["background"] == "rgb(18, 22, 28)"
    assert found["theme"] == "light"


def test_the_browser_would_complain(tmp_path, deadline_s):
    """An error in a script is seen by the two tests above."""
    page = "<!DOCTYPE html><html><title>x</title><script>nothing.there()</script></html>"
    _, log = browse(page, tmp_path, deadline_s)
    assert "CONSOLE" in log
