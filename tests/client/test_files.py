"""Files of a session: what can be sent, what comes back, and what a terminal shows meanwhile."""

from __future__ import annotations

import array
import contextlib
import gzip
import io
import mmap
import os
import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Tuple

import numpy as np
import pytest

from pytest_tvmrpc.client import files
from pytest_tvmrpc.client.files import ProgressBar, name_of, opened
from pytest_tvmrpc.errors import ConnectionLostError, RemoteError

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc

SMALL, LARGE = 1000, (3 << 20) + 5


@pytest.fixture(name="local")
def _local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the client's own: `inside`'s session has `tmp_path`."""
    return tmp_path_factory.mktemp("local")


def content_of(nbytes: int) -> bytes:
    """Bytes none of which is at the place of another."""
    return os.urandom(nbytes)


# --- sources ------------------------------------------------------------------------------------

GRID = np.arange(24, dtype="float32").reshape(4, 6)
SOURCES = {
    "bytes": (b"abc", b"abc"),
    "nothing": (b"", b""),
    "bytearray": (bytearray(b"abc"), b"abc"),
    "memoryview": (memoryview(b"abcdef")[2:4], b"cd"),
    "memoryview of doubles": (memoryview(array.array("d", [1, 2])), np.array([1.0, 2]).tobytes()),
    "memoryview of a grid": (memoryview(GRID), GRID.tobytes()),
    "in Fortran's order": (memoryview(np.asfortranarray(GRID)), GRID.tobytes()),
    "with steps": (memoryview(b"abcdef")[::2], b"ace"),
    "backwards": (memoryview(b"abc")[::-1], b"cba"),
    "no elements": (memoryview(np.zeros((0, 3))), b""),
    "of structures": (memoryview(np.zeros(2, "i4,f8")), bytes(24)),
    "big-endian": (memoryview(np.array([1, 2], ">i2")), b"\0\1\0\2"),
    "array": (array.array("h", [1, -1]), b"\1\0\xff\xff"),
    "NumPy's array": (GRID, GRID.tobytes()),
    "BytesIO": (io.BytesIO(b"abc"), b"abc"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_bytes_of_all_kinds(inside: Any, kind: str) -> None:
    """Whatever holds bytes can be sent, in C's order."""
    remote, _ = inside
    data, expected = SOURCES[kind]
    remote.upload(data, "a.bin")
    assert remote.download("a.bin") == expected


