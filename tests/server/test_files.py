"""Files and libraries at a real server: whatever is sent, the session or the next one goes on."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import (
    CompilerError,
    ConnectionLostError,
    LibraryError,
    RemoteError,
    RPCSessionTimeoutError,
    SessionCrashedError,
)
from pytest_tvmrpc.runtime import elf
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

pytestmark = pytest.mark.each_kind

WaitUntil = Callable[..., None]
Build = Callable[..., Path]

NUMBER = (
    "int __tvm_ffi_number(void *self, const void *args, int count, int *result)"
    " { result[0] = 1; result[1] = 0; result[2] = NUMBER; result[3] = 0; return 0; }\n"
)


@pytest.fixture(name="build")
def _build(tmp_path: Path) -> Build:
    """``build("name", number=1, text="", options=[])``: a library whose function returns that."""

    def build(name: str, *, number: int = 1, text: str = "", options: Sequence[str] = ()) -> Path:
        source = tmp_path / f"{name}.c"
        source.write_text(NUMBER.replace("NUMBER", str(number)) + text)
        try:
            return Path(compile_library(source, tmp_path / f"{name}.so", options=options))
        except CompilerError as error:
            pytest.skip(str(error))

    return build


@pytest.fixture(name="remote")
def _remote(server: Any, wait_until: WaitUntil) -> Iterator[rpc.RPCSession]:
    """A session that has to serve at the end, after which nothing may be left of it."""
    with server.connect() as remote:
        yield remote
        if not remote.closed:
            assert remote.get_function("rpc.test.addone")(1) == 2
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "/tmp/x",
        "a/../../x",
        "out/x",
        "n" * 4096,
        "a\nb",
        "; rm -rf /tmp/x",
    ],
    ids=["up", "absolute", "tmp", "up and down", "link", "4096", "newline", "rm"],
)
@pytest.mark.parametrize("nbytes", [3, 300_000])
def test_names(
    remote: rpc.RPCSession, session_folders: Any, tmp_path: Path, name: str, nbytes: int
) -> None:
    """What leads outside or is no name is refused with a text; nothing outside is touched."""
    (folder,) = session_folders("")
    (folder / "out").symlink_to(tmp_path)
    around = set(folder.parent.iterdir())
    for act in (
        lambda: remote.upload(bytes(nbytes), name),
        lambda: remote.download(name),
        lambda: remote.load_module(name),
        lambda: remote.download_linked_module(name),
        lambda: remote.listdir(name),
    ):
        with pytest.raises(ValueError, match=r"leads outside|is no name|is too long") as caught:
            act()
        assert isinstance(caught.value, RemoteError)
    remote.remove(name)
    assert set(folder.parent.iterdir()) == around
    assert list(tmp_path.iterdir()) == []
    assert os.listdir(folder) == ["out"]
    assert not os.path.exists("/etc/x")


# --- disks --------------------------------------------------------------------------------------

SMALL_DISK = """
mount -t tmpfs -o size=4m{options} tmpfs {folder} && TMPDIR={folder} exec {python} -S -c '
import sys
sys.path.append({package!r})
from pytest_tvmrpc import network
from pytest_tvmrpc.server.config import ServerConfig
from pytest_tvmrpc.server.supervisor import Supervisor
listener = network.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
Supervisor(ServerConfig(port=0), listener, lambda line: None, lambda: None).run()
'
"""


@pytest.fixture(name="on_disk")
def _on_disk(tmp_path: Path, deadline_s: float) -> Iterator[Callable[[str], int]]:
    """``on_disk("")``: the port of a server whose sessions have 4 MiB of disk; mount's options."""
    processes: List["subprocess.Popen[str]"] = []
    package = str(Path(rpc.__file__).parents[1])

    def start(options: str) -> int:
        if shutil.which("unshare") is None:
            pytest.skip("no program to make a namespace with")
        script = SMALL_DISK.format(
            options=options, folder=tmp_path, python=sys.executable, package=package
        ).replace("'" + package + "'", '"' + package + '"')
        process = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            pytest.skip("this user cannot mount a disk of its own")
        return int(line)

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=deadline_s)


