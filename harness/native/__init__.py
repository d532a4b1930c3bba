"""Checks of the C code that need tools of their own: fuzzers, linters. See ``--help``."""
