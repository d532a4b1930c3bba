"""The parts of the chaos that break nothing: its verdicts, its table, its hostile bytes."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

ROOT = Path(__file__).resolve().parents[2]

Load = Callable[[str], ModuleType]

BROKEN = """
import sys
sys.path.insert(0, {root!r})
from harness.chaos import __main__ as program
from harness.chaos import footprint

footprint.SETTLE_LIMIT_S = 1.0

def fails(trial):
    '''Something does not hold.'''
    trial.say_done("looked")
    trial.check(False, "the moon is made of cheese")

def breaks(trial):
    '''Something is raised.'''
    raise KeyError("moon")

def hangs(trial):
    '''Something does not end.'''
    trial.wait_until(lambda: False, "the end", 60)

def leaves(trial):
    '''Something stays: a file, a process.'''
    import os, subprocess, tempfile
    program = subprocess.Popen(["sleep", "600"])
    trial.watch("itself", os.getpid())
    tempfile.mkstemp()
    subprocess.Popen(["sleep", "600"])

def cannot(trial):
    '''Something is not there.'''
    raise program.SkipError("no moon")

def works(trial):
    '''Nothing happens.'''

program.SCENARIOS.clear()
for function in (fails, breaks, hangs, leaves, cannot, works):
    program.SCENARIOS[function.__name__] = Scenario = type(
        "S", (), dict(run=staticmethod(function), limit_s=20.0, text=function.__doc__)
    )
program.SCENARIOS["hangs"].limit_s = 0.2
sys.exit(program.main(sys.argv[1:]))
"""


@pytest.fixture(name="load")
def _load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """A module of the chaos: harness/ is not installed, and on no path of the suite."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"harness.chaos.{name}")


def run(*arguments: str, script: str = "") -> "subprocess.CompletedProcess[str]":
    """The program in a process of its own: it becomes the parent of orphans."""
    return subprocess.run(
        [sys.executable, *(["-c", script] if script else ["-m", "harness.chaos"]), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_what_fails_is_said(tmp_path: Path) -> None:
    """A verdict for each scenario, with the reason; the next one runs; the status is 1."""
    path = tmp_path / "chaos.json"
    done = run("--json", str(path), script=BROKEN.format(root=str(ROOT)))
    assert done.returncode == 1, done.stderr
    results = {result["name"]: result for result in json.loads(path.read_text())["results"]}
    verdicts = {name: result["verdict"] for name, result in results.items()}
    assert verdicts == {
        "fails": "FAILED",
        "breaks": "FAILED",
        "hangs": "FAILED",
        "leaves": "FAILED",
        "cannot": "skipped",
        "works": "PASSED",
    }
    assert results["fails"]["failures"] == ["the moon is made of cheese"]
    assert results["breaks"]["failures"] == ["KeyError: 'moon'"]
    assert "not done within 0.2 s" in results["hangs"]["failures"][0]
    assert any("files grew" in text for text in results["leaves"]["failures"])
    assert any("processes grew" in text for text in results["leaves"]["failures"])
    assert "! the moon is made of cheese" in done.stdout
    assert "1 passed, 4 failed, 1 skipped" in done.stdout


def test_a_scenario_passes() -> None:
    """A real one, a tenth of it: everybody got what was due, and the status is 0."""
    done = run("--quick", "--only", "threads", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^threads .*PASSED$", done.stdout, re.MULTILINE)
    assert "1 passed, 0 failed, 0 skipped" in done.stdout


def test_the_list_says_what_each_does(load: Load) -> None:
    """One line each, from the docstring."""
    scenarios = load("scenarios").SCENARIOS
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(scenarios)
    for name, scenario in scenarios.items():
        assert scenario.text.endswith("."), name
        assert any(scenario.text in line for line in lines)


def test_names_that_are_none() -> None:
    """The message has those that there are."""
    done = run("--only", "crashes,moon")
    assert done.returncode == 2
    assert "no scenario moon; there are crashes, " in done.stderr


def test_the_table_is_aligned(load: Load) -> None:
    """Long texts are wrapped within their columns, failures are marked."""
    table = load("table")
    long = "words and " * 20
    results = [
        table.Result("a", table.PASSED, (long,), ("fine",), (), 1.0),
        table.Result("a-longer-name", table.FAILED, ("b",), (long,), ("it broke",), 2.0),
    ]
    text = table.render(results)
    rows = text.splitlines()
    place = rows[0].index("verdict")
    assert all(len(row) <= place + len("verdict") for row in rows)
    assert rows[2][place:] == "PASSED"
    assert "! it broke" in text
    assert rows[-1] == "1 passed, 1 failed, 0 skipped"


def test_hostile_bytes_can_be_had_again(load: Load) -> None:
    """The same seed makes the same, another others; cuts lose nothing."""
    mutation = load("mutation")
    corpus = mutation.golden()
    assert len(corpus) > 50
    assert set(mutation.golden(direction="<")) < set(corpus)
    makers = [mutation.Mutator(seed, corpus) for seed in (1, 1, 2)]
    one, again, other = ([maker.one() for _ in range(100)] for maker in makers)
    assert one == again != other
    assert len(set(one) - set(corpus)) > 30
    assert b"".join(makers[0].cuts(bytes(1000))) == bytes(1000)
