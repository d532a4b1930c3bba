"""The command line: ``python -m harness.native fuzz`` and ``lint``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .fuzz import FUZZERS, FuzzingError, fuzz, once
from .lint import LintError, lint

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.native", description="Checks of the C code of pytest_tvmrpc/native."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fuzzing = commands.add_parser("fuzz", help="feed it with changed bytes, under sanitizers")
    fuzzing.add_argument("--only", choices=FUZZERS, help="this fuzzer; default: all in turn")
    fuzzing.add_argument(
        "--seconds", type=int, default=600, metavar="N", help="of each: %(default)s"
    )
    fuzzing.add_argument("--keep", action="store_true", help="update the inputs in corpus/")
    fuzzing.add_argument("--input", type=bytes.fromhex, metavar="HEX", help="run this one input")
    commands.add_parser("lint", help="cppcheck and clang-tidy")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status."""
    options = parse(arguments)
    try:
        if options.command == "lint":
            lint()
        elif options.input is not None:
            once(options.only or "wire", options.input)
        else:
            for name in [options.only] if options.only else list(FUZZERS):
                fuzz(name, options.seconds, is_kept=options.keep)
    except (FuzzingError, LintError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
