"""The parts of the bench that measure nothing: its table, its statistics, its relay."""

from __future__ import annotations

import importlib
import json
import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, List

import pytest

ROOT = Path(__file__).resolve().parents[2]

Load = Callable[[str], ModuleType]


@pytest.fixture(name="load")
def _load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """A module of the bench: harness/ is not installed, and on no path of the suite."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"harness.bench.{name}")


def _row(load: Load, name: str, **cells: List[float]) -> object:
    goals, rounds, table = load("goals"), load("rounds"), load("table")
    outcomes = {column: rounds.Outcome(tuple(cells.get(column, ()))) for column in goals.COLUMNS}
    return table.Row(goals.LINES[name], outcomes)


def test_a_ratio_is_taken_within_a_round(load: Load) -> None:
    """A round in which everything was ten times slower does not move the ratio."""
    row = _row(load, "P1", ours=[1e-5, 1e-4, 1e-5], TVM=[2e-5, 2e-4, 1.9e-5])
    assert row.ratio == pytest.approx(0.5)
    assert row.verdict == "met"


def test_a_rate_has_to_reach_its_part_of_bare(load: Load) -> None:
    """P3's goal is a least, not a most."""
    assert _row(load, "P3.write", ours=[2e9], bare=[2.5e9], TVM=[5e7]).verdict == "met"
    assert _row(load, "P3.write", ours=[1e9], bare=[2.5e9], TVM=[5e7]).verdict == "NOT met"


def test_an_absolute_goal_is_judged_without_the_others(load: Load) -> None:
    """P8 has a limit in seconds; its ratio is shown all the same."""
    row = _row(load, "P8.server", ours=[3e-2], TVM=[9e-1])
    assert row.verdict == "met"
    assert row.ratio_text == "0.0333 x TVM"


def test_the_server_in_c_has_lines_of_its_own(load: Load) -> None:
    """Its goal is judged by its own column, and its columns are there only if it was measured."""
    goals, rounds, table = load("goals"), load("rounds"), load("table")
    line = goals.LINES["P1"]
    (subject, more), (other, _) = line.of_native()
    assert (subject, other) == ("C", "TVM-C")
    cells = {"ours": 9e-5, "C": 2.1e-5, "TVM": 2e-5}
    row = table.Row(
        more, {name: rounds.Outcome((figure,)) for name, figure in cells.items()}, subject=subject
    )
    assert row.verdict == "met"
    assert "TVM-C" not in table.render([row])
    assert "  C  " in table.render([row])


def test_the_table_is_aligned_and_explains_its_gaps(load: Load) -> None:
    """Every line is as wide as its columns; a failed cell has a footnote, a met goal is counted."""
    goals, rounds, table = load("goals"), load("rounds"), load("table")
    failed = {
        "ours": rounds.Outcome(error="ConnectError: nobody there"),
        "TVM": rounds.Outcome(error="not installed", absent=True),
        "bare": rounds.Outcome((1.5e-5,)),
    }
    rows = [
        _row(load, "P1", ours=[1.61e-5], TVM=[1.64e-5], bare=[1.4e-5]),
        table.Row(goals.LINES["P2"], failed),
        _row(load, "P14.trips", ours=[23.0], TVM=[46.0]),
    ]
    text = table.render(rows)
    lines = text.splitlines()
    ends = [line.index("16.1 us") + 7 for line in lines if "16.1 us" in line]
    assert ends == [line.index("error [1]") + 9 for line in lines if "error [1]" in line]
    assert "absent [2]" in text
    assert "[1] ours: ConnectError: nobody there\n[2] TVM: not installed\n" in text
    assert "2 of 3 goals met, 0 not met, 1 without a figure" in text
    assert lines[0].split() == ["item", "work", "ours", "TVM", "bare", "ratio", "goal", "verdict"]


