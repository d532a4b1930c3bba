"""A session's directory: names stay inside, files appear whole, libraries are the ones sent."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Callable, List, Set, Tuple

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.protocol.values import ByteSource
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.profiling import BenchmarkResult, Timing
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler
from pytest_tvmrpc.session.environment import Environment

OUTSIDE = ["../x", "../../x", "a/../../x", "/etc/x", "/", "..", "link/x", "sub/../../x", "link"]
NO_NAMES = ["a\0b", "\0", "../session-next-door/x"]
ODD_NAMES = [
    "; rm -rf .",
    "a\nb",
    "$(touch x)",
    "`touch x`",
    "a|b",
    "a>b",
    "..\\x",
    "\x1b[2J",
    "a\x7f",
]
TOO_LONG = ["n" * 256, "n" * 4096, "d/" * 2048 + "x", "ä" * 128, "d" * 300 + "/x"]


@pytest.fixture(name="environment")
def _environment(folder: Path) -> Environment:
    """The functions of a session, with a link that leads out of its directory."""
    (folder.parent / "outside").mkdir()
    (folder / "link").symlink_to(folder.parent / "outside")
    return Environment(str(folder))


def everything(folder: Path) -> Set[str]:
    """All files around the session's directory."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name", OUTSIDE + NO_NAMES + ODD_NAMES + TOO_LONG, ids=lambda name: name[:9]
)
@pytest.mark.parametrize(
    "verb", ["upload", "download", "load_module", "download_linked_module", "listdir"]
)
def test_names_that_are_refused(
    environment: Environment, folder: Path, verb: str, name: str
) -> None:
    """Those that lead outside or mean something to a shell or a log: nothing is touched."""
    (folder.parent / "x").write_text("precious")
    before = everything(folder.parent)
    with pytest.raises(ValueError, match=r"leads outside|is no name|is too long") as caught:
        getattr(environment, verb)(*[name, b"content"][: 2 if verb == "upload" else 1])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert everything(folder.parent) == before
    assert (folder.parent / "x").read_text() == "precious"


@pytest.mark.parametrize("name", ["", None, 5, b"bytes", 1.5])
def test_names_that_are_none(environment: Environment, name: Any) -> None:
    """No text, or an empty one, is refused like any other that cannot be."""
    with pytest.raises(ValueError, match="is no name"):
        environment.workpath(name)


