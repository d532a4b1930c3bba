"""Fuzzing of the C code, with libFuzzer and under the sanitizers of clang."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import corpus, sessions
from .corpus import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
FLAGS = [
    *("-std=c99", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
]
LIBRARIES = ["-ldl", "-lpthread", "-lm"]
ENVIRONMENT = {"ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=64"}
"""Memory that a client asks for, and that is not there, is an error for it, not for us."""

INSTALL = "install it: apt-get install clang (Debian, Ubuntu; it brings libFuzzer with it)"

_PROGRESS = re.compile(r"#(\d+)\s+pulse\s+cov: (\d+) ft: (\d+) corp: (\d+)")
_DONE = re.compile(r"Done (\d+) runs")


class Fuzzer(NamedTuple):
    """One program: which sources it feeds, and with what it begins.

    Attributes:
        sources: of native/; the others, if it names what it does without.
        replaced: functions that the program has under the name of ``fuzz_``, in place of libc's.
    """

    sources: tuple[str, ...]
    seeds: Callable[[], Iterator[bytes]]
    without: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    dictionary: Callable[[], str] = str

    def paths(self) -> list[Path]:
        """The sources."""
        if self.sources:
            return [SOURCES / name for name in self.sources]
        return [path for path in sorted(SOURCES.glob("*.c")) if path.name not in self.without]


FUZZERS = {
    "wire": Fuzzer(("wire.c", "answers.c", "handshake.c"), corpus.wire_seeds),
    "session": Fuzzer(
        (),
        sessions.seeds,
        ("handles.c", "timing_loop.c"),  # which it has within it
        ("fork", "connect", "nanosleep", "mmap", "dlopen"),
        sessions.dictionary,
    ),
}


class FuzzingError(Exception):
    """The fuzzer cannot run, or an input has broken what it feeds."""


def build(name: str, folder: Path) -> Path:
    """Compiles a fuzzer.

    Raises:
        FuzzingError: clang is not here, or refuses.
    """
    compiler = os.environ.get("CLANG") or shutil.which("clang")
    if compiler is None:
        raise FuzzingError(f"clang is not in PATH; {INSTALL}")
    fuzzer, program = FUZZERS[name], folder / f"fuzz_{name}"
    replaced = [f"-D{function}=fuzz_{function}" for function in fuzzer.replaced]
    options = [*FLAGS, *replaced, f"-I{SOURCES}"]
    paths = [HERE / f"fuzz_{name}.c", *fuzzer.paths()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda path: _compiled([compiler, *options], path, folder), paths))
    _tell([compiler, *FLAGS, "-fsanitize=fuzzer", "-rdynamic", *objects, *LIBRARIES], program)
    return program


def _compiled(command: list[str], path: Path, folder: Path) -> str:
    place = folder / f"{path.stem}.o"
    _tell([*command, "-fsanitize=fuzzer-no-link", "-c", str(path)], place)
    return str(place)


def _tell(command: list[str], result: Path) -> None:
    """Has the compiler make something."""
    done = subprocess.run(
        [*command, "-o", str(result)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        hint = f"\n{INSTALL}" if "clang_rt" in done.stderr else ""
        raise FuzzingError(f"{result.name} cannot be made:\n{done.stderr}{hint}")


def fuzz(name: str, seconds: int, *, is_kept: bool) -> None:
    """Runs a fuzzer for so long, and prints how it goes.

    Args:
        is_kept: whether the smallest set of inputs that goes everywhere is written to corpus/.

    Raises:
        FuzzingError: as in `build`; or an input broke something, and the message shows it.
    """
    with tempfile.TemporaryDirectory(prefix="tvmrpc-fuzz-") as text:
        folder = Path(text)
        program = build(name, folder)
        inputs = folder / "inputs"
        inputs.mkdir()
        seeds = {*FUZZERS[name].seeds(), *corpus.kept(name)}
        for number, content in enumerate(sorted(seeds)):
            (inputs / f"seed-{number}").write_bytes(content)
        print(f"{name}: {seconds} s, from {len(seeds)} inputs", flush=True)
        runs = _run(name, [str(program), f"-max_total_time={seconds}", str(inputs)], folder)
        found = len(list(inputs.iterdir())) - len(seeds)
        print(f"{name}: no failure in {runs} inputs; {found} of them went where none had been")
        if is_kept:
            smallest = folder / "smallest"
            smallest.mkdir()
            merge = [str(program), "-merge=1", str(smallest), str(inputs)]
            environment = {**os.environ, **ENVIRONMENT}
            subprocess.run(merge, env=environment, capture_output=True, check=True)
            count = corpus.keep(name, (path.read_bytes() for path in smallest.iterdir()))
            print(f"{name}: {count} inputs are kept in {corpus.FOLDER / name}.txt")


def _run(name: str, command: list[str], folder: Path) -> str:
    """The fuzzer itself; the number of inputs that it made, as its text says."""
    words = FUZZERS[name].dictionary()
    command[1:1] = [
        *("-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"),
        f"-artifact_prefix={folder}/failed-",
    ]
    if words:
        (folder / "words").write_text(words, "ascii")
        command.insert(1, f"-dict={folder}/words")
    runs, started, shown, last = "0", time.monotonic(), 0.0, []
    with subprocess.Popen(
        command,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as fuzzer:
        assert fuzzer.stderr is not None
        for line in fuzzer.stderr:
            last = [*last[-200:], line]
            progress, done = _PROGRESS.match(line), _DONE.match(line)
            if done:
                runs = f"{int(done[1]):,}"
            elif progress and time.monotonic() - shown > 5:
                shown = time.monotonic()
                print(
                    f"  {shown - started:4.0f} s: {int(progress[1]):,} inputs, "
                    f"{progress[2]} edges, {progress[4]} inputs of use",
                    flush=True,
                )
    if fuzzer.returncode:
        sys.stderr.writelines(last)
        failed = [path.read_bytes().hex() for path in folder.glob("failed-*")]
        raise FuzzingError(
            f"{name}: an input breaks something, see above. In hexadecimal it is\n  "
            + "\n  ".join(failed or ["(the fuzzer kept none)"])
            + f"\nto see it again: python -m harness.native fuzz --only {name} --input HEX"
        )
    return runs


def once(name: str, content: bytes) -> None:
    """Gives one input to a fuzzer.

    Raises:
        FuzzingError: as in `fuzz`.
    """
    with tempfile.TemporaryDirectory(prefix="tvmrpc-fuzz-") as text:
        folder = Path(text)
        (folder / "input").write_bytes(content)
        _run(name, [str(build(name, folder)), str(folder / "input")], folder)
        print(f"{name}: the input breaks nothing")
