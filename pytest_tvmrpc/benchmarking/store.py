"""Stored runs: one JSON file for each run and kind of device. Compares nothing.

Names of files begin with the time, so that they sort by it, and end with digits by chance, so that
no two savers ever write the same one: the folder can be kept under version control and merged. What
a file is about stands in the file. One that cannot be read is left out, and named in
`Store.broken`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import pytest

from .records import COMPARED, Benchmark

if TYPE_CHECKING:
    from ..records import Run

FORMAT = 1

MOST_BYTES = 100
"""Of a model, a key or a name in the name of a file."""


@dataclass(frozen=True)
class StoredRun:
    """The benchmarks of one run on one kind of device.

    Attributes:
        name: what the user called the run.
        saved_at: in seconds since the epoch.
        model, key: the kind of device.
    """

    name: str
    saved_at: float
    model: str
    key: str
    benchmarks: list[Benchmark] = field(default_factory=list)

    def find(self, wanted: Benchmark) -> Benchmark | None:
        """The same benchmark in this run; of several, the last one."""
        found = [one for one in self.benchmarks if one.identity == wanted.identity]
        return found[-1] if found else None


class Point(NamedTuple):
    """One stored run of a series; `run` is its name."""

    saved_at: float
    run: str
    median_s: float
    q1_s: float
    q3_s: float


class Series(NamedTuple):
    """A benchmark on one kind of device over the stored runs, the oldest first."""

    test: str
    name: str
    model: str
    key: str
    points: list[Point]


class Store:
    """A folder of stored runs, listed once; each file is read when it is wanted, and once.

    Attributes:
        names: the files, as paths from the folder; the newest first, as their names say.
        broken: for each file that could not be read, its name and the reason.

    Args:
        folder: where they are.
        names: what another process has listed; by default what is there now.
    """

    def __init__(self, folder: str | os.PathLike[str], names: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.names = list(_listed(self.folder) if names is None else names)
        self.broken: list[str] = []
        self._runs: dict[str, StoredRun | None] = {}
        self._kinds: dict[str, list[str]] = {}
        for name in self.names:
            kind = unicodedata.normalize("NFC", name.partition("/")[0])
            self._kinds.setdefault(kind, []).append(name)

    def runs(self) -> list[StoredRun]:
        """All that can be read, the oldest first; none if there is no such folder."""
        return sorted(filter(None, map(self._read, self.names)), key=_when)

    def earlier(self, wanted: Benchmark, name: str, most: int) -> list[tuple[StoredRun, Benchmark]]:
        """The newest runs that have the benchmark, the newest first; no more are read than needed.

        Args:
            wanted: the benchmark.
            name: of the runs; empty for any.
            most: how many are enough.
        """
        runs = map(self._read, self._kinds.get(folder_of(wanted.model, wanted.key), ()))
        named = (run for run in runs if run is not None and name in ("", run.name))
        found = ((run, run.find(wanted)) for run in named)
        having = ((run, one) for run, one in found if one is not None)
        return list(itertools.islice(having, most))

    def _read(self, name: str) -> StoredRun | None:
        if name not in self._runs:
            path = self.folder / name
            try:
                self._runs[name] = parse(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                self._runs[name] = None
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self.broken.append(f"{path}: left out, it is no stored run ({reason})")
        return self._runs[name]


store_key = pytest.StashKey[Store]()
"""The stored runs as they were when the run began, in the stash of its config; only if it compares.

What other runs store meanwhile, and what this one does, is no baseline.
"""


def save(run: Run, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Store the benchmarks of the tests that passed, each in one file for its kind of device.

    Returns:
        The files, none if no test that passed has measured anything.

    Raises:
        OSError: one cannot be written.
    """
    benchmarks = benchmarks_of(run, only_passed=True)
    saved_at = run.ended_at or max((one.started_at for one in benchmarks), default=0.0)
    kinds: dict[tuple[str, str], list[Benchmark]] = {}
    for one in benchmarks:
        kinds.setdefault((one.model, one.key), []).append(one)
    return [
        _write(Path(folder), StoredRun(name, saved_at, *kind, some))
        for kind, some in sorted(kinds.items())
    ]


