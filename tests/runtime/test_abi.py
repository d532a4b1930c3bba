from __future__ import annotations

import builtins
import ctypes
import functools
import gc
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from pytest_tvmrpc.runtime import abi

IS_64_BIT = ctypes.sizeof(ctypes.c_void_p) == 8


@pytest.mark.skipif(not IS_64_BIT, reason="the numbers are those of 64-bit machines")
def test_layouts() -> None:
    """Sizes and offsets are those that a C compiler gave for TVM's own headers."""
    assert abi.HEADER_SIZE == 24
    assert ctypes.sizeof(abi.TVMFFIByteArray) == 16
    assert ctypes.sizeof(abi.TVMFFIFunctionCell) == 16
    assert ctypes.sizeof(abi.DLTensor) == 48
    header = {"combined_ref_count": 0, "type_index": 8, "padding": 12, "deleter": 16}
    assert {name: getattr(abi.TVMFFIObject, name).offset for name in header} == header
    tensor = {
        "data": 0,
        "device_type": 8,
        "device_id": 12,
        "ndim": 16,
        "code": 20,
        "bits": 21,
        "lanes": 22,
        "shape": 24,
        "strides": 32,
        "byte_offset": 40,
    }
    assert {name: getattr(abi.DLTensor, name).offset for name in tensor} == tensor


def test_type_indices() -> None:
    """The numbers are TVM's, not ours to choose."""
    assert abi.TypeIndex.DL_TENSOR_PTR == 7
    assert (abi.TypeIndex.SMALL_STR, abi.TypeIndex.STR) == (11, 65)
    assert (abi.TypeIndex.FUNCTION, abi.TypeIndex.TENSOR, abi.TypeIndex.MODULE) == (68, 70, 73)


class Value:
    """Something that can be seen to be gone."""


def test_cells_count_references() -> None:
    """A cell keeps its value until its last reference is given back."""
    value = Value()
    gone = weakref.ref(value)
    address = abi.new_cell(abi.TypeIndex.OBJECT, value, b"payload")
    del value
    assert ctypes.string_at(address + abi.HEADER_SIZE, 7) == b"payload"
    abi.retain(address)
    abi.release(address)
    gc.collect()
    assert abi.value_of_cell(address) is gone()
    assert gone() is not None
    abi.release(address)
    gc.collect()
    assert gone() is None
    assert abi.value_of_cell(address) is None


def test_cells_with_weak_references() -> None:
    """The value goes with the last strong reference, the memory with the last weak one."""
    value = Value()
    gone = weakref.ref(value)
    address = abi.new_cell(abi.TypeIndex.OBJECT, value)
    header = abi.TVMFFIObject.from_address(address)
    header.combined_ref_count += 1 << 32
    del value
    abi.release(address)
    gc.collect()
    assert gone() is None
    assert address in abi._cells
    assert header.combined_ref_count == 1 << 32
    abi._delete(address, 2)
    assert address not in abi._cells


def test_cells_for_weak_references() -> None:
    """A cell that was given a weak reference stands for what that refers to, while it lives."""
    value = Value()
    address = abi.new_cell(abi.TypeIndex.OBJECT, None)
    assert abi.value_of_cell(address) is None
    abi.set_value_of_cell(address, weakref.ref(value))
    assert abi.value_of_cell(address) is value
    del value
    gc.collect()
    assert abi.value_of_cell(address) is None
    abi.release(address)


def test_objects_nested_at_any_depth() -> None:
    """The end of one object takes the next with it, in a loop and not in as many calls."""
    before, last = len(abi._cells), 0
    for _ in range(5000):
        inner = last
        drop = functools.partial(lambda inner, _: abi.release(inner), inner) if inner else None
        last = abi.new_cell(abi.TypeIndex.OBJECT, None, drop=drop)
    assert len(abi._cells) == before + 5000
    abi.release(last)
    assert len(abi._cells) == before


def test_a_list_that_ctrl_c_left() -> None:
    """What an interrupted end left to be ended is ended with the next object."""
    before = len(abi._cells)
    left, last = (abi.new_cell(abi.TypeIndex.OBJECT, None) for _ in range(2))
    abi._ending.addresses = [left]
    abi.release(last)
    assert abi._ending.addresses is None
    assert len(abi._cells) == before


def test_an_error_while_objects_end() -> None:
    """It is raised when all the others have ended, and so has the object itself."""
    before = len(abi._cells)
    inner = [abi.new_cell(abi.TypeIndex.OBJECT, None) for _ in range(3)]

    def drop(_: int) -> None:
        for address in inner:
            abi.release(address)
        raise KeyboardInterrupt("now")

    outer = abi.new_cell(abi.TypeIndex.OBJECT, None, drop=drop)
    with pytest.raises(KeyboardInterrupt, match="now"):
        abi.release(outer)
    assert len(abi._cells) == before
    abi.release(abi.new_cell(abi.TypeIndex.OBJECT, None))
    assert len(abi._cells) == before


def test_counts_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is lost where another thread of Python runs between any two steps of one.

    That is what Python up to 3.9 does by itself.
    """
    monkeypatch.setattr(abi, "_counting", {"add": abi._add_in_turn})  # no machine code
    address = abi.new_cell(abi.TypeIndex.OBJECT, None)

    def step(frame: Any, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            time.sleep(0)
        return step

    def count() -> None:
        sys.settrace(lambda frame, *_: step if frame.f_code is abi._add_in_turn.__code__ else None)
        for _ in range(200):
            abi.retain(address)
        sys.settrace(None)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    header = abi.TVMFFIObject.from_address(address)
    assert header.combined_ref_count & 0xFFFFFFFF == 1 + 3 * 200
    for _ in range(601):
        abi.release(address)
    assert abi.value_of_cell(address) is None
    assert address not in abi._cells


def test_unknown_addresses() -> None:
    """What is none of our objects stands for nothing."""
    assert abi.value_of_cell(None) is None
    assert abi.value_of_cell(0x1234) is None


def test_recorded_errors_belong_to_a_thread() -> None:
    """An error is taken by the thread that recorded it, once; the last one counts."""
    abi.record_error(ValueError("first"))
    abi.record_error(ValueError("second"))
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(abi.take_error()))
    thread.start()
    thread.join()
    assert elsewhere == [None]
    assert str(abi.take_error()) == "second"
    assert abi.take_error() is None
    assert not abi.raised


@pytest.mark.parametrize(
    ("kind", "expected"), [("KeyError", KeyError), ("Nonsense", RuntimeError), ("", RuntimeError)]
)
def test_errors_by_kind(kind: str, expected: type) -> None:
    """A builtin exception's name makes that exception; any other is told in the message."""
    error = abi.error_of_kind(kind, "message")
    assert type(error) is expected
    assert error.args == ("message" if expected is KeyError else f"{kind}: message",)


@pytest.mark.parametrize("kind", sorted(vars(builtins)))
def test_errors_of_any_kind(kind: str) -> None:
    """Whatever compiled code calls its error, it arrives, and with its message."""
    error = abi.error_of_kind(kind, "what happened")
    assert isinstance(error, Exception)
    assert "what happened" in str(error)
