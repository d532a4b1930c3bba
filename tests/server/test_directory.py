"""A session's directory: where it is made, what is left behind, how it is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_tvmrpc.server import directory as module
from pytest_tvmrpc.server.directory import (
    PREFIX,
    check_directories,
    find_abandoned,
    make_directory,
    remove_directory,
)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_directories(folder: Path) -> None:
    """Each is new and for this user only; links in it are removed, not followed."""
    first, second = make_directory(), make_directory()
    assert os.path.dirname(first.path) == str(folder)
    assert first.path != second.path
    assert os.stat(first.path).st_mode & 0o777 == 0o700
    precious = folder / "precious"
    precious.mkdir()
    (precious / "file").write_text("abc")
    os.symlink(precious, os.path.join(first.path, "link"))
    os.symlink(precious / "file", os.path.join(first.path, "other"))
    os.makedirs(os.path.join(first.path, "sub", "sub"))
    first.remove()
    first.remove()
    second.remove()
    assert [path.name for path in folder.iterdir()] == ["precious"]
    assert (precious / "file").read_text() == "abc"


def test_a_place_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is tried."""
    monkeypatch.setenv("TMPDIR", str(folder / "none"))
    monkeypatch.setenv("TEMP", str(folder))
    directory = make_directory()
    directory.remove()
    assert os.path.dirname(directory.path) == str(folder)


def test_the_working_directory_is_gone(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no reason to look nowhere."""
    gone = tmp_path_factory.mktemp("gone")
    monkeypatch.chdir(gone)
    gone.rmdir()
    directory = make_directory()
    directory.remove()
    assert os.path.dirname(directory.path) == str(folder)


def test_a_place_from_which_nothing_can_be_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said when the server starts; an ordinary one is not worth a word."""
    assert check_directories() == ""

    class NoExec:
        """What the system says of a folder that is mounted so."""

        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda path: NoExec)
    assert f"in {folder}, which is mounted noexec" in check_directories()
    assert list(folder.iterdir()) == []


def test_no_place_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last reason is the message."""

    def mkdir(path: str, mode: int) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="Read-only file system"):
        check_directories()


def test_folders_without_end(folder: Path) -> None:
    """A thousand of them, each in the last: nothing recurs."""
    os.mkdir(folder / "top")
    descriptor = os.open(folder / "top", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    remove_directory(str(folder / "top"))
    assert not (folder / "top").exists()


def test_what_is_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few files with little in them, in folders or not."""
    monkeypatch.setattr(module, "_FEW", 4)
    monkeypatch.setattr(module, "_LITTLE_NBYTES", 100)
    directory = make_directory()
    inside = Path(directory.path)
    (inside / "sub").mkdir()
    (inside / "sub" / "a").write_bytes(bytes(100))
    assert directory.is_small()
    (inside / "sub" / "b").write_bytes(b"!")
    assert not directory.is_small()
    (inside / "sub" / "b").write_bytes(b"")
    assert directory.is_small()
    for name in "cd":
        (inside / "sub" / name).write_bytes(b"")
    assert not directory.is_small()
    directory.remove()
    assert directory.is_small()


# Python 3.12 warns of forks in processes with threads, as pytest-xdist's are; the server has none.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(os.getuid() != 0, reason="becomes somebody else")
def test_what_may_not_be_written(folder: Path) -> None:
    """Read-only folders in it are removed, too, by who is not root: they are its own."""
    folder.chmod(0o777)
    top = folder / "top"
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(folder)  # while it may pass through those above
            os.setgid(65534)
            os.setuid(65534)
            for mode in (0o555, 0o000):
                inner = f"top/{mode}/inner"
                os.makedirs(inner)
                os.mkdir(f"{inner}/deeper")
                os.chmod(inner, mode)
                os.chmod(f"top/{mode}", mode)
            remove_directory("top")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert not top.exists()


def test_one_that_is_taken_for_abandoned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server that starts just then, in the moment before it is locked: another is made."""
    real = module.fcntl.flock
    taken = []

    def flock(descriptor: int, operation: int) -> None:
        if not taken:
            taken.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            raise BlockingIOError(11, "Resource temporarily unavailable")
        real(descriptor, operation)

    monkeypatch.setattr(module.fcntl, "flock", flock)
    directory = make_directory()
    assert [directory.path] != taken
    assert os.path.dirname(directory.path) == str(folder)
    assert os.path.isdir(directory.path)
    directory.remove()


# As above.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_what_is_removed_elsewhere(folder: Path) -> None:
    """By a process that keeps none of the descriptors that it was told to close."""
    directory = make_directory()
    (Path(directory.path) / "file").write_text("abc")
    reader, writer = os.pipe()
    pid = directory.remove_elsewhere([writer])
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert list(folder.iterdir()) == []


def test_what_was_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found, unless a process still has it; others' files and links are none of our business."""
    monkeypatch.setattr(module, "_places", lambda: [str(folder)])
    kept = make_directory()
    (folder / f"{PREFIX}left" / "sub").mkdir(parents=True)
    (folder / f"{PREFIX}file").write_text("abc")
    (folder / "precious").mkdir()
    os.symlink(folder / "precious", folder / f"{PREFIX}link")
    found = list(find_abandoned())
    assert [Path(directory.path).name for directory in found] == [f"{PREFIX}left"]
    assert list(find_abandoned()) == []  # as it is locked now
    found[0].remove()
    assert Path(kept.path).exists()
    kept.remove()
    assert {path.name for path in folder.iterdir()} == {
        f"{PREFIX}file",
        f"{PREFIX}link",
        "precious",
    }
