"""A client in a process of its own, to be killed or frozen: says `started`, then does one thing."""

from __future__ import annotations

import sys

from pytest_tvmrpc import rpc, runtime

from .trial import ADD_ONE, LOOPBACK

NBYTES = 16 << 20


def main(doing: str, port: str, library: str) -> None:
    """Does it for ever, or until the server ends it; then prints the error's name."""
    if doing == "leasing":
        remote = rpc.connect_tracker(LOOPBACK, int(port)).request("board")
    else:
        remote = rpc.connect(LOOPBACK, int(port))
    try:
        WORK[doing](remote, library)
    except rpc.RPCError as error:
        print(type(error).__name__, flush=True)


def _say_started() -> None:
    print("started", flush=True)


def _upload(remote: rpc.RPCSession, library: str) -> None:
    content = bytes(NBYTES)
    _say_started()
    while True:
        remote.upload(content, "big.bin")


def _download(remote: rpc.RPCSession, library: str) -> None:
    remote.upload(bytes(NBYTES), "big.bin")
    _say_started()
    while True:
        remote.download("big.bin")


def _copy(remote: rpc.RPCSession, library: str) -> None:
    content = memoryview(bytes(NBYTES))
    tensor = runtime.empty((NBYTES,), "uint8", remote.cpu(0))
    _say_started()
    while True:
        tensor.copyfrom(content)


def _call(remote: rpc.RPCSession, library: str) -> None:
    remote.upload(library)
    module = remote.load_module(library.rpartition("/")[2])
    _say_started()
    module["spin"]()


def _talk(remote: rpc.RPCSession, library: str) -> None:
    add_one = remote.get_function(ADD_ONE)
    _say_started()
    while True:
        add_one(1)


WORK = {
    "uploading": _upload,
    "downloading": _download,
    "copying": _copy,
    "in a call": _call,
    "talking": _talk,
    "leasing": _talk,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
