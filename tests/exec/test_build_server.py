"""`tvmrpc build-server`, with the compilers that are there."""

from __future__ import annotations

import pytest

from pytest_tvmrpc.exec import build_server


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the targets, and the extra that brings a compiler for them."""
    monkeypatch.setenv("COLUMNS", "2000")  # where no triple is broken
    with pytest.raises(SystemExit, match="0"):
        build_server.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "usage: tvmrpc build-server" in shown
    for words in ("aarch64-linux-gnu.2.28", "s390x-linux-gnu", "pytest-tvmrpc[cross]"):
        assert words in shown


def test_unknown_target(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr, and exit status 1."""
    assert build_server.main(["--target=toaster"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: 'toaster' is no target that a compiler here knows; ")
    assert shown.err.count("\n") == 1
