"""Stored runs: files that people can read, found again, and never a reason to crash."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Callable

import pytest

from pytest_tvmrpc.benchmarking import store
from pytest_tvmrpc.benchmarking.records import COMPARED, Benchmark
from pytest_tvmrpc.records import Run

if TYPE_CHECKING:
    from pathlib import Path

Make = Callable[..., Benchmark]
RunOf = Callable[..., Run]


def test_a_file_for_each_kind_of_device(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """Folders by model and key; the time and the name of the run in the file's name."""
    run = run_of(make(), make(key="rpi"), make(name="b"), ended_at=1795190009.5)
    saved = store.save(run, tmp_path, "main")
    names = [path.relative_to(tmp_path).as_posix() for path in saved]
    for name, key in zip(names, ("jetson", "rpi")):
        assert re.fullmatch(rf"Orin-{key}/20261120T155329\.500Z_main-[0-9a-f]{{6}}\.json", name)
    assert sorted(tmp_path.rglob("*.json")) == sorted(saved)
    names = [one.name for one in store.parse(saved[0].read_text()).benchmarks]
    assert names == ["gemm", "b"]


def test_for_people(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """Valid JSON with a line for each value, without what a comparison said."""
    (path,) = store.save(run_of(make(verdict="slower", note="x")), tmp_path, "main")
    text = path.read_text()
    stored = json.loads(text)
    assert (stored["format"], stored["name"], stored["key"]) == (1, "main", "jetson")
    (benchmark,) = stored["benchmarks"]
    assert not set(COMPARED) & set(benchmark)
    assert '      "number": 10,\n      "samples_s": [0.00099, 0.001, ' in text


def test_only_what_passed(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """A run without passed tests leaves no file and no folder."""
    assert store.save(run_of(make(), verdict="failed"), tmp_path / "none", "main") == []
    assert not (tmp_path / "none").exists()


def test_names_that_are_no_names_of_files(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """Whatever a model, a key or a run is called, it is found again."""
    odd = make(model="../NVIDIA Orin(TM)\0 / 8 GB", key="a/b:c")
    saved = store.save(run_of(odd), tmp_path, "fix #12: Größe")
    assert saved[0].parent.parent == tmp_path
    assert "_fix-12-Größe-" in saved[0].name
    ((found, _),) = store.Store(tmp_path).earlier(odd, "fix #12: Größe", 10)
    assert found.name == "fix #12: Größe"


def test_names_of_any_script(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """They stay readable, in one form of writing, and as short as a file's name has to be."""
    chips = [make(model="昇腾310"), make(model="Gro\u0308\u00dfe"), make(model="漢" * 300)]
    saved = store.save(run_of(*chips, make(model="###", key="")), tmp_path, "основа")
    folders = sorted(path.parent.name for path in saved)
    assert folders == sorted(["昇腾310-jetson", "Größe-jetson", "漢" * 33, "unnamed"])
    assert all("_основа-" in path.name for path in saved)
    stored = store.Store(tmp_path)
    assert all(len(stored.earlier(chip, "основа", 10)) == 1 for chip in chips)


def test_two_in_one_millisecond(
    tmp_path: Path, make: Make, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs with one name and time have files of their own, even with the same digits by chance."""
    digits = iter([b"\0\0\0", b"\0\0\0", b"\0\0\1"])
    monkeypatch.setattr("os.urandom", lambda _: next(digits))
    saved = [store.save(run_of(make(median)), tmp_path, "main")[0] for median in (1.0, 2.0)]
    assert [path.stem[-6:] for path in saved] == ["000000", "000001"]
    found = store.Store(tmp_path).runs()
    assert {run.benchmarks[0].median_s for run in found} == {1.0, 2.0}


def test_many_at_once(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """However many save at the same time, each has its file, and there is nothing else."""
    runs = [run_of(make(float(number))) for number in range(1, 41)]
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda run: store.save(run, tmp_path, "main")[0], runs))
    assert sorted(saved) == sorted((tmp_path / "Orin-jetson").iterdir())
    found = store.Store(tmp_path).runs()
    assert sorted(run.benchmarks[0].median_s for run in found) == list(range(1, 41))


def test_two_kinds_in_one_folder(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """Kinds whose folders have the same name are told apart by what the files say."""
    store.save(run_of(make(1.0, model="a b")), tmp_path, "one")
    store.save(run_of(make(2.0, model="a-b"), ended_at=3000.0), tmp_path, "two")
    assert len(list(tmp_path.iterdir())) == 1
    ((found, _),) = store.Store(tmp_path).earlier(make(model="a b"), "", 10)
    assert found.name == "one"


def test_the_newest_that_has_it(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """A later run of some other tests does not hide the baseline; a name chooses among all."""
    store.save(run_of(make(1.0), ended_at=1000.0), tmp_path, "main")
    store.save(run_of(make(2.0), ended_at=2000.0), tmp_path, "main")
    store.save(run_of(make(3.0), ended_at=3000.0), tmp_path, "branch")
    store.save(run_of(make(4.0, name="other"), ended_at=4000.0), tmp_path, "main")
    stored = store.Store(tmp_path)
    runs = stored.earlier(make(), "", 10)
    assert [(run.name, one.median_s) for run, one in runs] == [
        *(("branch", 3.0), ("main", 2.0), ("main", 1.0))
    ]
    assert [one.median_s for _, one in stored.earlier(make(), "main", 10)] == [2.0, 1.0]
    assert [one.median_s for _, one in stored.earlier(make(), "main", 1)] == [2.0]
    assert stored.earlier(make(), "none", 10) == []
    assert stored.earlier(make(key="rpi"), "", 10) == []


def test_no_more_is_read_than_needed(
    tmp_path: Path, make: Make, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test holds its device meanwhile: of many files, the newest that will do, each once."""
    for number in range(30):
        store.save(run_of(make(), ended_at=1000.0 + number), tmp_path, "main")
    read: list[str] = []
    parse = store.parse
    monkeypatch.setattr(store, "parse", lambda text: read.append(text) or parse(text))
    stored = store.Store(tmp_path)
    assert read == []
    for _ in range(2):
        runs = stored.earlier(make(), "", 10)
        assert [run.saved_at for run, _ in runs] == [1029.0 - number for number in range(10)]
    assert len(read) == 10


def test_what_is_stored_meanwhile(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """Only what was there when the folder was listed counts, also in another process."""
    store.save(run_of(make(1.0)), tmp_path, "main")
    stored = store.Store(tmp_path)
    store.save(run_of(make(2.0), ended_at=9000.0), tmp_path, "main")
    for one in (stored, store.Store(tmp_path, stored.names)):
        assert [found.median_s for _, found in one.earlier(make(), "", 10)] == [1.0]
    assert len(store.Store(tmp_path).earlier(make(), "", 10)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "name": "a", "saved_at": 1, "model": "m", "key": "k", "benchmarks": [1]}',
        '{"format": 1, "name": "a", "saved_at": 1, "model": "m", "key": "k", "benchmarks": [{}]}',
        "\udcff",
    ],
)
def test_a_broken_file(tmp_path: Path, make: Make, run_of: RunOf, text: str) -> None:
    """It is named once, with a reason, and the others are read."""
    (good,) = store.save(run_of(make()), tmp_path, "main")
    bad = good.with_name("bad.json")
    bad.write_bytes(text.encode("utf-8", "surrogateescape"))
    stored = store.Store(tmp_path)
    assert len(stored.earlier(make(), "", 10)) == 1
    assert [run.name for run in stored.runs()] == ["main"]
    (note,) = stored.broken
    assert note.startswith(f"{bad}: left out, it is no stored run (")


def test_a_file_that_cannot_be_written(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """The error of the system comes through; nothing half-written stays."""
    (tmp_path / "Orin-jetson").write_text("in the way")
    with pytest.raises(OSError, match="Orin-jetson"):
        store.save(run_of(make()), tmp_path, "main")
    assert [path.name for path in tmp_path.iterdir()] == ["Orin-jetson"]


def test_nothing_half_written(
    tmp_path: Path, make: Make, run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the last step fails, there is neither the file nor its first draft."""

    def refuse(*arguments: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no"):
        store.save(run_of(make()), tmp_path, "main")
    assert list((tmp_path / "Orin-jetson").iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path, make: Make) -> None:
    """It has no runs, and no series."""
    assert store.Store(tmp_path / "none").runs() == []
    assert store.Store(tmp_path / "none").earlier(make(), "", 10) == []
    assert store.history(tmp_path / "none") == []


def test_history(tmp_path: Path, make: Make, run_of: RunOf) -> None:
    """A series for each benchmark and kind of device, the oldest run first."""
    wide = (1.0, 2.0, 3.0, 4.0, 5.0)
    store.save(run_of(make(2.0, wide), make(key="rpi"), ended_at=2000.0), tmp_path, "second")
    store.save(run_of(make(1.0, wide), ended_at=1000.0), tmp_path, "first")
    jetson, rpi = store.history(tmp_path)
    assert (jetson.test, jetson.name, jetson.model, jetson.key) == make().identity
    assert jetson.points == [
        store.Point(1000.0, "first", 3.0, 2.0, 4.0),
        store.Point(2000.0, "second", 6.0, 4.0, 8.0),
    ]
    assert [point.run for point in rpi.points] == ["second"]


def test_of_attempts_the_last(make: Make, run_of: RunOf) -> None:
    """What was measured before a device dropped out does not count."""
    run = run_of(make(1.0))
    run.tests[0].attempts.append(run_of(make(2.0)).tests[0].attempts[0])
    assert [one.median_s for one in store.benchmarks_of(run)] == [2.0]
