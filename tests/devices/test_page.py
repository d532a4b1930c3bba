"""docs/devices.md: its code runs, and drives a device."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Dict

import numpy as np

from pytest_tvmrpc import runtime
from pytest_tvmrpc.runtime.device.api import DeviceAPI

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")


def vendors_library() -> types.ModuleType:
    """What the page imports as the vendor's: memory by numbers that can be added to."""
    memory: Dict[int, bytearray] = {}
    library = types.ModuleType("npu")

    def malloc(nbytes: int) -> int:
        number = (len(memory) + 1) << 32
        memory[number] = bytearray(nbytes)
        return number

    def place(address: int, nbytes: int) -> memoryview:
        start = address & 0xFFFFFFFF
        return memoryview(memory[address - start])[start : start + nbytes]

    def write(address: int, source: memoryview) -> None:
        place(address, len(source))[:] = source

    def read(address: int, target: memoryview) -> None:
        target[:] = place(address, len(target))

    vars(library).update(malloc=malloc, free=memory.pop, write=write, read=read, memory=memory)
    return library


def test_what_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after the other, in one module; a tensor of the device does what tensors do."""
    library = vendors_library()
    monkeypatch.setitem(sys.modules, "npu", library)
    module: Dict[str, object] = {"__name__": "npu_tvmrpc"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/devices.md", "exec"), module)
    try:
        tensor = runtime.tensor(np.arange(6, dtype="float32"), runtime.ext_dev(3))
        part = tensor._create_view((2,), relative_byte_offset=8)
        assert part.copyto(runtime.ext_dev(0)).numpy().tolist() == [2, 3]
        addressable = module["AddressableNPU"]
        assert isinstance(addressable, type)
        _, address = addressable().describe(part)
        assert address
        del tensor, part
        assert not library.memory
    finally:
        runtime.unregister_device_api("ext_dev")


def test_the_page_has_every_method() -> None:
    """Those that have to be written are in the code, the others in the table."""
    for name in [name for name in vars(DeviceAPI) if not name.startswith("_")]:
        shown = f"def {name}(" if name in DeviceAPI.__abstractmethods__ else f"`{name}"
        assert shown in PAGE, name
