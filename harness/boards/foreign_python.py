"""A Python of another machine, from the packages of this machine's distribution; nothing installed.

They are fetched by apt with folders of its own, and unpacked by dpkg into one of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("python3-minimal", "libpython3-stdlib")
FETCH_LIMIT_S = 300


class UnavailableError(Exception):
    """The distribution has no such Python, or cannot be asked."""


def unpacked(architecture: str, folder: Path) -> Path:
    """Python with its libraries, as a root folder.

    Args:
        architecture: the distribution's name of the machine, as ``arm64``.
        folder: to write into.

    Raises:
        UnavailableError: there are no such packages; the message has what apt said.
    """
    absent = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if absent:
        raise UnavailableError(f"{' and '.join(absent)} are not here, to fetch packages with")
    lists, archives, root = (folder / name for name in ("lists", "archives", "root"))
    for place in (lists / "partial", archives / "partial", root):
        place.mkdir(parents=True)
    status = folder / "status"
    status.touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "root",
        "Dir::State::lists": lists,
        "Dir::State::status": status,
        "Dir::Cache": folder,
        "Dir::Cache::archives": archives,
    }
    apt = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in settings.items())]
    _apt([*apt, "update"])
    said = _apt([*apt, "--no-install-recommends", "--download-only", "install", *PACKAGES])
    packages = sorted(archives.glob("*.deb"))
    if not packages:
        raise UnavailableError(
            f"the distribution has no {' and '.join(PACKAGES)} for {architecture}: {said}"
        )
    for package in packages:
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    return root


def _apt(command: list[str]) -> str:
    """Runs apt; the end of what it said."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=FETCH_LIMIT_S,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"apt-get took more than {FETCH_LIMIT_S} s") from None
    return " ".join(done.stdout.split()[-20:])