@pytest.mark.parametrize("nbytes", [0, 1, SMALL, 65536, LARGE])
def test_files_of_all_kinds(inside: Any, local: Path, nbytes: int) -> None:
    """By path and opened in each way; from where it stands to its end, where it stands then."""
    remote, _ = inside
    content = content_of(nbytes)
    path = local / "local.bin"
    path.write_bytes(content)
    for data in (path, str(path)):
        remote.upload(data, "a.bin")
        assert remote.download("a.bin") == content
    for mode, buffering in (("rb", -1), ("rb", 0), ("r+b", -1)):
        with open(path, mode, buffering=buffering) as file:
            file.read(nbytes // 3)
            remote.upload(file, "a.bin")
            assert remote.download("a.bin") == content[nbytes // 3 :]
            assert file.read() == b""
    stream = io.BytesIO(content)
    stream.seek(nbytes // 3)
    remote.upload(stream, "a.bin")
    assert remote.download("a.bin") == content[nbytes // 3 :]
    assert stream.read() == b""
    stream.write(b"more")  # it is not held any more
    with tempfile.NamedTemporaryFile() as named:
        named.write(content)
        named.seek(0)
        remote.upload(named, "a.bin")
    assert remote.download("a.bin") == content


def test_what_was_written_just_now(inside: Any, local: Path) -> None:
    """Python's own buffer of a file belongs to it."""
    remote, _ = inside
    with open(local / "local.bin", "w+b") as file:
        file.write(bytes(100_000) + b"end")
        file.seek(1)
        file.seek(0)
        remote.upload(file)
    assert remote.download("local.bin") == bytes(100_000) + b"end"


@pytest.mark.parametrize("nbytes", [0, SMALL, LARGE])
def test_streams(inside: Any, local: Path, nbytes: int) -> None:
    """What does not say how long it is: a pipe, another program's decompression, a reader."""
    remote, _ = inside
    content = content_of(nbytes)
    reading, writing = os.pipe()

    def fill() -> None:
        with open(writing, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=fill)
    thread.start()
    with open(reading, "rb") as pipe:
        remote.upload(pipe, "a.bin")
    thread.join()
    assert remote.download("a.bin") == content
    with gzip.open(local / "a.gz", "wb", compresslevel=1) as packed:
        packed.write(content)
    with gzip.open(local / "a.gz") as file:
        remote.upload(file, "a.bin")  # whose descriptor has the compressed bytes
    assert remote.download("a.bin") == content

    class Reader:
        def __init__(self) -> None:
            self.rest = content

        def read(self, nbytes: int) -> bytes:
            part, self.rest = self.rest[: min(nbytes, 70_000)], self.rest[70_000:]
            return part

    remote.upload(Reader(), "a.bin")
    assert remote.download("a.bin") == content


def test_a_file_that_does_not_say_its_size(inside: Any) -> None:
    """The kernel's own files claim to be empty."""
    remote, _ = inside
    if not os.path.exists("/proc/version"):
        pytest.skip("there is no /proc")
    remote.upload("/proc/version")
    assert remote.download("version") == Path("/proc/version").read_bytes()


def test_long_streams_stay_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than a block lies in a file, not in memory, when it is sent."""
    monkeypatch.setattr(files, "_BLOCK", 1000)
    with opened(io.BufferedReader(io.BytesIO(bytes(5000)))) as content:  # type: ignore[arg-type]
        assert isinstance(content, memoryview)
        assert isinstance(content.obj, mmap.mmap)
        assert len(content) == 5000
    with opened(io.BufferedReader(io.BytesIO(bytes(1000)))) as content:  # type: ignore[arg-type]
        assert content == bytes(1000)


def test_names(inside: Any, local: Path) -> None:
    """A file's own name is the default; bytes and files without one need a target."""
    remote, _ = inside
    path = local / "local.bin"
    path.write_bytes(b"abc")
    remote.upload(path)
    remote.remove("local.bin")
    with open(path, "rb") as file:
        remote.upload(file)
    assert remote.listdir() == "local.bin"
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abc"), io.BytesIO(b"abc"), GRID):
        with pytest.raises(ValueError, match=r"^target must present when file is a bytearray"):
            remote.upload(data)
    with open(os.open(path, os.O_RDONLY), "rb") as file, pytest.raises(ValueError, match="target"):
        remote.upload(file)
    assert name_of(sys.__stdin__.buffer) == ""
    assert name_of("/a/b.so") == name_of(Path("/a/b.so")) == "b.so"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "int cannot be uploaded; expected a path"),
        (None, "NoneType cannot be uploaded"),
        (io.StringIO("abc"), "opened as text"),
        (object(), "object cannot be uploaded"),
    ],
    ids=["int", "None", "text", "object"],
)
def test_what_cannot_be_sent(inside: Any, data: Any, message: str) -> None:
    """It is said what can be, and the session goes on."""
    remote, _ = inside
    with pytest.raises(TypeError, match=message):
        remote.upload(data, "a.bin")

    class Reader:
        def read(self, nbytes: int) -> str:
            return "text"

    with pytest.raises(TypeError, match="gave a str; expected bytes"):
        remote.upload(Reader(), "a.bin")
    with pytest.raises(FileNotFoundError, match="none"):
        remote.upload("none")
    with pytest.raises(IsADirectoryError):
        remote.upload("/", "a.bin")
    assert remote.listdir() == ""
    remote.upload(b"abc", "a.bin")


def test_a_refused_upload_of_a_file(inside: Any, local: Path) -> None:
    """The file can be used, and the session, too."""
    remote, _ = inside
    stream = io.BytesIO(bytes(300_000))
    with pytest.raises(RemoteError, match="leads outside"):
        remote.upload(stream, "../a")
    path = local / "local.bin"
    path.write_bytes(bytes(300_000))
    with pytest.raises(RemoteError, match="leads outside"):
        remote.upload(path, "../a")
    remote.upload(path, "a")
    assert len(remote.download("a")) == 300_000


# --- downloads ----------------------------------------------------------------------------------


def test_a_download_into_a_file(inside: Any, local: Path) -> None:
    """The content is returned as well; a file that cannot be written is left as it was."""
    remote, _ = inside
    remote.upload(b"abc", "a.bin")
    assert remote.download("a.bin", target=local / "b.bin") == b"abc"
    assert remote.download("a.bin", str(local / "c.bin")) == b"abc"
    assert (local / "b.bin").read_bytes() == (local / "c.bin").read_bytes() == b"abc"
    (local / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        remote.download("a.bin", local / "folder")
    with pytest.raises(FileNotFoundError, match="Cannot open none"):
        remote.download("none", local / "b.bin")
    assert sorted(os.listdir(local)) == ["b.bin", "c.bin", "folder"]


def test_linked_modules(remote: rpc.RPCSession, library: str) -> None:
    """A library comes back as it was; what is none is refused with what would be one."""
    remote.upload(library)
    content = remote.download_linked_module("vector_add.so")
    assert type(content) is bytearray
    assert content == Path(library).read_bytes()
    remote.upload(b"text", "a.txt")
    with pytest.raises(RuntimeError, match=r"Do not know how to link a\.txt"):
        remote.download_linked_module("a.txt")
    with pytest.raises(FileNotFoundError, match=r"cannot find file none\.o"):
        remote.download_linked_module("none.o")


def test_the_system_library(remote: rpc.RPCSession) -> None:
    """Is there, also when nothing registered in it."""
    module = remote.system_lib()
    assert not module.implements_function("no_such_function")


@pytest.mark.parametrize("known", ["ffi.SystemLib", "runtime.SystemLib"])
def test_system_libraries_of_other_versions(inside: Any, known: str) -> None:
    """The name changed in TVM 0.22; a server with neither is told."""
    remote, session = inside
    functions = session.environment.functions
    for name in ("ffi.SystemLib", "runtime.SystemLib"):
        if name != known:
            del functions[name]
    functions[known].function = lambda: known
    assert remote.system_lib() == known
    del functions[known]
    with pytest.raises(AttributeError, match=r"neither function ffi\.SystemLib nor runtime"):
        remote.system_lib()


def test_a_server_that_lists_nothing(inside: Any) -> None:
    """TVM's Python server has no such function; that is said, and the session goes on."""
    remote, session = inside
    del session.environment.functions["tvm.rpc.server.listdir"]
    with pytest.raises(AttributeError, match=r"has no function tvm\.rpc\.server\.listdir"):
        remote.listdir()
    remote.upload(b"abc", "a")
    remote.remove("none")


# --- the other end goes -------------------------------------------------------------------------


@pytest.fixture(name="broken")
def _broken(inside: Any) -> Iterator[Tuple[rpc.RPCSession, List[Callable[[], object]]]]:
    """A session, and what shall happen in the middle of its next long transfer."""
    remote, _ = inside
    events: List[Callable[[], object]] = []

    def happen(done: int, total: int) -> None:
        while events and done >= 1 << 20:
            events.pop()()

    remote._endpoint.channel.progress = happen
    yield remote, events
    assert not events


def test_a_file_that_shrinks_while_it_is_sent(broken: Any, tmp_path: Path, local: Path) -> None:
    """What was promised cannot be sent: the session ends, and says of what."""
    remote, events = broken
    path = local / "local.bin"
    path.write_bytes(bytes(8 << 20))
    events.append(lambda: os.truncate(path, 2 << 20))
    with pytest.raises(ConnectionLostError, match="shrank from 8388608 to 2097152 bytes"):
        remote.upload(path, "a.bin")
    assert remote.closed
    assert not (tmp_path / "a.bin").exists()


def test_a_file_that_shrinks_while_it_comes(broken: Any, tmp_path: Path, local: Path) -> None:
    """The end comes early, and not with wrong bytes."""
    remote, events = broken
    remote.upload(bytes(64 << 20), "a.bin")
    events.append(lambda: os.truncate(tmp_path / "a.bin", 0))
    with pytest.raises(ConnectionLostError, match="closed the connection"):
        remote.download("a.bin", local / "local.bin")
    assert os.listdir(local) == []


def test_the_server_goes_in_an_upload(broken: Any, local: Path) -> None:
    """The error is that, whatever the content was mapped from."""
    remote, events = broken
    path = local / "local.bin"
    path.write_bytes(bytes(64 << 20))
    channel = remote._endpoint.channel
    events.append(lambda: channel.connection.shutdown(2))
    with open(path, "rb") as file, pytest.raises(ConnectionLostError):
        remote.upload(file, "a.bin")
    assert remote.closed


# --- progress -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that people look at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is shown at once, and each step of it."""
    monkeypatch.setattr(files, "_QUIET_S", 0.0)
    monkeypatch.setattr(files, "_REDRAWN_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize("source", [bytes, io.BytesIO])
def test_progress_on_a_terminal(
    inside: Any, monkeypatch: pytest.MonkeyPatch, impatient: None, source: Callable[[bytes], Any]
) -> None:
    """Both ways, from nothing to all of it, and then the line is gone."""
    remote, _ = inside
    content = content_of(LARGE)
    for act, doing in (
        (lambda: remote.upload(source(content), "a.bin"), "uploading a.bin"),
        (lambda: remote.download("a.bin"), "downloading a.bin"),
    ):
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            act()
        lines = [line.replace("\x1b[K", "") for line in terminal.getvalue().split("\r")]
        assert lines[0] == lines[-1] == ""
        assert len(lines) > 3
        assert all(line.startswith(f"{doing} ") for line in lines[1:-1])
        assert "of 3.1 MB" in lines[1]
        assert re.search(r"100%, 3\.1 of 3\.1 MB, .* MB/s, 0 s left \[#+\]$", lines[-2])
    assert remote.download("a.bin") == content
    assert remote._endpoint.channel.progress is None


@pytest.mark.parametrize(
    "stream", [io.StringIO, lambda: None, Terminal], ids=["file", "none", "dumb"]
)
def test_no_progress_elsewhere(
    inside: Any, monkeypatch: pytest.MonkeyPatch, impatient: None, stream: Callable[[], Any]
) -> None:
    """A file, no stream at all, a terminal that cannot go back in its line: nothing is written."""
    remote, _ = inside
    made = stream()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", made)
    remote.upload(bytes(LARGE), "a.bin")
    remote.download("a.bin")
    assert made is None or made.getvalue() == ""


def test_no_progress_for_what_is_quick(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the first second there is none."""
    remote, _ = inside
    terminal = Terminal()
    monkeypatch.setattr(files, "_QUIET_S", 1000.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    remote.upload(bytes(LARGE), "a.bin")
    assert terminal.getvalue() == ""


def test_a_bar(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """What it says, within the terminal's width and without what would leave the line."""
    clock = iter([0.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(files.time, "monotonic", lambda: next(clock))
    terminal = Terminal()
    bar = ProgressBar("uploading a\r\nb", terminal)
    bar(5_000_000, 10_000_000)
    assert terminal.getvalue() == (
        "\ruploading a??b  50%, 5.0 of 10.0 MB, 2.5 MB/s, 2 s left [##########           ]\x1b[K"
    )
    bar(10_000_000, 10_000_000)
    bar.close()
    bar.close()
    assert terminal.getvalue().endswith(" 0 s left [####################]\x1b[K\r\x1b[K")
    assert max(map(len, terminal.getvalue().replace("\x1b[K", "").split("\r"))) == 79
    bar = ProgressBar("uploading " + "a" * 100, terminal)
    bar(1, 2)
    assert terminal.getvalue().endswith("\r" + ("uploading " + "a" * 100)[:79] + "\x1b[K")


def test_a_terminal_that_goes(impatient: None) -> None:
    """Is no reason to stop the work."""

    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    bar = ProgressBar("uploading a", Gone())
    bar(1, 2)
    bar(2, 2)
    bar.close()


def test_a_closed_stderr(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is that."""
    remote, _ = inside
    stream = Terminal()
    with contextlib.closing(stream):
        pass
    monkeypatch.setattr(sys, "stderr", stream)
    remote.upload(b"abc", "a.bin")
    assert remote.download("a.bin") == b"abc"