def test_a_full_disk(on_disk: Any) -> None:
    """The error says so with the file's name, nothing of it stays, and the session goes on."""
    port = on_disk("")
    with rpc.connect("127.0.0.1", port) as remote:
        remote.upload(b"old", "big.bin")
        for _ in range(2):
            with pytest.raises(
                OSError, match=r"big\.bin cannot be written: No space left on device"
            ) as caught:
                remote.upload(bytes(64 << 20), "big.bin")
            assert isinstance(caught.value, RemoteError)
            assert "of 67108864 bytes; sessions have a disk of 4194304 bytes" in str(caught.value)
        assert remote.download("big.bin") == b"old"
        assert remote.listdir() == "big.bin"
        remote.upload(bytes(3 << 20), "fits.bin")
        assert len(remote.download("fits.bin")) == 3 << 20
    with rpc.connect("127.0.0.1", port) as remote:
        remote.upload(bytes(3 << 20), "fits.bin")


def test_no_room_to_link(on_disk: Any, build: Build) -> None:
    """The compiler's own words come; the session goes on, and what was half made is gone."""
    build("number")
    port = on_disk("")
    with rpc.connect("127.0.0.1", port) as remote:
        remote.upload(NUMBER.replace("NUMBER", "7").encode(), "number.c")
        remote.upload(bytes((4 << 20) - 12288), "fill.bin")
        with pytest.raises((LibraryError, OSError), match="No space left on device"):
            remote.load_module("number.c")
        assert remote.listdir() == "fill.bin,number.c"
        remote.remove("fill.bin")
        assert remote.load_module("number.c")["number"]() == 7


def test_a_disk_without_execution(on_disk: Any, build: Build) -> None:
    """A library cannot be loaded from there, and the error says what to look at."""
    library = build("number")
    with rpc.connect("127.0.0.1", on_disk(",noexec")) as remote:
        remote.upload(library)
        with pytest.raises(LibraryError, match=r"number\.so cannot be loaded.*mounted noexec"):
            remote.load_module("number.so")
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_disk_that_cannot_be_written(on_disk: Any) -> None:
    """Sessions have their directories at the next place, and work there."""
    with rpc.connect("127.0.0.1", on_disk(",ro")) as remote:
        remote.upload(b"abc", "a")
        assert remote.download("a") == b"abc"


def test_the_directory_is_removed(remote: rpc.RPCSession, session_folders: Any) -> None:
    """By whatever cleans up temporary files: each use says so, and calls go on."""
    (folder,) = session_folders("")
    remote.upload(b"abc", "a")
    shutil.rmtree(folder)
    for act in (
        lambda: remote.upload(b"abc", "a"),
        lambda: remote.upload(bytes(300_000), "a"),
        lambda: remote.download("a"),
        lambda: remote.load_module("a.so"),
    ):
        with pytest.raises(FileNotFoundError, match=r"directory .*is gone from the server; open a"):
            act()
    assert not folder.exists()


# --- transfers that end early -------------------------------------------------------------------


def test_a_file_that_shrinks_while_it_is_downloaded(
    server: Any, session_folders: Any, wait_until: WaitUntil
) -> None:
    """The client gets an end, not other bytes; the server serves on, without a traceback."""
    before = server.reports.count("Traceback")
    remote = server.connect()
    remote.upload(b"\1" * (64 << 20), "big.bin")
    (path,) = session_folders("/big.bin")
    shrunk: List[int] = []

    def shrink(done: int, total: int) -> None:
        if done > 1 << 20 and not shrunk:  # later, the session may be over, and its folder gone
            os.truncate(path, 1 << 20)
            shrunk.append(done)

    remote._endpoint.channel.progress = shrink
    with pytest.raises(ConnectionLostError, match="closed the connection"):
        remote.download("big.bin")
    assert remote.closed
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")
    assert server.reports.count("Traceback") == before


