"""Tests of who drives which kind of device: registered, of this package, or installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

import pytest_tvmrpc
from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import DeviceError
from pytest_tvmrpc.runtime.device import kinds
from pytest_tvmrpc.runtime.device.api import DeviceAPI

from ..devices.separate import SeparateAPI

DEVICES = Path(__file__).parents[1] / "devices"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = dict(kinds.apis)
    yield
    kinds.apis.clear()
    kinds.apis.update(before)


@pytest.mark.parametrize("kind", ["ext_dev", 12, "12"])
def test_registered_api_drives_its_kind(kind):
    """By TVM's name or by the number; until it is forgotten."""
    device = runtime.ext_dev(0)
    assert not device.exist
    api = SeparateAPI()
    runtime.register_device_api(kind, api)
    assert device.exist
    assert device.api is api
    assert runtime.empty((3,), "uint8", device).memory.data > 0x5000
    runtime.unregister_device_api(kind)
    assert not device.exist
    with pytest.raises(ValueError, match="no API is registered for device kind ext_dev"):
        runtime.unregister_device_api(kind)


def test_a_kind_without_a_name():
    """TVM's numbers leave room for more kinds than it has."""
    runtime.register_device_api(99, SeparateAPI())
    assert runtime.device(99, 1).exist
    with pytest.raises(DeviceError, match=r"this machine has cpu, 99$"):
        runtime.empty((1,), "uint8", runtime.cuda(0))


@pytest.mark.parametrize("kind", ["", "npu", 0, -1, 128, True, "128", "1²", 12.9, None])
def test_kinds_that_cannot_be(kind):
    """The message has those that can."""
    with pytest.raises(ValueError, match=r"1 to 127 or one of cpu, cuda"):
        runtime.register_device_api(kind, SeparateAPI())


def test_a_kind_that_is_driven_already():
    """Another API takes its place only when that is asked for."""
    for kind in ("cpu", "ext_dev"):
        first, second = SeparateAPI(), SeparateAPI()
        if kind == "ext_dev":
            runtime.register_device_api(kind, first)
        with pytest.raises(ValueError, match=f"{kind} is driven already; use override=True"):
            runtime.register_device_api(kind, second)
        runtime.register_device_api(kind, second, override=True)
        assert runtime.device(kind).api is second


@pytest.mark.parametrize("api", [None, object(), SeparateAPI])
def test_what_is_no_api(api):
    """Neither something else nor the class."""
    with pytest.raises(TypeError, match="driven by a DeviceAPI"):
        runtime.register_device_api("ext_dev", api)


def test_an_api_that_lacks_something():
    """Is an error where the object is made, and names what is missing."""

    class Incomplete(DeviceAPI):
        def copy_from_host(self, source, target):
            """The only one."""

    with pytest.raises(TypeError, match=r"alloc"):
        Incomplete()


def _installed(folder: Path, *lines: str) -> str:
    """A package with these entry points, on a path of its own."""
    info = folder / "npu-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: npu\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[pytest_tvmrpc.device]", *lines]) + "\n")
    return str(folder)


def _run(script: str, *paths: str) -> str:
    """What a fresh interpreter prints that has these paths and this package."""
    package = str(Path(pytest_tvmrpc.__file__).parents[1])
    head = f"import sys; sys.path[:0] = {[*paths, package]!r}\nfrom pytest_tvmrpc import runtime\n"
    done = subprocess.run(
        [sys.executable, "-c", head + script], check=True, timeout=60, stdout=subprocess.PIPE
    )
    return done.stdout.decode().strip()


@pytest.mark.parametrize("value", ["separate:API", "separate:SeparateAPI"])
def test_installed_package_brings_a_kind(tmp_path, value):
    """An entry point names the API or its class, and is read when the kind is asked for."""
    path = _installed(tmp_path, f"ext_dev = {value}", "99 = nowhere:API")
    script = (
        "assert runtime.empty((2,)).nbytes == 8 and runtime.cpu(0).exist\n"
        "assert not {'importlib.metadata', 'separate'} & set(sys.modules)\n"
        "assert runtime.ext_dev(1).exist and not runtime.ext_dev(2).exist\n"
        "tensor = runtime.empty((2,)).copyto(runtime.ext_dev(0))\n"
        "print(tensor.device.device_name, runtime.cuda(0).exist)\n"
    )
    assert _run(script, path, str(DEVICES)) == "separate memory False"


def test_a_package_that_names_no_kind_is_in_nobodys_way(tmp_path):
    """What others have installed works all the same."""
    path = _installed(tmp_path, "nonsense = nowhere:API", "ext_dev = separate:API")
    assert _run("print(runtime.ext_dev(0).exist)\n", path, str(DEVICES)) == "True"


def test_registered_api_comes_before_an_installed_one(tmp_path):
    """Whoever registers decides."""
    path = _installed(tmp_path, "ext_dev = nowhere:API")
    script = (
        "import separate\n"
        "runtime.register_device_api('ext_dev', separate.API)\n"
        "print(runtime.ext_dev(0).api is separate.API)\n"
    )
    assert _run(script, path, str(DEVICES)) == "True"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["ext_dev = nowhere:API"], "cannot be loaded (entry point nowhere:API"),
        (["ext_dev = separate:CAPACITY"], "TypeError: expected a DeviceAPI, got a int"),
        (["ext_dev = separate:API", "12 = separate:Other"], "several packages drive"),
        (["nonsense = separate:API"], "there is no device kind 'nonsense'"),
        (
            ["99 = separate:API", "128 = other:API"],
            "this machine has cpu, 99; the entry point other",
        ),
    ],
)
def test_entry_points_that_lead_nowhere(tmp_path, lines, words):
    """Are an error of the device when it is used, which says what is wrong with them."""
    path = _installed(tmp_path, *lines)
    script = (
        "from pytest_tvmrpc.errors import DeviceError\n"
        "try: runtime.empty((1,), 'uint8', runtime.ext_dev(0))\n"
        "except DeviceError as error: print(error)\n"
        "print(runtime.ext_dev(0).exist, runtime.cpu(0).exist)\n"
    )
    printed = _run(script, path, str(DEVICES))
    assert words in printed
    assert printed.endswith("False True")
