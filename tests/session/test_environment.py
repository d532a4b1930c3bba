"""A session's directory: names stay inside, files appear whole, libraries are the ones sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Set

import pytest

from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.protocol.values import ByteSource
from pytest_tvmrpc.runtime.toolchain import compile_library
from pytest_tvmrpc.session.environment import Environment

OUTSIDE = ["../x", "../../x", "a/../../x", "/etc/x", "/", "..", "link/x", "link", "sub/../../x"]
NO_NAMES = ["a\0b", "\0", "../session-next-door/x"]


@pytest.fixture(name="environment")
def _environment(folder: Path) -> Environment:
    """The functions of a session, with a link that leads out of its directory."""
    (folder.parent / "outside").mkdir()
    (folder / "link").symlink_to(folder.parent / "outside")
    return Environment(str(folder))


def everything(folder: Path) -> Set[str]:
    """All files around the session's directory."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", OUTSIDE + NO_NAMES)
@pytest.mark.parametrize("verb", ["upload", "download", "remove", "load_module", "listdir"])
def test_names_that_lead_outside(
    environment: Environment, folder: Path, verb: str, name: str
) -> None:
    """They are refused by every function that takes a name, and nothing is touched."""
    (folder.parent / "x").write_text("precious")
    before = everything(folder.parent)
    with pytest.raises(ValueError, match=r"leads outside|is no name"):
        getattr(environment, verb)(*[name, b"content"][: 2 if verb == "upload" else 1])
    assert everything(folder.parent) == before
    assert (folder.parent / "x").read_text() == "precious"


@pytest.mark.parametrize("name", ["", None, 5, b"bytes", 1.5])
def test_names_that_are_none(environment: Environment, name: Any) -> None:
    """No text, or an empty one, is refused like any other that cannot be."""
    with pytest.raises(ValueError, match="is no name"):
        environment.workpath(name)


@pytest.mark.parametrize(
    "name", ["; rm -rf .", "a\nb", "$(touch x)", "a b", "ä.so", "-rf", "*", "sub/deep/er.so", "."]
)
def test_odd_names(environment: Environment, folder: Path, name: str) -> None:
    """They are names and nothing else: no shell, no pattern. One that is no file's is refused."""
    before = everything(folder.parent)
    if name == ".":
        with pytest.raises(ValueError, match="leads outside"):
            environment.upload(name, b"content")
        return
    environment.upload(name, b"content")
    new = everything(folder.parent) - before
    assert f"session/{name}" in new
    assert all(f"session/{name}".startswith(path) for path in new)
    assert environment.download(name) == b"content"
    environment.remove(name)
    assert not (folder / name).exists()


@pytest.mark.parametrize("name", ["n" * 256, "n" * 4096, "d/" * 2048 + "x", "link", "sub"], ids=len)
def test_names_that_the_system_refuses(environment: Environment, folder: Path, name: str) -> None:
    """The system's error is raised, and nothing is left of the content."""
    (folder / "sub").mkdir()
    before = everything(folder)
    with pytest.raises((OSError, ValueError)):
        environment.upload(name, b"content")
    assert everything(folder) == before


def test_a_link_inside_may_be_followed(environment: Environment, folder: Path) -> None:
    """Only where a name leads counts."""
    (folder / "real").mkdir()
    (folder / "inner").symlink_to(folder / "real")
    environment.upload("inner/x", b"content")
    assert (folder / "real" / "x").read_bytes() == b"content"


def test_an_upload_appears_whole(environment: Environment, folder: Path) -> None:
    """Until the last byte the old content stays; one that is given up leaves it as it was."""
    environment.upload("a.bin", b"old")
    upload = environment.functions["tvm.rpc.server.upload"]
    sink = environment.open_sink(upload, ["a.bin"], 6)
    assert sink is not None
    sink.write(memoryview(b"new"))
    assert environment.download("a.bin") == b"old"
    assert environment.listdir() == "a.bin,link"
    sink.abort()
    assert environment.download("a.bin") == b"old"
    assert sorted(os.listdir(folder)) == ["a.bin", "link"]
    sink = environment.open_sink(upload, ["a.bin"], 6)
    assert sink is not None
    sink.write(memoryview(b"new"))
    sink.write(memoryview(b"er!"))
    sink.finish()
    assert environment.download("a.bin") == b"newer!"
    assert sorted(os.listdir(folder)) == ["a.bin", "link"]


