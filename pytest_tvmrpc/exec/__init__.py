"""The programs of the stack, with the options of TVM's. ``python -m pytest_tvmrpc.exec.NAME``."""
