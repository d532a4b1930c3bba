"""What is kept of a test: its folders, and what its devices printed."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Callable, Dict, List, Set

import pytest

from pytest_tvmrpc.options import Options
from pytest_tvmrpc.running import artifacts
from pytest_tvmrpc.running.logs import SessionLog

from .farms import Farm, last, read

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

TESTS = """
    from acts import drop, is_first, load

    def test_passes(remote, rpc_artifacts):
        (rpc_artifacts / "trace.bin").write_bytes(b"trace")
        load(remote)["say"]()

    def test_fails(remote):
        load(remote)["say"]()
        assert 0

    def test_again(remote, rpc_artifacts):
        (rpc_artifacts / "trace.bin").write_bytes(b"trace")
        load(remote)["say"]()
        if is_first():
            drop(remote)

    def test_local(rpc_artifacts):
        (rpc_artifacts / "nothing.txt").write_text("nothing")
"""


def kept(folder: Path) -> "Dict[str, Set[str]]":
    """The files of each attempt, by test and number."""
    found: Dict[str, Set[str]] = {}
    for path in folder.glob("*/attempt-*/*"):
        test = path.parent.parent.name.partition(".py-")[2].rpartition("-")[0]
        number = path.parent.name.partition("-")[2]
        found.setdefault(f"{test} {number}", set()).add(path.name)
    return found


PASSES = {"attempt.json", "output.txt", "trace.bin"}
FAILS = {"attempt.json", "output.txt", "error.txt"}
LOST = {"attempt.json", "error.txt", "trace.bin"}  # it could not be asked what it had printed


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("off", {}),
        (
            "on",
            {
                "test_passes 1": PASSES,
                "test_fails 1": FAILS,
                "test_again 1": LOST,
                "test_again 2": PASSES,
                "test_local 1": {"nothing.txt"},
            },
        ),
        ("retain-on-failure", {"test_fails 1": FAILS, "test_again 1": LOST}),
    ],
)
def test_folders(
    plain: pytest.Pytester,
    run: Run,
    lasting_farm: Farm,
    faults: Path,
    choice: str,
    expected: "Dict[str, Set[str]]",
) -> None:
    """For each attempt one: for all, none, or those that went wrong."""
    lasting_farm.write(plain.path, faults)
    plain.makepyfile(TESTS)
    reports = ("--rpc-report=run.jsonl", "--junitxml=junit.xml")
    options = ("--rpc-reruns=1", f"--rpc-artifacts={choice}", *reports)
    result = run(*lasting_farm.arguments, *options)
    assert result.parseoutcomes() == {"passed": 3, "failed": 1, "rerun": 1}
    folder = plain.path / "rpc-artifacts"
    assert kept(folder) == expected
    assert folder.exists() == bool(expected)
    tests = read(plain.path)
    for test in tests.values():
        for attempt in test.attempts:
            name = f"{test.nodeid.rpartition('::')[2]} {attempt.number}"
            assert bool(attempt.artifacts) == (name in expected)
            if attempt.artifacts:
                said = json.loads((folder / attempt.artifacts / "attempt.json").read_text())
                assert said["verdict"] == attempt.verdict
    if choice == "on":
        output = folder / last(tests["test_passes"]).artifacts / "output.txt"
        assert output.read_text() == "said by the device\n"
    attached = attachments(plain.path / "junit.xml")
    assert len(attached) == sum(len(files) for files in expected.values()) - (choice == "on")
    assert all((plain.path / path).is_file() for path in attached)


def attachments(path: Path) -> "list[str]":
    """The files that the JUnit file names, as GitLab and Jenkins look for them."""
    found = []
    for stream in ElementTree.parse(path).iter("system-out"):
        lines = (stream.text or "").splitlines()
        found += [line[len("[[ATTACHMENT|") : -2] for line in lines if line.startswith("[[ATT")]
    return found


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_what_the_device_printed(
    plain: pytest.Pytester, run_apart: Run, faults: Path, workers: "tuple[str, ...]"
) -> None:
    """Under each failure, whatever its kind; each test has its own part."""
    (plain.path / faults.name).symlink_to(faults)
    plain.makepyfile(
        """
        import pytest

        def load(remote):
            remote.upload("faults.so")
            return remote.load_module("faults.so")

        def test_assertion(remote):
            load(remote)["say"]()
            assert 0

        def test_crash(remote):
            load(remote)["crash"]()

        @pytest.mark.rpc_timeout(call=0.5)
        def test_hang(remote):
            load(remote)["hang"]()

        def test_shared(remote_session):
            load(remote_session)["say"]()
            assert 0

        def test_silent(remote_session):
            assert 0
        """
    )
    arguments = ("--rpc-artifacts=retain-on-failure", "--rpc-artifacts-dir=kept")
    result = run_apart("--rpc-report=run.jsonl", *arguments, "--rpc-servers=2", *workers)
    assert result.parseoutcomes() == {"failed": 5}
    expected = {
        "test_assertion": "said by the device\n",
        "test_crash": "about to crash\n",
        "test_hang": "about to hang\n",
        "test_shared": "said by the device\n",
        "test_silent": "",
    }
    for name, test in read(plain.path).items():
        attempt = last(test)
        assert expected[name] in attempt.output, name
        foreign = set(expected.values()) - {expected[name], ""}
        assert not [text for text in foreign if text in attempt.output], name
        file = plain.path / "kept" / attempt.artifacts / "output.txt"
        assert file.exists() == bool(attempt.output)
    result.stdout.fnmatch_lines_random(
        [
            "*- Captured rpc output (local@127.0.0.1:*) -*",
            "said by the device",
            "about to crash",
            "about to hang",
        ]
    )


def test_what_the_next_session_printed(plain: pytest.Pytester, run: Run, faults: Path) -> None:
    """It is not shown for the session that crashed, though the server's log has both."""
    (plain.path / faults.name).symlink_to(faults)
    plain.makepyfile(
        """
        import pytest
        from pytest_tvmrpc.errors import SessionCrashedError

        def call(remote, name):
            remote.upload("faults.so")
            remote.load_module("faults.so")[name]()

        def test_crash(remote, remote_device):
            with pytest.raises(SessionCrashedError):
                call(remote, "crash")
            call(remote_device("local"), "say")
            assert 0
        """
    )
    run("--rpc-report=run.jsonl", "--rpc-servers=1").assert_outcomes(failed=1)
    (test,) = read(plain.path).values()
    crashed, said = last(test).output.split(" INFO finish serving ")
    assert "about to crash\n" in crashed
    assert said.splitlines()[1:] == ["said by the device"]


