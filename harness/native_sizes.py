"""The sizes of the programs in C for each target, as the table of docs/benchmarks.md.

    python -m harness.native_sizes [TRIPLE ...]

Needs zig (`pip install ziglang`), and takes a minute for each target; where there is a cross GCC,
its programs are in the table, too. By default these are the targets of `tox run -e boards`, and
x86-64.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import targets
from pytest_tvmrpc.runtime.native_programs import KINDS, build_server, least_glibc

if TYPE_CHECKING:
    from collections.abc import Sequence

USUAL = (
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "arm-linux-gnueabihf",
    "riscv64-linux-gnu",
    "s390x-linux-gnu",
)


def size(target: str, kind: str, folder: str, compiler: list[str] | None = None) -> str:
    """Kilobytes of a program, and the glibc that it needs; or why there is none."""
    output = Path(folder) / "program"
    try:
        if compiler is None:
            build_server(target, output, kind)
        else:
            build_server(None, output, kind, compiler=compiler)
    except CompilerError as error:
        return str(error).splitlines()[0]
    glibc = least_glibc(output)
    return f"{os.path.getsize(output) / 1000:.1f} kB" + (f", glibc {glibc}" if glibc else "")


def row(target: str, folder: str) -> tuple[str, ...]:
    """A target's triple, each program by zig, and by a cross GCC if it is there."""
    version = targets.TARGETS[target]
    zig = f"{target}.{version}" if version else target
    gcc = shutil.which(f"{target}-gcc")
    by_gcc = [size(target, kind, folder, [gcc]) if gcc else "" for kind in KINDS]
    return (target, *(size(zig, kind, folder) for kind in KINDS), *by_gcc)


def main(chosen: Sequence[str]) -> None:
    """Prints the table, a line as soon as it is known."""
    head = ("target", *(f"{kind}, zig" for kind in KINDS), *(f"{kind}, GCC" for kind in KINDS))
    with tempfile.TemporaryDirectory() as folder:
        for cells in itertools.chain(
            (head, tuple("---" for _ in head)), (row(target, folder) for target in chosen)
        ):
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or USUAL)
