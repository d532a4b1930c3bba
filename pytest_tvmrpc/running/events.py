"""What happens while tests run, for whoever listens. Says nothing to the user, and keeps nothing.

An event is a dict of plain values with its ``kind``. It is emitted the same way everywhere; in a
worker of pytest-xdist it goes over a channel to the controller, whose listeners get it.

    needs   {"keys": {nodeid: [key, ...]}, "reruns": {nodeid: times}}: at the end of a worker's
            collection, for the tests that ask for devices
    reception   {}: a worker's first test asks for a device, and it has to be told where the tracker
            is. Goes to the controller alone, which answers
    seen    {"key"}: whether the run ever had a device of it. Likewise
    lease   {"what": "asked" | "given" | "returned" | "gave_up", "key", "device", "nodeid", "at"}

The controller adds ``worker``; without workers it is not there. The other way, to each worker:

    answer  {"value"}: to what it asked
    earlier {"nodeid", "attempts", "losses", "tried"}: a test was lost with its worker; comes before
            the test itself does
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any, Callable, Mapping

import pytest

from ..options import WORKER_INPUT

if TYPE_CHECKING:
    import execnet

    Event = dict[str, Any]
    Listener = Callable[[Mapping[str, Any]], None]


class Events:
    """The way from where something happens to those who listen.

    Attributes:
        listeners: called with each event, one call at a time, in whatever thread it arrives: that
            of pytest without workers, those of execnet with them. So they have to be quick. In a
            worker, they hear what the controller says.
    """

    def __init__(self, channel: execnet.Channel | None = None) -> None:
        self.listeners: list[Listener] = []
        self._channel = channel
        self._one_at_a_time = threading.Lock()
        self._answers: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # None: it is gone
        if channel is not None:
            channel.setcallback(self._receive, endmarker=None)

    def emit(self, event: Event) -> None:
        """Give an event to the listeners, those of the controller if this is a worker."""
        if self._channel is None:
            self.deliver(event)
            return
        try:
            self._channel.send(event)
        except OSError as error:  # the controller is gone, and pytest-xdist ends this worker
            logging.getLogger(__name__).debug("not sent: %s: %s", event["kind"], error)

    def ask(self, event: Event, timeout_s: float) -> Any:
        """In a worker: what the controller answers.

        Raises:
            OSError, EOFError: it is gone, or did not answer in time.
        """
        assert self._channel is not None
        self._channel.send(event)
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        if answer is None:
            raise EOFError("it has ended")
        return answer["value"]

    def _receive(self, event: Event | None) -> None:
        """In a worker, in a thread of execnet: what the controller said."""
        if event is None or event["kind"] == "answer":
            self._answers.put(event)
        else:
            self.deliver(event)

    def deliver(self, event: Event) -> None:
        """Give an event to the listeners of this process."""
        with self._one_at_a_time:
            for listener in tuple(self.listeners):  # one may go meanwhile
                listener(event)


_events_key = pytest.StashKey[Events]()


def events_of(config: pytest.Config) -> Events:
    """The events of this run, as this process sends or hears them."""
    events = config.stash.get(_events_key, None)
    if events is None:
        given = getattr(config, "workerinput", {}).get(WORKER_INPUT, {})
        events = config.stash[_events_key] = Events(given.get("events"))
    return events
