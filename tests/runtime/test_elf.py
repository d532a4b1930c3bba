"""What libraries say of themselves, and what is refused."""

from __future__ import annotations

import contextlib
import random
import struct
import sys
from pathlib import Path
from typing import Tuple

import pytest

from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import elf, stubs
from pytest_tvmrpc.runtime.toolchain import compile_library

X86_64 = elf.Architecture(62, 64)
ARM = elf.Architecture(40, 32, flags=0x5000400)

is_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs a system with ELF and /proc")


def written(folder: Path, image: bytes) -> str:
    """The path of a file with this content."""
    path = folder / "library.so"
    path.write_bytes(image)
    return str(path)


@pytest.fixture(name="compiled", scope="module")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library as this machine's compiler makes it."""
    folder = tmp_path_factory.mktemp("elf")
    source = folder / "some.c"
    source.write_text(
        "extern double cos(double); extern int wanted(void);\n"
        "int table[10]; static int hidden(void) { return wanted(); }\n"
        "int first(void) { return hidden(); } double second(double x) { return cos(x); }\n"
        "int __attribute__((weak)) third(void) { return table[3]; }\n"
    )
    try:
        options = ["-Wl,--no-as-needed", "-lm"]
        return compile_library(source, folder / "some.so", options=options)
    except CompilerError as error:
        pytest.skip(str(error))


@is_linux
def test_reads_what_a_compiler_made(compiled: str) -> None:
    """Architecture, needed libraries, exports and wants of a real library."""
    found = elf.read(compiled)
    here = elf.machine()
    assert here is not None
    assert found.architecture.fits(here)
    assert any(name.startswith("libm.") for name in found.needed)
    symbols = {symbol.name: symbol for symbol in found.symbols}
    assert symbols["first"].is_defined
    assert symbols["first"].is_function
    assert symbols["third"].is_weak
    assert not symbols["table"].is_function
    assert symbols["table"].size == 40
    assert not symbols["wanted"].is_defined
    assert "hidden" not in symbols


@is_linux
def test_a_library_without_exports(tmp_path: Path) -> None:
    """Its undefined symbols are found all the same."""
    source = tmp_path / "none.c"
    source.write_text(
        "extern int wanted(void); static int hidden(void) { return wanted(); }\n"
        "__attribute__((constructor)) static void begin(void) { hidden(); }\n"
    )
    try:
        path = compile_library(source, tmp_path / "none.so", options=["-nostdlib"])
    except CompilerError as error:
        pytest.skip(str(error))
    symbols = {symbol.name for symbol in elf.read(path).symbols if not symbol.is_defined}
    assert "wanted" in symbols


@is_linux
def test_machine() -> None:
    """The process knows what it runs on."""
    here = elf.machine()
    assert here is not None
    assert here.bits == struct.calcsize("P") * 8
    assert f"({here.bits}-bit)" in str(here)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "is damaged: it is empty"),
        (b"\x7fEL", "is no shared library"),
        (b"\x7fELF", "is damaged"),
        (b"\x7fELF" + bytes(60), "is damaged"),
        (b"#!/bin/sh\n", r"is no shared library: it begins with b'#!/bin/s'"),
        (b"\xcf\xfa\xed\xfe" + bytes(100), "is no shared library"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, image: bytes, message: str) -> None:
    """Each is refused with what it is."""
    with pytest.raises(LibraryError, match=message):
        elf.read(written(tmp_path, image))


@pytest.mark.parametrize(
    ("kind", "message"),
    [(1, "an object file, not linked yet"), (2, "a program"), (4, "core"), (99, "something else")],
)
def test_elf_files_of_another_kind(tmp_path: Path, kind: int, message: str) -> None:
    """An object file or a program is told from a library."""
    image = bytearray(stubs.stub_library(["one"], X86_64, "stubs.so"))
    struct.pack_into("<H", image, 16, kind)
    with pytest.raises(LibraryError, match=message):
        elf.read(written(tmp_path, bytes(image)))


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and an impossible name are library errors, too."""
    for path in (tmp_path / "none.so", tmp_path, "a\0b"):
        with pytest.raises(LibraryError, match="cannot be read"):
            elf.read(str(path))


@pytest.mark.parametrize("architecture", [X86_64, ARM], ids=str)
def test_cut_files(tmp_path: Path, architecture: elf.Architecture) -> None:
    """A library cut anywhere is damaged, and nothing else."""
    image = stubs.stub_library(["one", "two"], architecture, "stubs.so")
    for length in range(len(image)):
        with pytest.raises(LibraryError):
            elf.read(written(tmp_path, image[:length]))
    elf.read(written(tmp_path, image + b"more"))


def images(compiled: str) -> Tuple[bytes, ...]:
    """Libraries of both classes, with either kind of hash table."""
    return (
        stubs.stub_library(["one", "two"], X86_64, "stubs.so"),
        stubs.stub_library(["one", "two"], ARM, "stubs.so"),
        Path(compiled).read_bytes(),
    )


@is_linux
def test_hostile_files(tmp_path: Path, compiled: str) -> None:
    """Whatever a file says of itself, it is read or refused, quickly and without much memory."""
    chance = random.Random(9)
    for image in images(compiled):
        for _ in range(400):
            changed = bytearray(image)
            limit = min(700, len(changed)) if chance.random() < 0.7 else len(changed)
            for _ in range(chance.randrange(1, 6)):
                place = chance.randrange(16, limit)
                changed[place] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
            with contextlib.suppress(LibraryError):
                elf.read(written(tmp_path, bytes(changed)))
