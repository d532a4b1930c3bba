"""Files of reports: what is found out before the first test, and how they are written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Callable, List

import pytest

from pytest_tvmrpc.reporting.files import check_file, check_folder, open_live, write_whole

RunPytest = Callable[..., pytest.RunResult]


@pytest.fixture(name="pipe")
def _pipe(tmp_path: Path) -> Path:
    """Something that is no regular file, and that nobody reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def names(folder: Path) -> List[str]:
    """What is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(
    "name", ["run.md", "new/folder/run.md", "old.md", "link.md", "dangling.md"]
)
def test_a_check_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    """No file, no folder, and what is there stays as it is."""
    (tmp_path / "old.md").write_text("old")
    (tmp_path / "link.md").symlink_to("old.md")
    (tmp_path / "dangling.md").symlink_to("missing.md")
    before = names(tmp_path)
    check_file("--rpc-markdown", str(tmp_path / name), "farm.md")
    assert names(tmp_path) == before
    assert (tmp_path / "old.md").read_text() == "old"


@pytest.mark.parametrize("name", ["", "file/x", "file/below/x", "loop", "n\0l", "x" * 300])
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    """A folder, what lies below a file, links that lead nowhere, names that cannot be."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    message = "--rpc-html=.* cannot be written: .*; expected .* --rpc-html=farm.html"
    with pytest.raises(pytest.UsageError, match=f"(?s){message}"):
        check_file("--rpc-html", f"{tmp_path}/{name}", "farm.html")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder refuses new files here")
def test_a_folder_that_takes_no_files() -> None:
    """It is not enough that it is there: files are made in it."""
    with pytest.raises(pytest.UsageError, match=r"--rpc-html=/proc/farm\.html cannot be written"):
        check_file("--rpc-html", "/proc/farm.html", "farm.html")
    with pytest.raises(pytest.UsageError, match=r"--rpc-bench-dir=/proc cannot .*benchmarks"):
        check_folder("--rpc-bench-dir", "/proc", "benchmarks")


def test_a_folder_for_files(tmp_path: Path) -> None:
    """One that is there, or can be made; it is not made yet."""
    check_folder("--rpc-bench-dir", str(tmp_path / "new" / "below"), "benchmarks")
    check_folder("--rpc-bench-dir", str(tmp_path), "benchmarks")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(pytest.UsageError, match="expected a folder"):
        check_folder("--rpc-bench-dir", str(tmp_path / "file"), "benchmarks")


def test_what_is_no_regular_file_is_written_to(pipe: Path) -> None:
    """A device or a pipe is not replaced; to try it does not wait for a reader, nor end one."""
    check_file("--rpc-html", str(pipe), "farm.html")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, "page")
        assert os.read(reader, 100) == b"page"
        with open_live(pipe) as file:
            file.write("line")
        assert os.read(reader, 100) == b"line"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(pipe.parent) == ["pipe"]


@pytest.mark.parametrize("target", ["old.md", "below/new.md"])
def test_a_link_stays_a_link(tmp_path: Path, target: str) -> None:
    """What it points to is written, with the rights that it had."""
    old = tmp_path / "old.md"
    old.write_text("old")
    old.chmod(0o604)
    link = tmp_path / "link.md"
    link.symlink_to(target)
    for write in (write_whole, lambda path, text: _write_live(path, text)):
        write(link, "new")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert stat.S_IMODE(old.stat().st_mode) == 0o604
    assert names(tmp_path) == sorted({"link.md", "old.md", Path(target).parts[0]})


def _write_live(path: Path, text: str) -> None:
    with open_live(path) as file:
        file.write(text)


