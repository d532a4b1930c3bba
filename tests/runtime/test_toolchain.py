from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any, List

import pytest

from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import elf, toolchain
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.module import load_module

if TYPE_CHECKING:
    from pathlib import Path


def program(folder: Path, name: str, text: str = "") -> str:
    """The path of a program that Python runs."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Path:
    path = tmp_path / "one.c"
    path.write_text(
        "int __tvm_ffi_one(void *self, const void *args, int n, int *out)"
        "{ out[0] = 1; out[1] = 0; out[2] = ONE; out[3] = 0; return 0; }\n"
    )
    return path


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the test says which compiler it is."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)


def test_order_of_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CC decides, then CXX; then those for C are looked for in PATH, and those for C++."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("c++", "clang++", "g++", "cc", "clang", "gcc"):
        path = program(tmp_path, name)
        assert toolchain.find_compiler() == [path]
    other = program(tmp_path, "other")
    monkeypatch.setenv("CXX", "other")
    assert toolchain.find_compiler() == [other]
    monkeypatch.setenv("CC", "gcc -m64 '-Done=a b'")
    assert toolchain.find_compiler() == [str(tmp_path / "gcc"), "-m64", "-Done=a b"]
    monkeypatch.setenv("CC", " ")
    monkeypatch.setenv("CXX", "")
    assert toolchain.find_compiler() == [str(tmp_path / "gcc")]


def test_order_of_linkers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects may be of C++: CXX decides, then CC; then the order in PATH is TVM's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("cc", "c++", "clang", "clang++", "gcc", "g++"):
        path = program(tmp_path, name)
        assert toolchain.find_compiler(has_objects=True) == [path]
    monkeypatch.setenv("CC", "clang")
    assert toolchain.find_compiler(has_objects=True) == [str(tmp_path / "clang")]
    monkeypatch.setenv("CXX", "clang++ -O1")
    assert toolchain.find_compiler(has_objects=True) == [str(tmp_path / "clang++"), "-O1"]


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what was looked for and what to set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerError, match=r"looked for gcc, clang, cc, .* in PATH.*variable CC"):
        toolchain.find_compiler()
    for variable in ("CXX", "CC"):
        monkeypatch.setenv(variable, "nowhere")
        with pytest.raises(
            CompilerError, match=f"'nowhere' of the environment variable {variable}"
        ):
            toolchain.find_compiler()
    monkeypatch.setenv("CC", "gcc '-Done")
    with pytest.raises(CompilerError, match=r"variable CC is .*No closing quotation; expected"):
        toolchain.find_compiler()


def test_a_compiler_that_cannot_be_run(source: Path, tmp_path: Path) -> None:
    """The one that was passed is named."""
    with pytest.raises(CompilerError, match="nowhere' cannot be run: No such file"):
        toolchain.compile_library(source, tmp_path / "one.so", compiler="/nowhere")


def test_compile(source: Path, tmp_path: Path) -> None:
    """Sources become a library; options are passed on; nothing else is left in the folder."""
    try:
        compiler = toolchain.find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    folder = tmp_path / "a folder; with $odd names"
    folder.mkdir()
    for value in (5, 6):  # the second one replaces the first, which is in use
        options = [f"-DONE={value}"]
        path = toolchain.compile_library([source], folder / "one.so", options=options)
        assert path == str(folder / "one.so")
        assert LibraryModule(path)["one"]() == value
        assert os.listdir(folder) == ["one.so"]
    toolchain.compile_library(
        str(source), str(folder / "one.so"), options=["-DONE=7"], compiler=compiler
    )
    assert LibraryModule(folder / "one.so")["one"]() == 7


def test_refused_source(tmp_path: Path) -> None:
    """The compiler's own first lines and the command are in the message; no file is left."""
    try:
        toolchain.find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    source = tmp_path / "bad.c"
    source.write_text("int f( {\n")
    with pytest.raises(CompilerError, match="error:") as caught:
        toolchain.compile_library(source, tmp_path / "bad.so")
    assert "-shared -fPIC -O2" in str(caught.value)
    assert str(source) in str(caught.value)
    assert os.listdir(tmp_path) == ["bad.c"]


def test_long_and_silent_refusals(source: Path, tmp_path: Path) -> None:
    """Only the first lines are told, and that there is nothing to tell."""
    loud = program(tmp_path, "loud", "print('line\\n' * 100); raise SystemExit(3)")
    with pytest.raises(CompilerError, match=r"ended with 3;(.|\n)*\(80 more lines\)"):
        toolchain.compile_library(source, tmp_path / "one.so", compiler=loud)
    silent = program(tmp_path, "silent")
    with pytest.raises(CompilerError, match=r"ended with 0(.|\n)*it printed nothing"):
        toolchain.compile_library(source, tmp_path / "one.so", compiler=[silent, "-x"])


