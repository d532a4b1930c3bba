"""A session's directory: where it is made, what is left behind, how it is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_tvmrpc.server import directory as module
from pytest_tvmrpc.server.directory import PREFIX, find_abandoned, make_directory, remove_directory


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
