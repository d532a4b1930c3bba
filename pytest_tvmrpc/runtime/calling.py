"""Calling compiled functions, and being called by them: values on their way to C and back.

Opens no library, and offers compiled code nothing but functions; `library` and `context` do more.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from ..errors import LibraryError
from ..owners import not_copied
from .abi import (
    ANY_SIZE,
    HEADER_SIZE,
    SAFE_CALL,
    DLTensor,
    TVMFFIFunctionCell,
    TypeIndex,
    new_cell,
    raised,
    record_error,
    release,
    retain,
    take_error,
    value_of_cell,
)
from .failures import pending_error, tell_tvm
from .foreign import Reference
from .function import CompiledLoop, PackedFunc
from .module import Module
from .object import Object, ObjectConvertible, ShapeTuple
from .owned import text_word
from .tensor import Tensor
from .values import value_of_word, values_at
from .words import (
    Word,
    byte_array,
    bytes_of,
    c_string,
    number_word,
    plain_word,
    signed,
    unsigned,
)

_any = struct.Struct("<iIq")
_int = struct.Struct("<Qq")
_float = struct.Struct("<Qd")
MAX_DEPTH = 64
"""Containers within containers that are made at once: each level is one more call."""


def function_cell(function: Callable[..., Any]) -> int:
    """A function object for a callable; a function of a library needs no way through Python."""
    call = _on_call_address
    if isinstance(function, NativeFunction) and not function.handle:
        call = function.address
    return new_cell(TypeIndex.FUNCTION, function, bytes(TVMFFIFunctionCell(call, None)))


# ---------------------------------------------------------------------- values to compiled code


class _TensorObject(NamedTuple):
    """A tensor that goes as an object, of which compiled code may keep a reference."""

    tensor: Tensor


def _tensor_cell(tensor: Tensor) -> int:
    """A new tensor object over the memory of `tensor`, which it keeps alive."""
    record = ctypes.string_at(tensor.dltensor, ctypes.sizeof(DLTensor))
    return new_cell(TypeIndex.TENSOR, tensor, record)


class PackedArguments(NamedTuple):
    """Arguments as a function sees them, what keeps them alive, and the objects made for them."""

    block: bytes
    alive: List[Any]
    cells: List[int]


def pack_arguments(function: str, args: Tuple[Any, ...]) -> PackedArguments:
    """Arguments as the TVMFFIAny array that a compiled function takes; of any kind it can take.

    Whoever packs also releases `cells`, after the call.

    Raises:
        TypeError: a value of a kind that compiled code cannot take.
        ValueError: an int beyond 64 bits, or a str with a NUL inside.
    """
    alive: List[Any] = [args]
    cells: List[int] = []
    words: List[bytes] = []
    try:
        for position, value in enumerate(args):
            words.append(_any.pack(*_argument(function, position, value, alive, cells)))
    except BaseException:
        for cell in cells:
            release(cell)
        raise
    return PackedArguments(b"".join(words), alive, cells)


def _argument(function: str, position: int, value: Any, alive: List[Any], cells: List[int]) -> Word:
    """One argument: plain values, then borrowed memory, then objects."""
    word = plain_word(value)
    if word is not None:
        return word
    if isinstance(value, Tensor):
        return TypeIndex.DL_TENSOR_PTR, 0, signed(value.dltensor)
    if type(value) is _TensorObject:
        cells.append(_tensor_cell(value.tensor))
        return TypeIndex.TENSOR, 0, signed(cells[-1])
    if isinstance(value, str):
        text = c_string(f"argument {position} of {function}", value)
        alive.append(text)
        return TypeIndex.RAW_STR, 0, signed(ctypes.addressof(text))
    if isinstance(value, (bytes, bytearray, memoryview)):
        array, memory = byte_array(value)
        alive += memory, array
        return TypeIndex.BYTE_ARRAY_PTR, 0, signed(ctypes.addressof(array))
    if isinstance(value, NativeFunction) and value.handle:
        return TypeIndex.FUNCTION, 0, signed(value.handle)
    if isinstance(value, Module):
        cells.append(new_cell(TypeIndex.MODULE, value))
        return TypeIndex.MODULE, 0, signed(cells[-1])
    number = number_word(f"argument {position} of {function}", value)
    if number is not None:
        return number
    if callable(value) and not isinstance(value, type):
        cells.append(function_cell(value))
        return TypeIndex.FUNCTION, 0, signed(cells[-1])
    reference = _reference_word(value)
    if reference is not None:
        return reference
    made = _made_word(value, 0)
    if made is not None:
        if made[0] >= TypeIndex.OBJECT:  # else a convertible that stands for a plain value
            cells.append(unsigned(made[2]))
        return made
    raise TypeError(
        f"argument {position} of {function} is a {type(value).__module__}."
        f"{type(value).__qualname__}, which compiled code cannot take; expected None, a number, "
        "text, bytes, a data type, a device, a function, a module, a tensor, an object, or a list, "
        "tuple or dict of these; make a tensor of an array with runtime.tensor(array)"
    )


def owned_word(value: Any, depth: int = 0) -> Word:
    """A value handed to compiled code for good: text and tensors become objects of their own.

    Args:
        depth: how many containers it is in.

    Raises:
        TypeError: a value of a kind that compiled code cannot take.
        ValueError: an int beyond 64 bits, text with a lone surrogate, or too many containers.
    """
    word = plain_word(value)
    if word is not None:
        return word
    if isinstance(value, str):
        return text_word(TypeIndex.STR, TypeIndex.SMALL_STR, value.encode())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return text_word(TypeIndex.BYTES, TypeIndex.SMALL_BYTES, bytes_of(value))
    if isinstance(value, Tensor):
        return TypeIndex.TENSOR, 0, signed(_tensor_cell(value))
    if isinstance(value, NativeFunction) and value.handle:
        retain(value.handle)
        return TypeIndex.FUNCTION, 0, signed(value.handle)
    if isinstance(value, Module):
        return TypeIndex.MODULE, 0, signed(new_cell(TypeIndex.MODULE, value))
    number = number_word("a value for compiled code", value)
    if number is not None:
        return number
    if callable(value) and not isinstance(value, type):
        return TypeIndex.FUNCTION, 0, signed(function_cell(value))
    reference = _reference_word(value)
    if reference is not None:
        retain(unsigned(reference[2]))
        return reference
    made = _made_word(value, depth)
    if made is not None:
        return made
    raise TypeError(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be given to compiled code; "
        "expected None, a number, text, bytes, a data type, a device, a function, a module, "
        "a tensor, an object, or a list, tuple or dict of these"
    )


def _reference_word(value: Any) -> Optional[Word]:
    """The object to which a value refers, without a reference of its own; None if it does not."""
    if not isinstance(value, Object):
        return None
    from .native import NativeObject

    if not isinstance(value, NativeObject):
        return None
    return value.type_index, 0, signed(value.address)


def _made_word(value: Any, depth: int) -> Optional[Word]:
    """A new object for a value, which whoever asked has to release; None for other values."""
    from . import container_cells, failures

    if isinstance(value, ShapeTuple):
        return TypeIndex.SHAPE, 0, signed(container_cells.new_shape(value))
    if isinstance(value, BaseException):
        return TypeIndex.ERROR, 0, signed(failures.object_of(value))
    if depth >= MAX_DEPTH and isinstance(value, (list, tuple, dict, ObjectConvertible)):
        raise ValueError(
            f"containers are nested more than {MAX_DEPTH} deep, or one holds itself; "
            "expected fewer levels"
        )
    if isinstance(value, ObjectConvertible):
        return owned_word(value.asobject(), depth + 1)
    if isinstance(value, (list, tuple)):
        return TypeIndex.ARRAY, 0, signed(container_cells.new_array(value, depth))
    if isinstance(value, dict):
        return TypeIndex.MAP, 0, signed(container_cells.new_map(value.items(), depth))
    return None


# -------------------------------------------------------------------------------- being called


def _called(handle: int, args: Optional[int], count: int, result: int) -> int:
    """The way from compiled code into a function of ours."""
    pending = take_error()  # the caller may hold an error and clean up before it returns
    try:
        function = value_of_cell(handle)
        word = owned_word(function(*values_at(args, count)))
        _any.pack_into((ctypes.c_char * ANY_SIZE).from_address(result), 0, *word)
    except BaseException as error:  # C cannot carry it: the call that is above raises it
        record_error(error)
        tell_tvm(error)
        return -1
    if pending is not None:
        record_error(pending)
    return 0


_on_call = SAFE_CALL(_called)
_on_call_address = ctypes.cast(_on_call, ctypes.c_void_p).value or 0


def call_function(handle: int, args: Optional[int], count: int, result: int) -> int:
    """Call a function object as compiled code does: values in C memory, 0 or an error code.

    Raises:
        ValueError: the object is no function.
    """
    cell = TVMFFIFunctionCell.from_address(handle + HEADER_SIZE)
    if not cell.safe_call:
        raise ValueError("compiled code called an object that is no function")
    if cell.safe_call == _on_call_address:  # ours: no way through C
        return _called(handle, args, count, result)
    return int(SAFE_CALL(cell.safe_call)(handle, args, count, result))


# ----------------------------------------------------------------------------------- functions


_CALL = ctypes.CFUNCTYPE(ctypes.c_int)
"""TVMFFISafeCallType without argument types: it takes ready-made C values, and bytes for their
address, and costs half of a call that converts."""

_Result = Tuple["ctypes.Array[ctypes.c_int64]", Any]
"""Where a function leaves its result, and that as an argument; all zeros, which is None, when
free."""


def _new_result() -> _Result:
    memory = (ctypes.c_int64 * 2)()
    return memory, ctypes.byref(memory)


_free_results: List[_Result] = []


@not_copied("make the arguments there")
class OwnedCells:
    """Objects made for the arguments of a call, released when this is dropped."""

    __slots__ = ("cells",)

    def __init__(self, cells: List[int]) -> None:
        self.cells = cells

    def __del__(self) -> None:
        for cell in self.cells:
            release(cell)


def _plain_block(args: Tuple[Any, ...]) -> Optional[bytes]:
    """What `pack_arguments` makes of tensors, int and float; None where there is anything else."""
    block = b""
    try:
        for value in args:
            kind = type(value)
            if kind is Tensor:
                block += value.word or value.argument
            elif kind is int:
                block += _int.pack(1, value)  # INT; an enum's member would cost 40 ns here
            elif kind is float:
                block += _float.pack(3, value)  # FLOAT
            else:
                return None
    except struct.error:  # an int beyond 64 bits, which is refused in words
        return None
    return block


@not_copied("load the library there")
class NativeFunction(PackedFunc):
    """A function in machine code.

    A call of two tensors takes about 1.0 us on top of the function (Python 3.11, one core of a
    2-core machine). Arguments are packed into bytes of their own and results into a block from a
    pool, so that functions may call each other on any number of threads.

    Args:
        address: of the C function (TVMFFISafeCallType).
        name: for messages.
        handle: the function object it belongs to; 0 for the function of a library.
        owner: what must stay alive as long as the function.
    """

    __slots__ = ("_owner", "_self", "address", "handle")

    def __init__(self, address: int, name: str, handle: int = 0, owner: Any = None) -> None:
        super().__init__(_CALL(address), name)
        self.address = address
        self.handle = handle
        self._self = ctypes.c_void_p(handle) if handle else None
        self._owner = owner

    def __call__(self, *args: Any) -> Any:
        block = alive = None
        count = len(args)
        if count == 2:
            first, second = args
            if type(first) is Tensor and type(second) is Tensor:  # 100 ns less for these
                block = (first.word or first.argument) + (second.word or second.argument)
        if block is None:
            block = _plain_block(args)
            if block is None:
                block, values, cells = pack_arguments(self.name, args)
                alive = (
                    values,
                    OwnedCells(cells),
                )  # till the end: a result may be text of an argument
        if raised:
            take_error()  # of a function that recorded one, and then succeeded all the same
        try:
            result = _free_results.pop()
        except IndexError:
            result = _new_result()
        memory, place = result
        code = self.function(self._self, block, count, place)
        if code:
            del alive  # a traceback keeps what is local here: what was made for the call goes now
            raise self.error(code)
        head = memory[0]
        if not head:
            _free_results.append(result)
            return None
        number = memory[1]
        memory[0] = memory[1] = 0
        _free_results.append(result)
        if head == 1:
            return number
        kind = ((head & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000  # the low half, with its sign
        return value_of_word((kind, head >> 32 & 0xFFFFFFFF, number), owned=True)

    def prepare(self, *args: Any) -> Callable[[], None]:
        """The call of these arguments, to be made many times; the result is dropped.

        One call takes about 0.4 us on top of the function.
        """
        return _prepared(self, args)

    def prepare_loop(self, *args: Any) -> Optional[CompiledLoop]:
        """As that of any function; the loop's own share of a call is a few nanoseconds."""
        return _prepared_loop(self, args)

    def error(self, code: int) -> BaseException:
        """What a call that returned a code other than 0 raises."""
        return failure(f"function {self.name or hex(self.address)}", code)


