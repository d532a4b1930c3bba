"""The server: one device, one session at a time, each in a process of its own. Bare Python 3.8+."""
