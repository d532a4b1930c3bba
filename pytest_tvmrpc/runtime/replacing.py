"""Files that appear whole or not at all: written under another name, and then renamed."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, Union

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: Union[str, os.PathLike[str]]) -> Iterator[str]:
    """The name under which to write a file; it gets its own when the block ends.

    When the block raises, what is written so far is removed, and the file is as it was.

    Args:
        path: of the file, which is made or replaced.

    Raises:
        OSError: nothing was written, or the folder does not let it be renamed.
    """
    partial = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
