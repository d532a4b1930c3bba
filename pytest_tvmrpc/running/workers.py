"""Controller and workers of pytest-xdist, and what goes between them. Runs no tests itself.

The controller gives each worker, the replacement of a crashed one too, the options, and a channel
on which the worker tells it things at any time. Its tracker is bound when the first worker asks.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Mapping

import pytest

from ..options import WORKER_INPUT, options_of
from .events import events_of
from .selection import needs, reruns_of
from .trial import Earlier, earlier_key

if TYPE_CHECKING:
    import execnet

    from .capacity import Capacity
    from .crashes import Begun
    from .events import Event
    from .stack import Reception

SEEN_S = 2.0
"""How long the controller may take to say whether there ever was a device of a key."""


def send(config: pytest.Config, event: Event) -> None:
    """Tell the listeners of the run, from whatever process of it this is."""
    events_of(config).emit(event)


class Needs:
    """The tests of the run that ask for devices, as the workers have told; each says the same.

    Attributes:
        keys: the device keys of which any will do for a test; local tests are not there.
        reruns: how often each may be run again after its device or its worker was lost.
    """

    def __init__(self) -> None:
        self.keys: Mapping[str, list[str]] = {}
        self.reruns: Mapping[str, int] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        """A listener; the maps are replaced as a whole, as it may be called in any thread."""
        if event["kind"] == "needs":
            self.keys, self.reruns = event["keys"], event["reruns"]


class WorkerHooks:
    """In a worker: tells the controller what the tests need, before it gets tests to run.

    Args:
        config: of the worker.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._earlier = config.stash[earlier_key] = {}
        for event in config.workerinput[WORKER_INPUT]["earlier"]:  # type: ignore[attr-defined]
            self._hear(event)
        events_of(config).listeners.append(self._hear)

    def _hear(self, event: Mapping[str, Any]) -> None:
        """What was tried of a test before its worker crashed."""
        if event["kind"] == "earlier":
            tried = tuple(event["tried"])
            self._earlier[event["nodeid"]] = Earlier(event["attempts"], event["losses"], tried)

    @pytest.hookimpl(tryfirst=True)  # before pytest-xdist says that the collection is there
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        options = options_of(session.config)
        keys = needs(session.items, options)
        if keys:
            remote = [item for item in session.items if item.nodeid in keys]
            reruns = {item.nodeid: reruns_of(item, options) for item in remote}
            send(session.config, {"kind": "needs", "keys": keys, "reruns": reruns})


def ask_reception(config: pytest.Config) -> Reception:
    """In a worker: where the controller's own tracker is.

    Raises:
        StartError: it has none, and says why, or it does not answer.
    """
    from ..errors import StartError
    from .stack import Reception

    timeout_s = options_of(config).connect_timeout_s
    try:
        answer = events_of(config).ask({"kind": "reception"}, timeout_s)
    except (OSError, EOFError) as error:
        raise StartError(
            f"the main process of this run does not say where its tracker is: {error!r}"
        ) from error
    if isinstance(answer, str):
        raise StartError(answer)
    return Reception(*answer)


def ask_seen(config: pytest.Config, key: str) -> bool:
    """In a worker: whether the run ever had a device of this key; if nobody says so, it had none.

    It is for a message: a key that is gone is the farm's fault, one that never was is the set-up's.
    """
    try:
        return bool(events_of(config).ask({"kind": "seen", "key": key}, SEEN_S))
    except (OSError, EOFError):
        return False


