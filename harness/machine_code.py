"""Compile runtime/pool.c and native/timing_loop.c for each machine, into Python files of bytes.

    python -m harness.machine_code

A device has no compiler, so the package carries the code. Needs gcc for x86-64, AArch64, ARM and
RISC-V, and binutils of each (Debian: gcc-aarch64-linux-gnu, gcc-arm-linux-gnueabihf,
gcc-riscv64-linux-gnu).
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "pytest_tvmrpc"
RUNTIME = PACKAGE / "runtime"
FLAGS = [
    *("-std=c99", "-Wall", "-Wextra", "-Werror", "-Os", "-shared", "-fPIC", "-nostdlib"),
    *("-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-fno-toplevel-reorder", "-Wl,-Bsymbolic", "-Wl,--build-id=none"),
]
MACHINES = {
    62: ("x86_64-linux-gnu-", ["-fcf-protection=branch"]),
    183: ("aarch64-linux-gnu-", ["-mbranch-protection=bti", "-mno-outline-atomics"]),
    40: ("arm-linux-gnueabihf-", ["-march=armv6", "-marm", "-mfloat-abi=soft"]),
    243: ("riscv64-linux-gnu-", []),
}


class Source(NamedTuple):
    """What is compiled: its file, the Python file that it becomes, the machines."""

    path: Path
    output: Path
    machines: tuple[int, ...]


SOURCES = (
    Source(RUNTIME / "pool.c", RUNTIME / "pool_code.py", (62, 183)),
    Source(PACKAGE / "native" / "timing_loop.c", RUNTIME / "timing_code.py", (62, 183, 40, 243)),
)
HEAD = '''"""The machine code of {name}, by `python -m harness.machine_code`: edit {name}.

For each machine (its number in ELF): where each function begins, and the code as base64.
"""

from __future__ import annotations

from typing import Dict, Tuple

SOURCE_SHA256 = "{digest}"
CODE: Dict[int, Tuple[Dict[str, int], str]] = {{
{entries}}}
'''


def compiled(source: Path, machine: int, folder: Path) -> tuple[dict[str, int], bytes]:
    """The offsets of the functions in the code, the least first; the code.

    Raises:
        ValueError: the code would not run at any place: it refers to something outside of it.
    """
    prefix, flags = MACHINES[machine]
    library, code = folder / "code.so", folder / "code.bin"
    run(f"{prefix}gcc", *FLAGS, *flags, str(source), "-o", str(library))
    run(f"{prefix}objcopy", "-O", "binary", "-j", ".text", str(library), str(code))
    sections = run(f"{prefix}objdump", "-h", str(library))
    relocations = run(f"{prefix}objdump", "-R", str(library))
    has_data = any(f" {name} " in sections for name in (".data", ".bss", ".rodata", ".plt"))
    if has_data or "(none)" not in relocations:
        raise ValueError(f"{source.name} has data or calls something; expected code alone")
    start = next(int(line.split()[3], 16) for line in sections.splitlines() if " .text " in line)
    symbols = [line.split() for line in run(f"{prefix}nm", "-D", str(library)).splitlines()]
    places = {name: int(at, 16) - start for at, kind, name in symbols if kind == "T"}
    return dict(sorted(places.items(), key=lambda item: item[1])), code.read_bytes()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def module(source: Source) -> str:
    """The text of the Python file."""
    entries = ""
    for machine in source.machines:
        with tempfile.TemporaryDirectory() as folder:
            places, code = compiled(source.path, machine, Path(folder))
        offsets = "".join(f'            "{name}": {place},\n' for name, place in places.items())
        lines = textwrap.wrap(base64.b64encode(code).decode(), 88)
        text = "\n".join(f'        "{line}"' for line in lines)
        entries += f"    {machine}: (\n        {{\n{offsets}        }},\n{text},\n    ),\n"
    digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
    return HEAD.format(name=source.path.name, digest=digest, entries=entries)


if __name__ == "__main__":
    for each in SOURCES:
        each.output.write_text(module(each), encoding="utf-8")
        print(f"written: {each.output}")
