"""The C sources of the kernels, and how a library is made of one. The tests are next door."""

from __future__ import annotations

from pathlib import Path

from pytest_tvmrpc.runtime.toolchain import compile_library

HERE = Path(__file__).parent


def build_library(source: str, output: Path) -> Path:
    """Compile a source of this folder into a shared library.

    Args:
        source: the file's name, e.g. ``vector_add.c``.
        output: where the library goes.

    Returns:
        `output`, ready for ``remote.upload()``.

    Raises:
        CompilerError: there is no C compiler, or it refused the source.
    """
    compile_library([HERE / source], output, options=("-O3", "-std=c99", "-lm"))
    return output