@pytest.mark.parametrize("write", [write_whole, _write_live])
def test_a_file_that_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], None]
) -> None:
    """It is written in place, as one that is mounted; nothing else is left in the folder."""

    def busy(source: object, target: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    path = tmp_path / "summary.md"
    path.write_text("a longer text")
    inode = path.stat().st_ino
    monkeypatch.setattr(os, "replace", busy)
    write(path, "new")
    assert (path.read_text(), path.stat().st_ino) == ("new", inode)
    with pytest.raises(OSError, match="busy"):
        write(tmp_path / "other.md", "new")
    assert names(tmp_path) == ["summary.md"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is replaced when the new one is whole, not before."""

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "farm.html"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["farm.html"]


# --- in a run -------------------------------------------------------------------------------------

FILES = ("--rpc-report=run.jsonl", "--rpc-html=farm.html", "--rpc-markdown=farm.md")

MEASURED = """
    from pathlib import Path
    from pytest_tvmrpc.benchmarking.records import Benchmark
    from pytest_tvmrpc.records import Attempt, TestRecord

    def pytest_tvmrpc_run_finished(run):
        one = Benchmark("test_it", "gemm", "jetson", "Orin", "jetson@h:1", 1.0, 1, [1.0, 2.0])
        attempt = Attempt(1, "passed", benchmarks=[one.to_json()])
        run.tests.append(TestRecord("test_it", "", [attempt]))
"""


def test_benchmarks_that_cannot_be_stored(plain: pytest.Pytester, run: RunPytest) -> None:
    """That is said as what it is; the other files are written, and the tests have passed."""
    plain.makeconftest(MEASURED)
    plain.makepyfile("def test_local(): open('stored', 'w').close()")
    result = run(*FILES, "--rpc-bench-save=main", "--rpc-bench-dir=stored")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "nothing was saved: writing failed",
            "--rpc-bench-save=main could not be written: *stored*",
            *(f"rpc: wrote {name}" for name in ("run.jsonl", "farm.html", "farm.md")),
        ]
    )
    result.stdout.no_fnmatch_line("*no test that passed*")
    assert "--rpc-bench-save=main could not" in (plain.path / "farm.html").read_text("utf-8")
    assert (plain.path / "farm.md").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("option", ["--rpc-report", "--rpc-html", "--rpc-markdown"])
def test_a_full_disk(plain: pytest.Pytester, run: RunPytest, option: str) -> None:
    """It is said that this file is not there, and not that it was written; the tests pass."""
    plain.makepyfile("def test_local(): pass")
    others = [other for other in FILES if not other.startswith(option)]
    result = run(*others, f"{option}=/dev/full")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f"{option}=/dev/full *: *No space left on device*"])
    wrote = [line for line in result.outlines if line.startswith("rpc: wrote ")]
    assert wrote == [f"rpc: wrote {other.partition('=')[2]}" for other in others]


def test_a_folder_for_benchmarks_that_cannot_be_written(
    plain: pytest.Pytester, run: RunPytest
) -> None:
    """It is found out before the first test, if something is to be stored there."""
    plain.makepyfile("def test_local(): pass")
    (plain.path / "file").write_text("no folder")
    result = run("--rpc-bench-save=main", "--rpc-bench-dir=file/below", "--rpc-html=new/farm.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --rpc-bench-dir=*file/below cannot be written: *"])
    assert not (plain.path / "new").exists()
    run("--rpc-bench-dir=file/below").assert_outcomes(passed=1)


BROKEN = {
    "store.save": ("benchmarking.store.save", "--rpc-bench-save=main"),
    "page": ("reporting.page.write_html", "--rpc-html=*farm.html"),
    "markdown": ("reporting.markdown.markdown", "--rpc-markdown=*farm.md"),
    "lines": ("reporting.tally.tally", "--rpc-report=*run.jsonl"),
    "section": ("reporting.terminal.write_section", 'the section "remote devices"'),
    "durations": ("reporting.terminal.write_durations", "--rpc-durations=3"),
    "benchmarks": ("reporting.benchmarks.write_benchmarks", 'the section "benchmarks"'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_report_that_fails(
    plain: pytest.Pytester, run: RunPytest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An error of ours in one report is told with its type; the others, and the verdict, stand."""

    def broken(*arguments: object, **more: object) -> None:
        raise LookupError("no such row")

    place, told = BROKEN[name]
    monkeypatch.setattr(f"pytest_tvmrpc.{place}", broken)
    plain.makeconftest(MEASURED)
    plain.makepyfile("def test_local(): pass")
    result = run(*FILES, "--rpc-bench-save=main", "--rpc-durations=3")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f"{told} is not complete: LookupError: no such row (*)"])
    written = {"run.jsonl", "farm.html", "farm.md"} - {{"page": "farm.html"}.get(name, "")}
    assert written - {{"markdown": "farm.md"}.get(name, "")} <= set(names(plain.path))
    assert (plain.path / ".rpc-benchmarks").exists() is (name != "store.save")


def test_a_hook_that_fails(plain: pytest.Pytester, run: RunPytest) -> None:
    """What a project adds to the reports does not take them away."""
    plain.makeconftest("def pytest_tvmrpc_run_finished(run): raise LookupError('no sensor')")
    plain.makepyfile("def test_local(): pass")
    result = run(*FILES)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["*pytest_tvmrpc_run_finished*LookupError: no sensor*conftest.py:1*"]
    )
    assert {"run.jsonl", "farm.html", "farm.md"} <= set(names(plain.path))
    assert '"$type": "end"' in (plain.path / "run.jsonl").read_text()
