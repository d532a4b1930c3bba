"""The compile cache: what is compiled anew, what is not, and whatever happens to its folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import compile_cache
from pytest_tvmrpc.runtime.toolchain import find_compiler

PROGRAM = '#include "kernel.h"\nKERNEL(f) { (void)self; return return_int(result, num_args); }\n'


class Compiler:
    """A compiler that writes down each compilation before it does it."""

    def __init__(self, folder: Path) -> None:
        try:
            real = find_compiler()
        except CompilerError as error:
            pytest.skip(str(error))
        self.log = folder / "log"
        self.log.touch()
        self.path = folder / "cc"
        words = " ".join(f"'{word}'" for word in real)
        self.path.write_text(
            f"#!/bin/sh\ncase \"$*\" in *-v) ;; *) echo x >> '{self.log}';; esac\n"
            f'exec {words} "$@"\n'
        )
        self.path.chmod(0o755)

    @property
    def count(self) -> int:
        """Compilations so far."""
        return len(self.log.read_text().split())


@pytest.fixture(name="cache")
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the cache, which is not there yet."""
    folder = tmp_path / "a cache"
    monkeypatch.setenv(compile_cache.VARIABLE, str(folder))
    return folder


@pytest.fixture(name="compiler")
def _compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


@pytest.fixture(name="make")
def _make(cache: Path, compiler: Compiler) -> Callable[..., Any]:
    """``make(source, ...)``: `module_from_source` with that compiler."""

    def make(source: Any = PROGRAM, lang: str = "", **options: Any) -> Any:
        return runtime.module_from_source(source, lang, compiler=str(compiler.path), **options)

    return make


def libraries(folder: Path) -> List[Path]:
    """All that are in it."""
    return sorted(folder.glob("*.so"))


def test_once(make: Any, compiler: Compiler, cache: Path) -> None:
    """The same source is compiled once, and each module has its own life."""
    modules = [make() for _ in range(3)]
    assert [module["f"](1, 2) for module in modules] == [2, 2, 2]
    assert compiler.count == 1
    assert len(libraries(cache)) == 1
    assert cache.stat().st_mode & 0o777 == 0o700


