"""Benchmarks of what runs on devices: records, statistics, comparison, store and table.

The measuring itself is fixtures/benchmark.py's; nothing here talks to a device.
"""