def test_the_log_of_a_session_ends_with_it(tmp_path: Path) -> None:
    """What comes later is never read, also not if it is asked for again."""
    path = tmp_path / "log"
    stamp = "2026-11-20 22:50:28.225 INFO"
    path.write_text(f"{stamp} finish serving 127.0.0.1:1: session ended\n")
    log = SessionLog(str(path))
    with path.open("a") as file:
        print("first", file=file, flush=True)
        assert log.read() == b"first\n"
        print("no new line", end="", file=file)
        print(stamp, "finish serving 127.0.0.1:2: session ended", file=file)
        print("of the next", file=file)
    assert log.read().decode() == f"no new line{stamp} finish serving 127.0.0.1:2: session ended\n"
    assert log.read() == b""
    assert SessionLog("").read() == b""


def test_what_an_earlier_run_kept_goes(
    plain: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that failed before and passes now leaves nothing; what is not ours stays."""
    plain.makepyfile(
        """
        import os

        def test_a(remote):
            assert "FINE" in os.environ
        """
    )
    folder = plain.path / "rpc-artifacts"
    run("--rpc-artifacts=retain-on-failure").assert_outcomes(failed=1)
    assert [entry.name.rpartition("-")[0] for entry in folder.iterdir()]
    (folder / "mine").mkdir()
    monkeypatch.setenv("FINE", "1")
    run("--rpc-artifacts=retain-on-failure").assert_outcomes(passed=1)
    assert [entry.name for entry in folder.iterdir()] == ["mine"]


def test_several_workers(plain: pytest.Pytester, run_apart: Run) -> None:
    """They share the folder of all tests, and none takes it away from the others."""
    pytest.importorskip("xdist")
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(300))
        def test_it(rpc_artifacts, number):
            (rpc_artifacts / "x").write_text("x")
        """
    )
    result = run_apart("-n", "4", "--rpc-artifacts=retain-on-failure")
    assert result.parseoutcomes()["passed"] == 300
    assert result.ret == 0
    assert not (plain.path / "rpc-artifacts").exists()


def test_the_folder_of_all_tests_stays_while_tests_run(tmp_path: Path) -> None:
    """That of a test goes with its last attempt."""
    options = Options(artifacts_dir=str(tmp_path / "all"))
    artifacts.make_folder(options, os.path.join("test-12345678", "attempt-1"))
    artifacts.discard(options, os.path.join("test-12345678", "attempt-1"))
    assert os.listdir(tmp_path / "all") == []
    artifacts.tidy(options)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_goes_away_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may remove the folder of the same test; then it is made again."""
    calls: List[str] = []
    make_one = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        calls.append(path)
        if len(calls) < 6 and path.endswith("attempt-1"):
            os.rmdir(os.path.dirname(path))
        make_one(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    options = Options(artifacts_dir=str(tmp_path / "all"))
    assert os.listdir(artifacts.make_folder(options, "test-12345678/attempt-1")) == []
    assert len(calls) > 5


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nope"])
def test_a_folder_that_takes_nothing(plain: pytest.Pytester, run: Run, place: str) -> None:
    """It is found out before the first test, and only if files are to be kept."""
    if place.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("there is no /proc")
    (plain.path / "file").touch()
    plain.makepyfile("def test_it(rpc_artifacts): pass")
    arguments = [f"--rpc-artifacts-dir={place}"]
    run(*arguments).assert_outcomes(passed=1)
    result = run(*arguments, "--rpc-artifacts=on")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --rpc-artifacts-dir=* takes no files: *; expected a *"])
    result.stdout.no_fnmatch_line("*passed*")


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "n1"])
def test_a_folder_that_takes_nothing_any_more(
    plain: pytest.Pytester, run_apart: Run, lasting_farm: Farm, workers: "tuple[str, ...]"
) -> None:
    """Tests have their verdicts all the same; the end of the run says what is missing."""
    plain.makepyfile(
        """
        import pathlib, shutil

        def test_before(remote): pass

        def test_break(remote):
            shutil.rmtree("rpc-artifacts")
            pathlib.Path("rpc-artifacts").touch()

        def test_after(remote):
            assert 0
        """
    )
    reports = ("--rpc-report=run.jsonl", "--junitxml=junit.xml")
    result = run_apart(*lasting_farm.arguments, "--rpc-artifacts=on", *reports, *workers)
    assert result.parseoutcomes() == {"passed": 2, "failed": 1}
    result.stdout.fnmatch_lines(
        ["--rpc-artifacts-dir=* did not take all files: *; in *::test_break and 1 more"]
    )
    tests = read(plain.path)
    assert [bool(last(test).artifacts) for test in tests.values()] == [True, False, False]
