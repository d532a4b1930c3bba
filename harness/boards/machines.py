"""The boards: which there are, what is needed for each, and getting it from the distribution."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

INSTALL_LIMIT_S = 900


class Board(NamedTuple):
    """An emulated machine.

    Attributes:
        name: its key at the tracker.
        triple: of its compilers, as Debian calls them.
        emulator: the program of QEMU that runs its programs.
        debian: the distribution's name for it.
        bits: of its pointers.
        byte_order: as `sys.byteorder` calls it.
        target: what TVM compiles for; its ABI has to be that of the cross compiler.
    """

    name: str
    triple: str
    emulator: str
    debian: str
    bits: int
    byte_order: str
    target: dict[str, Any]

    @property
    def programs(self) -> dict[str, str]:
        """What has to be in PATH, with the package that brings it."""
        return {
            self.emulator: "qemu-user",
            f"{self.triple}-gcc": f"gcc-{self.triple}",
            f"{self.triple}-g++": f"g++-{self.triple}",
        }

    @property
    def libraries(self) -> Path:
        """The folder of its C library, which comes with the compiler."""
        return Path("/usr", self.triple)

    def environment(self) -> dict[str, str]:
        """The environment in which a user makes kernels for this board."""
        return {
            **os.environ,
            "CC": f"{self.triple}-gcc",
            "CXX": f"{self.triple}-g++",
            "TVM_TARGET": json.dumps(self.target),
        }

    def wrapped(self, program: Path, libraries: Path | None = None) -> Path:
        """A script that runs a program of the board, with its arguments, as the same process.

        Args:
            program: of the board.
            libraries: the folder whose ``lib`` it has; by default that of its compiler.
        """
        command = shlex.join([self.emulator, "-L", str(libraries or self.libraries), str(program)])
        script = program.with_name(f"{program.name}-{self.name}")
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
        return script


BOARDS = {
    board.name: board
    for board in (
        Board(
            *("aarch64", "aarch64-linux-gnu", "qemu-aarch64", "arm64", 64, "little"),
            {"kind": "llvm", "mtriple": "aarch64-linux-gnu"},
        ),
        Board(
            *("armv7", "arm-linux-gnueabihf", "qemu-arm", "armhf", 32, "little"),
            {
                "kind": "llvm",
                "mtriple": "armv7-linux-gnueabihf",
                "mfloat-abi": "hard",
                "mattr": ["+neon"],
            },
        ),
        Board(
            *("riscv64", "riscv64-linux-gnu", "qemu-riscv64", "riscv64", 64, "little"),
            {
                "kind": "llvm",
                "mtriple": "riscv64-linux-gnu",
                "mabi": "lp64d",
                "mattr": ["+m", "+a", "+f", "+d", "+c"],
            },
        ),
        Board(
            *("s390x", "s390x-linux-gnu", "qemu-s390x", "s390x", 64, "big"),
            {"kind": "llvm", "mtriple": "s390x-linux-gnu"},
        ),
    )
}


def missing(board: Board) -> list[str]:
    """The packages that a board needs and that are not here."""
    return [package for program, package in board.programs.items() if not shutil.which(program)]


def prepare(board: Board) -> str:
    """Install what a board needs.

    Returns:
        Why it cannot be emulated here; empty if all is there.
    """
    packages = missing(board)
    if not packages:
        return ""
    wanted = f"{board.name} needs the packages {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        return f"{wanted}; there is no apt-get here that could install them"
    if os.geteuid() != 0:
        return f"{wanted}; as this run is not root's, install them: apt-get install ..."
    said = _installed(packages)
    return f"{wanted}, which apt-get did not install: {said}" if missing(board) else ""


def _installed(packages: list[str]) -> str:
    """Installs packages; what apt-get said last."""
    last = ""
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run(
                ["apt-get", "-q", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_LIMIT_S,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {INSTALL_LIMIT_S} s"
        last = " ".join((done.stderr or done.stdout).split()[-40:])
    return last
