"""Benchmarks: `python -m bench`. Everything is measured against the plain tool beside it."""
