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
    """A folder for the files ``model``, ``product`` and ``cpuinfo`` of a kernel that has none."""
    monkeypatch.setattr(machine, "BOARD", str(tmp_path / "model"))
    monkeypatch.setattr(machine, "PRODUCT", str(tmp_path / "product"))
    monkeypatch.setattr(machine, "PROCESSORS", str(tmp_path / "cpuinfo"))
    return tmp_path


def _arm(*parts: str) -> str:
    """What an ARM64 kernel says of its cores."""
    return "\n".join(
        f"processor\t: {number}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"
        for number, part in enumerate(parts)
    )


def test_a_board(kernel: Path) -> None:
    """Its name in the device tree counts most; there, it ends with a zero."""
    (kernel / "model").write_bytes(b"Radxa ROCK 5B\0")
    (kernel / "cpuinfo").write_text("model name\t: some core\n")
    assert machine.model() == "Radxa ROCK 5B"


def test_a_processor(kernel: Path) -> None:
    """Without a board's name, that of the processor; a PC's product is only its case."""
    (kernel / "product").write_text("OptiPlex 7050\n")
    (kernel / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: AMD  EPYC 7B13\n\nprocessor: 1\n"
    )
    assert machine.model() == "AMD EPYC 7B13"


def test_cores_with_numbers_only(kernel: Path) -> None:
    """In a container on an ARM64 board: the kinds of cores, each once, tell the boards apart."""
    (kernel / "cpuinfo").write_text(_arm("0xd05", "0xd05", "0xd0b", "0xd0b"))
    assert machine.model() == f"{os.uname().machine} 0x41/0xd05 0x41/0xd0b"


def test_a_name_that_all_of_an_architecture_have(kernel: Path) -> None:
    """So do they where the processor's name is that of its architecture."""
    text = _arm("0xd08").replace("CPU imp", "model name\t: ARMv7 Processor rev 3 (v7l)\nCPU imp")
    (kernel / "cpuinfo").write_text(text)
    assert machine.model() == "ARMv7 Processor rev 3 (v7l) 0x41/0xd08"


def test_a_product(kernel: Path) -> None:
    """An ARM64 server has a firmware that knows its name, and processors that have none."""
    (kernel / "product").write_text("Altra Max\n")
    (kernel / "cpuinfo").write_text(_arm("0xd0c"))
    assert machine.model() == f"Altra Max, {os.uname().machine} 0x41/0xd0c"


@pytest.mark.parametrize("product", ["", "To be filled by O.E.M.\n", "System Product Name\n"])
def test_neither(kernel: Path, product: str) -> None:
    """Then the architecture has to do; what firmware says for want of a name is none."""
    (kernel / "product").write_text(product)
    (kernel / "cpuinfo").write_text("CPU implementer\t: 0x41\n")
    assert machine.model() == os.uname().machine


def test_nothing_to_read(kernel: Path) -> None:
    """A machine without such files has an architecture, too."""
    assert machine.model() == os.uname().machine
