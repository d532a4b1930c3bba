"""Finding a compiler of C or C++; making shared libraries of sources and objects. Loads none."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import IO, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from ..errors import CompilerError, LibraryError
from . import elf, targets
from .replacing import replacing

__all__ = [
    "SOURCES",
    "check_object",
    "compile_library",
    "compile_program",
    "create_executable",
    "create_shared",
    "cross_compiler",
    "find_compiler",
    "include_dir",
    "link_library",
]

COMPILERS = ("gcc", "clang", "cc", "g++", "clang++", "c++")
"""What is looked for in PATH, in this order, when no variable names a compiler."""

SOURCES = ("c", "cc", "cpp", "cxx")
"""Suffixes of what is compiled; all but the first are C++."""

LINKERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")
"""Likewise when object files are among the input: they may be of C++. The order is TVM's."""

_BITCODE = b"BC\xc0\xde"
"""The beginning of LLVM's own kind of object files, which clang links."""

_LINES_SHOWN = 20
_OUTPUT_READ = 64 * 1024
"""Bytes of a compiler's output that are kept; the rest is counted."""

Path = Union[str, "os.PathLike[str]"]


def find_compiler(*, has_objects: bool = False, target: Optional[str] = None) -> List[str]:
    """A C compiler, as the beginning of a command.

    For this machine the environment variables ``CC`` and ``CXX`` decide; they may hold options
    (``ccache gcc``). For others see `targets.compiler_for`.

    Args:
        has_objects: whether its input is more than C: C++, or object files, which may be of C++.
            A C++ compiler is looked for first then, and ``CXX`` first, as TVM does.
        target: the triple of the machine that it makes code for; None or ``native`` for this one.

    Raises:
        CompilerError: there is none; the message says what was looked for.
    """
    if target is not None and target != targets.NATIVE:
        return targets.compiler_for(target, has_objects=has_objects)
    names = LINKERS if has_objects else COMPILERS
    for variable in ("CXX", "CC") if has_objects else ("CC", "CXX"):
        chosen = targets.compiler_of(variable)
        if chosen:
            return chosen
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return [found]
    raise CompilerError(
        f"no C compiler on this machine: looked for {', '.join(names)} in PATH; "
        "install one, or set the environment variable CC to its path"
    )


def include_dir() -> str:
    """The folder of ``kernel.h``, which has what a kernel in C or C++ needs."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")


def compile_library(
    sources: Union[Path, Sequence[Path]],
    output: Path,
    *,
    options: Sequence[str] = (),
    compiler: Union[str, Sequence[str], None] = None,
    target: Optional[str] = None,
    folder: Optional[Path] = None,
    scratch: Optional[Path] = None,
) -> str:
    """Compile and link sources of C and C++ into a shared library; they find ``kernel.h``.

    Args:
        sources: one file, or several; object files and archives may be among them.
        output: the library to write; a library that is in use stays as it is for its users.
        options: for the compiler, at the end, where libraries (``-lm``) belong.
        compiler: path or name, or a command in parts; what `find_compiler` finds by default.
        target: the triple of the machine that the library is for, as ``aarch64-linux-gnu``; None or
            ``native`` for this one. A compiler that is given knows its target by itself.
        folder: where the compiler runs and has its temporary files; by default it runs in the
            working directory.
        scratch: where it has its temporary files, wherever it runs.

    Returns:
        The path of the library.

    Raises:
        CompilerError: no compiler, or it refused; the message has its first lines and the command.
        TypeError: the options are no list of str, the sources no files, or both a compiler and a
            target are given.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    files = listed("sources", given, "['kernel.o']")
    options = listed("options", options, "['-O3', '-lm']")
    names = [os.path.abspath(file) if folder else file for file in files]
    made_at = os.path.abspath(output) if folder else os.fspath(output)
    command = command_for(names, compiler, target)
    if any(_suffix(name)[1:] in SOURCES for name in names):
        options = (*options, "-I", include_dir())  # behind the user's own, which come first
    shape = ("-shared", "-fPIC", "-O2")
    return _compile(command, shape, names, options, made_at, folder, scratch or folder)


