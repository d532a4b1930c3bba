"""One file for each kind of device; its name is the device's. Nothing is opened here."""

from __future__ import annotations
