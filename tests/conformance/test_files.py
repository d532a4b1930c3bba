"""Files of a session: sent, listed, fetched, removed; names stay inside of its directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tvmrpc.errors import RemoteError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_tvmrpc import rpc

    from .kinds import Kind


@pytest.mark.parametrize("nbytes", [0, 1, 7, 8, 4095, 65_536, 65_537, 1 << 20, 5_000_001])
def test_there_and_back(remote: rpc.RPCSession, nbytes: int) -> None:
    """A file of any size comes back as it was sent."""
    content = (bytes(range(256)) * (nbytes // 256 + 1))[:nbytes]
    remote.upload(content, "file.bin")
    assert remote.download("file.bin") == content


def test_a_file_that_is_replaced(remote: rpc.RPCSession) -> None:
    """It is the new one, whatever the sizes."""
    for content in (b"long " * 50_000, b"short", b"", b"longer than before"):
        remote.upload(content, "file.bin")
        assert remote.download("file.bin") == content


@pytest.mark.parametrize(
    "name", ["a", "with blanks.bin", "ümlaut-緑.bin", "-dash", "no.so.2", "~", "n" * 255]
)
def test_names(remote: rpc.RPCSession, name: str) -> None:
    """A name is just a name."""
    remote.upload(b"content", name)
    assert remote.download(name) == b"content"
    remote.remove(name)
    with pytest.raises(RemoteError, match="Cannot open"):
        remote.download(name)


def test_folders(remote: rpc.RPCSession) -> None:
    """They are made with a file, listed, and removed when they are empty."""
    remote.upload(b"content", "one/two/file.bin")
    assert remote.download("one/two/file.bin") == b"content"
    assert remote.download("one/../one/two/./file.bin") == b"content"
    assert (remote.listdir(), remote.listdir("one")) == ("one", "two")
    remote.remove("one")
    assert remote.listdir("one/two") == "file.bin"
    for name in ("one/two/file.bin", "one/two", "one/"):
        remote.remove(name)
    assert remote.listdir() == ""


def test_listing(remote: rpc.RPCSession) -> None:
    """Names in their order with commas between them; hidden ones are not among them."""
    assert remote.listdir() == ""
    for name in ("b.bin", "a.bin", "C.bin", ".hidden"):
        remote.upload(b"", name)
    assert remote.listdir(".") == remote.listdir("") == "C.bin,a.bin,b.bin"
    with pytest.raises(RemoteError, match="Cannot list nothing"):
        remote.listdir("nothing")
    with pytest.raises(RemoteError, match=r"Cannot list a\.bin"):
        remote.listdir("a.bin")


def test_removing(remote: rpc.RPCSession) -> None:
    """What is not there is removed already."""
    remote.upload(b"content", "file.bin")
    for _ in range(2):
        remote.remove("file.bin")
    with pytest.raises(RemoteError, match=r"Cannot open file\.bin"):
        remote.download("file.bin")
    for name in (".", "..", "/", ""):
        remote.remove(name)
    remote.upload(b"content", "file.bin")
    assert remote.listdir() == "file.bin"


WRONG = [
    *("../secret", "a/../../secret", "/secret", "//secret", "n" * 256, "a/" * 600 + "b"),
    *("line\nfeed", "; rm", "a|b", "`a`", "$(a)", "", "a\tb"),
]


@pytest.mark.parametrize("name", WRONG, ids=lambda name: f"{name!a:.14}")
@pytest.mark.parametrize("nbytes", [3, 300_000])
def test_names_that_are_refused(remote: rpc.RPCSession, name: str, nbytes: int) -> None:
    """What leads outside, is too long or odd, by whichever function; nothing is written."""
    workpath = remote.get_function("tvm.rpc.server.workpath")
    functions = ["download", "load_module", "download_linked_module", "workpath"]
    for function in functions:
        with pytest.raises(ValueError, match=r"leads outside|is no name|is too long") as caught:
            remote.get_function(f"tvm.rpc.server.{function}")(name)
        assert isinstance(caught.value, RemoteError)
    with pytest.raises(ValueError, match=r"leads outside|is no name|is too long"):
        remote.get_function("tvm.rpc.server.upload")(name, bytes(nbytes))
    if name:
        with pytest.raises(ValueError, match=r"leads outside|is no name|is too long"):
            remote.listdir(name)
    assert remote.listdir() == ""
    assert workpath("inside").endswith("/inside")


def test_what_lies_outside(remote: rpc.RPCSession, tmp_path: Path) -> None:
    """It is neither read nor written nor removed: by an absolute name, by ``..``, by a link."""
    secret = tmp_path / "secret"
    secret.write_text("content")
    folder = remote.get_function("tvm.rpc.server.workpath")("x")[:-2]
    if not os.path.isdir(folder):
        pytest.skip("the session is on another machine")
    os.symlink(tmp_path, os.path.join(folder, "out"))
    for name in (str(secret), os.path.relpath(secret, folder), "out/secret"):
        for act in (remote.download, remote.load_module, remote.listdir):
            with pytest.raises(ValueError, match="leads outside"):
                act(name)
        with pytest.raises(ValueError, match="leads outside"):
            remote.upload(b"other", name)
        remote.remove(name)
    assert secret.read_text() == "content"
    remote.remove("out")
    assert secret.exists()
    assert remote.listdir() == ""


def test_the_work_path(remote: rpc.RPCSession) -> None:
    """Where the session's files are on its machine; loaded code is told so."""
    path = remote.get_function("tvm.rpc.server.workpath")("file.bin")
    assert path.startswith("/")
    assert path.endswith("/file.bin")


def test_they_end_with_the_session(kind: Kind) -> None:
    """The next one begins with an empty directory, and the old one is gone."""
    with kind.session() as session:
        session.upload(b"content", "file.bin")
        first = session.get_function("tvm.rpc.server.workpath")("file.bin")
    with kind.session() as session:
        with pytest.raises(RemoteError, match=r"Cannot open (.*/)?file\.bin"):
            session.download("file.bin")
        assert session.get_function("tvm.rpc.server.workpath")("file.bin") != first


def test_what_is_not_there(remote: rpc.RPCSession, tmp_path: Any) -> None:
    """The error names what is."""
    remote.upload(b"", "other.bin")
    with pytest.raises(FileNotFoundError, match=r"Cannot open none\.bin: .*other\.bin"):
        remote.download("none.bin")
    with pytest.raises(FileNotFoundError, match=r"cannot find file none\.so.*other\.bin"):
        remote.load_module("none.so")
    with pytest.raises(RemoteError):
        remote.upload(b"content", "other.bin/below")
