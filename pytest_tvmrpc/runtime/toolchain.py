"""Finding a C compiler, and making a shared library of sources. Loads nothing that it makes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from typing import List, Optional, Sequence, Union

from ..errors import CompilerError

__all__ = ["compile_library", "find_compiler"]

COMPILERS = ("gcc", "clang", "cc")
"""What is looked for in PATH, in this order, when the variable CC names none."""

_LINES_SHOWN = 20

Path = Union[str, "os.PathLike[str]"]


def find_compiler() -> List[str]:
    """The C compiler of this machine, as the beginning of a command.

    The environment variable ``CC`` decides; it may hold options (``ccache gcc``).

    Raises:
        CompilerError: there is none; the message says what was looked for.
    """
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen:
        found = shutil.which(chosen[0])
        if found is None:
            raise CompilerError(
                f"the compiler {chosen[0]!r} of the environment variable CC is not in PATH; "
                "expected the name or path of a C compiler; set CC to one, or unset it"
            )
        return [found, *chosen[1:]]
    for name in COMPILERS:
        found = shutil.which(name)
        if found is not None:
            return [found]
    raise CompilerError(
        f"no C compiler on this machine: looked for {', '.join(COMPILERS)} in PATH; "
        "install one, or set the environment variable CC to its path"
    )


def compile_library(
    sources: Union[Path, Sequence[Path]],
    output: Path,
    *,
    options: Sequence[str] = (),
    compiler: Union[str, Sequence[str], None] = None,
) -> str:
    """Compile and link C sources into a shared library.

    Args:
        sources: one file, or several; object files and archives may be among them.
        output: the library to write; a library that is in use stays as it is for its users.
        options: for the compiler, at the end, where libraries (``-lm``) belong.
        compiler: path or name, or a command in parts; what `find_compiler` finds by default.

    Returns:
        The path of the library.

    Raises:
        CompilerError: no compiler, or it refused; the message has its first lines and the command.
    """
    import subprocess

    files = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if compiler is None:
        command = find_compiler()
    else:
        command = [compiler] if isinstance(compiler, str) else list(compiler)
    target = os.fspath(output)
    made = f"{target}.{os.getpid()}.part"
    command += [
        "-shared",
        "-fPIC",
        "-O2",
        "-o",
        made,
        *(os.fspath(file) for file in files),
        *options,
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:
        raise CompilerError(
            f"the compiler {command[0]!r} cannot be run: {error.strerror or error}; "
            "expected a C compiler; pass compiler, or set the environment variable CC"
        ) from error
    try:
        if done.returncode != 0 or not os.path.exists(made):
            raise CompilerError(_refusal(command, done.returncode, done.stdout))
        os.replace(made, target)
    finally:
        _remove(made)
    return target


def _refusal(command: Sequence[str], code: int, output: Optional[bytes]) -> str:
    lines = (output or b"").decode("utf-8", "replace").strip().splitlines()
    shown = "\n".join(lines[:_LINES_SHOWN]) or "(it printed nothing)"
    rest = f"\n({len(lines) - _LINES_SHOWN} more lines)" if len(lines) > _LINES_SHOWN else ""
    line = " ".join(map(shlex.quote, command))
    return f"the compiler ended with {code}; expected a library\n{shown}{rest}\ncommand: {line}"


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
