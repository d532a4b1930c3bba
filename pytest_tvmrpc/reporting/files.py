"""Files that a run leaves behind: tried before the first test, and written whole or live.

What is in them is the matter of others.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TextIO, cast

import pytest

IN_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
"""What stops a file from being replaced that can still be written: its folder, or a mount."""


def check_file(option: str, path: str, example: str) -> None:
    """Find out whether a file can be written at the end. Nothing is made or changed.

    Args:
        option: which asks for it.
        path: its value.
        example: a better one.

    Raises:
        pytest.UsageError: it cannot.
    """
    try:
        if _is_special(path):
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if not os.access(path, os.W_OK):  # to open a pipe and close it would end its reader
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        elif os.path.exists(path):
            with open(path, "ab"):
                pass
        else:
            _try_folder(_real(path).parent)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise refusal(option, path, error, example) from None


def check_folder(option: str, path: str, example: str) -> None:
    """The same for a folder in which files are to be made.

    Raises:
        pytest.UsageError: they cannot.
    """
    try:
        _try_folder(_real(path))
    except (OSError, ValueError) as error:
        expected = f"expected a folder that you may write to, for example {option}={example}"
        raise pytest.UsageError(f"{option}={path} cannot be written: {error}; {expected}") from None


def refusal(option: str, path: object, error: Exception, example: str) -> pytest.UsageError:
    """What is said of a file that cannot be written."""
    return pytest.UsageError(
        f"{option}={path} cannot be written: {error}; expected a file in a folder that you may "
        f"write to, for example {option}={example}"
    )


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a file that appears whole or not at all; folders above it are made.

    What a symbolic link points to is replaced, not the link. What is no regular file, such as
    ``/dev/stdout``, is written to, and so is a file that can be written but not be replaced.

    Raises:
        OSError: it cannot be written.
    """
    if _is_special(path):
        _write(path, text)
        return
    real = _real(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(real)
    try:
        _write(partial, text)
        _replace(real, partial)
    except OSError as error:
        if error.errno not in IN_PLACE or not real.exists():
            raise
        _write(real, text)
    finally:
        partial.unlink(missing_ok=True)


def open_live(path: str | os.PathLike[str]) -> TextIO:
    """Open a file of ASCII lines to which this run alone writes; folders above it are made.

    Another run that has the same path open keeps its own file, without a name. Of what is no
    regular file, and of one that cannot be replaced, there is one for all.

    Raises:
        OSError: it cannot be written.
    """
    if _is_special(path):
        return _open(path, "w")
    real = _real(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(real)
    try:
        file = _open(partial, "x")
        try:
            _replace(real, partial)
        except OSError:
            file.close()
            raise
        return file
    except OSError as error:
        if error.errno not in IN_PLACE or not real.exists():
            raise
        return _open(real, "w")
    finally:
        partial.unlink(missing_ok=True)


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether this is something else than a regular file, or than none."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _real(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _beside(real: Path) -> Path:
    """A name in the same folder that is short and nobody else's."""
    return real.with_name(f".tvmrpc-{os.getpid()}-{os.urandom(4).hex()}")


def _try_folder(folder: Path) -> None:
    """Make a file in it, or in the nearest folder above it that is there, and remove it."""
    nearest = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    probe = _beside(nearest / "probe")
    probe.touch(exist_ok=False)
    probe.unlink()


def _write(path: str | os.PathLike[str], text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(text)


def _open(path: str | os.PathLike[str], mode: str) -> TextIO:
    return cast("TextIO", open(path, mode, encoding="ascii", newline="\n"))


def _replace(real: Path, partial: Path) -> None:
    if real.exists():
        os.chmod(partial, stat.S_IMODE(real.stat().st_mode))
    os.replace(partial, real)
