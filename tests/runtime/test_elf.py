from __future__ import annotations

import contextlib
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple, Tuple

import pytest

from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import elf
from pytest_tvmrpc.runtime.toolchain import compile_library

X86_64 = elf.Architecture(62, 64)
AARCH64 = elf.Architecture(183, 64)
ARM = elf.Architecture(40, 32, flags=0x5000400)
RISCV64 = elf.Architecture(243, 64, flags=5)

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


@pytest.mark.parametrize("architecture", [X86_64, AARCH64, ARM, RISCV64], ids=str)
@pytest.mark.parametrize("count", [1, 2, 12])
def test_stub_libraries_can_be_read(
    tmp_path: Path, architecture: elf.Architecture, count: int
) -> None:
    """What is written is what is read, for each architecture; and it is small."""
    names = [f"function_{index}" for index in range(count)]
    image = elf.stub_library(names, architecture, "stubs.so")
    assert len(image) < 1024 + 100 * count
    found = elf.read(written(tmp_path, image))
    assert found.architecture == architecture
    assert found.needed == ()
    assert [symbol.name for symbol in found.symbols] == [*names, elf.TABLE]
    assert all(symbol.is_defined for symbol in found.symbols)
    assert [symbol.is_function for symbol in found.symbols] == [True] * count + [False]
    assert found.symbols[-1].size == count * architecture.bits // 8


@pytest.mark.parametrize(
    ("architecture", "code"),
    [
        # Each form was run: on the machine itself, or in an emulator of it.
        (X86_64, "f30f1efaff25f60f0100"),
        (AARCH64, "5f2403d5900000b0100240f900021fd6"),
        (ARM, "04c09fe50cc08fe000f09ce5f40f0100"),
        (RISCV64, "171e0100033e0e0067000e00"),
    ],
    ids=str,
)
def test_stubs(architecture: elf.Architecture, code: str) -> None:
    """The machine code of a stub at 0x1000 that jumps to where 0x12000 says."""
    stub = elf._STUBS[architecture.machine, architecture.bits]
    assert stub(0x1000, 0x12000).hex() == code


def test_no_stubs_for_others() -> None:
    """An architecture without stubs is named, with the symbols that are wanted and what is had."""
    with pytest.raises(LibraryError, match=r"no stubs for MIPS .*one, two.*expected x86-64"):
        elf.stub_library(["one", "two"], elf.Architecture(8, 32), "stubs.so")
    with pytest.raises(LibraryError, match="big-endian"):
        elf.stub_library(["one"], elf.Architecture(183, 64, False), "stubs.so")


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
    image = bytearray(elf.stub_library(["one"], X86_64, "stubs.so"))
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
    image = elf.stub_library(["one", "two"], architecture, "stubs.so")
    for length in range(len(image)):
        with pytest.raises(LibraryError):
            elf.read(written(tmp_path, image[:length]))
    elf.read(written(tmp_path, image + b"more"))


