"""The report as JSON lines: what is written when, and what can be read of it."""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any, Dict, List

import pytest

from pytest_tvmrpc import __version__
from pytest_tvmrpc.records import Attempt, RemoteFacts, Run, TestRecord
from pytest_tvmrpc.reporting.jsonl import SCHEMA, LinesReport, read

PAGE = Path(__file__).resolve().parents[2] / "docs" / "report-schema.md"


def example() -> Run:
    """The run that docs/report-schema.md shows."""
    lost, good = (
        RemoteFacts(
            "jetson",
            f"jetson@10.0.0.{number}:9090",
            asked_at,
            queued_s,
            0.02,
            held_s,
            calls=12,
            call_s=0.5,
            bytes_sent=48123,
            bytes_received=931,
        )
        for number, asked_at, queued_s, held_s in (
            (7, 1800000000.0, 0.4, 2.6),
            (8, 1800000003.5, 0.1, 1.0),
        )
    )
    attempts = [
        Attempt(
            1, "lost", 1800000000.0, 3.1, "connection lost", "E  connection lost", devices=[lost]
        ),
        Attempt(2, "passed", 1800000003.5, 1.2, output="loaded\n", devices=[good]),
    ]
    return Run(
        1800000000.0,
        1800000010.0,
        ["-n", "2", "--rpc-reruns=1"],
        "10.0.0.1:9190",
        ["jetson"],
        [TestRecord("tests/test_conv.py::test_conv", "gw0", attempts)],
        {"passed": 3},
        [],
        0,
    )


def write(path: Path, run: Run) -> LinesReport:
    """What happens in the course of a run, but for its end."""
    report = LinesReport(path)
    report.begin(run)
    for test in run.tests:
        growing = TestRecord(test.nodeid, test.worker)
        for attempt in test.attempts:
            growing.attempts.append(attempt)
            report.add(growing, attempt)
    return report


def whole(path: Path, run: Run) -> None:
    """A run from start to end."""
    report = write(path, run)
    report.finish(run)


