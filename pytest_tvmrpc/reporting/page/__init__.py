"""The page of a run: one HTML file that needs no network, no server and no other file.

Nothing is measured and nothing is decided here.
"""

from __future__ import annotations

from .page import html, write_html

__all__ = ["html", "write_html"]
