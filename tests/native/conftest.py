"""wire.c behind functions of Python: the `wire` fixture. Nothing is checked in here.

What C reads lies at the end of a page, and the page behind it cannot be read: who reads on, dies.
"""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Tuple, Union

import pytest

import pytest_tvmrpc
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.protocol.values import FunctionHandle, ModuleHandle, ObjectHandle, TensorResult

FOLDER = Path(pytest_tvmrpc.__file__).parent / "native"
SOURCES = [FOLDER / f"{name}.c" for name in ("wire", "answers", "handshake")]
"""What is declared in wire.h."""

ERROR, PARTIAL = -1, -2
MAX_VALUES, MAX_NDIM, MAX_KEY, WHY, ANSWER = 4096, 64, 4096, 256, 640
ROOM = 256 * 1024


class _Dtype(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class _Record(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Dtype),
        ("shape", ctypes.c_int64 * MAX_NDIM),
        ("byte_offset", ctypes.c_uint64),
        ("nbytes", ctypes.c_uint64),
    )


class _Text(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_void_p), ("nbytes", ctypes.c_uint64))


class _As(ctypes.Union):
    _fields_ = (
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("handle", ctypes.c_uint64),
        ("dtype", _Dtype),
        ("device", _Device),
        ("record", ctypes.POINTER(_Record)),
        ("text", _Text),
    )


class _Value(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("of", _As))


class _Sequence(ctypes.Structure):
    _fields_ = (
        ("values", ctypes.POINTER(_Value)),
        ("most_values", ctypes.c_int),
        ("records", ctypes.POINTER(_Record)),
        ("most_records", ctypes.c_int),
        ("count", ctypes.c_int),
        ("is_pending", ctypes.c_int),
    )


class _Hello(ctypes.Structure):
    _fields_ = (("match_key", ctypes.c_char * (MAX_KEY + 1)), ("session_timeout", ctypes.c_double))


class Refused(NamedTuple):
    """What C says of bytes that it does not read: the reason, or that there are not enough."""

    why: str
    is_partial: bool = False


class Read(NamedTuple):
    """What C read: how many bytes, and what they say."""

    nbytes: int
    value: Any
    pending: Optional[int] = None
    """Bytes that the last value will have once all of it has arrived."""


Verdict = Union[Read, Refused]


def _dtype(raw: _Dtype) -> DataType:
    return DataType.of(raw.code, raw.bits, raw.lanes)


def _record(raw: _Record) -> Tuple[TensorRecord, int]:
    """The record, and the bytes that C says its tensor has."""
    device = Device(raw.device.device_type, raw.device.device_id)
    shape = tuple(raw.shape[: raw.ndim])
    return TensorRecord(raw.data, device, shape, _dtype(raw.dtype), raw.byte_offset), raw.nbytes


_POINTERS = {4: OpaquePointer, 10: FunctionHandle, 11: ModuleHandle, 12: ObjectHandle}
_KINDS = {
    **{kind: number for number, kind in _POINTERS.items()},
    type(None): 0,
    int: 1,
    bool: 2,
    float: 3,
    DataType: 5,
    Device: 6,
    TensorRecord: 7,
    TensorResult: 7,
    str: 8,
    bytes: 9,
}


def _native(raw: _Value, there: int) -> Any:
    """The value as Python's readers have it; of a tensor, its bytes with it."""
    if raw.kind == 0:
        return None
    if raw.kind in (1, 2):
        return raw.of.integer if raw.kind == 1 else bool(raw.of.integer)
    if raw.kind == 3:
        return raw.of.number
    if raw.kind == 5:
        return _dtype(raw.of.dtype)
    if raw.kind == 6:
        return Device(raw.of.device.device_type, raw.of.device.device_id)
    if raw.kind == 7:
        return _record(raw.of.record.contents)
    if raw.kind in (8, 9):
        text = ctypes.string_at(raw.of.text.bytes, min(raw.of.text.nbytes, there))
        return text.decode("utf-8", "surrogateescape") if raw.kind == 8 else text
    return _POINTERS[raw.kind](raw.of.handle)


