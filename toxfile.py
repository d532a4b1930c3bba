"""tox's view of the interpreters of this machine. Nothing here is installed.

pyenv keeps each version in a folder of its own, and its shims answer only for the version that is
switched on. Those folders go to the end of PATH, so that the environments py310 to py314, and
the tests that start a server on a bare interpreter, find whatever is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

_PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")

os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), *map(str, sorted(_PYENV.glob("versions/*/bin")))]
)