class ControllerHooks:
    """In the controller: the hooks of pytest-xdist, which pytest only knows when that is there.

    Args:
        config: of the controller.
        reception: the address of the run's own tracker, None if another one was named.
        capacity: the devices of the run.
        begun: the tests that have begun.
    """

    def __init__(
        self,
        config: pytest.Config,
        reception: Callable[[], Reception | None],
        capacity: Capacity,
        begun: Begun,
    ) -> None:
        self.needs = Needs()
        self._begun = begun
        self._config = config
        self._reception = reception
        self._capacity = capacity
        self._channels: dict[str, execnet.Channel] = {}
        self._earlier: dict[str, Event] = {}  # what was told of tests that were lost
        self._seen: set[str] = set()  # keys of which there was a device
        self._events = events_of(config)
        self._events.listeners += [self.needs.hear, self._prepare, self._note_key]

    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker that is about to start the options and a channel."""
        worker = node.gateway.id
        channel = self._channels[worker] = node.gateway.newchannel()
        channel.setcallback(partial(self._receive, worker))
        node.workerinput[WORKER_INPUT] = {
            "options": options_of(self._config).to_json(),
            "events": channel,
            "earlier": list(self._earlier.values()),
        }

    def pytest_testnodedown(self, node: Any) -> None:
        """Let go of the channel; what came over it before was heard before."""
        self._channels.pop(node.gateway.id, None)

    @pytest.hookimpl(trylast=True)  # a project with a scheduler of its own knows better
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Ours, for what -n means; the other ways of --dist are pytest-xdist's."""
        if config.getoption("dist") != "load":
            return None
        from .scheduling import FarmScheduling

        return FarmScheduling(config, log, self.needs, self._capacity, self._begun)

    def pytest_sessionfinish(self) -> None:
        """Let the last question to the tracker end."""
        self._capacity.settle()

    def tell_earlier(self, nodeid: str, earlier: Earlier) -> None:
        """Have every worker know what was tried of a test; later ones are told as they start."""
        event = {"kind": "earlier", "nodeid": nodeid, **earlier._asdict()}
        self._earlier[nodeid] = event
        for worker in tuple(self._channels):
            self._send(worker, event)

    def _receive(self, worker: str, event: Event) -> None:
        """In a thread of execnet: what a worker said."""
        try:
            if event["kind"] == "reception":
                self._tell_tracker(worker)
            elif event["kind"] == "seen":
                known = event["key"] in self._seen or event["key"] in self._capacity.seen
                self._answer(worker, known)
            else:
                self._events.deliver({**event, "worker": worker})
        except Exception:  # a fault of ours shall be seen; execnet would just close the channel
            self._config.notify_exception(pytest.ExceptionInfo.from_current())

    def _tell_tracker(self, worker: str) -> None:
        from ..errors import StartError

        try:
            answer: object = tuple(self._reception() or ())
        except StartError as error:
            answer = str(error)
        self._answer(worker, answer)

    def _answer(self, worker: str, value: object) -> None:
        self._send(worker, {"kind": "answer", "value": value})

    def _send(self, worker: str, event: Event) -> None:
        """Tell a worker; one that has crashed needs to know nothing."""
        channel = self._channels.get(worker)
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.send(event)

    def _note_key(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "lease" and event["what"] == "given":
            self._seen.add(event["key"])

    def _prepare(self, event: Mapping[str, Any]) -> None:
        """Have the tracker asked while the other workers still collect."""
        if event["kind"] == "needs":
            self._capacity.refresh()


def register(
    config: pytest.Config,
    reception: Callable[[], Reception | None],
    note: Callable[[str], None],
) -> None:
    """Take part in the work of pytest-xdist's controller.

    Args:
        config: of the controller.
        reception: the address of the run's own tracker, None if another one was named.
        note: told what the user should read at the end.
    """
    from .capacity import Capacity
    from .crashes import Begun, Crashes, Ledger
    from .unfinished import Unfinished

    ledger = Ledger()
    events_of(config).listeners.append(ledger.hear)
    begun = Begun()
    hooks = ControllerHooks(config, reception, Capacity(options_of(config), ledger), begun)
    crashes = Crashes(config, hooks.needs, ledger, begun, hooks.tell_earlier)
    config.pluginmanager.register(begun, "tvmrpc-begun")
    config.pluginmanager.register(hooks, "tvmrpc-controller")
    config.pluginmanager.register(crashes, "tvmrpc-crashes")
    config.pluginmanager.register(Unfinished(hooks.needs, note), "tvmrpc-unfinished")
