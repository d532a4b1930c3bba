"""The Markdown summary of a run: what it says, what it escapes, and where it ends."""

from __future__ import annotations

import html
import re

import pytest

from pytest_tvmrpc.benchmarking.remarks import remarks
from pytest_tvmrpc.benchmarking.store import benchmarks_of
from pytest_tvmrpc.records import Attempt, RemoteFacts, Run, TestRecord
from pytest_tvmrpc.reporting.markdown import LIMIT, code, escape, markdown

from .sample_run import START, large_run, sample_run

HOSTILE = (
    "|a` `` ```b <script>x</script> **c** _d_ [e](f) @all :tada: ~g~ #1\nh\\|\x1b[31mi\0 \ud800 $k$"
)


def test_says_what_happened():
    """Counts, each device, each test in trouble with its attempts, benchmarks that changed."""
    text = html.unescape(markdown(sample_run()))
    for expected in (
        "## ❌ Remote tests: **1** failed, **1** error, **1** infra, **2** flaky, **33** passed",
        "tracker <code>farm.example:9190</code>",
        "### 🔌 Infra: 1",
        "| <code>jetson@10.0.0.12:9090</code> | 9 | 6 | **1** |",
        "**#1 lost** on <code>jetson@10.0.0.12:9090</code>",
        "**#2 passed** on <code>jetson@10.0.0.11:9090</code>",
        "E       Not equal to tolerance rtol=0.0001, atol=0",
        "[softmax] warning: denormals flushed",
        "| <code>tests/kernels/test_gemm.py::test_gemm[256] gemm_256</code> | "
        "<code>Raspberry Pi 4B</code> | 2.17 ms | 2.54 ms | +17.1 % |",
        "> NOT COMPARED: 1 benchmark of 8 without a baseline",
        "5 benchmarks without a change that counts, 1 benchmark without a baseline.",
    ):
        assert expected in text
    assert text.count("<details>") == text.count("</details>") == 5


def test_benchmarks_that_tell_nothing():
    """What was not compared, and what is too noisy, is said as the terminal says it."""
    run = sample_run()
    found = [one for test in run.tests for one in test.attempts[-1].benchmarks]
    for one in found:
        one.update(verdict="noisy", fails=False, note="too few samples", visible=-1)
    text = html.unescape(markdown(run))
    assert f"> {remarks(benchmarks_of(run))[0]}\n" in text
    assert "> noisy: too few samples: tests/kernels/test_gemm.py::test_gemm[64] gemm_64" in text
    assert "8 benchmarks too noisy to tell." in text
    for one in found:
        one.update(verdict="new", note="no run of this device is stored")
    assert "> NOTHING WAS COMPARED: no baseline for any" in html.unescape(markdown(run))
    for one in found:
        one.update(verdict="")
    assert "8 benchmarks not compared." in markdown(run)


def test_tables_are_whole():
    """Every line of a table has as many cells as its head, whatever the names hold."""
    run = sample_run()
    for record in run.tests:
        for attempt in record.attempts:
            attempt.devices = [
                RemoteFacts(HOSTILE, f"{HOSTILE}{facts.device}", facts.asked_at)
                for facts in attempt.devices
            ]
            for one in attempt.benchmarks:
                one["name"] = one["model"] = HOSTILE
    tables = re.findall(r"(?:^\|.*\n)+", markdown(run), flags=re.M)
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize("write", [escape, code])
def test_nothing_is_markup(write):
    """One line; every sign that means something in Markdown or HTML is a number."""
    shown = write(HOSTILE).removeprefix("<code>").removesuffix("</code>")
    assert not re.search(r"[|`<>*_\[\]\\@:~$\n\0\x1b\ud800]", shown)
    assert html.unescape(shown).startswith("|a` `` ```b <script>x</script> **c** _d_ [e](f) @all")
    assert escape("- a")[0] == escape("+ a")[0] == escape("# a")[0] == "&"
    assert escape("1. a") == "1&#46; a"
    assert escape("a-b 1.5 (c)") == "a-b 1.5 (c)"


def test_logs_cannot_leave_their_block():
    """A fence is longer than any run of backticks in the text; HTML in it stays text."""
    attempt = Attempt(1, "failed", START, 1.0, "m", f"x\n```\n````\n</details>\n{HOSTILE}")
    text = markdown(Run(tests=[TestRecord("t.py::t", "", [attempt])]))
    fenced = re.search(r"^(`{5})text\n(.*?)^\1$", text, flags=re.M | re.S)
    assert fenced is not None
    assert "</details>" in fenced[2]
    text.encode()


def test_hostile_names():
    """Node ids, notes and the command neither begin an element nor name anybody."""
    run = Run(notes=[HOSTILE], command=[HOSTILE], tracker=HOSTILE, keys=[HOSTILE])
    run.tests = [TestRecord(HOSTILE, "", [Attempt(1, "infra", START, 1.0, HOSTILE)])]
    text = re.sub(r"^(`{3,}).*?^\1$", "", markdown(run), flags=re.M | re.S)
    assert set(re.findall(r"<(/?\w+)", text)) <= {
        *("code", "/code", "details", "/details", "summary", "/summary", "b", "/b"),
    }
    assert "@all" not in text
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}


def test_limit():
    """No more than the limit, with the number of tests left out; no element is cut through."""
    text = markdown(large_run(text="é" * 3000))
    assert 0.9 * LIMIT < len(text.encode()) <= LIMIT
    left_out = re.search(r"^([\d,]+) tests left out here", text, flags=re.M)
    assert left_out is not None
    assert int(left_out[1].replace(",", "")) + text.count("<details>") == 1000
    assert text.count("<details>") == text.count("</details>")


def test_limit_of_many_devices():
    """Tables that fill the page by themselves are left out, and that is said, too."""
    run = large_run(300, 100)
    text = markdown(run, limit=9000)
    assert len(text.encode()) <= 9000
    assert "left out here" in text


@pytest.mark.parametrize(
    ("run", "first"),
    [
        (Run(), "## ⏭️ Remote tests: none"),
        (Run(exitstatus=1), "## ❌ Remote tests: pytest ended with status 1"),
        (
            Run(tests=[TestRecord("t", "", [Attempt(1, "passed")])], exitstatus=0),
            "## ✅ Remote tests: **1** passed",
        ),
    ],
)
def test_headline(run, first):
    """The sign in front is that of the worst that happened."""
    assert markdown(run).splitlines()[0] == first
