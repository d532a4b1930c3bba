"""Modules of source code and object files: compiled, called, written and exported."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, Sequence

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import compile_cache
from pytest_tvmrpc.runtime.module import load_module
from pytest_tvmrpc.runtime.toolchain import (
    compile_library,
    create_shared,
    find_compiler,
    include_dir,
)

if TYPE_CHECKING:
    from pytest_tvmrpc.runtime.sources import StaticLibrary

PROGRAM = """
#include "kernel.h"
#ifndef ONE
#define ONE 1
#endif
KERNEL(NAME) { (void)self, (void)args, (void)num_args; return return_int(result, ONE); }
"""


def program(name: str = "one") -> str:
    """The text of a function that returns 1, or what the macro ONE says."""
    return PROGRAM.replace("NAME", name)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache of its own, and a compiler."""
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(name="static")
def _static(tmp_path: Path) -> Callable[..., StaticLibrary]:
    """``static("name")``: an object file of a function, kept as one."""

    def make(name: str = "two") -> StaticLibrary:
        source = tmp_path / f"{name}.c"
        source.write_text(program(name))
        made = source.with_suffix(".o")
        command = [*find_compiler(), "-c", "-fPIC", "-DONE=2", "-I", include_dir()]
        subprocess.run([*command, str(source), "-o", str(made)], check=True)
        return runtime.load_static_library(made, [name])

    return make


# --- sources ------------------------------------------------------------------------------------


def test_a_program(tmp_path: Path) -> None:
    """A text becomes a module that is called at once, and knows its source."""
    module = runtime.module_from_source(program())
    assert module["one"]() == module.one() == 1
    assert module.function_names() == ["one"]
    assert (module.kind, module.format, module.get_property_mask()) == ("c", "c", 7)
    assert module.get_source() == module.inspect_source("c") == program()
    assert repr(module) == f"Module(c, {len(program())} characters: one)"


def test_a_file(tmp_path: Path) -> None:
    """A path, as str or Path; its neighbours are found, and their content counts."""
    source = tmp_path / "with blanks.c"
    source.write_text('#include "value.h"\n' + program())
    for value in (4, 5, 4):
        (tmp_path / "value.h").write_text(f"#define ONE {value}\n")
        for given in (source, str(source)):
            module = runtime.module_from_source(given)
            assert module["one"]() == value
    assert repr(module) == f"Module(c, {source}: one)"


@pytest.mark.parametrize("lang", ["c++", "cc", "cpp", "cxx", "C++"])
def test_cpp(tmp_path: Path, lang: str) -> None:
    """C++ by any of its names, or by the suffix of a file."""
    if "++" not in os.path.basename(find_compiler(has_objects=True)[0]):
        pytest.skip("no C++ compiler")
    text = "#include <vector>\n" + program()
    assert runtime.module_from_source(text, lang)["one"]() == 1
    if lang.islower() and "+" not in lang:
        (tmp_path / f"one.{lang}").write_text(text)
        module = runtime.module_from_source(tmp_path / f"one.{lang}")
        assert (module["one"](), module.format) == (1, "cc")


def test_flags_and_compiler(tmp_path: Path) -> None:
    """Flags reach the compiler, relative ones from the working directory; it can be named."""
    assert runtime.module_from_source(program(), flags=["-DONE=8"])["one"]() == 8
    assert runtime.module_from_source(program(), flags=["-DONE=9"])["one"]() == 9
    compiler = find_compiler()
    assert runtime.module_from_source(program(), compiler=compiler)["one"]() == 1
    assert runtime.module_from_source(program(), compiler=compiler[0])["one"]() == 1
    with pytest.raises(CompilerError, match="'/nowhere/cc' cannot be run"):
        runtime.module_from_source(program(), compiler="/nowhere/cc")


def exportable() -> runtime.Module:
    """A module that can be linked."""
    return runtime.module_from_source(program())


@pytest.mark.parametrize("given", ["abc", b"abc", [1], 5, {"a": 1}.values(), Path("a.o")])
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("functions", lambda given: runtime.module_from_source(program(), functions=given)),
        ("flags", lambda given: runtime.module_from_source(program(), flags=given)),
        ("func_names", lambda given: runtime.load_static_library("kernel.o", given)),
        ("addons", lambda given: exportable().export_library("x", addons=given)),
        ("options", lambda given: compile_library("x.c", "x.so", options=given)),
    ],
)
def test_what_is_no_list_of_words(argument: str, call: Callable[[Any], Any], given: Any) -> None:
    """A word by itself is no list of its letters, and nothing else is taken for words."""
    with pytest.raises(TypeError, match=rf"^{argument} is .*; expected a list of str, as \['"):
        call(given)


