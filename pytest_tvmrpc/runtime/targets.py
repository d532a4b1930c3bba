"""Machines to compile for, by their triples, and which compiler here makes code for one."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import CompilerError

__all__ = ["NATIVE", "TARGETS", "Target", "compiler_for", "compiler_of", "parse"]

NATIVE = "native"
"""The target that is this machine."""

TARGETS: Dict[str, str] = {
    "aarch64-linux-gnu": "2.17",
    "arm-linux-gnueabi": "2.17",
    "arm-linux-gnueabihf": "2.17",
    "i686-linux-gnu": "2.17",
    "loongarch64-linux-gnu": "2.36",
    "mips-linux-gnueabihf": "2.17",
    "mips64el-linux-gnuabi64": "2.17",
    "mipsel-linux-gnueabihf": "2.17",
    "powerpc64le-linux-gnu": "2.32",
    "riscv64-linux-gnu": "2.27",
    "s390x-linux-gnu": "2.17",
    "x86_64-linux-gnu": "2.17",
    "aarch64-linux-musl": "",
    "arm-linux-musleabihf": "",
    "i686-linux-musl": "",
    "powerpc64le-linux-musl": "",
    "riscv64-linux-musl": "",
    "s390x-linux-musl": "",
    "x86_64-linux-musl": "",
}
"""The targets that zig knows, and the oldest glibc that programs for them then run with."""

_ALIASES = {
    **{name: "arm" for name in ("armv7", "armv7a", "armv7l")},
    **{name: "i686" for name in ("i386", "i486", "i586", "x86")},
    "arm64": "aarch64",
    "amd64": "x86_64",
    "ppc64le": "powerpc64le",
    "riscv64gc": "riscv64",
}
"""Names of processors that compilers know by another one."""

_OF_ZIG = {"i686": "x86"}

_PROBE = """
#include <stdio.h>
#if defined(__GLIBC__) != IS_GLIBC
#error "the headers are those of another C library"
#endif
int main(void) { return puts("") < 0; }
"""


class Target(NamedTuple):
    """A triple in its parts.

    Attributes:
        processor: as compilers call it.
        environment: C library and ABI, such as ``gnueabihf``.
        version: of glibc; empty for any.
        given: the triple as it was written, without the version.
    """

    processor: str
    environment: str
    version: str
    given: str

    @property
    def name(self) -> str:
        """The triple without its vendor, as Debian calls its cross compilers."""
        return f"{self.processor}-linux-{self.environment}"


_TRIPLE = re.compile(r"(\w+)(?:-\w+)?-linux(?:-([a-z]\w*))?(?:\.(\d+\.\d+))?")


def parse(triple: str) -> Target:
    """A triple such as ``aarch64-linux-gnu``; a vendor and a version of glibc may be in it.

    Raises:
        CompilerError: it is none of Linux; the message lists those that are known.
    """
    match = _TRIPLE.fullmatch(triple)
    if match is None:
        raise CompilerError(_unknown(triple))
    processor, environment, version = match.groups(default="")
    processor = _ALIASES.get(processor, processor)
    if not environment:
        environment = "gnueabihf" if processor == "arm" else "gnu"
    given = triple[: -len(version) - 1] if version else triple
    return Target(processor, environment, version, given)


def plain(triple: str) -> str:
    """The triple without the version of glibc; ``native`` as that of this machine's processor."""
    return f"{platform.machine()}-linux-gnu" if triple == NATIVE else parse(triple).given


def compiler_for(triple: str, *, has_objects: bool = False) -> List[str]:
    """The compiler that makes code for a machine, as the beginning of a command.

    A variable of the environment decides: ``CC_aarch64_linux_gnu`` for ``aarch64-linux-gnu``, or
    ``CXX_aarch64_linux_gnu`` for C++. Then a GCC of that name is looked for in PATH, a Clang that
    has the target's headers and libraries, and zig, in PATH or as the package ``ziglang``. With
    zig a program runs with the oldest glibc of the target, `TARGETS`, or with the version that
    stands behind the triple, as in ``aarch64-linux-gnu.2.28``, which only zig knows.

    Args:
        triple: of the machine.
        has_objects: whether its input is more than C, as for `find_compiler`: a C++ compiler is
            looked for first.

    Raises:
        CompilerError: the target is unknown, or there is no compiler for it; the message says what
            to install.
    """
    target = parse(triple)
    found = None if target.version else _chosen(target, has_objects) or _gcc(target, has_objects)
    if found is None and not target.version:
        found = _clang(target.name, has_objects)
    if found is None and target.name in TARGETS:
        found = _zig(target, has_objects)
    if found is None:
        raise CompilerError(_none_for(target) if target.name in TARGETS else _unknown(triple))
    return found