def test_an_upload_whose_client_is_killed(
    start_server: Any, start_client: Any, session_folders: Any, wait_until: WaitUntil
) -> None:
    """Frozen in the middle of it and then gone: nothing of the file stays, not even its half."""
    server = start_server()
    client = start_client(
        server.port,
        """
import signal
def stop(done, total):
    if done > 8 << 20:
        signal.pause()
remote._endpoint.channel.progress = stop
print("started", flush=True)
remote.upload(bytes(512 << 20), "big.bin")
""",
    )
    wait_until(
        lambda: any(path.stat().st_size > 1 << 20 for path in session_folders("/.partial-*")),
        "a part has arrived",
    )
    assert session_folders("/big.bin") == []
    client.kill()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


# --- libraries ----------------------------------------------------------------------------------


def _another_machine(image: bytes) -> bytes:
    (machine,) = struct.unpack_from("<H", image, 18)
    return image[:18] + struct.pack("<H", 183 if machine != 183 else 62) + image[20:]


WRONG: Dict[str, Any] = {
    "another machine": (_another_machine, "is for .*expected .*which this machine is; compile"),
    "32 bits": (
        lambda image: image[:4] + b"\1" + image[5:],
        r"is for .*32-bit.*expected|is damaged",
    ),
    "big-endian": (
        lambda image: image[:5] + b"\2" + image[6:],
        "big-endian|is something else; expected a shared library",
    ),
    "empty": (lambda image: b"", "is empty; expected"),
    "text": (
        lambda image: b"not a library\n" * 100,
        "is no shared library: it begins with b'not a",
    ),
    "magic only": (lambda image: image[:4], "is damaged"),
    "cut in its header": (lambda image: image[:40], "is damaged"),
    "cut in half": (lambda image: image[: len(image) // 2], "is damaged"),
    "zeros behind the header": (
        lambda image: image[:64] + bytes(len(image) - 64),
        "is damaged|cannot",
    ),
}


@pytest.mark.skipif(elf.machine() is None, reason="the messages are those for ELF files")
@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_loaded(remote: rpc.RPCSession, build: Build, kind: str) -> None:
    """It is named, with what was expected; the session goes on, and the right one loads."""
    library = build("number")
    change, message = WRONG[kind]
    remote.upload(change(library.read_bytes()), "number.so")
    with pytest.raises(LibraryError, match=rf"number\.so .*({message}|is no shared library)"):
        remote.load_module("number.so")
    remote.upload(library)
    assert remote.load_module("number.so")["number"]() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the messages are those of Linux")
def test_what_a_library_needs(remote: rpc.RPCSession, build: Build, tmp_path: Path) -> None:
    """A library or a symbol that is not on the server is named."""
    build("needed", text="int needed(void) { return 5; }\n")
    library = build(
        "number",
        text="int needed(void); int use(void) { return needed(); }\n",
        options=[f"-L{tmp_path}", "-Wl,--no-as-needed", "-l:needed.so"],
    )
    remote.upload(library)
    with pytest.raises(LibraryError, match=r"needed\.so: cannot open"):
        remote.load_module("number.so")
    library = build("symbol", text="int nowhere(void); int use(void) { return nowhere(); }\n")
    remote.upload(library)
    with pytest.raises(
        LibraryError, match=r"symbol\.so cannot be loaded.*undefined symbol: nowhere"
    ):
        remote.load_module("symbol.so")


@pytest.mark.python_only(reason="sources are compiled there")
def test_a_name_with_other_content(remote: rpc.RPCSession, build: Build, tmp_path: Path) -> None:
    """The new library is loaded, and who has the old one keeps it, linked there or here."""
    source = tmp_path / "linked.c"
    modules: List[Any] = []
    for number in (1, 2, 3):
        remote.upload(build("number", number=number))
        modules.append(remote.load_module("number.so"))
        source.write_text(NUMBER.replace("NUMBER", str(10 * number)))
        remote.upload(source)
        modules.append(remote.load_module("linked.c"))
    assert [module["number"]() for module in modules] == [1, 10, 2, 20, 3, 30]


CONSTRUCTORS = {
    "segfault": ("raise(SIGSEGV)", "was killed by SIGSEGV"),
    "abort": ("abort()", "was killed by SIGABRT"),
    "exit": ("exit(0)", "exited with 0 while it served a request"),
    "exit with a status": ("exit(7)", "exited with 7"),
}


@pytest.mark.parametrize("kind", CONSTRUCTORS)
def test_a_constructor_that_ends_the_process(
    server: Any, build: Build, wait_until: WaitUntil, kind: str
) -> None:
    """The client is told how the session ended; the next one is served."""
    statement, outcome = CONSTRUCTORS[kind]
    text = (
        "#include <signal.h>\n#include <stdlib.h>\n"
        f"__attribute__((constructor)) static void loaded(void) {{ {statement}; }}\n"
    )
    # Not by this process, which would meet the same end: the compiler only makes it.
    library = build("constructor", text=text)
    with pytest.raises(SessionCrashedError, match=outcome):
        server.load(str(library))
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_a_constructor_that_sleeps(
    server: Any, build: Build, wait_until: WaitUntil, limit_s: float
) -> None:
    """The session's limit ends it, though it holds the interpreter's lock and ignores SIGTERM."""
    text = (
        "#include <signal.h>\n#include <unistd.h>\n__attribute__((constructor)) static void "
        "loaded(void) { signal(SIGTERM, SIG_IGN); for (;;) pause(); }\n"
    )
    started = time.monotonic()
    with pytest.raises(RPCSessionTimeoutError, match=r"Your [\d.]+s session has expired"):
        server.load(str(build("constructor", text=text)), session_timeout=limit_s)
    assert time.monotonic() - started < 10 * limit_s
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


# --- linking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["c", "o", "tar"])
def test_linked_on_the_device(
    remote: rpc.RPCSession, tmp_path: Path, kind: str, server_kind: str
) -> None:
    """Source, object and archive become a library there, which comes back and loads here, too."""
    if kind == "c" and server_kind == "native":
        pytest.skip("the server in C compiles no sources")
    try:
        compiler = find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    path = tmp_path / "number.c"
    path.write_text(
        "#include <math.h>\n" + NUMBER.replace("NUMBER", "(int)cbrt(27.0 * count + 27)")
    )
    if kind != "c":
        made = tmp_path / "number.o"
        subprocess.run([*compiler, "-c", "-fPIC", "-O0", path, "-o", made], check=True)
        path = made
    if kind == "tar":
        with tarfile.open(tmp_path / "number.tar", "w:gz") as archive:
            archive.add(path, "lib0.o")
        path = tmp_path / "number.tar"
    remote.upload(path)
    assert remote.load_module(path.name)["number"]() == 3
    content = remote.download_linked_module(path.name)
    remote.upload(content, "again.so")
    assert remote.load_module("again.so")["number"]() == 3
    assert remote.listdir().startswith(f"again.so,{path.name}")


@pytest.mark.python_only(reason="sources are compiled there")
@pytest.mark.parametrize("suffix", ["c", "cc", "cpp", "cxx"])
def test_sources_with_kernel_h(remote: rpc.RPCSession, suffix: str) -> None:
    """The header is there, on a board as well, and C++ is compiled as such."""
    try:
        compiler = find_compiler(has_objects=suffix != "c")
    except CompilerError as error:
        pytest.skip(str(error))
    if suffix != "c" and "++" not in compiler[0]:
        pytest.skip("no C++ compiler")
    body = "return return_int(result, num_args);"
    if suffix != "c":
        body = "auto count = [=] { return num_args; }; return return_int(result, count());"
    text = f'#include "kernel.h"\nKERNEL(count) {{ (void)self, (void)args; {body} }}\n'
    remote.upload(text.encode(), f"kernel.{suffix}")
    assert remote.load_module(f"kernel.{suffix}")["count"](1, 2, 3) == 3


@pytest.mark.python_only(reason="sources are compiled there")
def test_sources_that_are_refused(remote: rpc.RPCSession, build: Build, tmp_path: Path) -> None:
    """The compiler's first words come with the error, and nothing is left of its work."""
    build("number")
    remote.upload(b"int f( {\n", "bad.c")
    with pytest.raises(CompilerError, match=r"(?s)the compiler ended with 1.*bad\.c:1.*error"):
        remote.load_module("bad.c")
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        header = tarfile.TarInfo("../../evil.o")
        archive.addfile(header)
    remote.upload(evil)
    with pytest.raises(LibraryError, match=r"'\.\./\.\./evil\.o' that leads outside"):
        remote.load_module("evil.tar")
    assert remote.listdir() == "bad.c,evil.tar"


@pytest.mark.parametrize("kind", ["o", "tar"])
def test_what_was_cut_before_it_is_linked(
    remote: rpc.RPCSession, build: Build, tmp_path: Path, kind: str
) -> None:
    """Wherever: an error of one kind at this line, the session goes on, and the whole one loads."""
    build("number")
    compiled = tmp_path / "whole.o"
    (tmp_path / "whole.c").write_text(NUMBER.replace("NUMBER", "3"))
    command = [*find_compiler(), "-c", "-fPIC", str(tmp_path / "whole.c"), "-o", str(compiled)]
    subprocess.run(command, check=True)
    content = compiled.read_bytes()
    if kind == "tar":
        with tarfile.open(tmp_path / "whole.tar", "w") as archive:
            archive.add(compiled, "lib0.o")
        content = (tmp_path / "whole.tar").read_bytes()[: 512 + len(content)]
    for part in (0, 3, 20, 63, len(content) // 2, len(content) - 9):
        remote.upload(content[:part], f"cut.{kind}")
        with pytest.raises(LibraryError, match=rf"cut\.{kind}|lib0\.o"):
            remote.load_module(f"cut.{kind}")
    remote.upload(tmp_path / f"whole.{kind}")
    assert remote.load_module(f"whole.{kind}")["number"]() == 3


@pytest.mark.python_only(reason="sources are compiled there")
def test_no_compiler_on_the_device(
    start_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how to link elsewhere; a library needs none."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("CC", raising=False)
        patch.delenv("CXX", raising=False)
        server = start_server()
    with server.connect() as remote:
        for name in ("kernel.c", "kernel.o", "kernel.tar"):
            remote.upload(b"", name)
            with pytest.raises(CompilerError, match=r"no C compiler.*link it on the host.*\.so"):
                remote.load_module(name)
        assert remote.get_function("rpc.test.addone")(1) == 2
    assert server.serves()


@pytest.mark.python_only(reason="sources are compiled there")
def test_a_compiler_that_never_ends(
    start_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
    ended_at_once: Callable[[int], None],
) -> None:
    """The session's limit ends it, too, with everything that it started and made."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"#!{sys.executable} -S\n"
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        f"with open({str(tmp_path / 'started')!r}, 'a') as file:\n"
        "    file.write(f'{os.getpid()} {os.getcwd()} {os.environ[\"TMPDIR\"]}\\n')\n"
        "while True: signal.pause()\n"
    )
    compiler.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("CC", str(compiler))
        server = start_server()
    with server.connect(session_timeout=1) as remote:
        (folder,) = server.directories
        remote.upload(b"int one;", "one.c")
        with pytest.raises(RPCSessionTimeoutError):
            remote.load_module("one.c")
    lines = (tmp_path / "started").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        pid, working, temporary = line.split(" ")
        ended_at_once(int(pid))
        assert working.startswith(f"{folder}/")
        assert temporary == working
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_what_was_downloaded_is_closed(remote):
    """However often: a session that lasts does not run out of descriptors."""
    name = f"kept-{os.getpid()}.bin"
    remote.upload(bytearray(b"content"), name)
    for _ in range(5):
        assert remote.download(name) == b"content"
    remote.get_function("testing.nop")()  # the session is behind what it sent
    holders = []
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            holders.append(os.readlink(place))
        except OSError:
            continue  # of a process that has ended, or of somebody else's
    assert not [target for target in holders if target.endswith(f"/{name}")]
