"""Contents of files for a session: where they come from, and how far they are. Sends nothing."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import stat
import sys
import time
from typing import IO, TYPE_CHECKING, Any, Iterator, Optional, TextIO, Union, cast

from ..errors import ConnectionLostError
from ..runtime.replacing import replacing

if TYPE_CHECKING:
    from ..session.channel import Meter, SocketChannel

__all__ = ["ProgressBar", "Source", "metered", "name_of", "opened", "progress_shown", "write_whole"]

Source = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, IO[bytes]]
"""What can be uploaded: a path, bytes, or a binary file; anything else with bytes in it, too."""

Content = Union[bytes, memoryview]

_BLOCK = 1 << 20
"""Bytes of one read, and up to which a stream's content is kept in memory."""

_MAPPED = 64 * 1024
"""Bytes from which a file is mapped, so that the kernel sends it from its cache."""


def name_of(source: Source) -> str:
    """The name under which something is uploaded unless another one is given; empty for none."""
    if isinstance(source, (str, os.PathLike)):
        return os.path.basename(os.fsdecode(source))
    name = getattr(source, "name", None)
    if not isinstance(name, str) or name.startswith("<"):  # <stdin> is no name of a file
        return ""
    return os.path.basename(name)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Content]:
    """The bytes of something that is uploaded; large files are not read into memory.

    Raises:
        FileNotFoundError: there is no such file; OSError: it cannot be read.
        TypeError: it has no bytes.
        ConnectionLostError: the file became shorter while it was sent.
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file, _of_file(file) as content:
            yield content
        return
    view: Optional[memoryview] = None
    with contextlib.suppress(TypeError):
        view = memoryview(source)  # type: ignore[arg-type]  # which is how to find out
    if view is not None:
        yield _as_bytes(view)
    else:
        with _of_file(cast("IO[bytes]", source)) as content:
            yield content


def _as_bytes(view: memoryview) -> Content:
    """The bytes of a memoryview of any form, in C's order; copied where they have another."""
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    if view.c_contiguous and view.nbytes:
        with contextlib.suppress(TypeError, ValueError):  # a format that cannot be cast
            return view.cast("B")
    return view.tobytes()


@contextlib.contextmanager
def _of_file(file: IO[bytes]) -> Iterator[Content]:
    """From where the file stands to its end; stands there afterwards."""
    if isinstance(file, io.TextIOBase):
        raise TypeError("a file opened as text cannot be uploaded; open it with 'rb'")
    if not hasattr(file, "read"):
        raise TypeError(
            f"{type(file).__name__} cannot be uploaded; expected a path, bytes, bytearray, "
            "memoryview, or a file opened with 'rb'"
        )
    if isinstance(file, io.BytesIO):
        # Not getbuffer(): Python 3.12 crashes when both are garbage of one cycle, say an error's.
        yield memoryview(file.getvalue())[file.tell() :]
        file.seek(0, os.SEEK_END)
        return
    nbytes = _size(file)
    if nbytes:
        start = file.tell()
        if nbytes - start >= _MAPPED:
            with _mapped(file, nbytes) as content:
                yield content[start:]
            file.seek(nbytes)
        else:
            yield file.read()
        return
    with _spooled(file) as content:
        yield content