def history(folder: str | os.PathLike[str]) -> list[Series]:
    """How each benchmark went over the stored runs, in the order of tests, names and devices."""
    found: dict[tuple[str, str, str, str], list[Point]] = {}
    for run in Store(folder).runs():
        for one in run.benchmarks:
            point = Point(run.saved_at, run.name, one.median_s, one.q1_s, one.q3_s)
            found.setdefault(one.identity, []).append(point)
    return [Series(*identity, points) for identity, points in sorted(found.items())]


def benchmarks_of(run: Run, only_passed: bool = False) -> list[Benchmark]:
    """The benchmarks of the last attempt of each test, in the order of the tests."""
    tests = [test for test in run.tests if not only_passed or test.verdict == "passed"]
    return [Benchmark.from_json(one) for test in tests for one in test.attempts[-1].benchmarks]


def folder_of(model: str, key: str) -> str:
    """The folder's name for a kind of device. Two kinds may share one: files say what they are."""
    return _slug(f"{model}-{key}")


def parse(text: str) -> StoredRun:
    """What `dump` wrote.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is something else.
    """
    values = json.loads(text)
    if values["format"] != FORMAT:
        raise ValueError(f"its format is {values['format']!r}; this version reads {FORMAT}")
    kind = str(values["model"]), str(values["key"])
    benchmarks = [Benchmark.from_json(one) for one in values["benchmarks"]]
    return StoredRun(str(values["name"]), float(values["saved_at"]), *kind, benchmarks)


def dump(run: StoredRun) -> str:
    """JSON for people, too: a line for each value, the samples of a benchmark on one."""
    head: dict[str, Any] = {
        "format": FORMAT,
        "name": run.name,
        "saved_at": run.saved_at,
        "model": run.model,
        "key": run.key,
    }
    benchmarks = ",\n".join(_object(_measured(one), "    ") for one in run.benchmarks)
    return "{\n" + _lines(head, "  ") + ',\n  "benchmarks": [\n' + benchmarks + "\n  ]\n}\n"


def _measured(one: Benchmark) -> dict[str, Any]:
    return {name: value for name, value in one.to_json().items() if name not in COMPARED}


def _object(values: dict[str, Any], indent: str) -> str:
    return f"{indent}{{\n{_lines(values, indent + '  ')}\n{indent}}}"


def _lines(values: dict[str, Any], indent: str) -> str:
    return ",\n".join(f"{indent}{json.dumps(k)}: {json.dumps(v)}" for k, v in values.items())


def _write(folder: Path, run: StoredRun) -> Path:
    """A file of its own for the run, which appears whole or not at all."""
    from datetime import datetime, timezone

    place = folder / folder_of(run.model, run.key)
    place.mkdir(parents=True, exist_ok=True)
    when = datetime.fromtimestamp(run.saved_at, timezone.utc).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    text = dump(run)
    while True:
        path = place / f"{when}Z_{_slug(run.name)}-{os.urandom(3).hex()}.json"
        draft = path.with_name(f".{path.name}.draft")
        try:
            draft.touch(exist_ok=False)  # whoever has the draft may make the file
        except FileExistsError:
            continue
        try:
            draft.write_text(text, encoding="utf-8")
            if not path.exists():
                os.replace(draft, path)
                return path
        finally:
            draft.unlink(missing_ok=True)


def _listed(folder: Path) -> list[str]:
    """The files of stored runs, the newest first: their names begin with the time."""
    found = [path for path in folder.glob("*/*.json") if not path.name.startswith(".")]
    found.sort(key=lambda path: (path.name, path.parent.name), reverse=True)
    return [f"{path.parent.name}/{path.name}" for path in found]


def _slug(text: str) -> str:
    """A text as a part of a file's name: letters and digits of any script, and a few signs."""
    composed = unicodedata.normalize("NFC", text.replace("(R)", ""))
    words = "-".join(re.findall(r"[\w.+]+", composed)).strip(".")
    # File systems count bytes: 255 at most, and more than one for many a letter.
    return words.encode()[:MOST_BYTES].decode(errors="ignore") or "unnamed"


def _when(run: StoredRun) -> float:
    return run.saved_at