def lines(path: Path) -> List[Dict[str, Any]]:
    """The objects of a file."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def fields_of(heading: str) -> List[str]:
    """The names in the first column of the table that follows a text in the page."""
    table = PAGE.read_text(encoding="utf-8").partition(heading)[2].partition("|\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
    return re.findall(r"`(\w+)`", " ".join(rows))


def test_the_page_shows_what_is_written(tmp_path: Path) -> None:
    """The example in docs/report-schema.md is what the code writes today."""
    path = tmp_path / "run.jsonl"
    whole(path, example())
    shown = PAGE.read_text(encoding="utf-8").partition("```json\n")[2].partition("```")[0]
    version = re.compile(r'"version": "[^"]*"')
    assert version.sub("", shown) == version.sub("", path.read_text(encoding="ascii"))


@pytest.mark.parametrize(
    ("heading", "place"),
    [
        ("## `run`", (0,)),
        ("## `attempt`", (1,)),
        ("Each of `devices`:", (1, "devices", 0)),
        ("## `test`", (3,)),
        ("## `end`", (4,)),
        ("Each of `devices`, and `total`", (4, "devices", 0)),
        ("Each of `devices`, and `total`", (4, "total")),
    ],
)
def test_the_page_names_every_field(tmp_path: Path, heading: str, place: Any) -> None:
    """The tables have each field of each object, and no other, in the order of the file."""
    path = tmp_path / "run.jsonl"
    whole(path, example())
    found: Any = lines(path)
    for step in place:
        found = found[step]
    assert fields_of(heading) == [name for name in found if name != "$type"]


def kinds(path: Path) -> List[str]:
    """The types of the lines of a file."""
    return [line["$type"] for line in lines(path)]


def test_it_is_written_as_it_happens(tmp_path: Path) -> None:
    """Each attempt can be read when it has ended, the test when it is certain that none follows."""
    path = tmp_path / "new" / "folder" / "run.jsonl"
    run = example()
    report = LinesReport(path)
    assert not path.parent.exists()
    report.begin(run)
    assert kinds(path) == ["run"]
    record = TestRecord("t", "gw0", run.tests[0].attempts[:1])
    report.add(record, record.attempts[0])
    assert kinds(path) == ["run", "attempt"]
    record.attempts.append(run.tests[0].attempts[1])
    report.add(record, record.attempts[1])
    assert kinds(path) == ["run", "attempt", "attempt"]
    other = TestRecord("other", "gw0", [Attempt(1, "passed")])
    report.add(other, other.attempts[0])
    assert kinds(path) == ["run", "attempt", "attempt", "test", "attempt"]
    assert lines(path)[0]["schema"] == SCHEMA
    assert lines(path)[0]["version"] == __version__
    assert lines(path)[3]["flaky"] is True
    report.close()
    report.close()
    report.finish(run)
    assert len(lines(path)) == 5


def test_one_line_for_each_test(tmp_path: Path) -> None:
    """Whoever runs a test again, and in whatever worker, it has one line, with its last verdict."""
    path = tmp_path / "run.jsonl"
    report = LinesReport(path)
    report.begin(Run())
    story = [
        ("failed", "gw0", "a", 1),
        ("failed", "gw1", "b", 1),
        ("passed", "gw0", "a", 2),  # run again by another plugin
        ("lost", "gw1", "c", 1),  # with its worker
        ("passed", "gw2", "d", 1),
        ("passed", "gw0", "e", 1),
        ("passed", "gw0", "c", 2),
        ("lost", "gw2", "f", 1),
        ("passed", "gw2", "g", 1),
    ]
    records: Dict[str, TestRecord] = {}
    for verdict, worker, name, number in story:
        record = records.setdefault(name, TestRecord(name))
        record.worker = worker
        record.attempts.append(Attempt(number, verdict))
        report.add(record, record.attempts[-1])
    records["f"].attempts[-1].verdict = "infra"  # as Book.finish has it
    report.finish(Run(tests=list(records.values())))
    told = [
        (line["nodeid"], line["verdict"], line["flaky"], line["attempts"])
        for line in lines(path)
        if line["$type"] == "test"
    ]
    assert sorted(told) == [
        ("a", "passed", True, 2),
        ("b", "failed", False, 1),
        ("c", "passed", True, 2),
        ("d", "passed", False, 1),
        ("e", "passed", False, 1),
        ("f", "infra", False, 1),
        ("g", "passed", False, 1),
    ]
    assert [name for name, *_ in told[:4]] == ["b", "a", "e", "d"]


def test_a_test_that_was_not_run_again_is_read(tmp_path: Path) -> None:
    """Its attempt was lost; what became of the test stands in its own line."""
    run = example()
    run.tests[0].attempts.pop()
    path = tmp_path / "run.jsonl"
    report = write(path, run)
    (attempt,) = run.tests[0].attempts
    attempt.verdict, attempt.message = "infra", f"the run ended before: {attempt.message}"
    report.finish(run)
    assert read(path) == run


def test_two_runs_that_write_to_one_path(tmp_path: Path) -> None:
    """Each has a file of its own; the path is that of the last one to begin."""
    path = tmp_path / "run.jsonl"
    path.write_text("of an older run")
    path.chmod(0o640)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    first, second = LinesReport(link), LinesReport(path)
    later = example()
    later.command *= 9
    first.begin(example())
    with open(path, encoding="ascii") as kept:
        assert kinds(path) == ["run"]
        second.begin(later)
        first.finish(example())
        second.finish(later)
        assert [json.loads(line)["$type"] for line in kept] == ["run", "end"]
    assert kinds(path) == ["run", "end"]
    assert read(path).command == later.command
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link.jsonl", "run.jsonl"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The whole run comes back, also tests of the same name."""
    run = example()
    run.tests.append(TestRecord(run.tests[0].nodeid, "gw1", [Attempt(1, "infra", message="none")]))
    run.notes.append("it ended")
    path = tmp_path / "run.jsonl"
    whole(path, run)
    assert read(path) == run


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    """Wherever the file is cut, what was complete before is read."""
    path = tmp_path / "run.jsonl"
    whole(path, example())
    content = path.read_bytes()
    ends = [match.end() for match in re.finditer(b"\n", content)]
    for cut in range(ends[0], len(content)):
        path.write_bytes(content[:cut])
        run = read(path)
        # A line is complete without its end, too.
        attempts = sum(end - 1 <= cut for end in ends[1:3])
        assert sum(len(test.attempts) for test in run.tests) == attempts
        assert run.exitstatus == (0 if cut == len(content) - 1 else -1)
    path.write_bytes(content[: ends[0] + 3])
    assert (read(path).started_at, read(path).ended_at) == (1800000000.0, 0.0)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """What Python could not decode travels as it is."""
    run = example()
    run.tests[0].nodeid = "test[\udc80\u00fc\U0001f600]"
    run.tests[0].attempts[1].output = "\ud800\0\x1b\n"
    path = tmp_path / "run.jsonl"
    whole(path, run)
    assert read(path) == run