def _size(file: IO[bytes]) -> int:
    """The bytes of a file of the file system; 0 for everything else, and where it does not say.

    Only Python's own kinds of files are asked: others, such as gzip's, may have a descriptor with
    other bytes behind it than they would read.
    """
    raw = getattr(file, "raw", file)
    if type(raw) is not io.FileIO or raw.closed or not raw.readable():
        return 0
    if file.writable():
        file.flush()
    status = os.fstat(raw.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


@contextlib.contextmanager
def _mapped(file: Any, nbytes: int) -> Iterator[memoryview]:
    """A file's bytes without reading them into memory."""
    descriptor = file.fileno()
    with _let_go(memoryview(mmap.mmap(descriptor, nbytes, access=mmap.ACCESS_READ))) as content:
        try:
            yield content
        except ConnectionLostError as error:
            left = os.fstat(descriptor).st_size
            if left >= nbytes:
                raise
            raise ConnectionLostError(
                f"the file {getattr(file, 'name', '')!r} shrank from {nbytes} to {left} bytes "
                "while it was uploaded, which ended the session; upload a file that stays as it is"
            ) from error


@contextlib.contextmanager
def _let_go(content: memoryview) -> Iterator[memoryview]:
    """Releases it, unless an error's traceback holds parts of it: then it goes with that."""
    try:
        yield content
    finally:
        with contextlib.suppress(BufferError):
            content.release()


@contextlib.contextmanager
def _spooled(file: IO[bytes]) -> Iterator[Content]:
    """All that a stream has to give, which has to be counted before it can be sent."""
    import tempfile

    nbytes = 0
    with tempfile.SpooledTemporaryFile(max_size=_BLOCK, prefix="tvmrpc-upload-") as spool:
        while True:
            part = file.read(_BLOCK)
            if not isinstance(part, (bytes, bytearray, memoryview)):
                raise TypeError(
                    f"read() of {type(file).__name__} gave a {type(part).__name__}; expected "
                    "bytes; open it with 'rb', and blocking"
                )
            if not part:
                break
            nbytes += spool.write(part)
        spool.seek(0)
        if nbytes <= _BLOCK:
            yield spool.read()
        else:
            with _mapped(spool, nbytes) as content:
                yield content


def write_whole(path: Union[str, os.PathLike[str]], content: Union[bytes, bytearray]) -> None:
    """Makes or replaces a file; should that fail, it is as it was."""
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(content)


_QUIET_S = 1.0
_REDRAWN_S = 0.1
_BAR = 24


class ProgressBar:
    """A line on a terminal that says how far something is; shown when it takes its time.

    Args:
        doing: what is being done.
        stream: the terminal.
    """

    def __init__(self, doing: str, stream: TextIO) -> None:
        self._doing = "".join(letter if letter.isprintable() else "?" for letter in doing)
        self._stream = stream
        self._started = time.monotonic()
        self._draw_at = self._started + _QUIET_S
        self._is_drawn = False

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of so many are through."""
        now = time.monotonic()
        if now < self._draw_at:
            return
        self._draw_at = now + _REDRAWN_S
        self._is_drawn = True
        self._write(self._line(done, total, now - self._started))

    def _line(self, done: int, total: int, passed_s: float) -> str:
        share, speed = done / total, done / passed_s
        text = (
            f"{self._doing} {share:4.0%}, {done / 1e6:.1f} of {total / 1e6:.1f} MB, "
            f"{speed / 1e6:.1f} MB/s, {(total - done) / speed:.0f} s left"
        )
        columns = self._columns() - 1  # in the last one, some terminals begin a new line
        room = min(columns - len(text) - 3, _BAR)
        bar = f" [{'#' * int(room * share):<{room}}]" if room > 0 else ""
        return text[:columns] + bar

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):  # it does not say
            return 80

    def close(self) -> None:
        """Takes the line away; may be called twice."""
        if self._is_drawn:
            self._write("")
            self._is_drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(f"\r{text}\x1b[K")
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, which is no reason to stop the work
            self._draw_at = float("inf")


@contextlib.contextmanager
def progress_shown(channel: Optional[SocketChannel], doing: str) -> Iterator[None]:
    """While this lasts, and if it lasts, a terminal on stderr shows how far a long content is."""
    stream = sys.stderr
    if channel is None:  # a session in this process, which sends nothing
        yield
        return
    if stream is None or stream.closed or not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    bar = ProgressBar(doing, stream)
    channel.progress = bar
    try:
        yield
    finally:
        channel.progress = None
        bar.close()


@contextlib.contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """The requests in the block are for a file."""
    before_s = meter.call_s
    try:
        yield
    finally:
        meter.upload_s += meter.call_s - before_s
