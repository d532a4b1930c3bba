from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any, Callable, Optional, Sequence, Tuple

import pytest

from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import elf, library, load_module, stubs
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the messages are those of Linux")

FUNCTION = "int __tvm_ffi_{0}(void *s, const void *a, int n, int *out)"
RETURNS = FUNCTION + "{{ out[0] = 1; out[1] = 0; out[2] = {1}; out[3] = 0; return 0; }}\n"

Build = Callable[..., str]


@pytest.fixture(name="build")
def _build(tmp_path: Path) -> Build:
    """``build("name", text)`` makes a library and returns its path."""

    def build(
        name: str, text: str, options: Sequence[str] = (), output: Optional[Path] = None
    ) -> str:
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        try:
            return compile_library(source, output or tmp_path / f"{name}.so", options=options)
        except CompilerError as error:
            pytest.skip(str(error))

    return build


def test_functions(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported functions are found by the name behind the prefix; a path may be relative."""
    path = build("two", RETURNS.format("one", 1) + RETURNS.format("main", 2))
    monkeypatch.chdir(os.path.dirname(path))
    for given in (path, Path(path), "two.so", "./two.so"):
        module = load_module(given)
        assert isinstance(module, LibraryModule)
        assert module.path == path
        assert module.function_names() == ["main", "one"]
        assert module["one"]() == 1
        assert module() == 2
        assert module.kind == "library"


@pytest.mark.parametrize(
    "name", ["none", "", "_reserved", "_library_ctx", "__tvm_ffi_one", "a\0b", "\udc80", "cos"]
)
def test_missing_functions(build: Build, name: str) -> None:
    """A name that is not there, or is reserved, is an AttributeError that lists functions."""
    text = RETURNS.format("one", 1) + RETURNS.format("_reserved", 2)
    module = load_module(build("one", text + "void *__tvm_ffi__library_ctx;\n"))
    with pytest.raises(AttributeError, match="has no function") as caught:
        module[name]
    assert str(caught.value).endswith("; it has 'one'")
    assert not module.implements_function(name)


LEGACY = "int {0}(long long *a, int *c, int n, long long *out, int *code, void *r)"
LEGACY_RETURNS = LEGACY + "{{ *out = {1}; *code = 0; return 0; }}\n"
CONTEXT = "void *__tvm_module_ctx;\n"
ENTRY = "const char __tvm_main__[] = {};\n"


def test_functions_of_the_old_convention(build: Build) -> None:
    """A plain function of a library with a mark of TVM up to 0.20 is called as that did."""
    text = CONTEXT + LEGACY_RETURNS.format("addone", 1) + LEGACY_RETURNS.format("_two", 2)
    module = load_module(build("old", text + "int variable; static int hidden(void) { return 1; }"))
    assert module["addone"]() == 1
    assert module["_two"]() == 2
    assert module.function_names() == ["_two", "addone"]
    for name in ("cos", "printf", "variable", "hidden", "_init", "_fini", "__cxa_finalize", "main"):
        with pytest.raises(AttributeError, match="has no function"):
            module[name]


def test_the_entry_of_the_old_convention(build: Build) -> None:
    """It is named by an array of characters, or is a function of that name; `main` finds it."""
    function = LEGACY_RETURNS.format("f", 7)
    for name, text in (
        ("named", function + ENTRY.format('"f"')),
        ("made", function + LEGACY_RETURNS.format("__tvm_main__", 7)),
        ("both", function + LEGACY_RETURNS.format("main", 8) + ENTRY.format('"f"')),
    ):
        module = load_module(build(name, text))
        value = 8 if name == "both" else 7  # a function called main is meant when main is called
        assert module() == module["main"]() == value
        assert module["__tvm_main__"]() == value
        assert module["f"]() == 7


@pytest.mark.parametrize(
    "entry", ['"none"', '""', '"__tvm_main__"', "{'f'}", "{0xff, 0}", '"a.b c"', "{'f', 'g'}"]
)
def test_entries_that_name_nothing(build: Build, entry: str) -> None:
    """An array that names no function, or does not end, is no entry."""
    text = LEGACY_RETURNS.format("g", 1) + ENTRY.format(entry)
    module = load_module(build("entry", text))
    for name in ("__tvm_main__", "main"):
        with pytest.raises(AttributeError, match="it has 'g'"):
            module[name]


def test_the_entry_of_the_new_convention(build: Build) -> None:
    """`main` is found under the name by which older clients ask for it."""
    module = load_module(build("new", RETURNS.format("main", 3)))
    assert module["__tvm_main__"]() == module["main"]() == 3


def test_both_conventions_in_one_file(build: Build) -> None:
    """What is there in both is called the new way, what is only there in the old, the old way."""
    text = RETURNS.format("f", 1) + RETURNS.format("main", 2) + ENTRY.format('"old"')
    for name in ("f", "old"):
        text += LEGACY_RETURNS.format(name, 3)
    module = load_module(build("dual", text))
    assert [module["f"](), module["old"](), module(), module["__tvm_main__"]()] == [1, 3, 2, 2]
    assert module.function_names() == ["f", "main", "old"]
    without_main = text.replace("__tvm_ffi_main", "__tvm_ffi_other")
    assert load_module(build("dual2", without_main))() == 3


def test_functions_without_a_prefix_in_a_new_library(build: Build) -> None:
    """They are its own affair: they are not called, and the message says why."""
    module = load_module(build("new", RETURNS.format("f", 1) + "int own(int a) { return a; }"))
    with pytest.raises(AttributeError, match=r"exports 'own' itself, expected '__tvm_ffi_own'"):
        module["own"]
    assert module.function_names() == ["f"]


def test_plain_functions_of_c(build: Build) -> None:
    """Without any mark of TVM they are not called, whatever they would take: the message says why.

    A call with packed arguments would read its registers as something else.
    """
    module = load_module(build("plain", "int add(int a, int b) { return a + b; }"))
    with pytest.raises(AttributeError, match=r"plain\.so exports 'add' as a plain function of C"):
        module["add"]
    assert not module.implements_function("add")
    assert module.function_names() == []


def test_functions_of_cpp(tmp_path: Path) -> None:
    """Under the names that C++ gives them they are found, and the message says what to write."""
    source = tmp_path / "cpp.cc"
    source.write_text(
        "namespace my { int add(int a, int b) { return a + b; } }\n"
        "int __tvm_ffi_sub(void *, const void *, int, int *) { return 0; }\n"
    )
    try:
        module = load_module(compile_library(source, tmp_path / "cpp.so"))
    except CompilerError as error:
        pytest.skip(str(error))
    with pytest.raises(AttributeError, match=r"'add' of C\+\+ only, under the name '_ZN2my3add"):
        module["add"]
    with pytest.raises(AttributeError, match=r"'__tvm_ffi_sub' of C.*declare it extern \"C\""):
        module["sub"]


def test_the_convention_of_021(build: Build) -> None:
    """No prefix, one underscore in its variables, but values as they are today."""
    text = RETURNS.format("f", 5).replace("__tvm_ffi_f", "f") + ENTRY.format('"f"')
    text += "void *__tvm_ffi_library_ctx = 0;\n"
    text += RETURNS.format("has", "__tvm_ffi_library_ctx != 0").replace("__tvm_ffi_has", "has")
    module = load_module(build("between", text))
    assert module["f"]() == module() == module["__tvm_main__"]() == 5
    assert module["has"]() == 1
    assert module["f"].handle == 0  # a NativeFunction
    marked = RETURNS.format("f", 6).replace("__tvm_ffi_f", "f")
    marked += "void (*__TVMFFIErrorSetRaisedFromCStr)(const char *, const char *) = 0;\n"
    assert load_module(build("marked", marked))["f"]() == 6


def test_functions_of_no_one_age(build: Build) -> None:
    """With marks of two ages a plain name is not called: one of the two forms would crash."""
    text = LEGACY_RETURNS.format("f", 1) + "void *__TVMFFIFunctionCall, *__TVMFuncCall;\n"
    with pytest.raises(AttributeError, match="or of no one age"):
        load_module(build("mixed", text))["f"]


def test_plain_functions_need_a_readable_table(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file's format is not understood, only names with the prefix are looked up."""
    path = build("unread", LEGACY_RETURNS.format("old", 1) + RETURNS.format("new", 2))
    monkeypatch.setattr(library, "_examine", lambda path: None)
    module = load_module(path)
    assert module["new"]() == 2
    assert module.function_names() == []
    for name in ("old", "__tvm_main__"):
        with pytest.raises(AttributeError):
            module[name]


def test_a_function_of_a_library_that_is_needed(build: Build) -> None:
    """Only a library's own functions are called by plain names, not those it was linked with."""
    other = build("needed", CONTEXT + LEGACY_RETURNS.format("far", 1))
    path = build(
        "near", CONTEXT + "int far();\n" + LEGACY.format("near") + "{ return far(); }", [other]
    )
    module = load_module(path)
    assert module.function_names() == ["near"]
    with pytest.raises(AttributeError):
        module["far"]


def test_no_such_file(tmp_path: Path) -> None:
    """A missing file or a folder is named."""
    for path in (tmp_path / "none.so", tmp_path):
        with pytest.raises(LibraryError, match="cannot be read") as caught:
            LibraryModule(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("machine", "name"), [(183, "AArch64"), (62, "x86-64"), (243, "RISC-V")])
def test_another_architecture(tmp_path: Path, machine: int, name: str) -> None:
    """Both architectures are named, that of the file and that of this machine."""
    here = elf.machine()
    assert here is not None
    if here.machine == machine:
        pytest.skip("that is this machine")
    path = tmp_path / "other.so"
    path.write_bytes(stubs.stub_library(["f"], elf.Architecture(machine, 64), "other.so"))
    with pytest.raises(LibraryError, match=f"is for {name} ") as caught:
        LibraryModule(path)
    assert str(here) in str(caught.value)


def test_another_word_size(tmp_path: Path) -> None:
    """A 32-bit library is told from a 64-bit one, by its header alone."""
    path = tmp_path / "other.so"
    path.write_bytes(stubs.stub_library(["f"], elf.Architecture(40, 32), "other.so"))
    with pytest.raises(LibraryError, match=r"is for ARM \(32-bit\)"):
        LibraryModule(path)


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="reads a 64-bit library's header")
def test_damaged_files(build: Build, tmp_path: Path) -> None:
    """A library that was cut short anywhere that matters is refused; the process lives."""
    image = Path(build("whole", RETURNS.format("one", 1))).read_bytes()
    loaded = _end_of_segments(image)
    for index, length in enumerate([*range(0, loaded, 509), loaded - 1]):
        path = tmp_path / f"cut-{index}.so"
        path.write_bytes(image[:length])
        with pytest.raises(LibraryError, match=r"is damaged|is no shared library"):
            LibraryModule(path)


