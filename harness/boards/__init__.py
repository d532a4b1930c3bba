"""The server in C on emulated boards: ``tox run -e boards``. See `machines` for which they are."""
