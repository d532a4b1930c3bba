"""ELF files, read: what a shared library is made for, needs and exports.

Loads nothing, and writes none; `stubs.py` does.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import BinaryIO, Dict, List, NamedTuple, Optional, Tuple

from ..errors import LibraryError

MAGIC = b"\x7fELF"
PROGRAM = 2  # ET_EXEC; one that can be anywhere in memory is ET_DYN, as libraries are
SHARED = 3  # ET_DYN
_INTERPRETER = 3  # PT_INTERP
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

PT_LOAD, PT_DYNAMIC = 1, 2
"""Kinds of segments."""

DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ = 1, 4, 5, 6, 10
"""Tags of the dynamic section."""

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


HEADERS = {1: "HHIIIIIHHHHHH", 2: "HHIQQQIHHHHHH"}
PROGRAMS = {1: "IIIIIIII", 2: "IIQQQQQQ"}
DYNAMICS = {1: "iI", 2: "qQ"}
SYMBOLS = {1: "IIIBBH", 2: "IBBHQQ"}
WORDS = {1: "I", 2: "Q"}
"""The fields behind the first 16 bytes, of a program header, and so on: by class (32, 64 bits)."""


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


def is_program(path: str) -> bool:
    """Whether a file can be started, and is not only a library.

    Raises:
        LibraryError: it is no ELF file.
    """
    with open(path, "rb") as file:
        reader = _Reader(path, file)
        _, (table, entry_size, count), kind = _architecture(reader)
        segments = [reader.unpack("I", table + number * entry_size)[0] for number in range(count)]
    return kind == PROGRAM or _INTERPRETER in segments


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
            if kind != SHARED:
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
    if start[:4] != MAGIC:
        raise LibraryError(
            f"{reader.path} is no shared library: it begins with {start[:8]!r}; "
            "expected an ELF file; compile with -shared -fPIC"
        )
    elf_class, order = (start[4], start[5]) if len(start) == 16 else (0, 0)
    if elf_class not in (1, 2) or order not in (1, 2):
        raise reader.error("its header is not that of an ELF file")
    reader.elf_class, reader.order = elf_class, "<" if order == 1 else ">"
    fields = reader.unpack(HEADERS[elf_class], 16)
    kind, machine_number, table, flags = fields[0], fields[1], fields[4], fields[6]
    architecture = Architecture(machine_number, 32 * elf_class, order == 1, flags)
    return architecture, (table, fields[8], fields[9]), kind


def _segments(reader: _Reader, table: int, entry_size: int, count: int) -> _Segment:
    """Note what is loaded where; the dynamic segment is returned.

    The system maps segments without a look at the file's size, and a process that touches a page
    behind the end dies with SIGBUS: so the size is checked here.
    """
    form = PROGRAMS[reader.elf_class]
    if entry_size < struct.calcsize("<" + form):
        raise reader.error("its program headers are too small")
    dynamic: Optional[_Segment] = None
    for index in range(count):
        fields = reader.unpack(form, table + index * entry_size)
        if reader.elf_class == 2:
            kind, _, offset, address, _, size = fields[:6]
        else:
            kind, offset, address, _, size = fields[:5]
        if kind not in (PT_LOAD, PT_DYNAMIC):
            continue
        segment = _Segment(offset, address, size)
        if offset + size > reader.size:
            raise reader.error(f"it ends at {reader.size} and should go on to {offset + size}")
        if kind == PT_LOAD:
            reader.segments.append(segment)
        else:
            dynamic = segment
    if dynamic is None or not reader.segments:
        raise reader.error("it has nothing to load")
    return dynamic


def _dynamic_tags(reader: _Reader, dynamic: _Segment) -> List[Tuple[int, int]]:
    entry = struct.Struct(reader.order + DYNAMICS[reader.elf_class])
    size = min(dynamic.size, _MAX_DYNAMIC * entry.size) // entry.size * entry.size
    tags: List[Tuple[int, int]] = []
    for tag, value in entry.iter_unpack(reader.at(dynamic.offset, size)):
        if tag == 0:
            break
        tags.append((tag, value))
    return tags


def _strings(reader: _Reader, tags: List[Tuple[int, int]]) -> bytes:
    known = dict(tags)
    if DT_STRTAB not in known or DT_STRSZ not in known:
        raise reader.error("it has no table of names")
    return reader.at(reader.place(known[DT_STRTAB]), known[DT_STRSZ])


def _name(reader: _Reader, strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset, offset + _MAX_NAME)
    if offset >= len(strings) or end < 0:
        raise reader.error("a name is not in its table of names")
    return strings[offset:end].decode("utf-8", "replace")


def _needed(reader: _Reader, tags: List[Tuple[int, int]]) -> Tuple[str, ...]:
    wanted = [value for tag, value in tags if tag == DT_NEEDED]
    if not wanted:
        return ()
    strings = _strings(reader, tags)
    return tuple(_name(reader, strings, offset) for offset in wanted)


def _symbols(reader: _Reader, tags: List[Tuple[int, int]]) -> Tuple[Symbol, ...]:
    known = dict(tags)
    if DT_SYMTAB not in known:
        return ()
    count = _symbol_count(reader, known)
    if count > _MAX_SYMBOLS:
        raise reader.error(f"it claims {count} symbols")
    strings = _strings(reader, tags)
    entry = struct.Struct(reader.order + SYMBOLS[reader.elf_class])
    table = reader.at(reader.place(known[DT_SYMTAB]), count * entry.size)
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
    if DT_HASH in known:
        return reader.unpack("II", reader.place(known[DT_HASH]))[1]
    if _DT_GNU_HASH not in known:
        return 0
    start = reader.place(known[_DT_GNU_HASH])
    buckets, first, bloom, _ = reader.unpack("IIII", start)
    start += 16 + bloom * struct.calcsize("<" + WORDS[reader.elf_class])
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
    size = struct.calcsize("<" + SYMBOLS[reader.elf_class])
    end = known.get(DT_STRTAB, 0)  # linkers put the names right behind the symbols
    return max(first, (end - known[DT_SYMTAB]) // size if end > known[DT_SYMTAB] else 0)
