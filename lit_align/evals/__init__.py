"""Benchmarks: generation, scores, tables."""