@not_copied("load the library there")
class CxxFunction(NativeFunction):
    """A function of C++ code that was made for libtvm_ffi.

    Its parameters may be of type ``ffi::Tensor``, which takes no borrowed DLTensor, so tensors go
    as objects. A call makes one for each, which costs a few microseconds; a prepared call does not.
    """

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return NativeFunction.__call__(self, *map(_as_object, args))

    def prepare(self, *args: Any) -> Callable[[], None]:
        """As that of any function."""
        return NativeFunction.prepare(self, *map(_as_object, args))

    def prepare_loop(self, *args: Any) -> Optional[CompiledLoop]:
        """As that of any function."""
        return NativeFunction.prepare_loop(self, *map(_as_object, args))


def _as_object(value: Any) -> Any:
    return _TensorObject(value) if isinstance(value, Tensor) else value


def function_at(address: int, name: str = "") -> NativeFunction:
    """A function object of compiled code, with a reference of its own to it."""
    retain(address)
    cell = TVMFFIFunctionCell.from_address(address + HEADER_SIZE)
    return CxxFunction(cell.safe_call, name, address, Reference(address))


def failure(what: str, code: int) -> BaseException:
    """The error that compiled code recorded, or one that says that `what` recorded none."""
    error = pending_error()
    if error is not None:
        return error
    return LibraryError(
        f"{what} returned {code} without saying why; "
        "expected 0, or an error recorded with TVMFFIErrorSetRaisedFromCStr"
    )


