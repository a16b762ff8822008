"""Benchmarks: each prints a table of ratios that were measured within one run, interleaved, and asserts nothing."""
