"""The server in C and its sibling for pipes, built from the sources in native/ for any target."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence, Union

from ..errors import CompilerError
from . import compile_cache, toolchain
from .replacing import replacing

if TYPE_CHECKING:
    from .toolchain import Path

__all__ = ["KINDS", "build_program", "build_server", "least_glibc", "server_object"]

KINDS = ("server", "popen")
"""The programs: the server for TCP, and that of a session over two pipes."""

FLAGS = (
    *("-std=c99", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-Os", "-g0", "-fvisibility=hidden"),
    *("-ffunction-sections", "-fdata-sections"),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
)
"""A round trip takes the kernel's time, so that small code costs nothing; and nothing is thrown
through a function of ours, so that nobody unwinds it. With offsets of 64 bits, a machine of 32
reads large files, and folders of file systems with large numbers."""

LINKING = (
    *("-rdynamic", "-s", "-Wl,--gc-sections", "-Wl,--as-needed", "-Wl,-z,norelro"),
    *("-ldl", "-lpthread", "-lm"),
)
"""Loaded libraries find the functions of the program that are exported, hence ``-rdynamic``. Memory
with rights of its own would begin on a page of its own, which is 64 KiB in the file on AArch64."""

Compiler = Union[str, Sequence[str], None]


def build_server(
    target: Optional[str] = None,
    output: Optional[Path] = None,
    kind: str = "server",
    *,
    objects: Sequence[Path] = (),
    options: Sequence[str] = (),
    compiler: Compiler = None,
) -> str:
    """Build the server in C, which needs nothing on its machine but a C library.

    Args:
        target: the triple of its machine, as ``aarch64-linux-gnu``; None or ``native`` for this
            one. See `targets.compiler_for`.
        output: the program to write; by default it is the one in the cache.
        kind: ``server``, or ``popen`` for the one that talks over pipes.
        objects: object files and archives to link into it, whose system library it serves then.
        options: more options for the compiler.
        compiler: path or name, or a command in parts, instead of a target.

    Returns:
        The path of the program.

    Raises:
        CompilerError: no compiler, or it refused; the message says what to install.
        ValueError: no such kind, or objects without an output.
        TypeError: both a compiler and a target are given.
        OSError: the output cannot be written.
    """
    return build_program(
        _folders(kind), target, output, objects=objects, options=options, compiler=compiler
    )


def server_object(
    kind: str = "popen",
    target: Optional[str] = None,
    *,
    options: Sequence[str] = (),
    compiler: Compiler = None,
) -> str:
    """The same as one object file, which becomes the program when it is linked with `LINKING`.

    Args, Raises: as `build_server`.

    Returns:
        The path of the file, which is in the cache.
    """
    return _object_of(_folders(kind), _command(target, compiler), options)


def build_program(
    folders: Sequence[str],
    target: Optional[str] = None,
    output: Optional[Path] = None,
    *,
    objects: Sequence[Path] = (),
    options: Sequence[str] = (),
    compiler: Compiler = None,
) -> str:
    """Build a program of all C files in some folders.

    What was built before, of the same sources by the same compiler, is found in the cache of
    `compile_cache`; of several processes, one builds and the others wait. A program with objects
    is not kept there, and needs an output.

    Args:
        folders: of the C files; the first one has the headers, too.

    Other arguments, Returns, Raises: as `build_server`.
    """
    if objects:
        if output is None:
            raise ValueError("a program with objects is not kept; give the output to write it to")
        parts = [_object_of(folders, _command(target, compiler), options), *objects]
        command = toolchain.command_for(["main.o"], compiler, target)  # they may be of C++
        return toolchain.compile_program(parts, output, options=LINKING, compiler=command)
    sources, command = _sources(folders), _command(target, compiler)
    flags = [*_flags(folders, options), *LINKING]
    built = compile_cache.made_once(
        ".bin", _content(folders), flags, command, _making(sources, flags, command)
    )
    if output is None:
        return built
    with replacing(output) as copy:
        shutil.copyfile(built, copy)
        os.chmod(copy, 0o755)
    return os.fspath(output)


def _object_of(folders: Sequence[str], command: Sequence[str], options: Sequence[str]) -> str:
    sources = _sources(folders)
    flags = [*_flags(folders, options), "-r"]
    make = _making(sources, flags, command)
    return compile_cache.made_once(".o", _content(folders), flags, command, make)


def _making(
    sources: Sequence[str], flags: Sequence[str], command: Sequence[str]
) -> Callable[[str, str], str]:
    def make(path: str, scratch: str) -> str:
        return toolchain.compile_program(
            sources, path, options=flags, compiler=command, scratch=scratch
        )

    return make


def _command(target: Optional[str], compiler: Compiler) -> List[str]:
    return toolchain.command_for(["main.c"], compiler, target)


def _flags(folders: Sequence[str], options: Sequence[str]) -> List[str]:
    more = toolchain.listed("options", options, "['-O1']")
    return [*FLAGS, "-I" + os.path.abspath(folders[0]), *more]


def _folders(kind: str) -> List[str]:
    """Those of a program's sources.

    Raises:
        ValueError: there is no such program.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    native = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "native")
    return [native, os.path.join(native, kind)]


def _sources(folders: Sequence[str]) -> List[str]:
    found = [path for folder in folders for path in _files(folder, ".c")]
    if not found:
        raise CompilerError(
            f"{folders[0]} has no C sources, so that no server can be built; expected an installed "
            "pytest-tvmrpc (pip install pytest-tvmrpc); build it there, and copy the program"
        )
    return found


def _files(folder: str, *suffixes: str) -> List[str]:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.endswith(suffixes)]


def _content(folders: Sequence[str]) -> bytes:
    """All that a program is made of."""
    parts: List[bytes] = []
    for path in (path for folder in folders for path in _files(folder, ".c", ".h")):
        with open(path, "rb") as file:
            content = file.read()
        parts.append(f"{os.path.relpath(path, folders[0])} {len(content)}\n".encode() + content)
    return b"".join(parts)


def least_glibc(path: Path) -> str:
    """The oldest glibc with which a program runs, by the versions of the functions that it wants.

    Returns:
        Such as ``2.17``; empty if it wants none.
    """
    with open(path, "rb") as file:
        wanted = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", file.read())
    return "{}.{}".format(*max(tuple(map(int, pair)) for pair in wanted)) if wanted else ""