def compile_program(
    sources: Sequence[Path],
    output: Path,
    *,
    options: Sequence[str] = (),
    compiler: Union[str, Sequence[str], None] = None,
    target: Optional[str] = None,
    scratch: Optional[Path] = None,
) -> str:
    """Compile and link sources and object files into a program.

    Args, Returns, Raises: as `compile_library`.
    """
    names = listed("sources", sources, "['main.c']")
    options = listed("options", options, "['-O2', '-lm']")
    command = command_for(names, compiler, target)
    return _compile(command, (), names, options, os.fspath(output), None, scratch)


def command_for(
    names: Sequence[str], compiler: Union[str, Sequence[str], None], target: Optional[str]
) -> List[str]:
    if compiler is None:
        has_objects = not all(name.endswith(".c") for name in names)
        return find_compiler(has_objects=has_objects, target=target)
    if target is not None:
        raise TypeError(
            f"compiler={compiler!r} and target={target!r} are given; expected one of them, since a "
            "compiler knows its target"
        )
    return [compiler] if isinstance(compiler, str) else list(compiler)


def _compile(
    command: Sequence[str],
    shape: Sequence[str],
    names: Sequence[str],
    options: Sequence[str],
    output: str,
    folder: Optional[Path],
    scratch: Optional[Path],
) -> str:
    """Runs the compiler; what it writes appears whole or not at all."""
    is_cxx = any("++" in os.path.basename(word) for word in command[:2])  # zig c++, too
    with replacing(output) as made:
        inputs = [*_inputs(names, is_cxx), *options]
        line = [*command, *shape, "-o", _as_file(made), *inputs]
        code, said, more = _run(line, folder, scratch)
        if code != 0 or not os.path.exists(made):
            raise CompilerError(_refusal(line, code, said, more))
    return output


def listed(argument: str, given: Any, example: str) -> Tuple[str, ...]:
    """The words or files of a list; a str by itself is refused, since its elements are letters.

    Args:
        argument: the name of the argument.
        given: its value; each element is a str, or a path as `os.PathLike`.
        example: what it may be, for the message.

    Raises:
        TypeError: this is no list, or an element is neither.
    """
    is_one = isinstance(given, (str, bytes, bytearray, os.PathLike))
    elements = tuple(given) if hasattr(given, "__iter__") and not is_one else (None,)
    paths = (each.__fspath__() if isinstance(each, os.PathLike) else each for each in elements)
    words = tuple(path for path in paths if isinstance(path, str))
    if len(words) < len(elements):
        raise TypeError(f"{argument} is {given!r}; expected a list of str, as {example}")
    return words


def create_shared(
    output: str,
    objects: Union[str, Sequence[str]],
    options: Union[str, Sequence[str], None] = None,
    cc: Optional[str] = None,
    cwd: Optional[Path] = None,
    target: Optional[str] = None,
) -> None:
    """What `Module.export_library` links with, under TVM's name and with its arguments.

    Args:
        output: the library to write.
        objects: object files and sources.
        options: for the compiler, at the end.
        cc: the compiler, such as that for another machine.
        cwd: the folder that it runs in.
        target: the triple of that machine, instead of a compiler.

    Raises:
        CompilerError: no compiler, or it refused.
        TypeError: both a compiler and a target are given.
    """
    words = [options] if isinstance(options, str) else options or ()
    compile_library(objects, output, options=words, compiler=cc, folder=cwd, target=target)


def create_executable(
    output: str,
    objects: Union[str, Sequence[str]],
    options: Union[str, Sequence[str], None] = None,
    cc: Optional[str] = None,
    cwd: Optional[Path] = None,
    target: Optional[str] = None,
) -> None:
    """The same for a program, under TVM's name, too; the arguments are those of `create_shared`.

    Raises:
        CompilerError: no compiler, or it refused.
        TypeError: both a compiler and a target are given.
    """
    files = [objects] if isinstance(objects, str) else objects
    words = [options] if isinstance(options, str) else options or ()
    places = [os.path.join(cwd, file) for file in files] if cwd else files
    where = os.path.join(cwd, output) if cwd else output
    compile_program(places, where, options=words, compiler=cc, target=target)


