"""The run's own tracker and servers, before they start and when they cannot."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from pytest_tvmrpc.errors import StartError
from pytest_tvmrpc.options import Options
from pytest_tvmrpc.running.farm import Farm
from pytest_tvmrpc.running.logs import LogFolder, new_name


def nobody(tracker: Any) -> None:
    """Leaves starting servers to the farm."""


def test_an_address_before_anything_is_started() -> None:
    """Workers are told address and folder, the same each time; there is no folder yet."""
    farm = Farm(Options(), nobody)
    try:
        assert farm.address is None
        address = farm.start_when_asked()
        assert farm.start_when_asked() == address == farm.address
        assert farm.folder
        assert not os.path.exists(farm.folder)
    finally:
        farm.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert not farm.notes


def test_a_worker_that_asks_too_late() -> None:
    """Nothing is bound any more when the run is over."""
    farm = Farm(Options(), nobody)
    farm.close()
    with pytest.raises(StartError, match="the run is over"):
        farm.start_when_asked()
    assert farm.address is None


def test_an_address_that_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told why."""

    def listen(host: str, port: int) -> socket.socket:
        raise OSError("too many open files")

    monkeypatch.setattr("pytest_tvmrpc.network.listen", listen)
    farm = Farm(Options(), nobody)
    with pytest.raises(StartError, match=r"did not start: too many open files$"):
        farm.start_when_asked()
    farm.close()


def test_a_start_that_hangs(monkeypatch: pytest.MonkeyPatch, deadline_s: float) -> None:
    """The end of the run does not wait for it, and says so; what it brings is ended, too."""
    monkeypatch.setattr("pytest_tvmrpc.running.farm.STARTING_S", 0.05)
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    class Late:
        def terminate(self) -> None:
            ended.set()

    def hang(tracker: Any) -> "list[Late]":
        begun.set()
        assert may_end.wait(deadline_s)
        return [Late()]

    farm = Farm(Options(), hang)
    try:
        with socket.create_connection(farm.start_when_asked()):
            assert begun.wait(deadline_s)
            farm.close()
        assert not os.path.exists(farm.folder)
        (note,) = farm.notes
        assert "still starting; they were abandoned" in note
        assert not ended.is_set()
    finally:
        may_end.set()
    assert ended.wait(deadline_s)


def test_a_program_that_cannot_be_ended(wait_until: Callable[..., None]) -> None:
    """The others are ended all the same, and the reader is told."""
    ended = []

    class Stuck:
        def terminate(self) -> None:
            raise RuntimeError("it is bolted down")

        def __repr__(self) -> str:
            return "the rack"

    class Willing:
        def terminate(self) -> None:
            ended.append(self)

    willing = Willing()
    farm = Farm(Options(), lambda tracker: [Stuck(), willing])
    address = farm.start()
    farm.close()
    assert ended == [willing]
    (note,) = farm.notes
    assert note.endswith("the rack, could not be ended: RuntimeError: it is bolted down")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_logs_of_a_run_that_was_killed() -> None:
    """The next run removes them; those of a run that goes on stay, and so does what is not ours."""
    killed, other = new_name(), Path(tempfile.gettempdir()) / "tvmrpc-notes"
    Path(killed, "0.log").parent.mkdir()
    Path(killed, "0.log").write_text("ready")
    other.mkdir()
    running = LogFolder(new_name())
    second = new_name()
    try:
        assert not os.path.exists(killed)
        one_more = LogFolder(second)
        assert os.path.exists(second)
        assert len(list(Path(tempfile.gettempdir()).glob("tvmrpc-*"))) == 3
        one_more.remove()
        assert not os.path.exists(second)
    finally:
        running.remove()
        other.rmdir()