def test_only_uploads_are_taken_in_parts(environment: Environment) -> None:
    """Other functions get their arguments whole."""
    echo = environment.functions["testing.echo"]
    assert environment.open_sink(echo, ["a"], 5) is None
    assert environment.open_sink(environment.functions["tvm.rpc.server.upload"], [], 5) is None


def test_downloads(environment: Environment) -> None:
    """Short files are read, long ones are handed to whoever sends them."""
    environment.upload("short", b"abc")
    assert environment.download("short") == b"abc"
    environment.upload("long", bytes(100_000))
    source = environment.download("long")
    assert isinstance(source, ByteSource)
    with source.file:
        assert source.nbytes == 100_000
    with pytest.raises(FileNotFoundError, match=r"Cannot open none: .*files here: link,long,short"):
        environment.download("none")


def test_removal(environment: Environment, folder: Path) -> None:
    """A file goes; one that is not there is no error; a link goes, not what it leads to."""
    environment.upload("a", b"abc")
    environment.remove("a")
    environment.remove("a")
    assert environment.listdir() == "link"
    (folder / "inner").mkdir()
    with pytest.raises(OSError, match="inner"):
        environment.remove("inner")


def test_listing(environment: Environment, folder: Path) -> None:
    """Sorted names with commas between them, of the directory itself or one below it."""
    for name in ("b", "a", "sub/c"):
        environment.upload(name, b"")
    assert environment.listdir() == environment.listdir("") == "a,b,link,sub"
    assert environment.listdir("sub") == "c"
    with pytest.raises(FileNotFoundError):
        environment.listdir("none")


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Callable[[int], bytes]:
    """``library(number)``: the bytes of a library whose function ``number`` returns it."""

    def build(number: int) -> bytes:
        source, output = tmp_path / "number.c", tmp_path / "number.so"
        source.write_text(
            "int __tvm_ffi_number(void *self, const void *args, int count, int *result) {"
            f" result[0] = 1; result[1] = 0; result[2] = {number}; result[3] = 0; return 0; }}\n"
        )
        try:
            return Path(compile_library(source, output)).read_bytes()
        except CompilerError as error:
            pytest.skip(str(error))

    return build


def test_a_library_that_is_sent_again(
    environment: Environment, library: Callable[[int], bytes]
) -> None:
    """Under the same name comes the new code; who holds the old module keeps the old code."""
    modules = []
    for number in (1, 2, 3):
        environment.upload("kernel.so", library(number))
        modules.append(environment.load_module("kernel.so"))
        assert [module["number"]() for module in modules] == list(range(1, number + 1))
    assert environment.listdir() == "kernel.so,link"
    environment.remove("kernel.so")
    assert [module["number"]() for module in modules] == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x7fELF", b"\x7fELF" + bytes(1000)])
def test_what_is_no_library(environment: Environment, content: bytes) -> None:
    """Is refused, by name."""
    environment.upload("kernel.so", content)
    with pytest.raises(LibraryError, match=r"kernel\.so"):
        environment.load_module("kernel.so")


def test_a_library_that_is_not_there(environment: Environment, folder: Path) -> None:
    """The message says what is."""
    environment.upload("other.so", b"")
    with pytest.raises(FileNotFoundError, match=r"cannot find file a\.so.*link,other\.so"):
        environment.load_module("a.so")
    with pytest.raises((FileNotFoundError, ValueError)):
        environment.load_module("link")


@pytest.mark.parametrize("count", [0, 3, 5, 9])
def test_time_evaluators_of_the_wrong_form(environment: Environment, count: int) -> None:
    """A number of settings that no version of TVM sends is refused."""
    evaluator = environment.functions["runtime.RPCTimeEvaluator"]
    with pytest.raises(ValueError, match=r"expected 8, 10, 11 or 12"):
        evaluator(None, "f", 1, 0, *[1] * count)


def test_a_time_evaluator_of_a_global_function(environment: Environment) -> None:
    """Without a module it measures a registered function; one that is not there is named."""
    evaluator = environment.functions["runtime.RPCTimeEvaluator"]
    with pytest.raises(ValueError, match=r"Cannot find no\.such in the global registry"):
        evaluator(None, "no.such", 1, 0, 1, 1, 0, "")