class Wire:
    """The functions of wire.c; dialects are named by 0 (FFI) and 1 (legacy)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._c = library
        for name in ("head", "values", "record", "hello"):
            getattr(library, f"mrpc_read_{name}").restype = ctypes.c_int64
        for name in ("nothing", "void", "value", "result"):
            getattr(library, f"mrpc_return_{name}").restype = ctypes.c_size_t
        for name in ("exception", "copy_ack", "write_reply", "write_server_hello"):
            getattr(library, f"mrpc_{name}").restype = ctypes.c_size_t
        library.mrpc_nbytes_of.restype = ctypes.c_int64
        library.mrpc_code_name.restype = ctypes.c_char_p
        self._why = ctypes.create_string_buffer(WHY)
        self._out = ctypes.create_string_buffer(MAX_KEY + 64)
        self._values = (_Value * MAX_VALUES)()
        self._records = (_Record * 1024)()
        self._pages = mmap.mmap(-1, ROOM + mmap.PAGESIZE)
        self._end = ctypes.addressof(ctypes.c_char.from_buffer(self._pages)) + ROOM
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(self._end), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def _put(self, content: bytes) -> ctypes.c_void_p:
        """The bytes, with nothing behind them."""
        self._pages[ROOM - len(content) : ROOM] = content
        return ctypes.c_void_p(self._end - len(content))

    def _refused(self, result: int) -> Refused:
        assert result in (ERROR, PARTIAL)
        return Refused(self._why.value.decode(), result == PARTIAL)

    def read_head(self, content: bytes) -> Verdict:
        """Code, and bytes behind the head."""
        code, body = ctypes.c_int32(), ctypes.c_uint64()
        result = self._c.mrpc_read_head(
            self._put(content),
            ctypes.c_size_t(len(content)),
            ctypes.byref(code),
            ctypes.byref(body),
            self._why,
        )
        return Read(result, (code.value, body.value)) if result >= 0 else self._refused(result)

    def count_values(self, content: bytes) -> Verdict:
        count = self._c.mrpc_count_values(
            self._put(content), ctypes.c_size_t(len(content)), self._why
        )
        return Read(4, count) if count >= 0 else self._refused(count)

    def read_values(
        self, dialect: int, content: bytes, missing: int = 0, most: Tuple[int, int] = (4096, 1024)
    ) -> Verdict:
        sequence = _Sequence(self._values, most[0], self._records, most[1], 0, 0)
        result = self._c.mrpc_read_values(
            dialect,
            self._put(content),
            ctypes.c_size_t(len(content)),
            ctypes.c_uint64(missing),
            ctypes.byref(sequence),
            self._why,
        )
        if result < 0:
            return self._refused(result)
        raw = self._values[: sequence.count]
        values: List[Any] = [_native(one, len(content)) for one in raw[: -1 if missing else None]]
        if not sequence.is_pending:
            assert not missing
            return Read(result, values)
        there = self._end - raw[-1].of.text.bytes
        return Read(result, [*values, _native(raw[-1], there)], raw[-1].of.text.nbytes)

    def read_record(self, dialect: int, content: bytes) -> Verdict:
        record = _Record()
        result = self._c.mrpc_read_record(
            dialect,
            self._put(content),
            ctypes.c_size_t(len(content)),
            ctypes.byref(record),
            self._why,
        )
        return Read(result, _record(record)) if result >= 0 else self._refused(result)

    def dialect_of(
        self, code: int, content: bytes, missing: int = 0
    ) -> Union[int, Tuple[Refused, int]]:
        """0, 1, or 2 where nothing can be told; with a refusal, the likely one."""
        likely = ctypes.c_int()
        result = self._c.mrpc_dialect_of(
            ctypes.c_int32(code),
            self._put(content),
            ctypes.c_size_t(len(content)),
            ctypes.c_uint64(missing),
            ctypes.byref(likely),
            self._why,
        )
        return result if result >= 0 else (self._refused(result), likely.value)

    def _hello(self, result: int, hello: _Hello) -> Verdict:
        if result < 0:
            return self._refused(result)
        return Read(result, (hello.match_key, hello.session_timeout))

    def read_hello(self, content: bytes) -> Verdict:
        """Match key, in bytes, and session timeout."""
        hello, size = _Hello(), ctypes.c_size_t(len(content))
        result = self._c.mrpc_read_hello(self._put(content), size, ctypes.byref(hello), self._why)
        return self._hello(result, hello)

    def parse_client_key(self, content: bytes) -> Verdict:
        hello, size = _Hello(), ctypes.c_size_t(len(content))
        result = self._c.mrpc_parse_client_key(
            self._put(content), size, ctypes.byref(hello), self._why
        )
        return self._hello(result, hello)

    def _written(self, nbytes: int) -> bytes:
        return self._out.raw[:nbytes]

    def return_nothing(self) -> bytes:
        return self._written(self._c.mrpc_return_nothing(self._out))

    def return_void(self, dialect: int) -> bytes:
        return self._written(self._c.mrpc_return_void(dialect, self._out))

    def return_value(self, dialect: int, value: Any) -> bytes:
        raw = self._raw(value)
        return self._written(self._c.mrpc_return_value(dialect, self._out, ctypes.byref(raw)))

    def return_result(self, dialect: int, value: Any, type_index: int = 69) -> bytes:
        """All of a packet but the content of a text or bytes."""
        raw = self._raw(value)
        handle = ctypes.c_uint64(value.handle if type(value) is TensorResult else 0)
        return self._written(
            self._c.mrpc_return_result(dialect, self._out, ctypes.byref(raw), handle, type_index)
        )

    def exception(self, dialect: int, nbytes: int) -> bytes:
        size = ctypes.c_uint64(nbytes)
        return self._written(self._c.mrpc_exception(dialect, self._out, size))

    def copy_ack(self, nbytes: int) -> bytes:
        return self._written(self._c.mrpc_copy_ack(self._out, ctypes.c_uint64(nbytes)))

    def write_reply(self, reply: int, key: str) -> bytes:
        return self._written(self._c.mrpc_write_reply(self._out, reply, key.encode()))

    def write_server_hello(self, key: str) -> bytes:
        return self._written(self._c.mrpc_write_server_hello(self._out, key.encode()))

    def clean_text(self, content: bytes) -> bytes:
        place = self._put(content)
        self._c.mrpc_clean_text(place, ctypes.c_size_t(len(content)))
        return ctypes.string_at(place, len(content))

    def code_name(self, code: int) -> Optional[str]:
        name = self._c.mrpc_code_name(ctypes.c_int32(code))
        return None if name is None else name.decode()

    def nbytes_of(self, dialect: int, dtype: DataType, shape: Tuple[int, ...]) -> int:
        raw, lengths = _Dtype(dtype.code, dtype.bits, dtype.lanes), (ctypes.c_int64 * len(shape))
        nbytes: int = self._c.mrpc_nbytes_of(dialect, raw, lengths(*shape), len(shape))
        return nbytes

    def _raw(self, value: Any) -> _Value:
        raw = _Value(_KINDS[type(value)])
        if raw.kind in (1, 2):
            raw.of.integer = value
        elif raw.kind == 3:
            raw.of.number = value
        elif raw.kind == 5:
            raw.of.dtype = _Dtype(value.code, value.bits, value.lanes)
        elif raw.kind == 6:
            raw.of.device = _Device(*value)
        elif raw.kind in (8, 9):
            content = value.encode("utf-8", "surrogateescape") if raw.kind == 8 else value
            raw.of.text = _Text(self._put(content).value, len(content))
        elif raw.kind == 7:
            record = value.record if type(value) is TensorResult else value
            form = record.dtype
            self._kept = _Record(
                *(record.data, _Device(*record.device), len(record.shape)),
                _Dtype(form.code, form.bits, form.lanes),
                (ctypes.c_int64 * MAX_NDIM)(*record.shape),
                *(record.byte_offset, 0),
            )
            raw.of.record = ctypes.pointer(self._kept)
        elif raw.kind:
            raw.of.handle = int(value)
        return raw


@pytest.fixture(name="wire", scope="session")
def _wire(tmp_path_factory: pytest.TempPathFactory) -> Wire:
    """wire.c, compiled for this machine with every warning."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    if compiler is None:
        pytest.skip("no C compiler is here: looked for gcc, clang and cc in PATH")
    library = tmp_path_factory.mktemp("wire") / "wire.so"
    options = [
        "-std=c99",
        "-D_GNU_SOURCE",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ]
    done = subprocess.run(
        [compiler, *options, "-shared", "-fPIC", *map(str, SOURCES), "-o", str(library)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return Wire(ctypes.CDLL(str(library)))
