"""Files of a session: how they are sent, what is linked on the server, what comes back."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .libraries import LENGTH, build_tvm_library, compile_probe

if TYPE_CHECKING:
    from .clients import Client
    from .conftest import Pair

SIZES = [0, 1, 7, 8, 4095, 65_536, 65_537, 1 << 20, 5_000_001]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``probe.o``, ``probe.tar`` and ``packed.tar``, the latter compressed."""
    folder = tmp_path_factory.mktemp("parts")
    compile_probe(folder / "probe.o", "-c")
    for name, mode in (("probe.tar", "w"), ("packed.tar", "w:gz")):
        with tarfile.open(str(folder / name), mode) as archive:  # type: ignore[call-overload]
            archive.add(folder / "probe.o", "probe.o")
    return folder


@pytest.mark.parametrize("nbytes", SIZES)
def test_there_and_back(remote: Any, nbytes: int) -> None:
    """A file of any size comes back as it was sent."""
    content = (bytes(range(256)) * (nbytes // 256 + 1))[:nbytes]
    remote.upload(bytearray(content), "file.bin")
    assert bytes(remote.download("file.bin")) == content


@pytest.mark.parametrize("name", ["a", "with blanks.bin", "ümlaut-緑.bin", "-dash", "no.so.2", "~"])
def test_names(remote: Any, name: str) -> None:
    """A name is just a name."""
    remote.upload(bytearray(b"content"), name)
    assert bytes(remote.download(name)) == b"content"
    remote.remove(name)
    with pytest.raises(Exception, match=r"[Cc]annot"):
        remote.download(name)


def test_bytes_need_a_name(remote: Any) -> None:
    """Bytes without a target are refused in TVM's words."""
    with pytest.raises(ValueError, match="target must present when file is a bytearray"):
        remote.upload(bytearray(b"content"))


def test_a_local_file_that_is_not_there(remote: Any, tmp_path: Path) -> None:
    """The client's own error, and the session goes on."""
    with pytest.raises(FileNotFoundError):
        remote.upload(str(tmp_path / "absent.bin"))
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_whatever_has_bytes(client: Client, remote: Any, tmp_path: Path) -> None:
    """Our client sends bytes, views, arrays and files, too."""
    if client.name == "tvm":
        pytest.skip("TVM's client takes a bytearray or a path")
    content = bytes(range(256)) * 1000
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    array = np.frombuffer(content, "uint8")
    with path.open("rb") as file:
        for source in (content, memoryview(content), array, io.BytesIO(content), path, file):
            remote.upload(source, "target.bin")
            assert remote.download("target.bin") == content
            remote.remove("target.bin")


def test_listdir(pair: Pair, remote: Any) -> None:
    """Names with commas between them; TVM's Python server has no such function."""
    if pair.server == "tvm":
        with pytest.raises(AttributeError, match="listdir"):
            remote.listdir(".")
        return
    assert remote.listdir(".") == ""
    for name in ("b.bin", "a.bin"):
        remote.upload(bytearray(b""), name)
    assert remote.listdir(".") == "a.bin,b.bin"


def test_names_stay_inside(client: Client, pair: Pair, remote: Any, tmp_path: Path) -> None:
    """Our server refuses what leads outside of the session's directory; TVM's follows it."""
    if pair.server == "tvm":
        pytest.skip("TVM's server reads and writes wherever it is told to")
    secret = tmp_path / "secret"
    secret.write_text("content")
    for name in (str(secret), "../secret", "a/../../secret"):
        with pytest.raises(client.remote_error, match="outside"):
            remote.download(name)
        with pytest.raises(client.remote_error, match="outside"):
            remote.upload(bytearray(b"other"), name)
    assert secret.read_text() == "content"


@pytest.mark.parametrize("name", ["probe.o", "probe.tar", "packed.tar"])
def test_linked_where_it_is_loaded(remote: Any, parts: Path, name: str) -> None:
    """Objects and archives of them, plain or compressed, are linked by the server."""
    remote.upload(str(parts / name))
    module = remote.load_module(name)
    assert module["addone"](41) == 42
    assert module["has_context"]() is True


@pytest.mark.parametrize("name", ["probe.o", "probe.tar", "packed.tar"])
def test_linked_and_downloaded(
    client: Client, remote: Any, parts: Path, name: str, tmp_path: Path
) -> None:
    """The linked library comes back, and can be sent and loaded as any other."""
    remote.upload(str(parts / name))
    library = bytes(remote.download_linked_module(name))
    assert library[:4] == b"\x7fELF"
    local = tmp_path / "back.so"
    local.write_bytes(library)
    remote.upload(str(local))
    assert remote.load_module("back.so")["addone"](1) == 2


def test_a_library_is_linked_already(remote: Any, probe: Path) -> None:
    """``download_linked_module`` of a library is its download."""
    remote.upload(str(probe))
    assert bytes(remote.download_linked_module(probe.name)) == probe.read_bytes()


def test_what_cannot_be_linked(client: Client, remote: Any) -> None:
    """It is named, in TVM's words, and the session goes on."""
    remote.upload(bytearray(b"text"), "notes.txt")
    with pytest.raises(client.remote_error, match=r"Do not know how to (link|load) .*notes\.txt"):
        remote.download_linked_module("notes.txt")
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_source(client: Client, pair: Pair, remote: Any) -> None:
    """Our server in Python compiles C, too."""
    if pair.server != "ours":
        pytest.skip(f"the server of kind {pair.server} has no loader for .c")
    remote.upload(str(Path(__file__).with_name("probe.c")))
    assert remote.load_module("probe.c")["addone"](41) == 42
    assert bytes(remote.download_linked_module("probe.c"))[:4] == b"\x7fELF"
    remote.upload(bytearray(b"int f( {"), "broken.c")
    with pytest.raises(client.remote_error, match=r"broken\.c"):
        remote.load_module("broken.c")


@pytest.mark.parametrize("suffix", ["o", "tar"])
def test_what_tvm_exports(
    client: Client, remote: Any, tmp_path_factory: pytest.TempPathFactory, suffix: str
) -> None:
    """Kernels that TVM packed without linking them are linked on the server, and run."""
    path = build_tvm_library(tmp_path_factory.mktemp("exported"), suffix)
    remote.upload(str(path))
    module = remote.load_module(path.name)
    a, b = (np.random.default_rng(n).random(LENGTH, "float32") for n in (1, 2))
    device = remote.cpu(0)
    output = client.runtime.empty((LENGTH,), "float32", device)
    module["elementwise"](
        client.runtime.tensor(a, device), client.runtime.tensor(b, device), output
    )
    np.testing.assert_allclose(output.numpy(), np.exp(a) * b + 1, rtol=1e-5)


def test_the_system_library(remote: Any) -> None:
    """It is there on either server, and has nothing of what nobody linked in."""
    library = remote.system_lib()
    with pytest.raises(AttributeError, match="no_such_function"):
        library["no_such_function"]


def test_a_file_that_is_replaced(pair: Pair, remote: Any, tmp_path: Path) -> None:
    """A library that is sent again under its name is the new one, on our server."""
    if pair.server == "tvm":
        pytest.skip("TVM's server writes into the loaded library, and its session crashes")
    source = tmp_path / "answer.c"
    for answer in (1, 2):
        source.write_text(
            "typedef struct { int index, pad; long long value; } Any;\n"
            "int __tvm_ffi_answer(void *self, const Any *args, int count, Any *result) {\n"
            f"  result->index = 1; result->pad = 0; result->value = {answer}; return 0; }}\n"
        )
        library = tmp_path / f"answer{answer}.so"
        command = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True, timeout=60)
        remote.upload(str(library), "answer.so")
        assert remote.load_module("answer.so")["answer"]() == answer
