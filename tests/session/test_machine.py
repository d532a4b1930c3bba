"""What a machine calls itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_tvmrpc.session import machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(name="kernel")
def _kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the files ``model`` and ``cpuinfo`` of a kernel that has neither."""
    monkeypatch.setattr(machine, "BOARD", str(tmp_path / "model"))
    monkeypatch.setattr(machine, "PROCESSORS", str(tmp_path / "cpuinfo"))
    return tmp_path


def test_a_board(kernel: Path) -> None:
    """Its name in the device tree counts most; there, it ends with a zero."""
    (kernel / "model").write_bytes(b"Radxa ROCK 5B\0")
    (kernel / "cpuinfo").write_text("model name\t: some core\n")
    assert machine.model() == "Radxa ROCK 5B"


def test_a_processor(kernel: Path) -> None:
    """Without a board's name, that of the processor."""
    (kernel / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: AMD  EPYC 7B13\n\nprocessor: 1\n"
    )
    assert machine.model() == "AMD EPYC 7B13"


def test_neither(kernel: Path) -> None:
    """Then the architecture has to do."""
    (kernel / "cpuinfo").write_text("CPU implementer\t: 0x41\n")
    assert machine.model() == os.uname().machine
