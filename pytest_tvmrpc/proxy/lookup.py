"""The addresses of the tracker's name, looked up once for all uplinks. Connects to nobody.

Not asyncio's own look-up: its threads are waited for when the program ends, and a name server that
does not answer takes half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, List, Optional, Tuple

from .. import network

KEPT_S = 5.0
"""How long an answer is good, whatever it is."""


class Lookup:
    """The addresses of one name. Made in the loop in which it is asked.

    Args:
        address: host and port.
    """

    def __init__(self, address: Tuple[str, int]) -> None:
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._answer: Optional[asyncio.Future[List[Any]]] = None
        self._kept_until = 0.0

    async def addresses(self) -> List[Any]:
        """As ``getaddrinfo`` gives them; all who ask at the same time wait for the same answer.

        Raises:
            ConnectError: it has none.
        """
        if self._answer is None or (self._answer.done() and self._loop.time() > self._kept_until):
            self._answer = self._loop.create_future()
            threading.Thread(target=self._ask, args=(self._answer,), daemon=True).start()
        return await asyncio.shield(self._answer)  # who gives up does not do so for the others

    def _ask(self, answer: asyncio.Future[List[Any]]) -> None:
        found: List[Any] = []
        failure: Optional[OSError] = None
        try:
            found = network.resolve(*self._address)
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, answer, found, failure)

    def _settle(
        self, answer: asyncio.Future[List[Any]], found: List[Any], failure: Optional[OSError]
    ) -> None:
        self._kept_until = self._loop.time() + KEPT_S
        if failure is None:
            answer.set_result(found)
        else:
            answer.set_exception(failure)
            answer.exception()  # known, even if all who asked have given up
