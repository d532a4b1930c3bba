"""Which compiler is chosen for a target. The compilers here only exist, but for the last one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Callable, List

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import targets, toolchain

if TYPE_CHECKING:
    from pathlib import Path

AARCH64 = "aarch64-linux-gnu"


def program(folder: Path, name: str, text: str = "") -> str:
    """The path of a program that Python runs."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(name="there")
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``there(name)``: a program of this name is in PATH; nothing else is, nor is zig a package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    monkeypatch.delitem(sys.modules, "ziglang", raising=False)
    for word in ("CC_", "CXX_"):
        monkeypatch.delenv(word + AARCH64.replace("-", "_"), raising=False)
    return lambda name, text="": program(tmp_path, name, text)


@pytest.mark.parametrize(
    ("triple", "name", "version"),
    [
        (AARCH64, AARCH64, ""),
        ("aarch64-unknown-linux-gnu", AARCH64, ""),
        ("arm64-linux", AARCH64, ""),
        ("aarch64-linux-gnu.2.28", AARCH64, "2.28"),
        ("armv7l-linux-gnueabihf.2.17", "arm-linux-gnueabihf", "2.17"),
        ("arm-linux", "arm-linux-gnueabihf", ""),
        ("i386-linux-musl", "i686-linux-musl", ""),
        ("riscv64gc-unknown-linux-gnu", "riscv64-linux-gnu", ""),
        ("arm-buildroot-linux-uclibcgnueabihf", "arm-linux-uclibcgnueabihf", ""),
    ],
)
def test_triples(triple: str, name: str, version: str) -> None:
    """Vendors are left out, processors get the name that compilers have for them."""
    target = targets.parse(triple)
    assert (target.name, target.version) == (name, version)
    assert triple.startswith(target.given)


@pytest.mark.parametrize("triple", ["", "board", "arm-none-eabi", "x86_64-w64-mingw32", "-linux-"])
def test_no_triples(triple: str) -> None:
    """What is none of Linux is refused with a list of what would do."""
    with pytest.raises(CompilerError, match=rf"{triple!r} is no target.*'native'.*{AARCH64}, "):
        toolchain.find_compiler(target=triple)


