"""server_init_callback: a function of whoever starts a server, carried into the server's process.

By cloudpickle, over a file that only the two have. Nothing that came over a network is unpickled.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import IO, Callable

from ..errors import StartError


def write(callback: Callable[[], object]) -> IO[bytes]:
    """The function in a file without a name; the caller closes it once the server has it.

    Raises:
        StartError: cloudpickle is not installed, or cannot carry the function.
    """
    try:
        import cloudpickle
    except ImportError:
        raise StartError(
            "server_init_callback needs cloudpickle, which takes the function to the server's "
            "process; pip install cloudpickle"
        ) from None
    module = sys.modules.get(getattr(callback, "__module__", None) or "")
    by_value = module is not None and not _is_importable(module.__name__)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        content = cloudpickle.dumps(callback)
    except Exception as error:  # whatever it is that the function holds on to
        raise StartError(
            f"server_init_callback cannot be taken to the server's process: {error}; "
            "let it refer to what it makes itself, not to open files, locks or sessions"
        ) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    import tempfile  # only here: whoever starts a server can afford it

    file = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    # An empty entry, or a relative one, means another folder where the server is.
    pickle.dump(([os.path.abspath(entry) for entry in sys.path], content), file)
    file.flush()
    return file


def _is_importable(name: str) -> bool:
    """Whether the server would find the module; one of pytest's own ways to import has no place."""
    import importlib.util

    module = sys.modules[name]
    try:
        found = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        return False
    top = sys.modules.get(name.partition(".")[0], module)
    origin = getattr(top, "__file__", None)
    return found is not None and (origin is None or found.origin in (origin, None, "frozen"))


def call(descriptor: int) -> None:
    """Calls the function that lies in the file; in the server's process, or a session's."""
    size = os.fstat(descriptor).st_size
    path, content = pickle.loads(os.pread(descriptor, size, 0))
    # In the caller's order, so that each name means the module that it means to him.
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    pickle.loads(content)()