def test_what_counts(make: Any, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source, flags, language and the compiler itself; each makes it another library."""
    make()
    for number, change in enumerate(
        (
            lambda: make(PROGRAM + "\n"),
            lambda: make(flags=["-DX"]),
            lambda: make(flags=["-DX", "-DY"]),
            lambda: make(PROGRAM, "c++"),
            lambda: monkeypatch.setenv("CPATH", "/nowhere") or make(),  # type: ignore[func-returns-value]
            lambda: compiler.path.write_text(compiler.path.read_text() + "#\n") and make(),
        ),
        2,
    ):
        change()
        assert compiler.count == number
        change()
    assert compiler.count - 7 == 1  # the last one changes it each time


def test_headers_count(make: Any, compiler: Compiler, tmp_path: Path) -> None:
    """A header that changed, however deep and whatever it is called, means another compilation."""
    folder = tmp_path / "a $folder#1"
    folder.mkdir()
    (folder / "one.h").write_text('#include "two deep.h"\n')
    source = folder / "f.c"
    source.write_text('#include "one.h"\n' + PROGRAM.replace("num_args", "TWO"))
    for number, value in enumerate((1, 2, 1), 1):
        (folder / "two deep.h").write_text(f"#define TWO {value}\n")
        assert make(source)["f"]() == value
        assert make(source)["f"]() == value
        assert compiler.count == number
    (folder / "two deep.h").unlink()
    with pytest.raises(CompilerError, match=r"two deep\.h"):
        make(source)


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "gone", "record"])
def test_damage(make: Any, compiler: Compiler, cache: Path, damage: str) -> None:
    """What a full disk or somebody's rm leaves is made again."""
    make()
    (library,) = libraries(cache)
    content = library.read_bytes()
    if damage == "gone":
        library.unlink()
    elif damage == "record":
        (record,) = cache.glob("*.json")
        record.write_text('{"cut": ')
    else:
        made = {"empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content))}
        library.unlink()
        library.write_bytes(made[damage])
    assert make()["f"](1) == 1
    assert compiler.count == 2
    assert make()["f"](1) == 1
    assert compiler.count == 2


def test_two_processes(make: Any, compiler: Compiler, deadline_s: float) -> None:
    """They compile it once: the second waits for the first."""
    script = (
        "import sys\nfrom pytest_tvmrpc import runtime\nsys.stdin.readline()\n"
        f"module = runtime.module_from_source({PROGRAM!r}, compiler={str(compiler.path)!r})\n"
        "print(module['f'](1, 2, 3))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=deadline_s)[0] for process in started] == ["3\n"] * 3
    assert compiler.count == 1


def test_a_compilation_that_is_killed(
    make: Any, compiler: Compiler, cache: Path, deadline_s: float
) -> None:
    """Nothing of it is taken for a library; the next one compiles, and has the lock."""
    real = compiler.path.read_text()
    compiler.path.write_text(
        '#!/bin/sh\nfor word in "$@"; do case "$word" in *.part) echo half > "$word";; esac; '
        'done\ncase "$*" in *-v) ;; *) echo started; exec sleep 1000;; esac\n'
    )
    script = (
        "from pytest_tvmrpc import runtime\n"
        f"runtime.module_from_source({PROGRAM!r}, compiler={str(compiler.path)!r})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, cwd=cache.parent
    ) as process:
        end = time.monotonic() + deadline_s
        while not list(cache.glob("work-*/*.part")):
            assert time.monotonic() < end
            assert process.poll() is None
        os.killpg(process.pid, 9)
    compiler.path.write_text(real)
    assert make()["f"]() == 0
    assert compiler.count == 1
    assert len(libraries(cache)) == 1


def test_without_filelock(make: Any, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a board: it works; only that two processes may do the same."""
    monkeypatch.setitem(sys.modules, "filelock", None)
    assert make()["f"](1) == make()["f"](1) == 1
    assert compiler.count == 1


def test_a_lock_that_is_not_let_go(make: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a limit the error says who waits for what."""
    filelock = pytest.importorskip("filelock")
    monkeypatch.setattr(compile_cache, "LOCK_TIMEOUT_S", 0.01)
    cache.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_cache, "_digest", lambda source, command: "ab" * 32)
        with filelock.FileLock(cache / "lock-ab"), pytest.raises(
            CompilerError, match=r"longer than 0\.01 s, and has the lock .*lock-ab; expected"
        ):
            make()
    assert make()["f"]() == 0


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable, by XDG's, in the home, or in the folder for temporary files."""
    for variable in (compile_cache.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ours = Path("pytest-tvmrpc", "compiled")
    assert compile_cache.folder() == str(tmp_path / "home" / ".cache" / ours)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compile_cache.folder() == str(tmp_path / "xdg" / ours)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says is none
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compile_cache.folder() == str(tmp_path / f"pytest-tvmrpc-{os.getuid()}")
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "own"))
    assert compile_cache.folder() == str(tmp_path / "own")


def test_a_folder_of_everybody(cache: Path, make: Any) -> None:
    """Whoever can write there could have his code run: it is refused, with what to do."""
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(
        LibraryError, match=rf"others can write there.*set {compile_cache.VARIABLE}"
    ):
        make()


def test_a_folder_that_cannot_be(tmp_path: Path, make: Any, monkeypatch: Any) -> None:
    """A file in its place is the system's error."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        make()


def test_its_size(
    make: Any, compiler: Compiler, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not used for long goes when there is too much; so does what killed ones left."""
    for number in range(3):
        make(f"/* {number} */" + PROGRAM)
    old = time.time() - 2 * 24 * 3600
    first, second, third = sorted(libraries(cache), key=lambda path: path.stat().st_mtime)
    for age, path in enumerate((first, second)):
        os.utime(path, (old + age, old + age))
    left = cache / "work-left"
    left.mkdir()
    (left / "source.c").touch()
    os.utime(left, (old, old))
    monkeypatch.setattr(compile_cache, "MAX_NBYTES", 3 * first.stat().st_size)
    make("/* 3 */" + PROGRAM)
    assert not left.exists()
    assert first not in libraries(cache)
    assert {second, third} < set(libraries(cache))
    assert len(list(cache.glob("*.json"))) == 3
    monkeypatch.setattr(compile_cache, "MAX_NBYTES", 0)
    make("/* 4 */" + PROGRAM)  # what is in use stays
    assert second not in libraries(cache)
    assert third in libraries(cache)
    assert make("/* 0 */" + PROGRAM)["f"]() == 0
    assert compiler.count == 6


def test_flags_for_this_very_processor(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -march=native the processor counts, as the folder may be on several machines."""
    options = runtime.sources.Source("x", "c", "", ("-march=native",))
    plain = options._replace(flags=("-O2",))
    found = []
    for name in ("one", "two"):
        monkeypatch.setattr(compile_cache, "_processor", lambda name=name: name)
        found.append([compile_cache._digest(source, ["cc"]) for source in (options, plain)])
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for pair in found for digest in pair)