@pytest.mark.parametrize(
    "name", ["a b", "ä.so", "-rf", "*", "@x", "x[1].so", "n" * 255, "sub/deep/er.so", "."]
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


def test_a_name_that_the_system_refuses(environment: Environment, folder: Path) -> None:
    """The system's error is raised with the name, and nothing is left of the content."""
    (folder / "sub").mkdir()
    before = everything(folder)
    with pytest.raises(IsADirectoryError, match="sub cannot be written: Is a directory"):
        environment.upload("sub", b"content")
    (folder / "sub" / "x").write_text("")
    with pytest.raises(OSError, match="sub/x/y cannot be written: File exists"):
        environment.upload("sub/x/y", b"content")
    assert everything(folder) == {*before, "sub/x"}


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
    environment.upload("real", b"abc")
    (folder / "inner").symlink_to("real")
    environment.remove("inner")
    assert environment.listdir() == "link,real"


def test_removal_of_directories(environment: Environment, folder: Path) -> None:
    """An empty one goes; one that is not stays, as do the session's own and what is in it."""
    environment.upload("full/a", b"abc")
    (folder / "empty").mkdir()
    before = everything(folder)
    for name in ("", ".", "./", "/", "full", "full/", "full/.", "full/..", "..", str(folder)):
        environment.remove(name)
        assert everything(folder) == before
    environment.remove("empty")
    assert everything(folder) == before - {"empty"}


@pytest.mark.parametrize(
    "name", [*OUTSIDE[:-1], *NO_NAMES, *ODD_NAMES, *TOO_LONG], ids=lambda name: name[:9]
)
def test_removal_of_what_cannot_be_there(environment: Environment, folder: Path, name: str) -> None:
    """What lies outside, by whatever way, or could have no such name: no error, nothing touched."""
    (folder.parent / "x").write_text("precious")
    before = everything(folder.parent)
    environment.remove(name)
    assert everything(folder.parent) == before
    assert (folder.parent / "x").read_text() == "precious"


def test_removal_by_a_path(environment: Environment, folder: Path) -> None:
    """The path that ``workpath`` gave is the file's; that of another directory is nobody's."""
    environment.upload("a", b"abc")
    environment.remove(environment.workpath("a"))
    assert not (folder / "a").exists()
    (folder.parent / "a").write_text("precious")
    environment.remove(str(folder.parent / "a"))
    environment.remove(str(folder / ".." / "a"))
    assert (folder.parent / "a").read_text() == "precious"


@pytest.mark.parametrize("name", [None, 5, b"bytes"])
def test_removal_of_no_text(environment: Environment, name: Any) -> None:
    """A name that is no text is an error, as everywhere."""
    with pytest.raises(ValueError, match="is no name"):
        environment.remove(name)


def test_a_full_disk(environment: Environment, folder: Path) -> None:
    """The file is named, with what fitted; nothing of it stays, and the next one fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    environment.upload("a.bin", b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError, match=r"a\.bin cannot be written: File too large after 100000 "
        ) as caught:
            environment.upload("a.bin", bytes(300_000))
        assert caught.value.errno == errno.EFBIG
        assert "of 300000 bytes" in str(caught.value)
        assert "make room" in str(caught.value)
        environment.upload("b.bin", bytes(90_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert environment.listdir() == "a.bin,b.bin,link"
    assert sorted(os.listdir(folder)) == ["a.bin", "b.bin", "link"]
    assert environment.download("a.bin") == b"old"


def test_the_directory_is_gone(environment: Environment, folder: Path) -> None:
    """Every verb says so, and none makes it again."""
    shutil.rmtree(folder)
    for act in (
        lambda: environment.upload("a", b"abc"),
        lambda: environment.upload("sub/a", b"abc"),
        lambda: environment.download("a"),
        lambda: environment.load_module("a.so"),
        lambda: environment.download_linked_module("a.o"),
    ):
        with pytest.raises(FileNotFoundError, match=r"directory .*is gone from the server; open a"):
            act()
    environment.remove("a")
    assert not folder.exists()


def test_it_goes_during_an_upload(environment: Environment, folder: Path) -> None:
    """The content cannot get its name, which is an error that says why."""
    sink = environment.open_sink(environment.functions["tvm.rpc.server.upload"], ["a"], 3)
    assert sink is not None
    sink.write(b"abc")
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=r"a cannot be written: .* is gone"):
        sink.finish()
    sink.abort()
    assert not folder.exists()


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


NUMBER = (
    "int __tvm_ffi_number(void *self, const void *args, int count, int *result) {"
    " result[0] = 1; result[1] = 0; result[2] = NUMBER; result[3] = 0; return 0; }\n"
)


@pytest.mark.parametrize("kind", ["c", "o", "tar"])
def test_what_has_to_be_linked(
    environment: Environment, folder: Path, tmp_path: Path, kind: str
) -> None:
    """A source, an object and an archive are linked where they are, and again when they change."""
    loaded = []
    for number in (1, 2):
        source = tmp_path / "number.c"
        source.write_text(NUMBER.replace("NUMBER", str(number)))
        made = source
        if kind != "c":
            made = tmp_path / "number.o"
            _run_compiler("-c", "-fPIC", str(source), "-o", str(made))
        if kind == "tar":
            with tarfile.open(tmp_path / "number.tar", "w:gz") as archive:
                archive.add(made, "number.o")
            made = tmp_path / "number.tar"
        environment.upload(made.name, made.read_bytes())
        loaded.append(environment.load_module(made.name))
        assert [module["number"]() for module in loaded] == list(range(1, number + 1))
    assert environment.listdir() == f"link,number.{kind},number.{kind}.so"
    source = environment.download_linked_module(f"number.{kind}")
    content = _whole(source)
    assert content[:4] == b"\x7fELF"
    assert content == _whole(environment.download(f"number.{kind}.so"))
    assert _whole(environment.download_linked_module(f"number.{kind}.so")) == content
    assert {name for name in os.listdir(folder) if not name.startswith(".loaded-")} == {
        "link",
        f"number.{kind}",
        f"number.{kind}.so",
    }


def _run_compiler(*arguments: str) -> None:
    try:
        command = find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    subprocess.run([*command, *arguments], check=True)


def _whole(content: Any) -> bytes:
    if isinstance(content, ByteSource):
        with content.file:
            return bytes(content.file.read())
    return bytes(content)


def test_what_cannot_be_linked(environment: Environment, folder: Path) -> None:
    """Other kinds of files are refused with the kinds that can; a source with the first error."""
    environment.upload("kernel.py", b"def f(): pass")
    with pytest.raises(LibraryError, match=r"Do not know how to link kernel\.py; expected \.o"):
        environment.download_linked_module("kernel.py")
    environment.upload("bad.c", b"int f( {\n")
    for load in (environment.load_module, environment.download_linked_module):
        with pytest.raises(CompilerError, match=r"bad\.c"):
            load("bad.c")
    left = {name for name in os.listdir(folder) if not name.startswith(".loaded-")}
    assert left == {"link", "kernel.py", "bad.c"}


@pytest.mark.parametrize("count", [0, 3, 5, 10])
def test_time_evaluators_of_the_wrong_form(environment: Environment, count: int) -> None:
    """A number of settings that no version of TVM sends is refused."""
    evaluator = environment.functions["runtime.RPCTimeEvaluator"]
    with pytest.raises(ValueError, match=r"expected 8 or 10 to 13"):
        evaluator(None, "f", 1, 0, *[1] * count)


def test_a_time_evaluator_of_a_global_function(environment: Environment) -> None:
    """Without a module it measures a registered function; one that is not there is named."""
    evaluator = environment.functions["runtime.RPCTimeEvaluator"]
    with pytest.raises(ValueError, match=r"Cannot find no\.such in the global registry"):
        evaluator(None, "no.such", 1, 0, 1, 1, 0, "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([5, 2, 0], (5, 2, 0, 100, 0, 1, 0)),
        ([5, 2, 0, 0, 2], (5, 2, 0, 100, 0, 2, 0)),
        ([5, 2, 0, 7, 0, 2], (5, 2, 0, 7, 0, 2, 0)),
        ([5, 2, 0, 7, 0, 2, 9], (5, 2, 0, 7, 0, 2, 9)),
    ],
    ids=["0.8", "0.9", "0.13", "0.14"],
)
def test_settings_of_a_time_evaluator(
    environment: Environment, given: List[int], expected: Tuple[int, ...]
) -> None:
    """Each version's list of them means the same; what it lacks has the default."""

    class Recorded(Module):
        def make_evaluator(
            self, name: str, device: Any, timing: Timing, preproc: Any
        ) -> Callable[..., BenchmarkResult]:
            assert (name, device.device_type, preproc) == ("f", 1, "")
            assert timing == expected
            return lambda *values: BenchmarkResult([1.0])

    evaluator = environment.functions["runtime.RPCTimeEvaluator"]
    assert len(evaluator(Recorded(), "f", 1, 0, *given, "")()) == 8


@pytest.mark.parametrize("loop", ["python", "compiled"])
def test_which_loop_measured(environment: Environment, loop: str) -> None:
    """A client that asks with one argument more is told behind the results."""

    class Measured(Module):
        def make_evaluator(self, *arguments: Any) -> Callable[..., BenchmarkResult]:
            return lambda *values: BenchmarkResult([1.0], loop)

    evaluator = environment.functions["runtime.RPCTimeEvaluator"]
    arguments = (Measured(), "f", 1, 0, *Timing(), "")
    assert len(evaluator(*arguments)()) == len(evaluator(*arguments, 0)()) == 8
    told = BenchmarkResult.from_bytes(evaluator(*arguments, 1)(), tells_loop=True)
    assert (told.results, told.loop) == ((1.0,), loop)


def test_what_an_object_is(tmp_path: Path) -> None:
    """A client that holds an object can ask for its type."""
    tell = Environment(str(tmp_path)).find("tvmrpc.server.type_key")
    assert tell is not None
    assert tell(runtime.Array([1])) == "ffi.Array"
    assert tell(runtime.Map({})) == "ffi.Map"
    assert tell(runtime.ShapeTuple((1,))) == "ffi.Shape"
    assert tell(object()) == "builtins.object"
