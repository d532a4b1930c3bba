"""The sizes of the programs in C for each target, as the table of docs/benchmarks.md.

    python -m harness.native_sizes

Needs zig (`pip install ziglang`) and takes some minutes; where there is a cross GCC, its program is
in the table, too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import targets
from pytest_tvmrpc.runtime.native_programs import KINDS, build_server, least_glibc


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


def rows() -> list[tuple[str, ...]]:
    """For each target: its triple, each program by zig, and by a cross GCC if it is there."""
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for target, version in targets.TARGETS.items():
            zig = f"{target}.{version}" if version else target
            gcc = shutil.which(f"{target}-gcc")
            by_gcc = [size(target, kind, folder, [gcc]) if gcc else "" for kind in KINDS]
            table.append((target, *(size(zig, kind, folder) for kind in KINDS), *by_gcc))
    return table


def markdown() -> str:
    """The table."""
    head = ("target", *(f"{kind}, zig" for kind in KINDS), *(f"{kind}, GCC" for kind in KINDS))
    lines = [head, tuple("---" for _ in head), *rows()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(markdown())
