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

import functools
import io
import os
import stat
import struct
from typing import Any, BinaryIO, Dict, Iterator, Mapping, Optional, Tuple, Union, cast

from ..data_type import DataType
from ..dlpack import MAX_NDIM, DeviceType, checked_shape, tensor_nbytes
from .device.names import cpu
from .tensor import Tensor, tensor

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

_LEAST = _U64.size + _TENSOR_HEAD.size + _I64.size
"""Bytes of a parameter without name, axes and elements."""

_Buffer = Union[bytes, bytearray, memoryview]
_Path = Union[str, "os.PathLike[str]"]


def save_param_dict(params: Mapping[str, Any]) -> bytearray:
    """Named tensors as bytes, in the order of the mapping.

    Args:
        params: by name the tensors, of any device or session, or what can be made one.

    Returns:
        The bytes that TVM writes for them.

    Raises:
        TypeError: this is no mapping, a name is no str, or a value nothing like an array.
        ValueError: a name is no Unicode text, or the format cannot hold an element type: it has
            lanes, or less than a byte.
    """
    saved = bytearray()
    for part in _parts(params):
        saved += part
    return saved


def save_param_dict_to_file(params: Mapping[str, Any], path: _Path) -> None:
    """As `save_param_dict`, to a file; what is refused leaves the file as it was.

    Args:
        params: by name the tensors, of any device or session, or what can be made one.
        path: of the file, which is made or replaced.

    Raises:
        TypeError: as `save_param_dict`; or the path is none.
        ValueError: as `save_param_dict`.
        OSError: the file cannot be written.
    """
    name = os.fspath(path)  # no number: that would be an open file, which is somebody else's
    parts = _parts(params)
    head = next(parts)
    with open(name, "wb") as file:
        file.write(head)
        file.writelines(parts)


def load_param_dict(param_bytes: _Buffer) -> Dict[str, Tensor]:
    """Named CPU tensors from bytes.

    Args:
        param_bytes: what `save_param_dict` returned, here or in TVM.

    Raises:
        TypeError: these are no bytes.
        ValueError: the bytes are not, or not only, what `save_param_dict` writes.
    """
    try:
        view = memoryview(param_bytes).cast("B")
    except TypeError as error:
        raise TypeError(
            f"no parameters can be loaded from {type(param_bytes).__name__}: {error}; "
            "expected bytes, as save_param_dict returns them"
        ) from None
    return _loaded(_Reader(cast("BinaryIO", _Bytes(view)), view.nbytes))


def load_param_dict_from_file(path: _Path) -> Dict[str, Tensor]:
    """As `load_param_dict`, from a file, which is not read further than it makes sense.

    Args:
        path: of a file that `save_param_dict_to_file` wrote, here or in TVM.

    Raises:
        TypeError: the path is none.
        ValueError: the file is not, or not only, what `save_param_dict_to_file` writes; it may
            have been cut, or be written at this moment.
        OSError: it cannot be read.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        try:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                return _loaded(_Reader(file, status.st_size))
            start = file.read(_MAGIC.size)  # a pipe: nobody knows how long it is
            _check_magic(start)
            return load_param_dict(start + file.read())
        except ValueError as error:
            raise ValueError(f"cannot load {name!r}: {error}") from None


def _loaded(reader: _Reader) -> Dict[str, Tensor]:
    _check_magic(reader.take(min(_MAGIC.size, reader.left)))
    names: Dict[str, None] = {}
    for _ in range(reader.count(_LEAST)):
        name = reader.name()
        if name in names:
            raise ValueError(f"two of the parameters have the name {name!r}; expected one")
        names[name] = None
    count = reader.count(_LEAST - _U64.size)
    if count != len(names):
        raise ValueError(f"the parameters have {len(names)} names, but {count} tensors")
    params = {name: reader.tensor() for name in names}
    if reader.left:
        raise ValueError(f"{reader.left} bytes are left after the last parameter; expected none")
    return params


def _check_magic(start: bytes) -> None:
    if len(start) < _MAGIC.size or _MAGIC.unpack(start)[0] != _DICT_MAGIC:
        raise ValueError(
            f"no parameters of TVM: the first bytes are {bytes(start[:8]).hex(' ') or 'missing'}; "
            f"expected {_U64.pack(_DICT_MAGIC).hex(' ')}, as save_param_dict writes them"
        )


def _parts(params: Mapping[str, Any]) -> Iterator[_Buffer]:
    """The bytes part by part; all that can be refused is refused before the first."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params is of type {type(params).__name__}; expected a dict of tensors")
    tensors = {_checked_name(name): _on_cpu(name, value) for name, value in params.items()}
    count = _U64.pack(len(tensors))
    head = bytearray(_MAGIC.pack(_DICT_MAGIC, 0) + count)
    for name in tensors:
        encoded = name.encode()
        head += _U64.pack(len(encoded)) + encoded
    yield head + count
    for value in tensors.values():
        dtype, shape = value.data_type, value.shape
        yield _TENSOR_HEAD.pack(
            _TENSOR_MAGIC, 0, DeviceType.CPU, 0, len(shape), dtype.code, dtype.bits, dtype.lanes
        ) + struct.pack(f"<{len(shape) + 1}q", *shape, value.nbytes)
        elements = value.host_view() if value.nbytes else None
        if elements is not None:
            yield elements


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(
            f"the name of a parameter is {name!r}, of type {type(name).__name__}; expected a str"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name!r} cannot be the name of a parameter: {error.reason}; expected Unicode text"
        ) from None
    return name


