"""Tar archives of object files and sources: packed, and unpacked into a folder. Compiles nothing.

Whoever made the archive is not trusted with names: nothing is made outside of the folder.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, List, Sequence, Union, cast

from ..errors import LibraryError
from .replacing import replacing

if TYPE_CHECKING:
    import gzip
    import tarfile

__all__ = ["MAX_MEMBERS", "MAX_UNPACKED", "pack", "unpack"]

MAX_MEMBERS = 4096

MAX_UNPACKED = 1 << 30
"""Bytes of an archive without its compression."""

_BLOCK = 1 << 20
_HEADER = 512


def pack(path: str, files: Sequence[str]) -> None:
    """Make an archive of files by their own names; it appears whole or not at all.

    Raises:
        LibraryError: two of the files have one name.
        OSError: a file cannot be read, or the archive not written.
    """
    import tarfile

    names = [os.path.basename(file) for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LibraryError(
            f"{path} cannot be made of two files called {twice[0]!r}; expected names that differ; "
            "rename one"
        )
    with replacing(path) as partial, tarfile.open(partial, "w") as archive:
        for file, name in zip(files, names):
            archive.add(file, name, recursive=False)


def unpack(path: str, folder: str) -> List[str]:
    """Unpack an archive, also one that is compressed by gzip.

    Args:
        folder: a new one.

    Returns:
        The paths of the files, in the order of the archive.

    Raises:
        LibraryError: it is no such archive, is damaged or too large, or a member is no plain file
            or would not be in the folder.
        OSError: a file cannot be written.
    """
    import gzip
    import tarfile
    import zlib

    broken = (
        *(tarfile.TarError, zlib.error, gzip.BadGzipFile),
        *(EOFError, ValueError, OverflowError, RecursionError),
    )
    with open(path, "rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = _Limited(path, gzip.GzipFile(fileobj=file) if is_compressed else file)
        try:
            # As a stream, so that all of it is counted.
            with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|") as archive:
                found = _unpack_members(path, folder, archive)
                if any(source.block_at(archive.offset)):  # for tarfile that is the end, too
                    raise tarfile.ReadError(f"no member begins at {archive.offset}")
            while source.read(_BLOCK):
                pass  # to the end, where the sum of what was compressed is
        except broken as error:
            raise LibraryError(
                f"{path} is no tar archive, or damaged: {error}; expected one of object files or "
                "C sources; make it or send it again"
            ) from error
    return found


def _unpack_members(path: str, folder: str, archive: tarfile.TarFile) -> List[str]:
    found: List[str] = []
    for count, member in enumerate(archive, 1):
        if count > MAX_MEMBERS:
            raise LibraryError(f"{path} has too many members; expected at most {MAX_MEMBERS}")
        target = _target(path, folder, member)
        os.makedirs(target if member.isdir() else os.path.dirname(target), exist_ok=True)
        if not member.isdir():
            _write(archive, member, target)
            found.append(target)
    return list(dict.fromkeys(found))


def _target(path: str, folder: str, member: tarfile.TarInfo) -> str:
    """Where a member goes."""
    name = member.name
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise LibraryError(
            f"{path} has a member {name[:80]!r} that is no plain file; expected files, without "
            "links; make it again with the files themselves"
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    is_file_without_name = not parts and not member.isdir()
    if name.startswith("/") or ".." in parts or "\0" in name or is_file_without_name:
        raise LibraryError(
            f"{path} has a member {name[:80]!r} that leads outside; expected names inside the "
            "archive, such as 'lib0.o'"
        )
    return os.path.join(folder, *parts)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    content = archive.extractfile(member)
    assert content is not None  # a plain file's never is
    with content, open(target, "wb") as file:
        part = content.read(_BLOCK)
        while part:
            file.write(part)
            part = content.read(_BLOCK)


class _Limited:
    """A stream that does not go on for ever: a kilobyte can be made to hold a terabyte of zeros."""

    def __init__(self, path: str, content: Union[IO[bytes], gzip.GzipFile]) -> None:
        self._path = path
        self._content = content
        self._end = 0
        self._last = b""

    def read(self, nbytes: int) -> bytes:
        part = self._content.read(nbytes)
        self._end += len(part)
        if self._end > MAX_UNPACKED:
            raise LibraryError(
                f"{self._path} is too large; expected at most {MAX_UNPACKED} bytes unpacked"
            )
        self._last = part or self._last
        return part

    def block_at(self, offset: int) -> bytes:
        """A header's bytes, if they are among what was read last."""
        start = max(offset - self._end + len(self._last), 0)
        return self._last[start : start + _HEADER]