def test_words_from_anywhere() -> None:
    """They may come one by one, and are looked at once."""
    module = runtime.module_from_source(program(), functions=iter(["one"]), flags=iter(["-DONE=7"]))
    assert module["one"]() == 7
    with pytest.raises(LibraryError, match="Module has no function 'two'"):
        runtime.module_from_source(program(), functions=iter(["one", "two"]))


def test_relative_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of headers is that of the working directory, whatever was compiled elsewhere."""
    text = '#include "value.h"\n' + program()
    for value in (2, 3):
        folder = tmp_path / str(value) / "include"
        folder.mkdir(parents=True)
        (folder / "value.h").write_text(f"#define ONE {value}\n")
        monkeypatch.chdir(folder.parent)
        assert runtime.module_from_source(text, flags=["-Iinclude"])["one"]() == value


def test_the_functions_that_it_has_to_have() -> None:
    """One that is missing is an error here, with what is there instead."""
    runtime.module_from_source(program(), functions=["one"])
    with pytest.raises(LibraryError, match="no function 'two'; it has 'one'; expected"):
        runtime.module_from_source(program(), functions=["one", "two"])
    with pytest.raises(LibraryError, match="exports 'add' as a plain function of C"):
        runtime.module_from_source("int add(int a, int b) { return a + b; }", functions=["add"])


def test_errors_of_the_compiler(tmp_path: Path) -> None:
    """They come with the lines of the program, or of the file, and leave nothing in the cache."""
    with pytest.raises(CompilerError, match=r"(?m)^source\.c:2:.*error"):
        runtime.module_from_source("int x;\nint f( {\n")
    source = tmp_path / "bad.c"
    source.write_text("int x;\nint y;\nint f( {\n")
    with pytest.raises(CompilerError, match=rf"(?m)^{source}:3:.*error"):
        runtime.module_from_source(source)
    assert [name for name in os.listdir(compile_cache.folder()) if "lock" not in name] == []
    assert runtime.module_from_source(program())["one"]() == 1


@pytest.mark.parametrize(
    ("source", "lang", "kind", "message"),
    [
        ("none.c", "", LibraryError, r"none\.c cannot be read: No such file.*as text"),
        ("", "", LibraryError, "cannot be read"),
        ("int x;", "fortran", ValueError, "language 'fortran'; expected 'c' or 'c\\+\\+'"),
        ("int x;", None, TypeError, r"lang is None; expected 'c', 'c\+\+', or ''"),
        (b"int x;", "c", TypeError, "the source is of type bytes; expected a program"),
        (3, "", TypeError, "the source is of type int; expected a program"),
        (None, "c", TypeError, "the source is of type NoneType; expected a program"),
    ],
)
def test_what_is_no_source(source: Any, lang: str, kind: Any, message: str) -> None:
    """Is refused at this line."""
    with pytest.raises(kind, match=message):
        runtime.module_from_source(source, lang)


def test_writing_a_program(tmp_path: Path) -> None:
    """As it is, in its language, or as the library that was made of it."""
    module = runtime.module_from_source(program())
    module.save(tmp_path / "copy.c")
    assert (tmp_path / "copy.c").read_text() == program()
    module.write_to_file(str(tmp_path / "copy.so"))
    assert load_module(tmp_path / "copy.so")["one"]() == 1
    module.save(tmp_path / "other", "c")
    assert (tmp_path / "other").read_text() == program()
    for name, fmt in (("copy.cc", ""), ("copy.o", ""), ("copy.c", "ll")):
        with pytest.raises(LibraryError, match=r"cannot be written in the format .*'c' or 'so'"):
            module.save(tmp_path / name, fmt)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A file of another encoding is compiled and written as it is."""
    content = b"/* \xff\xfe */\r\n" + program().encode()
    (tmp_path / "odd.c").write_bytes(content)
    module = runtime.module_from_source(tmp_path / "odd.c")
    assert module["one"]() == 1
    module.save(tmp_path / "copy.c")
    assert (tmp_path / "copy.c").read_bytes() == content


