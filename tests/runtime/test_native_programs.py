"""Building programs in C: once for each content, compiler and set of flags, whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import compile_cache, native_programs
from pytest_tvmrpc.runtime.toolchain import find_compiler


class Sources:
    """A program of two files and a header, and a compiler that writes down what it compiles."""

    def __init__(self, folder: Path) -> None:
        try:
            real = find_compiler()
        except CompilerError as error:
            pytest.skip(str(error))
        self.core, self.own = folder / "core", folder / "core" / "own"
        self.own.mkdir(parents=True)
        (self.core / "number.h").write_text("int number(void);\n")
        (self.core / "number.c").write_text('#include "number.h"\nint number(void) { return 5; }\n')
        (self.own / "main.c").write_text(
            '#include "number.h"\n'
            "#ifdef MORE\nint more(void);\n#else\nstatic int more(void) { return 0; }\n#endif\n"
            "int main(void) { return number() + more(); }\n"
        )
        self.log = folder / "log"
        self.log.touch()
        self.compiler = folder / "cc"
        words = " ".join(f"'{word}'" for word in real)
        self.compiler.write_text(
            f"#!/bin/sh\ncase \"$*\" in *-v) ;; *) echo x >> '{self.log}';; esac\n"
            f'exec {words} "$@"\n'
        )
        self.compiler.chmod(0o755)

    @property
    def folders(self) -> List[str]:
        """Those of the C files."""
        return [str(self.core), str(self.own)]

    @property
    def count(self) -> int:
        """Compilations so far."""
        return len(self.log.read_text().split())

    def build(self, **arguments: object) -> str:
        """Builds the program."""
        return native_programs.build_program(
            self.folders,
            compiler=str(self.compiler),
            **arguments,  # type: ignore[arg-type]
        )


@pytest.fixture(name="sources")
def _sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "cache"))
    return Sources(tmp_path)


def status(path: str) -> int:
    """The exit status of a program."""
    return subprocess.run([path], timeout=60, check=False).returncode


def test_built_once(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it is found, from any folder; nothing else is left in the cache."""
    path = sources.build()
    assert status(path) == 5
    monkeypatch.chdir("/")
    assert sources.build() == path
    assert sources.count == 1
    left = [name for name in os.listdir(tmp_path / "cache") if not name.startswith("lock-")]
    assert left == [os.path.basename(path)]


def test_what_counts(sources: Sources) -> None:
    """Each source, each header, a file that came or went, the flags."""
    paths = {sources.build()}
    (sources.core / "number.h").write_text("int number(void); /* changed */\n")
    paths.add(sources.build())
    (sources.core / "number.c").write_text("int number(void) { return 6; }\n")
    paths.add(sources.build())
    (sources.own / "more.c").write_text("int more(void);\nint more(void) { return 2; }\n")
    paths.add(sources.build())
    paths.add(sources.build(options=["-DMORE"]))
    assert sources.count == len(paths) == 5
    assert status(sources.build(options=["-DMORE"])) == 8
    assert sources.count == 5


def test_two_at_the_same_time(sources: Sources, tmp_path: Path) -> None:
    """Two processes that want the same: one builds, the other waits, both have it."""
    script = (
        "from pytest_tvmrpc.runtime.native_programs import build_program\n"
        f"print(build_program({sources.folders!r}, compiler={str(sources.compiler)!r}))"
    )
    import pytest_tvmrpc

    root = str(Path(pytest_tvmrpc.__file__).parents[1])
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        for _ in range(2)
    ]
    paths = {program.communicate(timeout=120)[0].strip() for program in programs}
    assert [program.returncode for program in programs] == [0, 0]
    assert len(paths) == sources.count == 1
    assert status(paths.pop()) == 5


def test_an_output(sources: Sources, tmp_path: Path) -> None:
    """It is a copy that can be run, and replaces a program that is in use."""
    output = tmp_path / "program"
    output.write_text("old")
    with open(output) as in_use:
        assert sources.build(output=output) == str(output)
        assert in_use.read() == "old"
    assert status(str(output)) == 5
    assert output.stat().st_mode & 0o777 == 0o755
    with pytest.raises(OSError, match="nowhere"):
        sources.build(output=tmp_path / "nowhere" / "program")
    assert sources.count == 1


def test_with_objects(sources: Sources, tmp_path: Path) -> None:
    """They are linked in; such a program is not kept."""
    (tmp_path / "more.c").write_text("int more(void);\nint more(void) { return 3; }\n")
    more = tmp_path / "more.o"
    words = [*find_compiler(), "-c", str(tmp_path / "more.c"), "-o", str(more)]
    subprocess.run(words, check=True)
    for _ in range(2):
        path = sources.build(output=tmp_path / "program", objects=[more], options=["-DMORE"])
        assert status(path) == 8
    assert sources.count == 3  # one for the sources, two for linking
    with pytest.raises(ValueError, match="give the output"):
        sources.build(objects=[more])


def test_what_cannot_be_built(sources: Sources, tmp_path: Path) -> None:
    """No sources, wrong sources, no such program."""
    with pytest.raises(CompilerError, match=r"no C sources.*pip install"):
        native_programs.build_program([str(tmp_path / "nowhere")])
    (sources.own / "main.c").write_text("int main(void) { return }\n")
    with pytest.raises(CompilerError, match=r"main\.c:1"):
        sources.build()
    with pytest.raises(ValueError, match="kind is 'ftp'; expected one of server, popen"):
        native_programs.build_server(kind="ftp")


def test_least_glibc(tmp_path: Path) -> None:
    """The newest version that is wanted, as numbers and not as text."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\0GLIBC_2.9\0GLIBC_2.17\0GLIBC_2.2.5\0GLIBC_PRIVATE\0")
    assert native_programs.least_glibc(program) == "2.17"
    program.write_bytes(b"\x7fELF\0")
    assert native_programs.least_glibc(program) == ""