def _chosen(target: Target, is_cxx: bool) -> Optional[List[str]]:
    name = target.name.replace("-", "_")
    for variable in ("CXX_", "CC_") if is_cxx else ("CC_", "CXX_"):
        chosen = compiler_of(variable + name)
        if chosen:
            return chosen
    return None


def compiler_of(variable: str) -> Optional[List[str]]:
    """The command that a variable of the environment holds; None if it is not set.

    Raises:
        CompilerError: it cannot be read, or there is no such program.
    """
    value = os.environ.get(variable, "")
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise CompilerError(
            f"the environment variable {variable} is {value!r}: {error}; "
            "expected a compiler and its options, quoted as for a shell"
        ) from None
    if not words:
        return None
    found = shutil.which(words[0])
    if found is None:
        raise CompilerError(
            f"the compiler {words[0]!r} of the environment variable {variable} is not in "
            f"PATH; expected the name or path of a compiler; set {variable} to one, or "
            "unset it"
        )
    return [found, *words[1:]]


def _gcc(target: Target, is_cxx: bool) -> Optional[List[str]]:
    for name in _names(target, is_cxx):
        found = shutil.which(name)
        if found is not None:
            return [found]
    return None


def _names(target: Target, is_cxx: bool) -> Iterator[str]:
    """What a cross compiler may be called: as the triple was given, as by Debian, as by others."""
    vendored = f"{target.processor}-unknown-linux-{target.environment}"
    programs = ("g++", "clang++", "gcc", "clang") if is_cxx else ("gcc", "clang")
    for program in programs:
        for triple in dict.fromkeys((target.given, target.name, vendored)):
            yield f"{triple}-{program}"


@functools.lru_cache(maxsize=32)
def _clang_works(command: Tuple[str, ...], is_glibc: bool) -> bool:
    import subprocess

    words = [*command, f"-DIS_GLIBC={int(is_glibc)}", "-x", "c", "-", "-o", os.devnull]
    try:
        done = subprocess.run(
            words, input=_PROBE, text=True, capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _clang(name: str, is_cxx: bool) -> Optional[List[str]]:
    """Every Clang makes code for every machine, but few machines have what it links with."""
    clang = shutil.which("clang++" if is_cxx else "clang")
    if clang is None:
        return None
    linkers = [[], ["-fuse-ld=lld"]] if shutil.which("ld.lld") else [[]]
    for linker in linkers:
        command = [clang, f"--target={name}", *linker]
        if _clang_works(tuple(command), "-gnu" in name):
            return command
    return None


def _zig(target: Target, is_cxx: bool) -> Optional[List[str]]:
    path = _zig_path()
    if path is None:
        return None
    processor = _OF_ZIG.get(target.processor, target.processor)
    version = target.version or TARGETS[target.name]
    triple = f"{processor}-linux-{target.environment}" + (f".{version}" if version else "")
    command = [path, "c++" if is_cxx else "cc", "-target", triple]
    return command if version else [*command, "-dynamic"]  # a static program of musl loads nothing


def _zig_path() -> Optional[str]:
    """The program in the package ``ziglang``, which need not be imported for it; or in PATH."""
    import importlib.util

    package = importlib.util.find_spec("ziglang")
    for folder in (package and package.submodule_search_locations) or ():
        path = os.path.join(folder, "zig")
        if os.access(path, os.X_OK):
            return path
    return shutil.which("zig")


def _none_for(target: Target) -> str:
    package = f"gcc-{target.name.replace('_', '-')}"
    gcc = "" if "musl" in target.name or target.version else f"`apt-get install {package}`, or "
    what = "zig" if target.version else f"{target.name}-gcc in PATH, clang with its headers and zig"
    return (
        f"no compiler for {target.given} on this machine: looked for {what}; install one: {gcc}"
        "`pip install 'pytest-tvmrpc[cross]'`, which brings zig"
    )


def _unknown(triple: str) -> str:
    return (
        f"{triple!r} is no target that a compiler here knows; expected {NATIVE!r}, the triple of a "
        f"cross compiler in PATH, or one of {', '.join(TARGETS)}"
    )