def test_imports_of_a_program() -> None:
    """Its code finds the functions of modules that it imports, as a library's does."""
    text = """
    #include "kernel.h"
    void* __tvm_ffi__library_ctx;
    KERNEL_EXPORT int (*__TVMFFIEnvModLookupFromImports)(void*, const char*, void**);
    KERNEL_EXPORT int (*__TVMFFIFunctionCall)(void*, TVMFFIAny*, int32_t, TVMFFIAny*);
    KERNEL(ask) {
      void* function;
      (void)self, (void)args, (void)num_args;
      if (__TVMFFIEnvModLookupFromImports(__tvm_ffi__library_ctx, "one", &function)) return -1;
      return __TVMFFIFunctionCall(function, NULL, 0, result);
    }
    """
    module = runtime.module_from_source(text)
    with pytest.raises(ValueError, match="'one', which is in no imported module"):
        module["ask"]()
    module.import_module(runtime.module_from_source(program()))
    assert module["ask"]() == 1


# --- object files -------------------------------------------------------------------------------


def test_a_static_library(static: Any, tmp_path: Path) -> None:
    """It has functions and cannot be called; what to do is in the error."""
    module = static()
    assert (module.kind, module.type_key, module.get_property_mask()) == (
        *("static_library", "static_library"),
        5,
    )
    assert module.implements_function("two")
    assert "two" in module
    assert "one" not in module
    assert module.function_names() == ["two"]
    assert repr(module) == f"Module(static_library, {tmp_path / 'two.o'}: two)"
    with pytest.raises(AttributeError, match=r"no function 'two' to call: .*export_library"):
        module["two"]
    with pytest.raises(AttributeError, match="no function 'one'; it has 'two'"):
        module["one"]
    importer = runtime.module_from_source(program())
    importer.import_module(module)
    assert importer.implements_function("two", query_imports=True)
    content = (tmp_path / "two.o").read_bytes()
    (tmp_path / "two.o").write_bytes(b"")  # it has the content of before
    module.save(tmp_path / "copy.o")
    module.write_to_file(tmp_path / "copy", "o")
    assert (tmp_path / "copy.o").read_bytes() == (tmp_path / "copy").read_bytes() == content
    with pytest.raises(LibraryError, match="in the format 'so'; expected 'o'"):
        module.save(tmp_path / "copy.so", "so")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is no file"), (b"", "is no object file"), (b"\x7fELF" + bytes(80), "is damaged")],
    ids=["none", "empty", "zeros"],
)
def test_what_is_no_object(tmp_path: Path, content: Any, message: str) -> None:
    """Is refused when it is loaded."""
    if content is not None:
        (tmp_path / "x.o").write_bytes(content)
    with pytest.raises(LibraryError, match=rf"x\.o {message}"):
        runtime.load_static_library(tmp_path / "x.o", [])


@pytest.mark.parametrize("names", ["add", [1], [None]])
def test_what_are_no_names(static: Any, tmp_path: Path, names: Any) -> None:
    """A single str would be taken for its letters."""
    static()
    with pytest.raises(TypeError, match="expected a list of str"):
        runtime.load_static_library(tmp_path / "two.o", names)


# --- export -------------------------------------------------------------------------------------


def test_export(static: Any, tmp_path: Path) -> None:
    """A source and all that it imports become one library, which has the functions of all."""
    module, other = runtime.module_from_source(program()), static()
    module.import_module(other)
    other.import_module(static("three"))
    before = set(os.listdir(tmp_path))
    assert module.export_library(tmp_path / "all.so") is None
    assert set(os.listdir(tmp_path)) - before == {"all.so"}
    loaded = load_module(tmp_path / "all.so")
    assert loaded.function_names() == ["one", "three", "two"]
    assert [loaded[name]() for name in ("one", "two", "three")] == [1, 2, 2]


def test_export_as_an_archive(static: Any, tmp_path: Path) -> None:
    """With the suffix .tar: the files themselves, to be linked where they are loaded."""
    module = runtime.module_from_source(program())
    module.import_module(static())
    module.export_library(str(tmp_path / "all.tar"))
    with tarfile.open(tmp_path / "all.tar") as archive:
        assert archive.getnames() == ["lib0.c", "lib1.o"]
    assert load_module(tmp_path / "all.tar").function_names() == ["one", "two"]


