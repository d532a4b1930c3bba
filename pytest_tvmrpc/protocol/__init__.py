"""The TVM RPC protocol as bytes: what is said, in which order and encoding. No I/O in here."""
