"""Libraries that are written here: they can be read, loaded and called."""

from __future__ import annotations

import base64
import shutil
import subprocess
from typing import TYPE_CHECKING, List, NamedTuple, Tuple

import pytest

from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import elf, pool_code, stubs, timing_code

if TYPE_CHECKING:
    from pathlib import Path

X86_64 = elf.Architecture(62, 64)
AARCH64 = elf.Architecture(183, 64)
ARM = elf.Architecture(40, 32, flags=0x5000400)
RISCV64 = elf.Architecture(243, 64, flags=5)


@pytest.mark.parametrize("architecture", [X86_64, AARCH64, ARM, RISCV64], ids=str)
@pytest.mark.parametrize("count", [1, 2, 12])
def test_stub_libraries_can_be_read(
    tmp_path: Path, architecture: elf.Architecture, count: int
) -> None:
    """What is written is what is read, for each architecture; and it is small."""
    names = [f"function_{index}" for index in range(count)]
    image = stubs.stub_library(names, architecture, "stubs.so")
    assert len(image) < 1024 + 100 * count
    path = tmp_path / "library.so"
    path.write_bytes(image)
    found = elf.read(str(path))
    assert found.architecture == architecture
    assert found.needed == ()
    assert [symbol.name for symbol in found.symbols] == [*names, stubs.TABLE]
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
    stub = stubs._STUBS[architecture.machine, architecture.bits]
    assert stub(0x1000, 0x12000).hex() == code


def test_no_stubs_for_others() -> None:
    """An architecture without stubs is named, with the symbols that are wanted and what is had."""
    with pytest.raises(LibraryError, match=r"no stubs for MIPS .*one, two.*expected x86-64"):
        stubs.stub_library(["one", "two"], elf.Architecture(8, 32), "stubs.so")
    with pytest.raises(LibraryError, match="big-endian"):
        stubs.stub_library(["one"], elf.Architecture(183, 64, False), "stubs.so")


@pytest.mark.parametrize("architecture", [X86_64, AARCH64, RISCV64], ids=str)
def test_the_function_that_counts(tmp_path: Path, architecture: elf.Architecture) -> None:
    """A library with this one function can be read, where there is code for it."""
    image = stubs.atomic_library(architecture, "count.so")
    assert image is not None
    path = tmp_path / "library.so"
    path.write_bytes(image)
    found = elf.read(str(path))
    assert found.symbols[0].name == stubs.ATOMIC_ADD
    assert stubs.atomic_library(ARM, "count.so") is None


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
    params=[
        (X86_64, "gcc", ""),
        (AARCH64, "aarch64", "qemu"),
        (RISCV64, "riscv64", "qemu"),
        (ARM, "arm", "qemu"),
    ],
    ids=["x86-64", "AArch64", "RISC-V", "ARM"],
)
def _target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    architecture, name, emulator = request.param
    here = elf.machine()
    is_native = here is not None and here.fits(architecture)
    triplet = "" if is_native else f"{name}-linux-gnu{'eabihf' if name == 'arm' else ''}"
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
    image = stubs.atomic_library(target.architecture, "count.so")
    if target.architecture == ARM:
        pytest.skip("Python counts there")
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
    bound, kernel = target.folder / "libtvm_ffi.so", target.folder / "kernel.so"
    by_name = way == "by its name"
    needed = [] if by_name else [str(kernel)]
    soname = bound.name if by_name else "other.so"
    bound.write_bytes(stubs.stub_library(names, target.architecture, soname, needed))
    linking = ["-Wl,--no-as-needed", f"-L{target.folder}", "-ltvm_ffi"] if by_name else []
    target.compiled(kernel.name, _KERNEL, "-shared", "-fPIC", *linking)
    assert elf.read(str(kernel)).architecture.fits(target.architecture)
    program = target.compiled("main", _PROGRAM, "-ldl")
    assert target.run(program, bound, kernel) == ("15 unseen\n", 0)