def _on_cpu(name: str, value: Any) -> Tensor:
    try:
        made = value if isinstance(value, Tensor) else tensor(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"the parameter {name!r} cannot be saved: {error}") from error
    if _stored_nbytes(made.shape, made.data_type) != made.nbytes:
        raise ValueError(
            f"TVM's format cannot hold {name!r}: its type is {made.dtype}; "
            "expected elements of whole bytes, without lanes"
        )
    return made if made.device.api is cpu(0).api else made.copyto(cpu(0))


def _stored_nbytes(shape: Tuple[int, ...], dtype: DataType) -> int:
    """What TVM writes as the size: whole bytes for each element, lanes not counted."""
    count = (dtype.bits + 7) // 8
    for length in shape:
        count *= length
    return count


_CPU = cpu(0)


@functools.lru_cache(maxsize=64)
def _known_type(code: int, bits: int, lanes: int) -> DataType:
    """The data type with these numbers, if they mean one.

    Raises:
        ValueError: they do not.
    """
    dtype = DataType.of(code, bits, lanes)
    DataType(str(dtype))  # knows no others
    return dtype


class _Bytes(io.RawIOBase):
    """Bytes in memory as a file, without a copy of them."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        end = self._at + size if size >= 0 else None
        taken = self._view[self._at : end].tobytes()
        self._at += len(taken)
        return taken

    def readinto(self, target: Any) -> int:
        part = self._view[self._at : self._at + len(target)]
        count = len(part)
        target[:count] = part
        self._at += count
        return count


class _Reader:
    """Reads on through what may be anything; allocates nothing that it merely claims.

    Args:
        file: to read, from where it is.
        left: bytes that it has from there on.
    """

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._nbytes = left
        self.left = left

    def take(self, nbytes: int) -> bytes:
        if not 0 <= nbytes <= self.left:  # as in `_check`, whose call costs as much as the read
            self._check(nbytes)
        self.left -= nbytes
        taken = self._file.read(nbytes)
        if len(taken) != nbytes:
            raise self._shrunk()
        return taken

    def unpack(self, form: struct.Struct) -> Tuple[int, ...]:
        return form.unpack(self.take(form.size))

    def count(self, least: int) -> int:
        """How many things follow that have this many bytes or more each."""
        (count,) = self.unpack(_U64)
        self._check(count * least)
        return count

    def name(self) -> str:
        start = self._nbytes - self.left
        encoded = self.take(self.unpack(_U64)[0])
        try:
            return encoded.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the name at byte {start} is no UTF-8: {error.reason}") from None

    def tensor(self) -> Tensor:
        start = self._nbytes - self.left
        head = _TENSOR_HEAD.unpack(self.take(_TENSOR_HEAD.size))
        magic, _, device_type, _, ndim, code, bits, lanes = head
        if magic != _TENSOR_MAGIC or device_type != DeviceType.CPU:
            raise ValueError(f"there is no CPU tensor in the parameters at byte {start}")
        if not 0 <= ndim <= MAX_NDIM:  # before any arithmetic: it is long for numbers of any length
            raise ValueError(
                f"the tensor at byte {start} has {ndim} dimensions; 0 to {MAX_NDIM} can be"
            )
        *lengths, nbytes = struct.unpack(f"<{ndim + 1}q", self.take(8 * ndim + _I64.size))
        shape = tuple(lengths)
        try:
            dtype = _known_type(code, bits, lanes)
            checked_shape(shape, dtype)
        except ValueError as error:
            raise ValueError(f"the tensor at byte {start} cannot be: {error}") from None
        if not nbytes == tensor_nbytes(shape, dtype) == _stored_nbytes(shape, dtype):
            raise ValueError(
                f"the tensor at byte {start} has {nbytes} bytes, "
                f"which do not fit its shape {shape} and type {dtype}"
            )
        self._expect(nbytes)
        loaded = Tensor(_CPU.api.alloc(_CPU, shape, dtype, None), shape, dtype, _CPU)
        if nbytes:
            self._fill(loaded.host_view())
        return loaded

    def _fill(self, left: Optional[memoryview]) -> None:
        while left:
            count = cast("io.BufferedIOBase", self._file).readinto(left)
            if not count:
                raise self._shrunk()
            left = left[count:]

    def _expect(self, nbytes: int) -> None:
        self._check(nbytes)
        self.left -= nbytes

    def _check(self, nbytes: int) -> None:
        if not 0 <= nbytes <= self.left:
            raise ValueError(
                f"the parameters end too early: {nbytes} bytes expected at "
                f"{self._nbytes - self.left}, {self.left} are there"
            )

    def _shrunk(self) -> ValueError:
        return ValueError(
            f"the parameters became shorter than {self._nbytes} bytes while they were read; "
            "load them when nobody writes them"
        )