def test_export_by_a_compiler_of_ones_own(static: Any, tmp_path: Path) -> None:
    """It is called as TVM calls it, and its result comes back; files stay in a named folder."""
    calls: List[Any] = []

    def fcompile(output: str, files: Sequence[str], **kwargs: Any) -> str:
        calls.append((output, [os.path.basename(file) for file in files], kwargs))
        create_shared(output, files, options=kwargs["options"])
        return "done"

    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "extra.c").write_text(program("extra"))
    module = runtime.module_from_source(program(), flags=["-DONE=6"])
    module.import_module(static())
    done = module.export_library(
        tmp_path / "all.so", fcompile, [str(tmp_path / "extra.c")], folder, options=["-g"], mine=3
    )
    assert done == "done"
    ((output, files, kwargs),) = calls
    assert (output, files) == (str(tmp_path / "all.so"), ["extra.c", "lib0.c", "lib1.o"])
    assert kwargs == {"options": ["-g", "-DONE=6", "-I" + include_dir()], "mine": 3}
    assert sorted(os.listdir(folder)) == ["lib0.c", "lib1.o"]
    loaded = load_module(tmp_path / "all.so")
    assert {name: loaded[name]() for name in loaded.function_names()} == {
        "extra": 6,
        "one": 6,
        "two": 2,
    }


def test_export_of_a_file_with_neighbours(tmp_path: Path) -> None:
    """They are found, though the source is compiled elsewhere; a compiler can be named."""
    (tmp_path / "value.h").write_text("#define ONE 3\n")
    (tmp_path / "one.c").write_text('#include "value.h"\n' + program())
    module = runtime.module_from_source(tmp_path / "one.c")
    module.export_library(tmp_path / "one.so", cc=find_compiler()[0], options="-O1")
    assert load_module(tmp_path / "one.so")["one"]() == 3


def test_packing_of_imports(static: Any, tmp_path: Path) -> None:
    """Whoever packs imports himself is called as by TVM, and his file is linked in."""
    calls: List[Any] = []

    def pack(module: Any, is_system_lib: bool, symbol_prefix: str, workspace_dir: str) -> str:
        calls.append((module, is_system_lib, symbol_prefix))
        path = os.path.join(workspace_dir, "devc.c")
        Path(path).write_text(program("packed"))
        return path

    module = runtime.module_from_source(program())
    module.export_library(tmp_path / "one.so", fpack_imports=pack)
    assert calls == []
    module.import_module(static())
    module.export_library(tmp_path / "two.so", fpack_imports=pack)
    assert calls == [(module, False, "")]
    assert load_module(tmp_path / "two.so").function_names() == ["one", "packed", "two"]


def test_what_cannot_be_exported(static: Any, tmp_path: Path) -> None:
    """Each is named, and nothing is written."""
    module = runtime.module_from_source(program())
    module.save(tmp_path / "one.so")
    linked = load_module(tmp_path / "one.so")
    with pytest.raises(LibraryError, match=r"one\.so.* as it is linked already.*use save"):
        linked.export_library(tmp_path / "x.so")
    module.import_module(linked)
    with pytest.raises(LibraryError, match="is linked already"):
        module.export_library(tmp_path / "x.so")
    module.clear_imports()
    module.import_module(runtime.module_from_source(program("two"), flags=["-O1"]))
    with pytest.raises(LibraryError, match="different flags cannot be compiled at once"):
        module.export_library(tmp_path / "x.so")
    module.clear_imports()
    module.import_module(runtime.module_from_source(program()))
    with pytest.raises(CompilerError, match=r"multiple definition|duplicate symbol"):
        module.export_library(tmp_path / "x.so")

    def needs(*args: Any) -> None:
        raise AssertionError("not called")

    needs.need_system_lib = True  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="need --system-lib option"):
        static().export_library(tmp_path / "x.so", needs)
    assert not (tmp_path / "x.so").exists()


# --- libraries ----------------------------------------------------------------------------------


