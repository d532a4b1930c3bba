"""Shared libraries of a few bytes, written as ELF files: stubs that jump, functions of our own.

Needs no compiler; of TVM it knows nothing.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import LibraryError
from .elf import (
    DT_HASH,
    DT_NEEDED,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    DYNAMICS,
    HEADERS,
    MAGIC,
    PROGRAMS,
    PT_DYNAMIC,
    PT_LOAD,
    SHARED,
    SYMBOLS,
    WORDS,
    Architecture,
)

if TYPE_CHECKING:
    import ctypes

_X86_64, _ARM, _AARCH64, _RISCV = 62, 40, 183, 243
_PT_GNU_STACK = 0x6474E551
_DT_SYMENT, _DT_SONAME = 11, 14

TABLE = "tvmrpc_stub_table"
"""The exported array of addresses through which the stubs jump, in the order of their names."""

_PAGE = 0x10000  # the largest page of any of these machines
_STUB = 16


def _x86_64_stub(at: int, entry: int) -> bytes:
    """endbr64; jmp *(entry)(%rip)"""
    return b"\xf3\x0f\x1e\xfa\xff\x25" + struct.pack("<i", entry - (at + 10))


def _aarch64_stub(at: int, entry: int) -> bytes:
    """bti c; adrp x16, entry; ldr x16, [x16, #entry]; br x16 (x16 is for such jumps)"""
    pages = (entry >> 12) - ((at + 4) >> 12)
    adrp = 0x90000010 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    load = 0xF9400210 | (entry & 0xFFF) >> 3 << 10
    return struct.pack("<IIII", 0xD503245F, adrp, load, 0xD61F0200)


def _arm_stub(at: int, entry: int) -> bytes:
    """ldr ip, [pc, #4]; add ip, pc, ip; ldr pc, [ip]; the distance"""
    return struct.pack("<IIIi", 0xE59FC004, 0xE08FC00C, 0xE59CF000, entry - (at + 12))


def _riscv64_stub(at: int, entry: int) -> bytes:
    """auipc t3, high; ld t3, low(t3); jr t3"""
    distance = entry - at
    high, low = (distance + 0x800) & 0xFFFFF000, distance & 0xFFF
    return struct.pack("<III", high | 0xE17, low << 20 | 0xE3E03, 0x000E0067)


_STUBS: Dict[Tuple[int, int], Callable[[int, int], bytes]] = {
    (_X86_64, 64): _x86_64_stub,
    (_AARCH64, 64): _aarch64_stub,
    (_ARM, 32): _arm_stub,
    (_RISCV, 64): _riscv64_stub,
}


def stub_library(
    names: Sequence[str],
    architecture: Architecture,
    soname: str,
    needed: Sequence[str] = (),
    addresses: Sequence[int] = (),
) -> bytes:
    """A shared library with one function for each name, which jumps to where `TABLE` says.

    Args:
        names: of the functions.
        architecture: as that of a library that is to be bound to it, flags included.
        soname: the library's own name; a library that needs one of this name gets it.
        needed: what is loaded with it, by path or name; it is bound to the stubs.
        addresses: what `TABLE` has when it is loaded, for a process that knows it; zeros
            otherwise.

    Raises:
        LibraryError: there are no stubs for this architecture.
    """
    stub = _STUBS.get((architecture.machine, architecture.bits))
    if stub is None or not architecture.is_little:
        raise LibraryError(
            f"no stubs for {architecture} to bind {', '.join(names)}; expected x86-64, AArch64, "
            "ARM or RISC-V (64-bit), little-endian; link the library without these symbols"
        )
    places = range(0, _STUB * len(names) + 1, _STUB)
    writer = _Writer(names, places, architecture, soname, needed)

    def code(at: int, table: int) -> bytes:
        word = architecture.bits // 8
        return b"".join(
            stub(at + index * _STUB, table + index * word).ljust(_STUB, b"\0")
            for index in range(len(names))
        )

    return writer.library(code, addresses or [0] * len(names))


def code_library(
    code: bytes, places: Dict[str, int], architecture: Architecture, soname: str
) -> bytes:
    """A shared library of machine code that runs wherever it is, and refers to nothing else.

    Args:
        code: of all its functions.
        places: of each function its offset in the code, the least first.
    """
    starts = [*places.values(), len(code)]
    return _Writer(list(places), starts, architecture, soname, ()).library(lambda *at: code, ())


ATOMIC_ADD = "tvmrpc_atomic_add"
"""``uint64_t add(uint64_t *place, int64_t number)``: adds atomically, returns what was there."""

_ATOMIC_CODE: Dict[Tuple[int, int], str] = {
    # endbr64; mov rax, rsi; lock xadd [rdi], rax; ret
    (_X86_64, 64): "f30f1efa4889f0f0480fc107c3",
    # bti c; 1: ldaxr x2, [x0]; add x3, x2, x1; stlxr w4, x3, [x0]; cbnz w4, 1b; mov x0, x2; ret
    (_AARCH64, 64): "5f2403d502fc5fc84300018b03fc04c8a4ffff35e00302aac0035fd6",
    # amoadd.d.aqrl a0, a1, (a0); ret
    (_RISCV, 64): "2f35b5068280",
}


def atomic_library(architecture: Architecture, soname: str) -> Optional[bytes]:
    """A shared library with the function `ATOMIC_ADD`; None where there is no code for it."""
    code = _ATOMIC_CODE.get((architecture.machine, architecture.bits))
    if code is None or not architecture.is_little:
        return None
    return code_library(bytes.fromhex(code), {ATOMIC_ADD: 0}, architecture, soname)


def temporary_folder() -> str:
    """Where short-lived files go; without the 5 ms that importing tempfile takes."""
    return os.environ.get("TMPDIR") or "/tmp"


def load_private(
    image: bytes, name: str, folders: Sequence[str], load: Callable[[str], ctypes.CDLL]
) -> ctypes.CDLL:
    """Load a library from memory, by way of a file of this process alone, removed at once.

    Args:
        load: loads the file.

    Raises:
        OSError: in none of the folders could the file be written and loaded.
    """
    errors: List[OSError] = []
    for folder in folders:
        # Not by the process's number alone: the file of one that was killed may be there.
        path = os.path.join(folder, f"{os.urandom(4).hex()}-{name}")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        except OSError as error:
            errors.append(error)
            continue
        try:
            with open(descriptor, "wb") as file:
                file.write(image)
            return load(path)
        except OSError as error:  # no space, or mounted so that nothing can be executed
            errors.append(error)
        finally:
            os.unlink(path)
    raise errors[0] if errors else OSError(f"no folder to write {name} to")


_BITS = {_ARM: 32}
"""Of the machines that there is code for; of all others 64."""

Code = Dict[int, Tuple[Dict[str, int], str]]
"""Machine code as harness/machine_code.py writes it: by the machine's number in ELF, where each
function begins, and the code as base64."""


def load_code(code: Code, name: str, architecture: Optional[Architecture]) -> Optional[ctypes.CDLL]:
    """Load a library of machine code; None where there is none for this machine.

    Args:
        name: what it is for, in the name of its file.
        architecture: of this machine.

    Raises:
        OSError: the file cannot be written, or not be loaded.
    """
    import base64
    import ctypes

    if architecture is None or not architecture.is_little:
        return None
    if architecture.machine not in code or architecture.bits != _BITS.get(architecture.machine, 64):
        return None
    places, text = code[architecture.machine]
    soname = f"tvmrpc-{name}-{os.getpid()}.so"
    image = code_library(base64.b64decode(text), places, architecture, soname)
    return load_private(image, soname, (temporary_folder(),), ctypes.CDLL)


class _Writer:
    """Lays out: headers, names, symbols, hash, code; then, writable, dynamic section and table."""

    def __init__(
        self,
        names: Sequence[str],
        places: Sequence[int],
        architecture: Architecture,
        soname: str,
        needed: Sequence[str],
    ) -> None:
        self.names = names
        self.places = places  # of each function in the code, and the end of the code
        self.architecture = architecture
        self.elf_class = architecture.bits // 32
        self.word = architecture.bits // 8
        self.strings = b"\0" + b"".join(name.encode() + b"\0" for name in (*names, TABLE, soname))
        self.soname = len(self.strings) - len(soname.encode()) - 1
        self.needed: List[int] = []
        for name in needed:
            self.needed.append(len(self.strings))
            self.strings += os.fsencode(name) + b"\0"

    def _size(self, form: Dict[int, str]) -> int:
        return struct.calcsize("<" + form[self.elf_class])

    def library(self, code: Callable[[int, int], bytes], addresses: Sequence[int]) -> bytes:
        """The file: `code` makes the functions, of where they and the table are."""
        count = len(self.names)
        symbols_at = 16 + self._size(HEADERS) + 4 * self._size(PROGRAMS)
        hash_at = symbols_at + (count + 2) * self._size(SYMBOLS)
        hashes = self._hashes()
        strings_at = hash_at + len(hashes)
        code_at = _aligned(strings_at + len(self.strings), _STUB)
        code_end = code_at + self.places[-1]
        dynamic_offset = _aligned(code_end, 16)
        dynamic_at = dynamic_offset + _PAGE  # the next page, at the same place in it
        tags = [
            *((DT_NEEDED, place) for place in self.needed),
            (_DT_SONAME, self.soname),
            (DT_HASH, hash_at),
            (DT_STRTAB, strings_at),
            (DT_SYMTAB, symbols_at),
            (DT_STRSZ, len(self.strings)),
            (_DT_SYMENT, self._size(SYMBOLS)),
            (0, 0),
        ]
        form = "<" + DYNAMICS[self.elf_class]
        dynamic = b"".join(struct.pack(form, *tag) for tag in tags)
        table_at = _aligned(dynamic_at + len(dynamic), 8)
        table_size = len(addresses) * self.word
        end = table_at - _PAGE + table_size

        image = bytearray(end)
        image[: 16 + self._size(HEADERS)] = self._header()
        places = (code_end, dynamic_offset, dynamic_at, len(dynamic), end)
        _put(image, 16 + self._size(HEADERS), self._programs(*places))
        _put(image, symbols_at, self._symbols(code_at, table_at, table_size))
        _put(image, hash_at, hashes)
        _put(image, strings_at, self.strings)
        _put(image, code_at, code(code_at, table_at))
        _put(image, dynamic_offset, dynamic)
        form = f"<{len(addresses)}{WORDS[self.elf_class]}"
        _put(image, table_at - _PAGE, struct.pack(form, *addresses))
        return bytes(image)

    def _header(self) -> bytes:
        ident = MAGIC + bytes((self.elf_class, 1, 1)) + bytes(9)
        size = 16 + self._size(HEADERS)
        fields = (SHARED, self.architecture.machine, 1, 0, size, 0, self.architecture.flags, size)
        form = "<" + HEADERS[self.elf_class]
        return ident + struct.pack(form, *fields, self._size(PROGRAMS), 4, 0, 0, 0)

    def _programs(self, code_end: int, offset: int, address: int, size: int, end: int) -> bytes:
        rows = (
            (PT_LOAD, 0, 0, code_end, 5, _PAGE),
            (PT_LOAD, offset, address, end - offset, 6, _PAGE),
            (PT_DYNAMIC, offset, address, size, 6, 8),
            (_PT_GNU_STACK, 0, 0, 0, 6, 16),
        )
        form = "<" + PROGRAMS[self.elf_class]
        headers: List[bytes] = []
        for kind, at, memory, length, flags, align in rows:
            if self.elf_class == 2:
                fields = (kind, flags, at, memory, memory, length, length, align)
            else:
                fields = (kind, at, memory, memory, length, length, flags, align)
            headers.append(struct.pack(form, *fields))
        return b"".join(headers)

    def _symbols(self, code_at: int, table_at: int, table_size: int) -> bytes:
        rows = [
            (name, code_at + start, end - start, 2)
            for name, start, end in zip(self.names, self.places, self.places[1:])
        ]
        rows.append((TABLE, table_at, table_size, 1))
        form = "<" + SYMBOLS[self.elf_class]
        table = bytes(self._size(SYMBOLS))
        place = 1
        for name, address, size, kind in rows:
            info = 1 << 4 | kind  # global; a function or an object
            if self.elf_class == 2:
                table += struct.pack(form, place, info, 0, 1, address, size)
            else:
                table += struct.pack(form, place, address, size, info, 0, 1)
            place += len(name.encode()) + 1
        return table

    def _hashes(self) -> bytes:
        """The hash table with one bucket for all: each symbol names the next one."""
        count = len(self.names) + 2  # the null symbol, and the table
        return struct.pack(f"<{count + 3}I", 1, count, 1, 0, *range(2, count), 0)


def _aligned(place: int, step: int) -> int:
    return (place + step - 1) // step * step


def _put(image: bytearray, place: int, piece: bytes) -> None:
    image[place : place + len(piece)] = piece
