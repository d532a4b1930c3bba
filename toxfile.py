"""tox's view of the interpreters of this machine. Nothing here is installed.

pyenv keeps each version in a folder of its own, and its shims answer only for the version that is
switched on. Those folders go to the end of PATH, so that the environments py310 to py314, the tests
that start a server on a bare interpreter, and those of older TVMs, find whatever is installed.

The default environments, and those of the label ``matrix``, depend on which Pythons are there: the
suite runs on the oldest and on the newest of them by default, and on those between with the label.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tox.config.loader.memory import MemoryLoader
from tox.config.types import EnvList
from tox.plugin import impl

if TYPE_CHECKING:
    from tox.config.sets import CoreConfigSet
    from tox.session.state import State

_PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")

os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), *map(str, sorted(_PYENV.glob("versions/*/bin")))]
)

_here = [
    f"py3{minor}"
    for minor in range(10, 15)
    if sys.version_info[:2] == (3, minor) or shutil.which(f"python3.{minor}")
]
DEFAULT = ("lint", "types", *dict.fromkeys(_here[:1] + _here[-1:]), "board", "interop")
MATRIX = (*_here[1:-1], "peers", "torch", "boards")


@impl
def tox_add_core_config(core_conf: CoreConfigSet, state: State) -> None:
    """Says which environments there are by default, and with the label ``matrix``."""
    chosen = {"env_list": EnvList(DEFAULT), "labels": {"matrix": EnvList(MATRIX)}}
    core_conf.loaders.insert(0, MemoryLoader(**chosen))