def test_the_table_exists_for_the_documentation(load: Load) -> None:
    """The same cells as a Markdown table, with the count below."""
    text = load("table").markdown([_row(load, "P1", ours=[1.61e-5], TVM=[1.64e-5])])
    assert text.splitlines() == [
        "| item | work | ours | TVM | bare | ratio | goal | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| P1 | call rpc.test.addone(10) | 16.1 us | 16.4 us | - "
        "| 0.982 x TVM | <= 1.25 x TVM | met |",
        "",
        "1 of 1 goals met, 0 not met",
    ]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("TIME", 16.44e-6, "16.4 us"),
        ("TIME", 0.1, "100 ms"),
        ("TIME", 1.5, "1.50 s"),
        ("RATE", 1.83e9, "1,830 MB/s"),
        ("MEMORY", 12.34e6, "12.3 MB"),
        ("COUNT", 23.0, "23"),
    ],
)
def test_figures_have_three_digits_and_a_unit(
    load: Load, kind: str, value: float, text: str
) -> None:
    """What is printed can be read without counting zeros."""
    assert load("goals").Kind[kind].text(value) == text


def test_a_peer_that_fails_leaves_the_others_alone(load: Load) -> None:
    """One peer breaks in the second round: it has its error, the other all of its rounds."""
    entries = load("rounds").Contest(3)
    left = [1.0]

    def break_soon() -> List[float]:
        return [left.pop()]

    entries.enter("ours", lambda: break_soon)
    entries.enter("bare", lambda: lambda: [2.0, 4.0, 3.0])
    outcomes = entries.run()
    assert outcomes["bare"].rounds == (3.0, 3.0, 3.0)
    assert outcomes["ours"].error.startswith("IndexError")


def test_the_report_has_every_round(load: Load, tmp_path: Path) -> None:
    """The file holds what the table sums up."""
    row = _row(load, "P1", ours=[1.0, 2.0, 4.0], TVM=[2.0, 4.0, 8.0])
    load("report").write(tmp_path / "bench.json", [row], {"began": "now"})
    content = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert content["began"] == "now"
    (entry,) = content["rows"]
    assert entry["cells"]["ours"] == {"p50": 2.0, "rounds": [1.0, 2.0, 4.0], "error": None}
    assert entry["ratio"] == 0.5
    assert entry["met"] is True


def test_a_round_trip_is_a_burst_and_an_answer(load: Load) -> None:
    """Requests that go out together count once; so do answers that come in pieces."""
    trips = load("relay").RoundTrips()
    for by_client, size in ((True, 4), (True, 9), (False, 8), (False, 2), (True, 1), (False, 1)):
        trips.said(size, by_client=by_client)
    trips.said(12, by_client=True)  # a farewell that nobody answers
    assert trips.report() == {"trips": 2, "up": 26, "down": 11}


@pytest.mark.parametrize("delay_s", [0.0, 0.002])
def test_the_relay_passes_everything_on_and_counts(
    load: Load, deadline_s: float, delay_s: float
) -> None:
    """Two exchanges and a farewell through a real relay: all bytes arrive, two round trips."""
    relay = load("relay")
    found: List[Dict[str, int]] = []
    (client, near), (far, server) = socket.socketpair(), socket.socketpair()
    with client, near, far, server:
        for end in (client, server):
            end.settimeout(deadline_s)
        thread = threading.Thread(
            target=lambda: found.append(relay.relay(near, far, delay_s).report())
        )
        thread.start()
        for _ in range(2):
            client.sendall(b"question")
            assert _read(server, 8) == b"question"
            server.sendall(b"answer")
            assert _read(client, 6) == b"answer"
        client.sendall(b"bye")
        client.close()
        assert _read(server, 3) == b"bye"
        thread.join(deadline_s)
    assert found == [{"trips": 2, "up": 19, "down": 12}]


def _read(end: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = end.recv(size - len(got))
        assert piece, f"closed after {got!r}"
        got += piece
    return got


def test_the_command_line_names_what_it_does_not_know(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong item is answered with the items there are."""
    pytest.importorskip("numpy")
    program = load("__main__")
    assert program.parse(["--only", "p14,P1"]).only == ["P1", "P14"]
    with pytest.raises(SystemExit):
        program.parse(["--only", "P99"])
    assert "no item P99; there are P1, P1b, P2, " in capsys.readouterr().err