def _end_of_segments(image: bytes) -> int:
    """How much of a 64-bit file is mapped."""
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    ends = []
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", image, table + index * size)
        ends.append(offset + length if kind == 1 else 0)
    return max(ends)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.so", b"GROUP ( libc.so.6 )", "is no shared library"),
        ("empty.so", b"", "is empty"),
        ("object.so", b"", "an object file, not linked yet"),
    ],
)
def test_other_files(build: Build, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Files that are no libraries are told as what they are."""
    path = tmp_path / name
    path.write_bytes(content)
    if name == "object.so":
        image = bytearray(Path(build("one", RETURNS.format("one", 1))).read_bytes())
        struct.pack_into("<H", image, 16, 1)
        path.write_bytes(image)
    with pytest.raises(LibraryError, match=message):
        LibraryModule(path)


def test_missing_symbol(build: Build) -> None:
    """An undefined symbol is named, at once and not when it is called."""
    path = build("wants", f"int nowhere(void); {FUNCTION.format('f')} {{ return nowhere(); }}")
    with pytest.raises(LibraryError, match=r"undefined symbol: nowhere; .*link the library that"):
        LibraryModule(path)


def test_missing_library(build: Build, tmp_path: Path) -> None:
    """A library that needs another one, which is not here, says which."""
    other = build("other", "int elsewhere(void) { return 1; }", ["-Wl,-soname,libother.so.3"])
    text = f"int elsewhere(void); {FUNCTION.format('f')} {{ return elsewhere(); }}"
    path = build("needs", text, [other])
    with pytest.raises(LibraryError, match=r"libother\.so\.3") as caught:
        LibraryModule(path)
    assert "install that library on this machine" in str(caught.value)


def test_replaced_files(build: Build, tmp_path: Path) -> None:
    """A path whose file was replaced gives the new code; modules of the old one keep theirs."""
    output = tmp_path / "same.so"
    modules = []
    for value in (1, 2, 3):
        build("same", RETURNS.format("value", value), output=output)
        modules.append(LibraryModule(output))
    assert [module["value"]() for module in modules] == [1, 2, 3]
    assert LibraryModule(output)["value"]() == 3
    assert sorted(os.listdir(tmp_path)) == ["same.c", "same.so"]


def test_a_file_that_is_opened_twice(build: Build, tmp_path: Path) -> None:
    """One file is one library, by whatever name, with one set of variables."""
    text = "static int calls = 0;" + FUNCTION.format("next")
    text += "{ out[0] = 1; out[1] = 0; out[2] = ++calls; out[3] = 0; return 0; }"
    path = build("counter", text)
    link = tmp_path / "link.so"
    os.link(path, link)
    assert LibraryModule(path)["next"]() == 1
    assert LibraryModule(path)["next"]() == 2
    assert LibraryModule(link)["next"]() == 3
    copy = tmp_path / "copy.so"
    shutil.copy(path, copy)
    assert LibraryModule(copy)["next"]() == 1


def test_a_read_only_folder(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced library is loaded when nothing can be written next to it."""
    path = build("first", RETURNS.format("value", 1))
    assert LibraryModule(path)["value"]() == 1
    build("first", RETURNS.format("value", 2))
    opened = []
    original = os.open

    def refuse(place: Any, *args: Any, **options: Any) -> int:
        opened.append(str(place))
        if str(place).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied")
        return original(place, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert LibraryModule(path)["value"]() == 2
    assert len(opened) == 2


def blob(*kinds: str, cut: int = 0) -> str:
    """A C definition of a table of imported modules, as export_library writes it."""
    starts = [0, *range(len(kinds))]
    content = struct.pack(f"<Q{len(starts)}Q", len(starts), *starts)
    children = list(range(1, len(kinds)))
    content += struct.pack(f"<Q{len(children)}Q", len(children), *children)
    for kind in kinds:
        content += struct.pack("<Q", len(kind)) + kind.encode()
        content += struct.pack("<Q", 3) + b"xyz" if kind != "_lib" else b""
    content = content[: len(content) - cut]
    table = ", ".join(map(str, struct.pack("<Q", len(content)) + content))
    return f"const unsigned char __tvm_ffi__library_bin[] = {{ {table} }};\n"


def test_imports_of_the_library_itself(build: Build) -> None:
    """A table that names only the library itself is what a plain library has."""
    module = load_module(build("alone", RETURNS.format("one", 1) + blob("_lib")))
    assert module["one"]() == 1
    assert module.function_names() == ["one"]


@pytest.mark.parametrize("kinds", [("relax.VMExecutable", "_lib"), ("_lib", "relax.VMExecutable")])
def test_models(build: Build, kinds: Tuple[str, ...]) -> None:
    """The machine code of a model runs; what would run the model says that nothing does."""
    module = LibraryModule(build(f"relax{len(kinds[0])}", RETURNS.format("one", 1) + blob(*kinds)))
    assert module.missing_kinds == ("relax.VMExecutable",)
    assert module["one"]() == 1
    assert not module.implements_function("vm_load_executable")
    with pytest.raises(
        LibraryError, match=r"is a model \(relax\.VMExecutable\).*not supported yet"
    ):
        module.get_function("vm_load_executable")
    with pytest.raises(AttributeError, match="no function 'two'"):
        module.get_function("two")


def test_code_for_other_devices(build: Build) -> None:
    """Host code whose kernels are for a device that is not here says so when it looks them up."""
    text = (
        "void *__tvm_ffi__library_ctx = 0;\n"
        "int TVMFFIEnvModLookupFromImports(void *, const char *, void **);\n"
        "int __tvm_ffi_f(void *self, const void *args, int count, void *result) {\n"
        '  return TVMFFIEnvModLookupFromImports(__tvm_ffi__library_ctx, "f_kernel", &result);\n'
        "}\n"
    )
    module = LibraryModule(build("cuda", text + blob("_lib", "cuda")))
    assert module.missing_kinds == ("cuda",)
    with pytest.raises(ValueError, match=r"looks up function 'f_kernel'.*kind cuda is run here"):
        module["f"]()


def test_damaged_imports(build: Build) -> None:
    """A table that does not hold what it says is damaged."""
    for index, cut in enumerate((1, 4, 12, 20, 40)):
        path = build(f"cut{index}", RETURNS.format("one", 1) + blob("_lib", cut=cut))
        with pytest.raises(LibraryError, match="table of imported modules is damaged"):
            LibraryModule(path)
    text = "const unsigned long long __tvm_ffi__library_bin[] = { 1ull << 40 };"
    with pytest.raises(LibraryError, match="damaged"):
        LibraryModule(build("huge", text))


def entries(*kinds: str, symbol: str = "__tvm_dev_mblob") -> str:
    """A C definition of a table of imported modules as TVM up to 0.21 writes it."""
    content = struct.pack("<Q", len(kinds))
    for kind in kinds:
        content += struct.pack("<Q", len(kind)) + kind.encode()
        content += struct.pack("<QQQQ", 2, 0, 0, 0) if kind == "_import_tree" else b""
    table = ", ".join(map(str, struct.pack("<Q", len(content)) + content))
    return f"const unsigned char {symbol}[] = {{ {table} }};\n"


@pytest.mark.parametrize("symbol", ["__tvm_dev_mblob", "__tvm_ffi_library_bin"])
def test_imports_of_the_old_convention(build: Build, symbol: str) -> None:
    """The table may list the library and its tree, and modules of other kinds."""
    form = LEGACY_RETURNS if symbol == "__tvm_dev_mblob" else RETURNS
    function = form.format("f", 1).replace("__tvm_ffi_f", "f")
    table = entries("_lib", "_import_tree", symbol=symbol)
    assert load_module(build("alone", function + table))["f"]() == 1
    foreign = entries("_lib", "GraphExecutorFactory", symbol=symbol)
    graph = load_module(build("graph", function + foreign))
    assert graph.missing_kinds == ("GraphExecutorFactory",)
    assert graph["f"]() == 1
    with pytest.raises(LibraryError, match=r"is a model \(GraphExecutorFactory\)"):
        graph.get_function("get_graph_json")
    damaged = f"const unsigned long long {symbol}[] = {{ 16, 5, 1ull << 40 }};\n"
    with pytest.raises(LibraryError, match="table of imported modules is damaged"):
        load_module(build("damaged", function + damaged))
