"""Writes the server of Python into one file, for boards that have a Python and nothing else."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import os
import sys
import zipfile
from typing import Iterator, Optional, Sequence, Tuple

from ..runtime.replacing import replacing
from . import unpacking
from .console import help_formatter, program_name

UNITS = (
    *("__init__.py", "errors.py", "owners.py", "data_type.py", "dlpack.py", "network.py"),
    *("arguments.py", "background.py", "processes.py", "protocol", "runtime", "session", "server"),
    *("exec/__init__.py", "exec/rpc_server.py", "exec/program.py", "exec/console.py"),
)
"""Files and folders of the package that a server consists of."""

_DATE = (1980, 1, 1, 0, 0, 0)  # so that the same content is the same file
_START = b"#!/usr/bin/env python3\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("bundle"),
        formatter_class=help_formatter,
        description="Writes the server into one file that any Python from 3.8 on runs: copy it to "
        "the board, and start it with `python3 tvmrpc-server.pyz --tracker FARM:9190 --key KEY`. "
        "It has the options of `tvmrpc server`, and needs no other package.",
        epilog="It unpacks itself into ~/.cache/pytest-tvmrpc/server, or into a folder in TMPDIR.",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="tvmrpc-server.pyz",
        help="the file to write (default: %(default)s)",
    )
    return parser


def bundle(output: str) -> None:
    """Write the file.

    Args:
        output: its path; it can be run.

    Raises:
        OSError: it cannot be written.
    """
    files = list(_files())
    content = hashlib.sha256(repr(files).encode()).hexdigest()[:32]
    start = inspect.getsource(unpacking).replace('CONTENT = ""', f'CONTENT = "{content}"', 1)
    files.insert(0, ("__main__.py", start.encode()))
    with replacing(output) as partial:
        with open(partial, "wb") as file:
            file.write(_START)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in files:
                    entry = zipfile.ZipInfo(name, _DATE)
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
        os.chmod(partial, 0o755)


def _files() -> Iterator[Tuple[str, bytes]]:
    """The files, by their names in the archive."""
    from ..runtime.timing_loop import SOURCES

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    native = [f"native/{name}" for name in SOURCES]  # where there is no machine code of it
    for unit in (*UNITS, *native):
        path = os.path.join(package, unit)
        for found in sorted(_below(path)) if os.path.isdir(path) else [path]:
            with open(found, "rb") as file:
                yield f"pytest_tvmrpc/{os.path.relpath(found, package)}", file.read()


def _below(folder: str) -> Iterator[str]:
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            if name.endswith((".py", ".h")):
                yield os.path.join(path, name)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Write the file, and say how large it is."""
    options = _parser().parse_args(arguments)
    try:
        bundle(options.output)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {os.path.getsize(options.output) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
