"""How long to wait before the next attempt: longer each time, never the same for two. No clock."""

from __future__ import annotations

from typing import Callable

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 10.0


class Pause:
    """The pauses between attempts that fail; they double up to a limit, and go on so for ever.

    Args:
        entropy: gives so many random bytes, as ``os.urandom`` does. Not `secrets` or `random`,
            which take 5 MB of memory for the same.
        last_s: the limit.
    """

    __slots__ = ("_entropy", "_last_s", "_next_s")

    def __init__(self, entropy: Callable[[int], bytes], last_s: float = LAST_PAUSE_S) -> None:
        self._entropy = entropy
        self._last_s = last_s
        self._next_s = FIRST_PAUSE_S

    def reset(self) -> None:
        """It worked."""
        self._next_s = FIRST_PAUSE_S

    def after_failure(self) -> float:
        """Seconds until the next attempt."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._last_s)
        return self.about(pause_s)

    def about(self, pause_s: float) -> float:
        """Half of it to all of it: many lose their peer at once, and shall not return at once."""
        return pause_s * (0.5 + self._entropy(1)[0] / 512)
