"""Named tensors as bytes, in TVM's format. Reads nothing but that format.

::

    u64 0xF7E58D4F05049CB7, u64 0
    u64 count, then for each: u64 length, name
    u64 count, then for each:
        u64 0xDD5E40F096B4A13F, u64 0
        i32 device type (always 1), i32 device id
        i32 ndim, u8 code, u8 bits, u16 lanes, i64 for each axis
        i64 number of bytes, elements in C order, little-endian
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Tuple, Union

from ..dlpack import DataType, Device, DeviceType, TensorRecord
from .device.names import cpu
from .tensor import Tensor, empty, tensor

if TYPE_CHECKING:
    import os

__all__ = [
    "load_param_dict",
    "load_param_dict_from_file",
    "save_param_dict",
    "save_param_dict_to_file",
]

_DICT_MAGIC = 0xF7E58D4F05049CB7
_TENSOR_MAGIC = 0xDD5E40F096B4A13F

_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")
_MAGIC = struct.Struct("<QQ")
_TENSOR_HEAD = struct.Struct("<QQiiiBBH")

_Buffer = Union[bytes, bytearray, memoryview]
_Path = Union[str, "os.PathLike[str]"]


def save_param_dict(params: Mapping[str, Any]) -> bytearray:
    """The tensors, or what can be made one, as bytes, in the order of the mapping.

    Raises:
        ValueError: the format cannot hold an element type: lanes, or less than a byte.
    """
    saved = bytearray()
    for part in _parts(params):
        saved += part
    return saved


def save_param_dict_to_file(params: Mapping[str, Any], path: _Path) -> None:
    """As `save_param_dict`, to a file."""
    parts = _parts(params)
    head = next(parts)  # refuses what the format cannot hold, before there is a file
    with open(path, "wb") as file:
        file.write(head)
        file.writelines(parts)


def load_param_dict(param_bytes: _Buffer) -> Dict[str, Tensor]:
    """CPU tensors by name.

    Raises:
        ValueError: the bytes are not, or not only, what `save_param_dict` writes.
    """
    reader = _Reader(memoryview(param_bytes).cast("B"))
    if reader.unpack(_MAGIC)[0] != _DICT_MAGIC:
        raise ValueError("no parameters of TVM: the first eight bytes are others")
    names = [reader.name() for _ in range(reader.unpack(_U64)[0])]
    (count,) = reader.unpack(_U64)
    if count != len(names):
        raise ValueError(f"the parameters have {len(names)} names, but {count} tensors")
    params = {name: reader.tensor() for name in names}
    if reader.left:
        raise ValueError(f"{reader.left} bytes are left after the last parameter")
    return params


def load_param_dict_from_file(path: _Path) -> Dict[str, Tensor]:
    """As `load_param_dict`, from a file."""
    with open(path, "rb") as file:
        return load_param_dict(file.read())


def _parts(params: Mapping[str, Any]) -> Iterator[_Buffer]:
    tensors: List[Tensor] = []
    head = bytearray(_MAGIC.pack(_DICT_MAGIC, 0) + _U64.pack(len(params)))
    for name, value in params.items():
        encoded = name.encode()
        head += _U64.pack(len(encoded)) + encoded
        tensors.append(value if isinstance(value, Tensor) else tensor(value))
        if _stored_nbytes(tensors[-1].record) != tensors[-1].nbytes:
            raise ValueError(f"TVM's format cannot hold {name!r}: its type is {tensors[-1].dtype}")
    yield head + _U64.pack(len(tensors))
    for value in tensors:
        dtype, shape = value.data_type, value.shape
        yield _TENSOR_HEAD.pack(
            _TENSOR_MAGIC, 0, DeviceType.CPU, 0, len(shape), dtype.code, dtype.bits, dtype.lanes
        ) + struct.pack(f"<{len(shape) + 1}q", *shape, value.nbytes)
        elements = bytearray(value.nbytes)
        if elements:
            value.device.api.copy_to_host(value, memoryview(elements))
        yield elements


def _stored_nbytes(record: TensorRecord) -> int:
    """What TVM writes as the size: whole bytes for each element, lanes not counted."""
    count = (record.dtype.bits + 7) // 8
    for length in record.shape:
        count *= length
    return count


class _Reader:
    """Reads on through bytes that may be anything; allocates nothing that they merely claim."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._view) - self._at

    def take(self, nbytes: int) -> memoryview:
        if not 0 <= nbytes <= self.left:
            raise ValueError(
                f"the parameters end too early: {nbytes} bytes expected at {self._at}, "
                f"{self.left} are there"
            )
        start, self._at = self._at, self._at + nbytes
        return self._view[start : self._at]

    def unpack(self, form: struct.Struct) -> Tuple[int, ...]:
        return form.unpack(self.take(form.size))

    def name(self) -> str:
        return bytes(self.take(self.unpack(_U64)[0])).decode()

    def tensor(self) -> Tensor:
        start = self._at
        magic, _, device_type, _, ndim, code, bits, lanes = self.unpack(_TENSOR_HEAD)
        if magic != _TENSOR_MAGIC or device_type != DeviceType.CPU:
            raise ValueError(f"there is no CPU tensor in the parameters at byte {start}")
        shape = struct.unpack(f"<{max(ndim, 0)}q", self.take(8 * ndim))
        (nbytes,) = self.unpack(_I64)
        dtype = DataType.of(code, bits, lanes)
        record = TensorRecord(0, Device(DeviceType.CPU), shape, dtype)
        if min(shape, default=0) < 0 or not nbytes == record.nbytes == _stored_nbytes(record):
            raise ValueError(
                f"the tensor at byte {start} has {nbytes} bytes, "
                f"which do not fit its shape {shape} and type {dtype}"
            )
        elements = self.take(nbytes)
        loaded = empty(shape, dtype, cpu(0))
        loaded.device.api.copy_from_host(elements, loaded)
        return loaded
