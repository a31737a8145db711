"""Align Qwen3-family language models on one GPU: SFT with an exact KL anchor, DPO on token forests."""

__version__ = "0.1.0"