def test_a_lot_of_output(source: Path, tmp_path: Path) -> None:
    """It is read to its end, or the compiler would wait; little of it is kept."""
    loud = program(tmp_path, "loud", "print('line\\n' * 1000000); raise SystemExit(3)")
    with pytest.raises(CompilerError, match=r"\((9|10)\d{5} more lines\)") as caught:
        toolchain.compile_library(source, tmp_path / "one.so", compiler=loud)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", ["-o evil.c", "@evil.c", "a;b $(c).c", "ä.c"])
def test_odd_names(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A name is a name for the compiler: no option, no list of options, and no shell reads it."""
    compiler_or_skip()
    monkeypatch.chdir(tmp_path)
    source.rename(tmp_path / name)
    toolchain.compile_library(name, "-o.so", options=["-DONE=4"])
    assert sorted(os.listdir(tmp_path)) == sorted(["-o.so", name])
    assert LibraryModule("-o.so")["one"]() == 4


def test_c_by_a_compiler_of_another_language(source: Path, tmp_path: Path) -> None:
    """A C++ compiler is told that a .c file is C."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source.write_text(source.read_text() + "int *class(void *new) { return new; }\n")
    toolchain.compile_library(source, tmp_path / "one.so", compiler=[compiler], options=["-DONE=3"])
    assert LibraryModule(tmp_path / "one.so")["one"]() == 3


# --- linking ------------------------------------------------------------------------------------


def compiler_or_skip() -> List[str]:
    """The beginning of a command."""
    try:
        return toolchain.find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(name="compiled")
def _compiled(source: Path, tmp_path: Path) -> Path:
    """An object file of the function ``one``."""
    path = tmp_path / "one.o"
    command = [*compiler_or_skip(), "-c", "-fPIC", "-DONE=7", str(source), "-o", str(path)]
    subprocess.run(command, check=True)
    return path


def packed(path: Path, *members: Path, mode: Any = "w") -> Path:
    """An archive of files, by their own names."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            archive.add(member, member.name)
    return path


def test_link_an_object(compiled: Path, source: Path, tmp_path: Path) -> None:
    """The library lies beside it; nothing else is left, and the object stays."""
    assert toolchain.link_library(compiled) == str(compiled) + ".so"
    assert LibraryModule(f"{compiled}.so")["one"]() == 7
    assert sorted(os.listdir(tmp_path)) == ["one.c", "one.o", "one.o.so"]
    folder = tmp_path / "work"
    folder.mkdir()
    toolchain.link_library(compiled, tmp_path / "other.so", folder=folder)
    assert LibraryModule(tmp_path / "other.so")["one"]() == 7
    assert os.listdir(folder) == []
    renamed = compiled.rename(tmp_path / "without_suffix")
    assert toolchain.link_library(renamed, kind="o") == f"{renamed}.so"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_link_an_archive(compiled: Path, source: Path, tmp_path: Path, mode: str) -> None:
    """Objects and sources of it become one library; what is neither is left out."""
    (tmp_path / "two.c").write_text('#include "two.h"\n')
    (tmp_path / "two.h").write_text(source.read_text().replace("one", "two").replace("ONE", "2"))
    (tmp_path / "notes.json").write_text("{}")
    names = ("one.o", "two.c", "two.h", "notes.json")
    path = packed(tmp_path / "kernels.tar", *(tmp_path / name for name in names), mode=mode)
    before = sorted(os.listdir(tmp_path))
    module = LibraryModule(toolchain.link_library(path))
    assert module.function_names() == ["one", "two"]
    assert (module["one"](), module["two"]()) == (7, 2)
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "kernels.tar.so"])


def test_an_archive_without_anything_to_link(tmp_path: Path) -> None:
    """Which is said, with what was expected."""
    compiler_or_skip()
    (tmp_path / "notes.json").write_text("{}")
    path = packed(tmp_path / "kernels.tar", tmp_path / "notes.json")
    with pytest.raises(LibraryError, match=r"kernels\.tar has nothing to link; expected members"):
        toolchain.link_library(path)


def test_an_object_for_another_machine(compiled: Path, tmp_path: Path) -> None:
    """Both machines are named, for an object in an archive as well."""
    here = elf.machine()
    if here is None:
        pytest.skip("the machine's objects are not ELF files")
    machine, name = (62, "x86-64") if here.machine != 62 else (183, "AArch64")
    image = bytearray(compiled.read_bytes())
    struct.pack_into("<H", image, 18, machine)
    compiled.write_bytes(image)
    for path in (compiled, packed(tmp_path / "kernels.tar", compiled)):
        with pytest.raises(
            LibraryError, match=rf"one\.o is for {name} .*expected {re.escape(str(here))}"
        ):
            toolchain.link_library(path)
        assert not os.path.exists(f"{path}.so")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is no object file: it begins with b''; expected one for"),
        (b"INPUT(/etc/hostname)", "is no object file: it begins with b'INPU'"),
        (b"\x7fELF", "is damaged"),
        (b"\x7fELF" + bytes(1000), "is damaged"),
    ],
    ids=["empty", "text", "cut", "zeros"],
)
def test_what_is_no_object(tmp_path: Path, content: bytes, message: str) -> None:
    """It is refused before a linker takes it for a script, and nothing is left."""
    compiler_or_skip()
    if elf.machine() is None:
        pytest.skip("the machine's objects are not ELF files")
    path = tmp_path / "one.o"
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=rf"one\.o {message}"):
        toolchain.link_library(path)
    assert os.listdir(tmp_path) == ["one.o"]


def test_an_object_that_was_cut(compiled: Path) -> None:
    """What comes behind the header is the compiler's to judge."""
    compiled.write_bytes(compiled.read_bytes()[:-200])
    with pytest.raises(CompilerError, match=r"one\.o"):
        toolchain.link_library(compiled)


def test_nothing_to_link(tmp_path: Path) -> None:
    """A file that is not there is named before a compiler is looked for."""
    with pytest.raises(LibraryError, match=r"none\.o is no file"):
        toolchain.link_library(tmp_path / "none.o")


def test_linking_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to do it elsewhere, and for which machine."""
    path = tmp_path / "one.o"
    path.write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        CompilerError, match=r"looked for g\+\+, gcc.*on the host.*export_library"
    ) as caught:
        toolchain.link_library(path)
    assert str(elf.machine()) in str(caught.value)


def test_load_module_links(compiled: Path, source: Path, tmp_path: Path) -> None:
    """What has to be linked is loaded like a library; the format can be told."""
    assert load_module(compiled)["one"]() == 7
    assert load_module(packed(tmp_path / "one.tar", compiled))["one"]() == 7
    source.write_text(source.read_text().replace("ONE", "8"))
    assert load_module(source)["one"]() == 8
    assert load_module(source.rename(tmp_path / "text"), fmt="c")["one"]() == 8


def test_cross_compiler(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a triple or a compiler, for `export_library`; the options of its calls do not pile up."""
    monkeypatch.setenv("PATH", str(tmp_path))
    there = "import sys as s, json; json.dump(s.argv, open(s.argv[s.argv.index('-o') + 1], 'w'))"
    for name in ("aarch64-linux-gnu-g++", "own-cc"):
        program(tmp_path, name, there)
    output = str(tmp_path / "out.so")
    for name, command in (("aarch64-linux-gnu", "aarch64-linux-gnu-g++"), ("own-cc", "own-cc")):
        fcompile: Any = toolchain.cross_compiler(name, ["-O3"], add_files=["more.o"])
        assert fcompile.output_format == "so"
        for options in (["-lm"], ["-lz"], "-lm"):
            fcompile(output, [str(source)], options=options)
            words = json.loads((tmp_path / "out.so").read_text())
            assert os.path.basename(words[0]) == command
            assert str(source) in words
            assert [word for word in words if word[:2] in ("-l", "-O")] == [
                "-O2",
                "-O3",
                *([options] if isinstance(options, str) else options),
            ]
            assert "more.o" in words
    assert not hasattr(fcompile, "get_target_triple")
    versioned: Any = toolchain.cross_compiler("aarch64-unknown-linux-gnu")
    assert versioned.get_target_triple() == "aarch64-unknown-linux-gnu"
    with pytest.raises(CompilerError, match="'toaster' is no target that a compiler here knows"):
        toolchain.cross_compiler("toaster")
    with pytest.raises(TypeError, match="options is '-O3'; expected a list"):
        toolchain.cross_compiler("own-cc", "-O3")


def test_cross_compiler_around_a_function() -> None:
    """Such as TVM's ``ndk.create_shared``: it gets all options, and says what it makes."""
    calls = []

    def link(output: str, objects: List[str], options: List[str]) -> None:
        calls.append((output, objects, options))

    made: Any = link
    made.output_format, made.get_target_triple = "dylib", lambda: "arm64-apple-darwin"
    fcompile: Any = toolchain.cross_compiler(link, ["-a"], add_files=["b.o"])
    fcompile("out", "a.o")
    assert calls == [("out", ["a.o", "b.o"], ["-a"])]
    assert (fcompile.output_format, fcompile.get_target_triple()) == ("dylib", "arm64-apple-darwin")
    assert toolchain.cross_compiler(link, output_format="so").output_format == "so"  # type: ignore[attr-defined]
