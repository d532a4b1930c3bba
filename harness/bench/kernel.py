"""The compiled library of the bench: built once for a run, sent to every server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("kernel.c")
COMPILERS = ("gcc", "cc", "clang")
LIBRARY = "bench_kernel.so"
TOUCH = "bench_touch"
ADD = "bench_add"
NOTHING = "bench_nothing"


def build(folder: Path) -> Path:
    """Compiles `SOURCE` into `folder`.

    Raises:
        FileNotFoundError: there is no C compiler.
        RuntimeError: it refused the source.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler; looked for {', '.join(COMPILERS)} on the PATH")
    target = folder / LIBRARY
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{compiler} refused {SOURCE.name}: {done.stderr.strip()}")
    return target
