"""Benchmarks: syncd against floors and peers, each ratio measured in one interleaved run."""