def images(compiled: str) -> Tuple[bytes, ...]:
    """Libraries of both classes, with either kind of hash table."""
    return (
        elf.stub_library(["one", "two"], X86_64, "stubs.so"),
        elf.stub_library(["one", "two"], ARM, "stubs.so"),
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


@pytest.mark.parametrize("architecture", [X86_64, AARCH64, RISCV64], ids=str)
def test_the_function_that_counts(tmp_path: Path, architecture: elf.Architecture) -> None:
    """A library with this one function can be read, where there is code for it."""
    image = elf.atomic_library(architecture, "count.so")
    assert image is not None
    found = elf.read(written(tmp_path, image))
    assert found.symbols[0].name == elf.ATOMIC_ADD
    assert elf.atomic_library(ARM, "count.so") is None


_KERNEL = """
int TVMFFIFirst(int), TVMFFISecond(int);
int kernel(int n) { return TVMFFISecond(TVMFFIFirst(n)); }
"""
_PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
static int add(int n) { return n + 1; }
static int triple(int n) { return n * 3; }
int main(int count, char **paths) {
  void *stubs = dlopen(paths[1], RTLD_NOW | RTLD_LOCAL);
  void **table = stubs ? dlsym(stubs, "tvmrpc_stub_table") : 0;
  if (!table) return puts(dlerror()), 1;
  table[0] = add;
  table[1] = triple;
  void *library = dlopen(paths[2], RTLD_NOW | RTLD_LOCAL);
  if (!library) return puts(dlerror()), 2;
  int (*kernel)(int) = (int (*)(int))dlsym(library, "kernel");
  if (!kernel) return 3;
  printf("%d %s\\n", kernel(4), dlsym(RTLD_DEFAULT, "TVMFFIFirst") ? "seen" : "unseen");
  return 0;
}
"""


class Target(NamedTuple):
    """A machine for which C can be compiled here, and run: itself, or in an emulator."""

    architecture: elf.Architecture
    compiler: str
    runner: List[str]
    folder: Path

    def compiled(self, name: str, text: str, *options: str) -> Path:
        """The file that the compiler makes of a text."""
        source, output = self.folder / f"{name}.c", self.folder / name
        source.write_text(text)
        command = [self.compiler, "-o", str(output), str(source), *options]
        subprocess.run(command, check=True, timeout=60)
        return output

    def run(self, *command: Path) -> Tuple[str, int]:
        """What a program says, and its exit status."""
        done = subprocess.run(
            [*self.runner, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout, done.returncode


@pytest.fixture(
    name="target",
    params=[(X86_64, "gcc", ""), (AARCH64, "aarch64", "qemu"), (RISCV64, "riscv64", "qemu")],
    ids=["x86-64", "AArch64", "RISC-V"],
)
def _target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    architecture, name, emulator = request.param
    here = elf.machine()
    is_native = here is not None and here.fits(architecture)
    triplet = "" if is_native else f"{name}-linux-gnu"
    compiler = shutil.which("gcc" if is_native else f"{triplet}-gcc")
    runner = [] if is_native else [shutil.which(f"qemu-{name}") or "", "-L", f"/usr/{triplet}"]
    if compiler is None or (runner and not runner[0]):
        pytest.skip(f"needs a compiler for {architecture}, and {emulator or 'that machine'}")
    return Target(architecture, compiler, runner, tmp_path)


_COUNTS = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
int main(int count, char **paths) {
  void *library = dlopen(paths[1], RTLD_NOW);
  uint64_t value = 1ULL << 32 | 1;
  if (!library) return puts(dlerror()), 1;
  uint64_t (*add)(uint64_t *, int64_t) =
      (uint64_t(*)(uint64_t *, int64_t))dlsym(library, "tvmrpc_atomic_add");
  if (!add || add(&value, 2) != (1ULL << 32 | 1) || add(&value, -1) != (1ULL << 32 | 3)) return 2;
  printf("%llx\\n", (unsigned long long)value);
  return 0;
}
"""


def test_the_function_that_counts_counts(target: Target) -> None:
    """It adds, and returns what was there before."""
    image = elf.atomic_library(target.architecture, "count.so")
    assert image is not None
    library = target.folder / "count.so"
    library.write_bytes(image)
    assert target.run(target.compiled("main", _COUNTS, "-ldl"), library) == ("100000002\n", 0)


@pytest.mark.parametrize("way", ["by its name", "with the library"])
def test_libraries_bound_to_stubs(target: Target, way: str) -> None:
    """Where the system's loader binds a library to stubs, calls arrive; nobody else sees them.

    Either the library needs libtvm_ffi.so, which is the stubs' name; or it needs nothing, and
    the stubs need it.
    """
    names = ["TVMFFIFirst", "TVMFFISecond"]
    stubs, kernel = target.folder / "libtvm_ffi.so", target.folder / "kernel.so"
    by_name = way == "by its name"
    needed = [] if by_name else [str(kernel)]
    soname = stubs.name if by_name else "other.so"
    stubs.write_bytes(elf.stub_library(names, target.architecture, soname, needed))
    linking = ["-Wl,--no-as-needed", f"-L{target.folder}", "-ltvm_ffi"] if by_name else []
    target.compiled(kernel.name, _KERNEL, "-shared", "-fPIC", *linking)
    assert elf.read(str(kernel)).architecture.fits(target.architecture)
    program = target.compiled("main", _PROGRAM, "-ldl")
    assert target.run(program, stubs, kernel) == ("15 unseen\n", 0)