def test_what_json_does_not_have(tmp_path: Path) -> None:
    """Numbers that are none are null, objects are their repr; nothing stops the run."""
    run = example()
    attempt = run.tests[0].attempts[1]
    attempt.benchmarks = [{"median_s": math.nan, "samples_s": [math.inf, 1.0]}]
    attempt.extra = {"path": Path("x"), "rate": (-math.inf, 2), "grid": {(1, 2): 3}}
    path = tmp_path / "run.jsonl"
    whole(path, run)
    written = lines(path)[2]
    assert written["benchmarks"] == [{"median_s": None, "samples_s": [None, 1.0]}]
    assert written["extra"] == {
        "path": repr(Path("x")),
        "rate": [None, 2],
        "grid": {"(1, 2)": 3},
    }


@pytest.mark.parametrize("name", ["", "file/run.jsonl", "nul\0.jsonl"])
def test_a_path_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    """It is an error before the first test, and says which option it is."""
    (tmp_path / "file").write_text("")
    with pytest.raises(pytest.UsageError, match=r"--rpc-report=.* cannot be written: .*expected"):
        LinesReport(f"{tmp_path}/{name}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_is_full() -> None:
    """The report ends, the run goes on, and its notes say so, once."""
    run = example()
    whole(Path("/dev/full"), run)
    (note,) = run.notes
    assert note.startswith("--rpc-report=/dev/full is not complete: ")
    assert "No space left" in note


def test_what_newer_versions_add_is_left_out(tmp_path: Path) -> None:
    """Types and fields that are not known here do no harm."""
    path = tmp_path / "run.jsonl"
    whole(path, example())
    content = path.read_text(encoding="ascii").splitlines()
    content.insert(1, json.dumps({"$type": "weather", "rain": True}))
    content[2] = json.dumps({**json.loads(content[2]), "new": 1})
    path.write_text("\n".join(content), encoding="ascii")
    assert read(path) == example()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("nonsense\n", ":1: this is no line of a report"),
        ("[1]\n", ":1: this is no line of a report"),
        ("{}\n", ":1: this is no line of a report"),
        ('{"$type": "attempt"}\n', "comes before that of the run"),
        ('{"$type": "run", "schema": 2, "version": "9.1"}\n', "schema 2, .* that wrote it, 9.1"),
        ('{"$type": "run"}\n', "schema None"),
        ('{"$type": "run", "schema": 1}\n{"$type"\n{}\n', ":2: this is no line of a report"),
        ('{"$type": "run", "schema": 1}\n{"$type": "attempt"}\n', ":2: .*an attempt without"),
    ],
)
def test_what_is_no_report(tmp_path: Path, content: str, message: str) -> None:
    """It is refused, with the line that is wrong."""
    path = tmp_path / "run.jsonl"
    path.write_text(content, encoding="ascii")
    with pytest.raises(ValueError, match=message):
        read(path)
