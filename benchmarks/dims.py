"""Dimensions of real models, for random weights of their shape."""

from __future__ import annotations

from benchmarks.contender import ModelShape

QWEN3_VOCABULARY = 151_936

DIMS = {
    "small": ModelShape(QWEN3_VOCABULARY),
    "smollm2-135m": ModelShape(49_152, 576, layers=30, heads=9, key_value_heads=3, head_dim=64, intermediate=1_536),
    "0.6b": ModelShape(QWEN3_VOCABULARY, 1_024, layers=28, heads=16, key_value_heads=8),
    "1.7b": ModelShape(QWEN3_VOCABULARY, 2_048, layers=28, heads=16, key_value_heads=8),
    "4b": ModelShape(QWEN3_VOCABULARY, 2_560, layers=36, heads=32, key_value_heads=8, intermediate=9_728),
}
"""By name; heads of Qwen3 have 128 numbers, and embedding and head are tied. SmolLM2's shape is given Qwen3's layers,
which normalise queries and keys."""