def cross_compiler(
    compile_func: Union[str, Callable[..., Any]],
    options: Optional[Sequence[str]] = None,
    output_format: Optional[str] = None,
    get_target_triple: Optional[Callable[[], str]] = None,
    add_files: Optional[Sequence[str]] = None,
) -> Callable[..., None]:
    """A function that links for another machine, as ``fcompile`` of `Module.export_library`.

    It has TVM's form (``tvm.contrib.cc.cross_compiler``), and is for TVM's ``export_library``, too.

    Args:
        compile_func: the triple of the machine, as ``aarch64-linux-gnu``; or the path or name of a
            compiler; or a function such as `create_shared`.
        options: for the compiler, in front of those of each call.
        output_format: suffix of what is made; by default that of the function, else ``so``.
        get_target_triple: says the triple, which LLVM is told; known if `compile_func` is one.
        add_files: more objects, sources or libraries to link.

    Raises:
        CompilerError: there is no such compiler, or none for this triple.
        TypeError: the options or files are no list of str.
    """
    first = listed("options", options or (), "['-lm']")
    more = listed("add_files", add_files or (), "['kernel.o']")
    link = compile_func if callable(compile_func) else create_shared
    chosen: Dict[str, str] = {}
    if not callable(compile_func):
        if shutil.which(compile_func):
            chosen["cc"] = compile_func
        else:
            find_compiler(has_objects=True, target=compile_func)  # raises now, not at the end
            chosen["target"] = compile_func
            get_target_triple = get_target_triple or (lambda: targets.plain(compile_func))

    def fcompile(
        outputs: str, objects: Union[str, Sequence[str]], options: Optional[Sequence[str]] = None
    ) -> None:
        given = [options] if isinstance(options, str) else options or ()
        files = [objects] if isinstance(objects, str) else objects
        link(outputs, [*files, *more], options=[*first, *given], **chosen)

    made: Any = fcompile
    made.output_format = output_format or getattr(link, "output_format", "so")
    triple = get_target_triple or getattr(link, "get_target_triple", None)
    if triple is not None:  # whoever finds the attribute calls it
        made.get_target_triple = triple
    return fcompile


def link_library(
    path: Path, output: Optional[Path] = None, *, kind: str = "", folder: Optional[Path] = None
) -> str:
    """Make a shared library, to be loaded here, of what lacks but the linking.

    Args:
        path: an object file (``.o``), a source of C or C++ (``.c``, ``.cc``, ``.cpp``, ``.cxx``),
            or an archive of such (``.tar``, also compressed by gzip).
        output: the library to write; by default the input's path with ``.so`` behind it.
        kind: the suffix that counts, when the file has another one.
        folder: in which the compiler works, and an archive is unpacked; the system's for
            temporary files by default. Nothing is left in it.

    Returns:
        The path of the library.

    Raises:
        CompilerError: no compiler, or it refused the file.
        LibraryError: the file is not what its suffix says, or was made for another machine.
    """
    import tempfile

    source = os.path.abspath(path)
    target = os.path.abspath(output) if output is not None else source + ".so"
    kind = kind or os.path.splitext(source)[1][1:]
    if not os.path.isfile(source):
        raise LibraryError(f"{source} is no file; expected one to link; check the path")
    try:
        compiler = find_compiler(has_objects=kind != "c")
    except CompilerError as error:
        raise CompilerError(_without_compiler(source, error)) from None
    with tempfile.TemporaryDirectory(prefix="tvmrpc-link-", dir=folder) as own:
        if kind == "tar":
            from .archive import unpack

            files = [file for file in unpack(source, own) if _suffix(file) in _COMPILED]
            if not files:
                raise LibraryError(
                    f"{source} has nothing to link; expected members such as lib0.o or lib0.c; "
                    "make it with module.export_library('kernel.tar') of TVM"
                )
        elif _suffix(source) == f".{kind}":
            files = [source]
        else:  # a compiler knows a file by its suffix
            files = [os.path.join(own, f"input.{kind}")]
            os.symlink(source, files[0])
        for file in files:
            if _suffix(file) == ".o":
                check_object(file)
        return compile_library(files, target, options=["-lm"], compiler=compiler, folder=own)


