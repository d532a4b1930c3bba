"""wire.c on machines of either byte order and of 32 bits: the inputs of its fuzzer, read alike.

The program is the fuzzer's, which checks what it reads; what it prints of each input has to be the
same everywhere. On this machine it runs under the sanitizers.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, List

import pytest

from harness.native import corpus, fuzz

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = sorted({*corpus.wire_seeds(), *corpus.kept("wire")})
STREAM = b"".join(struct.pack("<I", len(content)) + content for content in INPUTS)

QEMU = {
    "aarch64-linux-gnu": "qemu-aarch64",
    "arm-linux-gnueabihf": "qemu-arm",
    "riscv64-linux-gnu": "qemu-riscv64",
    "s390x-linux-gnu": "qemu-s390x",
}


def compiled(folder: Path, compiler: str, *options: str) -> Path:
    """The program that prints what becomes of each input."""
    program = folder / "replay"
    names = fuzz.FUZZERS["wire"].sources
    sources = [fuzz.HERE / "fuzz_wire.c", *(fuzz.SOURCES / name for name in names)]
    flags = ["-std=c99", "-D_GNU_SOURCE", "-DREPLAY", "-O1", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *flags, *options, f"-I{fuzz.SOURCES}", *map(str, sources)]
    done = subprocess.run(
        [*command, "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return program


def replay(*command: str) -> List[bytes]:
    done = subprocess.run(command, input=STREAM, capture_output=True, check=False, timeout=120)
    assert not done.returncode, done.stderr.decode()
    return done.stdout.splitlines()


@pytest.fixture(name="here", scope="module")
def _here(tmp_path_factory: pytest.TempPathFactory) -> List[bytes]:
    """What this machine makes of the inputs."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is here: looked for gcc and clang in PATH")
    return replay(str(compiled(tmp_path_factory.mktemp("here"), compiler)))


def test_nothing_is_read_or_written_beyond(here, tmp_path):
    """Each input lies in memory of just its size, and the sanitizers look on."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    options = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = [str(compiler), *options, str(probe), "-o", str(tmp_path / "probe")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} has no sanitizers here")
    assert replay(str(compiled(tmp_path, str(compiler), *options))) == here


def test_inputs_go_everywhere(here):
    """The inputs are read and refused by each function."""
    assert len(here) >= len(INPUTS)
    for choice in range(9):
        assert [line for line in here if line.startswith(b"%d " % choice)]
    assert sum(b" refused " in line for line in here) > 100
    assert sum(b" partial " in line for line in here) > 20


@pytest.mark.parametrize("triple", QEMU)
def test_other_machines_read_the_same(here, tmp_path, triple):
    """32 bits and the other byte order change nothing."""
    compiler, qemu = shutil.which(f"{triple}-gcc"), shutil.which(QEMU[triple])
    if compiler is None or qemu is None:
        pytest.skip(f"needs {triple}-gcc and {QEMU[triple]} in PATH")
    program = compiled(tmp_path, compiler)
    assert replay(qemu, "-L", f"/usr/{triple}", str(program)) == here