_LOOPS = r"""
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
typedef struct {
  void *handle; int32_t count; uint32_t spins; void *call, *closure; uint32_t left; int32_t failed;
} Loop;
typedef struct { uint32_t state; int32_t task; Loop *loop; } Slot;
static uint64_t (*serve)(Slot *), (*run)(Loop *, Slot **, uint32_t);
static void (*tell)(Slot *, uint32_t);
static int tasks[4];
static int task(int number, void *env, void *closure) {
  if (((Loop *)env)->count != 4 || closure != (void *)tasks) return -1;
  __atomic_fetch_add(&tasks[number], 1, __ATOMIC_RELAXED);
  return 0;
}
static void *worker(void *slot) { return (void *)serve(slot); }
int main(int count, char **paths) {
  void *library = dlopen(paths[1], RTLD_NOW), *result;
  if (!library) return puts(dlerror()), 1;
  *(void **)&serve = dlsym(library, "tvmrpc_serve");
  *(void **)&run = dlsym(library, "tvmrpc_run");
  *(void **)&tell = dlsym(library, "tvmrpc_tell");
  Slot slots[3] = {{0, 0, 0}}, *places[3] = {&slots[0], &slots[1], &slots[2]};
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, worker, &slots[i]);
  for (int i = 0; i < 2000; i++) {
    Loop loop = {0, 4, i % 2 * 100, task, tasks, 0, 0};
    if (run(&loop, places, 3) || loop.left & 0xfffffff) return 2;
  }
  for (int i = 0; i < 3; i++) {
    tell(&slots[i], 3);
    if (pthread_join(threads[i], &result) || result) return 3;
  }
  printf("%d %d %d %d\n", tasks[0], tasks[1], tasks[2], tasks[3]);
  return 0;
}
"""


_TIMES = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
typedef struct { int32_t kind; uint32_t length; int64_t value; } Any;
typedef struct { int64_t value; int code; } Legacy;
typedef struct { int (*read)(int, void *); void (*drop)(void *); void *start, *end; int id; } Clock;
static int called, dropped;
static int read(int id, void *time) { return clock_gettime(id, time); }
static void drop(void *result) { dropped += ((Any *)result)->kind == 64; }
static void drop_legacy(void *result) { dropped += (int)((Legacy *)result)->value; }
static int call(void *self, const Any *args, int count, Any *result) {
  if (result->kind || result->length || result->value) return 7;
  result->kind = called % 2 ? 64 : 1;
  result->value = -1;
  return ++called == 10 ? 5 : self != &called || args->value != 3 || count != 1;
}
static int old(const int64_t *values, const int *codes, int count, int64_t *value, int *code,
               void *resource) {
  if (*value || *code != 4 || resource) return 7;
  *code = called % 2 ? 8 : 0;
  *value = 1;
  return ++called == 10 ? 5 : *values != 3 || *codes != 2 || count != 1;
}
int main(int count, char **words) {
  void *library = dlopen(words[1], RTLD_NOW);
  if (!library) { puts(dlerror()); return 1; }
  int (*time_calls)(int (*)(), void *, const Any *, int, int64_t, const Clock *) =
      dlsym(library, "mrpc_time_calls");
  int (*time_old)(int (*)(), const int64_t *, const int *, int, int64_t, const Clock *) =
      dlsym(library, "mrpc_time_legacy_calls");
  struct timespec start = {0, 0}, end = {0, 0};
  Clock clock = {read, drop, &start, &end, CLOCK_MONOTONIC};
  Any argument = {1, 0, 3};
  int64_t value = 3;
  int code = 2;
  printf("%d", time_calls((int (*)())call, &called, &argument, 1, 4, &clock));
  printf(" %d", time_calls((int (*)())call, &called, &argument, 1, INT64_MAX, &clock));
  printf(" %d %d", called, dropped);
  called = dropped = 0;
  clock.drop = drop_legacy;
  printf(" %d", time_old((int (*)())old, &value, &code, 1, 4, &clock));
  printf(" %d", time_old((int (*)())old, &value, &code, 1, INT64_MAX, &clock));
  printf(" %d %d\\n", called, dropped);
  return !start.tv_sec || end.tv_sec < start.tv_sec;
}
"""


def test_machine_code_of_the_measuring_loop(target: Target) -> None:
    """It makes so many calls, gives back the objects, and ends at the first failure."""
    if target.architecture.machine not in timing_code.CODE:
        pytest.skip("a compiler makes it there")
    places, code = timing_code.CODE[target.architecture.machine]
    library = target.folder / "timing.so"
    image = stubs.code_library(base64.b64decode(code), places, target.architecture, "timing.so")
    library.write_bytes(image)
    program = target.compiled("main", _TIMES, "-ldl")
    assert target.run(program, library) == ("0 5 10 5 0 5 10 5\n", 0)


def test_machine_code_of_loops(target: Target) -> None:
    """Each task of each loop runs once, on threads that spin and on threads that sleep."""
    if target.architecture.machine not in pool_code.CODE:
        pytest.skip("parallel loops are run by Python there")
    places, code = pool_code.CODE[target.architecture.machine]
    library = target.folder / "pool.so"
    image = stubs.code_library(base64.b64decode(code), places, target.architecture, "pool.so")
    library.write_bytes(image)
    program = target.compiled("main", _LOOPS, "-ldl", "-lpthread")
    assert target.run(program, library) == ("2000 2000 2000 2000\n", 0)
