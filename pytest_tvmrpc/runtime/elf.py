"""ELF files: what a shared library is made for and exports; the smallest library of stubs.

Reads and makes bytes; loads nothing.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import (
    BinaryIO,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from ..errors import LibraryError

__all__ = [
    "Architecture",
    "ElfFile",
    "Symbol",
    "architecture",
    "atomic_library",
    "machine",
    "read",
    "stub_library",
]

_MAGIC = b"\x7fELF"
_SHARED = 3  # ET_DYN
_KINDS = {1: "an object file, not linked yet", 2: "a program", 4: "a core dump"}
_MACHINES = {
    3: "x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "S390",
    40: "ARM",
    62: "x86-64",
    164: "Hexagon",
    183: "AArch64",
    243: "RISC-V",
    247: "BPF",
    258: "LoongArch",
}
_X86_64, _ARM, _AARCH64, _RISCV = 62, 40, 183, 243

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = (
    *(1, 4, 5, 6, 10, 11, 14),
)
_DT_GNU_HASH = 0x6FFFFEF5
_MAX_DYNAMIC = 4096  # entries; real libraries have about 30
_MAX_SYMBOLS = 1 << 22
_MAX_NAME = 1 << 16


class Architecture(NamedTuple):
    """What machine code is for: as much of an ELF header as two files must share."""

    machine: int
    bits: int
    is_little: bool = True
    flags: int = 0

    def __str__(self) -> str:
        name = _MACHINES.get(self.machine, f"machine number {self.machine}")
        return f"{name} ({self.bits}-bit{'' if self.is_little else ', big-endian'})"

    def fits(self, other: Architecture) -> bool:
        """Whether code for the one can be loaded where code for the other runs."""
        return self[:3] == other[:3]


class Symbol(NamedTuple):
    """One line of a dynamic symbol table."""

    name: str
    is_defined: bool
    is_function: bool
    is_weak: bool
    size: int


class ElfFile(NamedTuple):
    """What we need to know of a shared library.

    Attributes:
        needed: the libraries it is loaded with (DT_NEEDED).
        symbols: its dynamic symbols: what it exports, and what it wants.
    """

    architecture: Architecture
    needed: Tuple[str, ...]
    symbols: Tuple[Symbol, ...]


_HEADERS = {1: "HHIIIIIHHHHHH", 2: "HHIQQQIHHHHHH"}
_PROGRAMS = {1: "IIIIIIII", 2: "IIQQQQQQ"}
_DYNAMICS = {1: "iI", 2: "qQ"}
_SYMBOLS = {1: "IIIBBH", 2: "IBBHQQ"}
_WORDS = {1: "I", 2: "Q"}


class _Segment(NamedTuple):
    offset: int
    address: int
    size: int


class _Reader:
    """A file that is read in pieces and may claim anything of itself."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self.order = "<"
        self.elf_class = 2
        self.segments: List[_Segment] = []

    def error(self, fact: str) -> LibraryError:
        return LibraryError(
            f"{self.path} is damaged: {fact}; expected a whole shared library; "
            "build it or send it again"
        )

    def at(self, offset: int, length: int) -> bytes:
        """A piece of the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.error(f"{length} bytes at {offset} are not in its {self.size} bytes")
        self._file.seek(offset)
        piece = self._file.read(length)
        if len(piece) != length:
            raise self.error("it became shorter while it was read")
        return piece

    def unpack(self, form: str, offset: int) -> Tuple[int, ...]:
        layout = struct.Struct(self.order + form)
        return layout.unpack(self.at(offset, layout.size))

    def place(self, address: int) -> int:
        """Where in the file something with this address in memory is."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        raise self.error(f"address {address:#x} is in none of its segments")


@functools.lru_cache(maxsize=None)
def machine() -> Optional[Architecture]:
    """The architecture of this process, read from its own program; None without ELF.

    A 32-bit system on a 64-bit kernel is told as what it is, unlike by ``platform.machine()``.
    """
    try:
        return architecture("/proc/self/exe")
    except (OSError, LibraryError):
        return None


def architecture(path: str) -> Architecture:
    """What a file is made for, be it linked or not.

    Raises:
        LibraryError: it is no ELF file.
    """
    with open(path, "rb") as file:
        return _architecture(_Reader(path, file))[0]


def read(path: str) -> ElfFile:
    """What a shared library says of itself.

    Raises:
        LibraryError: there is no such file, it is no shared library, or it is damaged. Whatever
            the file holds, nothing else is raised.
    """
    try:
        with open(path, "rb") as file:
            reader = _Reader(path, file)
            made_for, (table, entry_size, count), kind = _architecture(reader)
            if kind != _SHARED:
                raise LibraryError(
                    f"{path} is {_KINDS.get(kind, 'something else')}; expected a shared library; "
                    "link it with -shared -fPIC"
                )
            dynamic = _segments(reader, table, entry_size, count)
            tags = _dynamic_tags(reader, dynamic)
            return ElfFile(made_for, _needed(reader, tags), _symbols(reader, tags))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise LibraryError(
            f"{path!r} cannot be read: {reason}; expected a shared library there; check the path"
        ) from error


def _architecture(reader: _Reader) -> Tuple[Architecture, Tuple[int, int, int], int]:
    """The architecture; place, entry size and number of the program headers; the kind of file."""
    if reader.size == 0:
        raise reader.error("it is empty")
    start = reader.at(0, min(reader.size, 16))
    if start[:4] != _MAGIC:
        raise LibraryError(
            f"{reader.path} is no shared library: it begins with {start[:8]!r}; "
            "expected an ELF file; compile with -shared -fPIC"
        )
    elf_class, order = (start[4], start[5]) if len(start) == 16 else (0, 0)
    if elf_class not in (1, 2) or order not in (1, 2):
        raise reader.error("its header is not that of an ELF file")
    reader.elf_class, reader.order = elf_class, "<" if order == 1 else ">"
    fields = reader.unpack(_HEADERS[elf_class], 16)
    kind, machine_number, table, flags = fields[0], fields[1], fields[4], fields[6]
    architecture = Architecture(machine_number, 32 * elf_class, order == 1, flags)
    return architecture, (table, fields[8], fields[9]), kind


def _segments(reader: _Reader, table: int, entry_size: int, count: int) -> _Segment:
    """Note what is loaded where; the dynamic segment is returned.

    The system maps segments without a look at the file's size, and a process that touches a page
    behind the end dies with SIGBUS: so the size is checked here.
    """
    form = _PROGRAMS[reader.elf_class]
    if entry_size < struct.calcsize("<" + form):
        raise reader.error("its program headers are too small")
    dynamic: Optional[_Segment] = None
    for index in range(count):
        fields = reader.unpack(form, table + index * entry_size)
        if reader.elf_class == 2:
            kind, _, offset, address, _, size = fields[:6]
        else:
            kind, offset, address, _, size = fields[:5]
        if kind not in (_PT_LOAD, _PT_DYNAMIC):
            continue
        segment = _Segment(offset, address, size)
        if offset + size > reader.size:
            raise reader.error(f"it ends at {reader.size} and should go on to {offset + size}")
        if kind == _PT_LOAD:
            reader.segments.append(segment)
        else:
            dynamic = segment
    if dynamic is None or not reader.segments:
        raise reader.error("it has nothing to load")
    return dynamic


def _dynamic_tags(reader: _Reader, dynamic: _Segment) -> List[Tuple[int, int]]:
    entry = struct.Struct(reader.order + _DYNAMICS[reader.elf_class])
    size = min(dynamic.size, _MAX_DYNAMIC * entry.size) // entry.size * entry.size
    tags: List[Tuple[int, int]] = []
    for tag, value in entry.iter_unpack(reader.at(dynamic.offset, size)):
        if tag == 0:
            break
        tags.append((tag, value))
    return tags


def _strings(reader: _Reader, tags: List[Tuple[int, int]]) -> bytes:
    known = dict(tags)
    if _DT_STRTAB not in known or _DT_STRSZ not in known:
        raise reader.error("it has no table of names")
    return reader.at(reader.place(known[_DT_STRTAB]), known[_DT_STRSZ])


def _name(reader: _Reader, strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset, offset + _MAX_NAME)
    if offset >= len(strings) or end < 0:
        raise reader.error("a name is not in its table of names")
    return strings[offset:end].decode("utf-8", "replace")


def _needed(reader: _Reader, tags: List[Tuple[int, int]]) -> Tuple[str, ...]:
    wanted = [value for tag, value in tags if tag == _DT_NEEDED]
    if not wanted:
        return ()
    strings = _strings(reader, tags)
    return tuple(_name(reader, strings, offset) for offset in wanted)


def _symbols(reader: _Reader, tags: List[Tuple[int, int]]) -> Tuple[Symbol, ...]:
    known = dict(tags)
    if _DT_SYMTAB not in known:
        return ()
    count = _symbol_count(reader, known)
    if count > _MAX_SYMBOLS:
        raise reader.error(f"it claims {count} symbols")
    strings = _strings(reader, tags)
    entry = struct.Struct(reader.order + _SYMBOLS[reader.elf_class])
    table = reader.at(reader.place(known[_DT_SYMTAB]), count * entry.size)
    symbols: List[Symbol] = []
    for fields in entry.iter_unpack(table[entry.size :]):
        if reader.elf_class == 2:
            name, kind, _, section, _, size = fields
        else:
            name, _, size, kind, _, section = fields
        binding, what = kind >> 4, kind & 15
        if binding == 0:
            continue  # STB_LOCAL: no other file sees it
        text = _name(reader, strings, name)
        symbols.append(Symbol(text, section != 0, what in (2, 10), binding == 2, size))
    return tuple(symbols)


def _symbol_count(reader: _Reader, known: Dict[int, int]) -> int:
    """The table does not say its own length: the hash table for it does."""
    if _DT_HASH in known:
        return reader.unpack("II", reader.place(known[_DT_HASH]))[1]
    if _DT_GNU_HASH not in known:
        return 0
    start = reader.place(known[_DT_GNU_HASH])
    buckets, first, bloom, _ = reader.unpack("IIII", start)
    start += 16 + bloom * struct.calcsize("<" + _WORDS[reader.elf_class])
    if buckets > _MAX_SYMBOLS:
        raise reader.error(f"it claims {buckets} buckets of symbols")
    last = max((*reader.unpack(f"{buckets}I", start), 0))
    if last < first:
        return _count_without_exports(reader, known, first)
    return _end_of_chain(reader, start + 4 * buckets, first, last)


def _end_of_chain(reader: _Reader, chains: int, first: int, last: int) -> int:
    """The symbols of the last bucket end with the first odd hash."""
    while last < _MAX_SYMBOLS:
        place = chains + 4 * (last - first)
        length = min(4096, (reader.size - place) // 4)
        if length <= 0:
            break
        for value in reader.unpack(f"{length}I", place):
            last += 1
            if value & 1:
                return last
    raise reader.error("the last of its symbols cannot be found")


def _count_without_exports(reader: _Reader, known: Dict[int, int], first: int) -> int:
    """Without exports only the undefined symbols are left, which `first` counts, or is 1."""
    size = struct.calcsize("<" + _SYMBOLS[reader.elf_class])
    end = known.get(_DT_STRTAB, 0)  # linkers put the names right behind the symbols
    return max(first, (end - known[_DT_SYMTAB]) // size if end > known[_DT_SYMTAB] else 0)


# --------------------------------------------------------------------------------------- stubs

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
    return _Writer(names, architecture, soname, needed).library(stub, addresses)


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
    pieces = iter((bytes.fromhex(code), b""))  # it takes the room of two stubs
    names = (ATOMIC_ADD, f"{ATOMIC_ADD}_end")
    return _Writer(names, architecture, soname, ()).library(lambda at, entry: next(pieces), ())


class _Writer:
    """Lays out: headers, names, symbols, hash, code; then, writable, dynamic section and table."""

    def __init__(
        self,
        names: Sequence[str],
        architecture: Architecture,
        soname: str,
        needed: Sequence[str],
    ) -> None:
        self.names = names
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

    def library(self, stub: Callable[[int, int], bytes], addresses: Sequence[int]) -> bytes:
        count = len(self.names)
        symbols_at = 16 + self._size(_HEADERS) + 4 * self._size(_PROGRAMS)
        hash_at = symbols_at + (count + 2) * self._size(_SYMBOLS)
        hashes = self._hashes()
        strings_at = hash_at + len(hashes)
        code_at = _aligned(strings_at + len(self.strings), _STUB)
        code_end = code_at + count * _STUB
        dynamic_offset = _aligned(code_end, 16)
        dynamic_at = dynamic_offset + _PAGE  # the next page, at the same place in it
        tags = [
            *((_DT_NEEDED, place) for place in self.needed),
            (_DT_SONAME, self.soname),
            (_DT_HASH, hash_at),
            (_DT_STRTAB, strings_at),
            (_DT_SYMTAB, symbols_at),
            (_DT_STRSZ, len(self.strings)),
            (_DT_SYMENT, self._size(_SYMBOLS)),
            (0, 0),
        ]
        form = "<" + _DYNAMICS[self.elf_class]
        dynamic = b"".join(struct.pack(form, *tag) for tag in tags)
        table_at = _aligned(dynamic_at + len(dynamic), 8)
        table_size = count * self.word
        end = table_at - _PAGE + table_size

        image = bytearray(end)
        image[: 16 + self._size(_HEADERS)] = self._header()
        places = (code_end, dynamic_offset, dynamic_at, len(dynamic), end)
        _put(image, 16 + self._size(_HEADERS), self._programs(*places))
        _put(image, symbols_at, self._symbols(code_at, table_at, table_size))
        _put(image, hash_at, hashes)
        _put(image, strings_at, self.strings)
        for index in range(count):
            at = code_at + index * _STUB
            _put(image, at, stub(at, table_at + index * self.word))
        _put(image, dynamic_offset, dynamic)
        form = f"<{len(addresses)}{_WORDS[self.elf_class]}"
        _put(image, table_at - _PAGE, struct.pack(form, *addresses))
        return bytes(image)

    def _header(self) -> bytes:
        ident = _MAGIC + bytes((self.elf_class, 1, 1)) + bytes(9)
        size = 16 + self._size(_HEADERS)
        fields = (_SHARED, self.architecture.machine, 1, 0, size, 0, self.architecture.flags, size)
        form = "<" + _HEADERS[self.elf_class]
        return ident + struct.pack(form, *fields, self._size(_PROGRAMS), 4, 0, 0, 0)

    def _programs(self, code_end: int, offset: int, address: int, size: int, end: int) -> bytes:
        rows = (
            (_PT_LOAD, 0, 0, code_end, 5, _PAGE),
            (_PT_LOAD, offset, address, end - offset, 6, _PAGE),
            (_PT_DYNAMIC, offset, address, size, 6, 8),
            (_PT_GNU_STACK, 0, 0, 0, 6, 16),
        )
        form = "<" + _PROGRAMS[self.elf_class]
        headers: List[bytes] = []
        for kind, at, memory, length, flags, align in rows:
            if self.elf_class == 2:
                fields = (kind, flags, at, memory, memory, length, length, align)
            else:
                fields = (kind, at, memory, memory, length, length, flags, align)
            headers.append(struct.pack(form, *fields))
        return b"".join(headers)

    def _symbols(self, code_at: int, table_at: int, table_size: int) -> bytes:
        rows = [(name, code_at + index * _STUB, _STUB, 2) for index, name in enumerate(self.names)]
        rows.append((TABLE, table_at, table_size, 1))
        form = "<" + _SYMBOLS[self.elf_class]
        table = bytes(self._size(_SYMBOLS))
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