def test_order(there: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for this target, a GCC or Clang of its name, Clang with what it needs, zig."""
    zig = there("zig")
    assert targets.compiler_for(AARCH64) == [zig, "cc", "-target", "aarch64-linux-gnu.2.17"]
    clang = there(
        "clang", "raise SystemExit('--target=aarch64-linux-gnu' not in __import__('sys').argv)"
    )
    assert targets.compiler_for(AARCH64) == [clang, f"--target={AARCH64}"]
    for name in ("-linux-gnu-clang", "-unknown-linux-gnu-gcc", "-linux-gnu-gcc"):
        found = there("aarch64" + name)
        assert targets.compiler_for(AARCH64) == [found]
    own = there("own")
    monkeypatch.setenv("CC_aarch64_linux_gnu", "own '--sysroot=/a b'")
    assert targets.compiler_for(AARCH64) == [own, "--sysroot=/a b"]
    monkeypatch.setenv("CC_aarch64_linux_gnu", "nowhere")
    with pytest.raises(CompilerError, match="'nowhere' of the environment variable CC_aarch64"):
        targets.compiler_for(AARCH64)


def test_order_for_objects(there: Callable[..., str]) -> None:
    """They may be of C++, but a cross compiler of C links those of C."""
    zig = there("zig")
    usual = [zig, "c++", "-target", "aarch64-linux-gnu.2.17"]
    assert targets.compiler_for(AARCH64, has_objects=True) == usual
    for name in ("gcc", "g++"):
        found = there(f"{AARCH64}-{name}")
        assert toolchain.find_compiler(has_objects=True, target=AARCH64) == [found]


def test_clang_without_a_sysroot(there: Callable[..., str]) -> None:
    """A Clang that cannot compile for the target is passed over; with lld it is asked again."""
    there("clang", "raise SystemExit('-fuse-ld=lld' not in __import__('sys').argv)")
    with pytest.raises(CompilerError, match="no compiler for aarch64-linux-gnu"):
        targets.compiler_for(AARCH64)
    there("ld.lld")
    assert targets.compiler_for(AARCH64)[1:] == [f"--target={AARCH64}", "-fuse-ld=lld"]


def test_a_version_of_glibc(there: Callable[..., str]) -> None:
    """Only zig can be told one; each target has an oldest one, and musl has none."""
    there(f"{AARCH64}-gcc")
    with pytest.raises(CompilerError, match=r"looked for zig; .*pytest-tvmrpc\[cross\]") as caught:
        targets.compiler_for(f"{AARCH64}.2.31")
    assert "apt-get" not in str(caught.value)
    there("zig")
    assert targets.compiler_for(f"{AARCH64}.2.31")[-1] == "aarch64-linux-gnu.2.31"
    assert targets.compiler_for("riscv64-linux-gnu")[-1] == "riscv64-linux-gnu.2.27"
    assert targets.compiler_for("i686-linux-gnu")[-1] == "x86-linux-gnu.2.17"
    assert targets.compiler_for("x86_64-linux-musl")[-2:] == ["x86_64-linux-musl", "-dynamic"]


def test_zig_as_a_package(there: Callable[..., str], tmp_path: Path) -> None:
    """That of the environment comes before the one in PATH, and is not imported."""
    there("zig")
    package = tmp_path / "packages" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError\n")
    path = program(package, "zig")
    importlib.invalidate_caches()
    assert targets.compiler_for(AARCH64)[0] == path


@pytest.mark.parametrize(
    ("triple", "package"),
    [(AARCH64, "gcc-aarch64-linux-gnu"), ("x86_64-linux-gnu", "gcc-x86-64-linux-gnu")],
)
def test_no_compiler(there: Callable[..., str], triple: str, package: str) -> None:
    """The message says what to install, by apt and by pip."""
    assert there
    with pytest.raises(
        CompilerError, match=rf"`apt-get install {package}`, or `pip install '"
    ) as c:
        targets.compiler_for(triple)
    assert f"no compiler for {triple} on this machine: looked for {triple}-gcc" in str(c.value)


def test_a_compiler_that_only_this_machine_knows(there: Callable[..., str]) -> None:
    """A triple that is in no list counts if there is a compiler of its name."""
    with pytest.raises(CompilerError, match="is no target that a compiler here knows"):
        targets.compiler_for("sparc64-linux-gnu")
    found = there("sparc64-linux-gnu-gcc")
    assert targets.compiler_for("sparc64-linux-gnu") == [found]


def test_native(there: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``native`` is no triple but this machine, as None is."""
    monkeypatch.delenv("CC", raising=False)
    found = there("gcc")
    assert toolchain.find_compiler(target="native") == toolchain.find_compiler() == [found]


def test_zig_compiles(tmp_path: Path) -> None:
    """A program and a library of zig's, for the oldest glibc of this machine, run here."""
    if importlib.util.find_spec("ziglang") is None and shutil.which("zig") is None:
        pytest.skip("there is no zig; pip install ziglang")
    import platform

    triple = f"{platform.machine()}-linux-gnu"
    if triple not in targets.TARGETS or platform.libc_ver()[0] != "glibc":
        pytest.skip(f"zig knows no {triple}, or this machine has no glibc")
    source = tmp_path / "main.c"
    source.write_text('#include <stdio.h>\nint main(void) { return puts("it runs") < 0; }\n')
    path = toolchain.compile_program(
        [source], tmp_path / "main", target=f"{triple}.{targets.TARGETS[triple]}"
    )
    done = subprocess.run([path], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "it runs\n"


def test_a_compiler_and_a_target(tmp_path: Path) -> None:
    """Both at once contradict each other."""
    arguments: List[Any] = [tmp_path / "a.c", tmp_path / "a.so"]
    with pytest.raises(TypeError, match="compiler='gcc' and target='native' are given"):
        toolchain.compile_library(*arguments, compiler="gcc", target="native")