def _prepared(function: NativeFunction, args: Tuple[Any, ...]) -> Callable[[], None]:
    packed = pack_arguments(function.name, args)
    block = ctypes.create_string_buffer(packed.block, max(len(packed.block), 1))
    result = (ctypes.c_int * 4)()
    call = function.function
    handle, count = ctypes.c_void_p(function.handle), ctypes.c_int(len(args))
    block_address = ctypes.c_void_p(ctypes.addressof(block))
    result_address = ctypes.c_void_p(ctypes.addressof(result))
    alive = (function, packed, block, OwnedCells(packed.cells))
    take_error()

    def run() -> None:
        code = call(handle, block_address, count, result_address)
        if code or result[0] >= 64:  # OBJECT: ours to give back
            drop(code, alive)

    def drop(code: int, alive: Any) -> None:
        if code:
            raise function.error(code)
        address = unsigned(_any.unpack_from(result)[2])
        if address:
            release(address)
        ctypes.memset(result, 0, ANY_SIZE)

    return run


def _prepared_loop(function: NativeFunction, args: Tuple[Any, ...]) -> Optional[CompiledLoop]:
    from . import timing_loop

    loops = timing_loop.loops()
    if loops is None:
        return None
    packed = pack_arguments(function.name, args)
    block = ctypes.create_string_buffer(packed.block, max(len(packed.block), 1))
    alive = (function, packed, block, OwnedCells(packed.cells))
    first = (function.address, function.handle, ctypes.addressof(block), len(args))
    take_error()
    return timing_loop.prepared(function, loops.time_calls, first, _drop_result, alive)


def _drop_result(place: int) -> None:
    """Give back the object that a TVMFFIAny holds."""
    release(unsigned(_any.unpack(ctypes.string_at(place, ANY_SIZE))[2]))
