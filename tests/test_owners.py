"""What owns a handle, memory or a connection: copied, it is itself; it is never pickled."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import pkgutil
from typing import Any, Callable, Dict, Iterator

import numpy as np
import pytest

import pytest_tvmrpc
from pytest_tvmrpc import rpc, runtime


def owners() -> Iterator[type]:
    """Every class of the package that gives something back when it is dropped."""
    for found in pkgutil.walk_packages(pytest_tvmrpc.__path__, "pytest_tvmrpc."):
        if not found.name.endswith("__main__"):
            for value in vars(importlib.import_module(found.name)).values():
                is_ours = isinstance(value, type) and value.__module__ == found.name
                if is_ours and "__del__" in value.__dict__:
                    yield value


OWNERS = sorted(owners(), key=lambda cls: (cls.__module__, cls.__qualname__))


def test_there_are_owners() -> None:
    """Those of both ends are found, so that the next test means something."""
    names = {cls.__name__ for cls in OWNERS}
    assert {"RemoteFunction", "RemoteMemory", "PipelinedCall", "Reference", "Program"} <= names


@pytest.mark.parametrize("cls", OWNERS, ids=lambda cls: cls.__qualname__)
def test_every_owner_is_one(cls: Any) -> None:
    """Whatever has a ``__del__`` is never made twice out of one, nor in another process."""
    owner = object()  # its own methods: an instance would give back what it never got
    assert cls.__copy__(owner) is owner
    assert cls.__deepcopy__(owner, {}) is owner
    with pytest.raises(TypeError, match="cannot be pickled"):
        cls.__reduce_ex__(owner, pickle.HIGHEST_PROTOCOL)


@pytest.fixture(name="remote")
def _remote() -> Iterator[rpc.RPCSession]:
    """A session with a server."""
    with rpc.Server(port=0, silent=True) as server, rpc.connect("127.0.0.1", server.port) as remote:
        yield remote


def test_copies_free_nothing(remote: rpc.RPCSession) -> None:
    """Of remote things: when copies of any kind are dropped, the originals are what they were."""
    addone = remote.get_function("rpc.test.addone")
    device = remote.cpu(0)
    tensor = runtime.tensor(np.arange(3.0), device)
    pipeline = remote.pipeline()
    things: Dict[str, Any] = {
        "function": addone,
        "device": device,
        "memory": tensor.memory,
        "module": remote.system_lib(),
        "session": remote,
        "pipeline": pipeline,
        "call": pipeline.call(addone, 1),
    }
    copies = {name: [copy.copy(thing), copy.deepcopy(thing)] for name, thing in things.items()}
    assert all(one is things[name] for name, made in copies.items() for one in made)
    assert copy.deepcopy({"all": list(things.values())})["all"][0] is addone
    copies.clear()
    gc.collect()
    assert addone(1) == 2
    assert things["call"].result() == 2
    assert tensor.numpy().tolist() == [0.0, 1.0, 2.0]
    assert not remote.closed


@pytest.mark.parametrize("where", ["here", "there"])
def test_copies_of_tensors(remote: rpc.RPCSession, where: str) -> None:
    """A copy is the tensor, a deep copy another one with the same elements, where it is."""
    device: Any = runtime.cpu(0) if where == "here" else remote.cpu(0)
    tensor = runtime.tensor(np.arange(3.0), device)
    assert copy.copy(tensor) is tensor
    (other,) = copy.deepcopy([tensor])
    assert other.device == device
    other.copyfrom(np.zeros(3))
    assert tensor.numpy().tolist() == [0.0, 1.0, 2.0]
    del tensor
    gc.collect()
    assert other.numpy().tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(TypeError, match=r"a Tensor cannot be pickled.*pickle tensor\.numpy\(\)"):
        pickle.dumps(other)


UNPICKLED: Dict[str, Callable[[rpc.RPCSession], Any]] = {
    "function": lambda remote: remote.get_function("rpc.test.addone"),
    "module": lambda remote: remote.system_lib(),
    "device": lambda remote: remote.cpu(0),
    "session": lambda remote: remote,
    "pipeline": lambda remote: remote.pipeline(),
}


@pytest.mark.parametrize("make", UNPICKLED.values(), ids=UNPICKLED)
def test_pickling_is_refused(remote: rpc.RPCSession, make: Any) -> None:
    """With what to do instead; in every protocol, and within anything."""
    thing = make(remote)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled, since it stands for something"):
            pickle.dumps([thing], protocol)


def test_programs_and_trackers() -> None:
    """Their handles are the one that there is, too: dropping a copy ends nothing."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        link = rpc.connect_tracker(tracker.host, tracker.port)
        assert copy.deepcopy(link) is link
        assert copy.copy(tracker) is copy.deepcopy(tracker) is tracker
        assert copy.copy(tracker.proc) is tracker.proc
        gc.collect()
        assert link.summary()["server_info"] == []
        for thing in (link, tracker):
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(thing)
        link.close()
