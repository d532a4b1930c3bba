"""Builds the server in C, for this machine or another one, as a program without dependencies."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Optional, Sequence

from ..errors import CompilerError
from ..runtime.native_programs import KINDS
from ..runtime.targets import TARGETS
from .console import help_formatter, program_name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("build_server"),
        formatter_class=help_formatter,
        description="Builds the server in C, which runs on boards without Python: copy it there "
        "and start it. It takes the options of `tvmrpc server`.",
        epilog="The compiler for a target is TRIPLE-gcc, clang if it has the target's headers and "
        "libraries, or zig (pip install 'pytest-tvmrpc[cross]'), which needs nothing else; its "
        "programs run with old C libraries. It knows " + ", ".join(TARGETS) + ". The variable "
        "CC_aarch64_linux_gnu names another one for aarch64-linux-gnu. Exit status: 0; 1 if there "
        "is no compiler, or it refused.",
    )
    parser.add_argument(
        "--target",
        metavar="TRIPLE",
        help="the board, as aarch64-linux-gnu; aarch64-linux-gnu.2.28: with glibc 2.28 or newer "
        "(default: this machine)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the program to write (default: tvmrpc-KIND)"
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="server",
        help="server: for TCP; popen: of a session over two pipes (default: %(default)s)",
    )
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Build one program, and say what it is and what built it."""
    options = _parser().parse_args(arguments)
    from ..runtime.native_programs import build_server, least_glibc
    from ..runtime.toolchain import find_compiler

    output = options.output or f"tvmrpc-{options.kind}"
    try:
        compiler = find_compiler(target=options.target)
        path = build_server(options.target, output, options.kind)
    except (CompilerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{path}: {os.path.getsize(path) / 1000:.1f} kB, by {' '.join(map(shlex.quote, compiler))}"
    )
    glibc = least_glibc(path)
    if glibc:
        print(f"it runs with glibc {glibc} and newer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