def test_a_copy_of_a_library(tmp_path: Path) -> None:
    """It is the same to the byte, whatever it is called; onto itself it is nothing."""
    runtime.module_from_source(program()).save(tmp_path / "one.so")
    module = load_module(tmp_path / "one.so")
    assert module.get_write_formats() == ["so"]
    for name, fmt in (("copy.so", ""), ("copy.bin", "so"), ("one.so", "")):
        module.save(tmp_path / name, fmt)
        assert (tmp_path / name).read_bytes() == (tmp_path / "one.so").read_bytes()
    with pytest.raises(LibraryError, match="in the format 'o'; expected 'so'"):
        module.save(tmp_path / "x.o", "o")
    with pytest.raises(FileNotFoundError):
        module.save(tmp_path / "nowhere" / "x.so")
    assert sorted(os.listdir(tmp_path)) == ["copy.bin", "copy.so", "one.so"]


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_copy_of_a_library_that_is_gone(tmp_path: Path, change: str) -> None:
    """Another file of its name is not taken for it."""
    runtime.module_from_source(program()).save(tmp_path / "one.so")
    module = load_module(tmp_path / "one.so")
    if change == "replaced":
        runtime.module_from_source(program("two")).save(tmp_path / "two.so")
        os.replace(tmp_path / "two.so", tmp_path / "one.so")
    else:
        (tmp_path / "one.so").unlink()
    with pytest.raises(LibraryError, match="was replaced or removed since it was loaded"):
        module.save(tmp_path / "copy.so")
    assert not (tmp_path / "copy.so").exists()


def test_what_a_library_says_of_its_functions(tmp_path: Path) -> None:
    """Texts that its compiler put there: a JSON object, and a documentation."""
    text = (
        program()
        + """
    static const char types[] = "{\\"type_schema\\": \\"x\\"}", words[] = "Returns one.";
    static int text(TVMFFIAny *result, const char *value) {
      result->type_index = KIND_STRING; result->zero_padding = 0;
      result->as.v_ptr = (void *)value; return 0;
    }
    KERNEL(_metadata_one) { (void)self, (void)args, (void)num_args; return text(result, types); }
    KERNEL(_doc_one) { (void)self, (void)args, (void)num_args; return text(result, words); }
    KERNEL(_doc_two) { (void)self, (void)args, (void)num_args; return return_int(result, 1); }
    """
    )
    module = runtime.module_from_source(text)
    assert module.function_names() == ["one"]
    assert module.get_function_metadata("one") == {"type_schema": "x"}
    assert module.get_function_doc("one") == "Returns one."
    for name in ("two", "none", ""):
        assert module.get_function_metadata(name) is None
        assert module.get_function_doc(name) is None
    importer = runtime.module_from_source(program("other"))
    importer.import_module(module)
    assert importer.get_function_doc("one") is None
    assert importer.get_function_doc("one", query_imports=True) == "Returns one."


def test_an_executable_of_objects(static: Any, tmp_path: Path) -> None:
    """It is linked when it is called, once, with what it imports; it can be exported, too."""
    root = static("main")
    root.import_module(static("two"))
    executable = runtime.Executable(root)
    assert executable() == 2
    assert executable["two"]() == 2
    linked = executable.jit()
    assert executable.jit() is linked
    assert linked is not executable.mod
    assert executable.jit(force_recompile=True) is not linked
    library = tmp_path / "exported.so"
    executable.export_library(library)
    assert load_module(library)["two"]() == 2
    with pytest.raises(AttributeError, match="no function 'three'"):
        executable["three"]
    assert repr(executable) == f"Executable({root!r})"


def test_an_executable_that_is_linked_already(tmp_path: Path) -> None:
    """Is its module, whatever is asked; and only of a module is there one."""
    module = runtime.module_from_source(program("main"))
    executable = runtime.Executable(module)
    assert executable.jit() is executable.jit(force_recompile=True) is module
    assert executable() == executable["main"]() == 1
    with pytest.raises(TypeError, match=r"'a\.so' is no module"):
        runtime.Executable("a.so")  # type: ignore[arg-type]


def test_an_executable_by_a_compiler_of_ones_own(static: Any) -> None:
    """What is said to `jit` reaches it; its failure leaves nothing behind."""
    executable = runtime.Executable(static("main"))
    seen: List[Any] = []

    def compiler(file_name: str, files: Sequence[str], **options: Any) -> None:
        seen.append((os.path.basename(file_name), options))
        create_shared(file_name, files)

    assert executable.jit(fcompile=compiler, cc="mine")() == 2
    assert seen == [("linked.so", {"cc": "mine"})]

    def refuses(file_name: str, files: Sequence[str]) -> None:
        raise CompilerError("no")

    with pytest.raises(CompilerError, match="no"):
        executable.jit(fcompile=refuses, force_recompile=True)
    assert executable() == 2
