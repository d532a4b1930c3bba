from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_tvmrpc.runtime.replacing import replacing


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    """While it is written, there is the old one; nothing else is left."""
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as partial:
        Path(partial).write_text("new")
        assert path.read_text() == "old"
        assert os.path.dirname(partial) == str(tmp_path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_written", [False, True])
def test_a_file_that_is_given_up(tmp_path: Path, is_written: bool) -> None:
    """The old one stays, and what was written is removed, whatever was raised."""
    path = tmp_path / "file"
    path.write_text("old")

    def give_up() -> None:
        with replacing(path) as partial:
            if is_written:
                Path(partial).write_text("new")
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        give_up()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_nobody_wrote(tmp_path: Path) -> None:
    """It is an error, and makes no file."""
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []
