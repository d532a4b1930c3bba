"""The ``tvmrpc`` command, also as ``python -m pytest_tvmrpc``: runs one of the programs of exec/.

No option of theirs is known here: what follows the name goes to the program unread.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Optional, Sequence

from pytest_tvmrpc import __version__

PROGRAMS = {
    "tracker": ("rpc_tracker", "knows the devices of a farm and hands them out by key"),
    "server": ("rpc_server", "runs on the device and serves one session after the other"),
    "build-server": ("build_server", "builds a server in C, for boards without Python"),
    "bundle": ("bundle", "writes the server of Python into one file, for bare boards"),
    "proxy": ("rpc_proxy", "brings clients to servers to which nobody can connect"),
    "query": ("query_rpc_tracker", "shows the servers and queues of a tracker, as TVM does"),
    "who": ("who", "shows who has which device, since when, and who waits"),
    "kick": ("kick", "ends the session on a device, whoever has it"),
    "doctor": ("doctor", "checks the way to a device, and says what is wrong with it"),
}
"""Name on the command line: module in exec/, and what it does."""

EXAMPLES = """\
examples:
  Tests on this machine need no program at all: pytest starts what it needs.
    pytest --rpc-key=board

  A farm: the tracker on a machine that everybody reaches,
    tvmrpc tracker --host 0.0.0.0 --port 9190
  a server on each board (a board that only has the package's folder and a bare Python 3.8:
  python3 -m pytest_tvmrpc.exec.rpc_server, same options),
    tvmrpc server --host 0.0.0.0 --tracker farm.example:9190 --key jetson
  a board without Python: a program of its own, which takes the same options,
    tvmrpc build-server --target aarch64-linux-gnu
  or with a Python from 3.8 on: one file, which takes them, too,
    tvmrpc bundle -o tvmrpc-server.pyz
  for boards to which nobody can connect, a proxy beside the tracker; they connect to it,
    tvmrpc proxy --host 0.0.0.0 --port 9090 --tracker farm.example:9190
    tvmrpc server --through-proxy --host farm.example --port 9090 --key phone
  a look at what is there, and at who has it,
    tvmrpc query --host farm.example
    tvmrpc who --host farm.example
  a try from here, hop by hop, which says what is wrong if something is,
    tvmrpc doctor --tracker farm.example:9190 --key jetson
  a device taken from somebody who forgot it,
    tvmrpc kick --host farm.example jetson --reason "needed for the release"
  and the tests, from anywhere:
    pytest --rpc-tracker=farm.example:9190 --rpc-key=jetson

  tvmrpc server --help    shows the options of the server; so for the others.

security:
  Whoever reaches a server can run any code on it, and whoever reaches a tracker or a proxy can use
  and kick every device behind it. They listen on 127.0.0.1 unless --host says otherwise; open them
  to networks that you trust, and to no others.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one program; its exit status.

    Args:
        argv: the words after the command; ``sys.argv[1:]`` if not given.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Only the first word is ours: `tvmrpc server --help` is a question to the server.
    program = _parser().parse_args(words[:1]).program
    module = importlib.import_module(f"pytest_tvmrpc.exec.{PROGRAMS[program][0]}")
    return module.main(words[1:]) or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tvmrpc",
        usage="tvmrpc [--help] [--version] PROGRAM [its options]",
        description="Programs of pytest-tvmrpc: a farm of devices over TVM's RPC protocol.\n\n"
        "programs:\n" + "\n".join(f"  {name:<14}{does}" for name, (_, does) in PROGRAMS.items()),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pytest-tvmrpc {__version__}")
    parser.add_argument(
        "program", metavar="PROGRAM", choices=list(PROGRAMS), help="one of those above"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
