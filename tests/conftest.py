"""How hypothesis looks for examples here: the same ones in each run, and none kept in a file."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("stable", derandomize=True, deadline=None, database=None)
settings.load_profile("stable")