_COMPILED = frozenset((".o", ".obj", ".a", ".s", ".S", *("." + kind for kind in SOURCES)))
"""What a compiler makes something of; an archive may hold other files besides."""


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1]


def _without_compiler(path: str, error: CompilerError) -> str:
    here = elf.machine()
    return (
        f"{path} has to be linked where it is loaded, and there is {error}. Or link it on the "
        f"host, with a compiler for {here or 'this machine'}, and send the .so: with "
        "module.export_library('kernel.so', cc=...) of TVM, or compile_library(files, "
        "'kernel.so', compiler=...) of pytest_tvmrpc.runtime.toolchain"
    )


def check_object(path: str) -> None:
    """See that a file is an object file for this machine.

    A linker takes text for a script of its own, and hardly says what is wrong with the rest.

    Raises:
        LibraryError: it is none, or one for another machine.
    """
    here = elf.machine()
    with open(path, "rb") as file:
        start = file.read(4)
    if here is None or start == _BITCODE:
        return  # the compiler's to judge
    if start != b"\x7fELF":
        raise LibraryError(
            f"{path} is no object file: it begins with {start!r}; expected one for {here}; "
            "compile it with -c -fPIC"
        )
    there = elf.architecture(path)
    if not there.fits(here):
        raise LibraryError(
            f"{path} is for {there}, expected {here}, which this machine is; "
            "compile it for this machine's target"
        )


def _as_file(name: str) -> str:
    """A file's name in a form that no compiler takes for an option or a list of them."""
    return os.path.join(os.curdir, name) if name[:1] in ("-", "@") else name


def _inputs(names: Sequence[str], is_cxx: bool) -> List[str]:
    """The input of a command; a C++ compiler is told what is C, which it does not believe .c."""
    parts: List[str] = []
    for name in names:
        is_c = is_cxx and name.endswith(".c")
        parts += ["-x", "c", _as_file(name), "-x", "none"] if is_c else [_as_file(name)]
    return parts


def _run(
    command: Sequence[str], folder: Optional[Path], scratch: Optional[Path]
) -> Tuple[int, bytes, int]:
    """Runs a compiler; its exit status, the beginning of its output, how many lines follow."""
    import subprocess

    environment: Optional[Dict[str, str]] = None
    if scratch is not None:  # so that what a compiler leaves that is killed goes with the folder
        environment = {**os.environ, "TMPDIR": os.fspath(scratch)}
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        ) as process:
            assert process.stdout is not None
            said, more = _beginning(process.stdout)
    except OSError as error:
        raise CompilerError(
            f"the compiler {command[0]!r} cannot be run: {error.strerror or error}; "
            "expected a C compiler; pass compiler, or set the environment variable CC"
        ) from error
    return process.returncode, said, more


def _beginning(stream: IO[bytes]) -> Tuple[bytes, int]:
    said, more = stream.read(_OUTPUT_READ), 0
    while True:
        part = stream.read(_OUTPUT_READ)
        if not part:
            return said, more
        more += part.count(b"\n")


def _refusal(command: Sequence[str], code: int, said: bytes, more: int) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    shown = "\n".join(lines[:_LINES_SHOWN]) or "(it printed nothing)"
    more += max(len(lines) - _LINES_SHOWN, 0)
    rest = f"\n({more} more lines)" if more else ""
    line = " ".join(map(shlex.quote, command))
    what = f"the compiler ended with {code}; expected a library or program"
    return f"{what}\n{shown}{rest}\ncommand: {line}"
